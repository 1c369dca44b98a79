"""The addresses of the review server: the page, its cards and pictures, and where verdicts go."""

from __future__ import annotations

import re
from typing import Annotated, Any

from fastapi import FastAPI, Query, Request
from fastapi.responses import HTMLResponse, JSONResponse, Response
from pydantic import BaseModel, ConfigDict, Field
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from flows.review.guard import Door, Guard
from flows.review.marks import NothingStored, colours, marks
from flows.review.methods import Methods, NotExplained
from flows.review.news import News
from flows.review.payload import card_values, state_values
from flows.review.pictures import SIZES, Pictures
from flows.review.queue import ORDERS, Wanted
from flows.review.session import AnsweredMeanwhile, Session, Unknown, known_name
from pairx_engine.errors import EngineError, PairxError, PhotoError
from schemas.errors import SettingsError
from schemas.foreign_text import printable, printable_lines
from schemas.sql.files import suspect_rules
from tasks.pages.review.files import page, static_file
from tasks.pages.review.words import choices, naming
from tasks.reviews.verdicts import BAD_PHOTO, Said

MOST_CARDS = 24
"""Cards that are sent at once."""
_LARGEST_BODY = 64 << 10
_KEEP = "private, max-age=86400, immutable"
_SUGGESTED = 20
_TEXT = Field(default=None, max_length=4000)


class Verdict(BaseModel):
    """What the page sends for a card; `key` is that of a button, `photo` the key of a bad photo's picture."""

    model_config = ConfigDict(extra="forbid")

    card: str
    key: str
    reviewer: str | None = _TEXT
    note: str | None = _TEXT
    name: str | None = _TEXT
    photo: str | None = None
    seen: str | None = None


class Undo(BaseModel):
    """Whose verdict is to be taken back; without an id the newest."""

    model_config = ConfigDict(extra="forbid")

    reviewer: str | None = _TEXT
    review_id: str | None = None


class Asked(BaseModel):
    """Which cards are wanted, as `flows.review.queue.Wanted`."""

    model_config = ConfigDict(extra="forbid")

    kinds: list[str] | None = None
    species: list[str] | None = None
    least: float | None = None
    most: float | None = None
    name: str | None = _TEXT
    since: str | None = _TEXT
    order: str = "probability"
    answered: str | None = None
    stop_below: float = 0.0

    def wanted(self, news: News) -> Wanted:
        """The same without filters that are not set; raises `SettingsError` for an unknown order or run."""
        if self.order not in ORDERS:
            raise SettingsError(f"there is no order {self.order!r}", f"use {' or '.join(ORDERS)}")
        filters = self.model_dump(include={"kinds", "species", "least", "most", "name"}, exclude_none=True)
        if self.since is not None:
            filters["new"] = news.since(self.since)
        return Wanted(filters, self.order, self.answered, self.stop_below)


def review_app(session: Session, methods: Methods, door: Door, reviewer: str | None = None) -> ASGIApp:
    """The application over a session, behind its guard."""
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    pictures = Pictures(methods.max_pixels)
    _add_page(app)
    _add_cards(app, session, methods, reviewer)
    _add_verdicts(app, session)
    _add_pictures(app, session, pictures)
    _add_methods(app, session, methods)
    app.add_exception_handler(PairxError, _in_words)
    # Around everything, so that an answer to a fault carries the guard's headers, too.
    return Guard(_BoundedBodies(app), door)


def _add_page(app: FastAPI) -> None:
    @app.get("/")
    def start() -> HTMLResponse:
        return HTMLResponse(page())

    @app.get("/static/{name}")
    def static(name: str) -> Response:
        found = static_file(name)
        return Response(status_code=404) if found is None else Response(found[0], media_type=found[1])


def _add_cards(app: FastAPI, session: Session, methods: Methods, reviewer: str | None) -> None:
    def card(name: str) -> dict[str, Any]:
        found = session.card(name)
        explained = methods.known(found.question["pair_id"])
        return card_values(session.catalogue, session.queue, found) | {"explained": explained}

    @app.get("/api/start")
    def about() -> Response:
        session.renew()
        session.refresh()
        catalogue = session.catalogue
        kinds = {each.kind for each in catalogue.cards.values()}
        expected = catalogue.expected
        return JSONResponse(
            {
                "reviewer": reviewer,
                "warehouse": printable(session.warehouse.url),
                "run": catalogue.run_id,
                "earlier": [
                    {"run": each.run_id, "at": each.at.isoformat()} for each in catalogue.news.earlier
                ],
                "kinds": {kind: rule.label for kind, rule in suspect_rules().items() if kind in kinds},
                "species": sorted({each.species or "" for each in catalogue.cards.values()}),
                "reviewers": [printable(each) for each in session.answers.reviewers()],
                "cards": len(catalogue.cards),
                "expected": None if expected is None else [expected.wrong_names, expected.low, expected.high],
                "spreads": {name: each.bins for name, each in catalogue.spreads.items()},
            }
        )

    @app.post("/api/queue")
    def line(asked: Asked) -> Response:
        session.renew()
        session.refresh()
        catalogue, queue = session.catalogue, session.queue
        found = queue.line(asked.wanted(catalogue.news))
        standings = queue.standings()
        return JSONResponse(
            {
                "version": session.answers.version,
                "ids": found.ids,
                "errors": found.errors,
                "stop_at": found.stop_at,
                "answered": sum(each == "answered" for each in standings.values()),
                "open_errors": sum(
                    each.probability
                    for name, each in catalogue.cards.items()
                    if standings[name] != "answered"
                ),
                "first": [card(each) for each in found.ids[:2]],
            }
        )

    @app.get("/api/cards")
    def cards(ids: Annotated[list[str], Query(max_length=MOST_CARDS)]) -> Response:
        return JSONResponse([card(each) for each in ids])

    @app.get("/api/changes")
    def changes(since: int, card: str | None = None) -> Response:
        session.refresh()
        session.renew()
        news: dict[str, Any] = {"version": session.answers.version, "run": session.catalogue.run_id}
        if news["version"] != since and card in session.catalogue.cards:
            news["state"] = state_values(session.queue, session.card(str(card)))
        return JSONResponse(news)

    @app.get("/api/names")
    def names(text: str = "") -> list[str]:
        counts, folded = session.catalogue.counts, text.casefold()
        starts = [each for each in counts if each.casefold().startswith(folded)]
        within = [each for each in counts if folded in each.casefold()] if len(starts) < _SUGGESTED else []
        return [printable(each) for each in dict.fromkeys((*starts, *within))][:_SUGGESTED]


def _add_verdicts(app: FastAPI, session: Session) -> None:
    @app.post("/api/verdict")
    def verdict(given: Verdict) -> Response:
        before = dict(session.queue.standings())
        try:
            review_id = session.answer(given.card, _said(session, given), given.seen)
        except AnsweredMeanwhile as error:
            state = state_values(session.queue, session.card(given.card))
            return JSONResponse({"message": error.message, "state": state}, 409)
        now = session.queue.standings()
        moved = {name: each for name, each in now.items() if each != before[name] and name != given.card}
        state = state_values(session.queue, session.card(given.card))
        version = session.answers.version
        return JSONResponse({"review_id": review_id, "moved": moved, "state": state, "version": version})

    @app.post("/api/undo")
    def undo(given: Undo) -> dict[str, Any]:
        return {"card": session.undo(_named(given.reviewer), given.review_id)}


def _said(session: Session, given: Verdict) -> Said:
    """What a button's key means for its card."""
    question = session.card(given.card).question
    common: dict[str, Any] = {"reviewer": given.reviewer, "note": given.note}
    if given.key == "bad":
        return Said(BAD_PHOTO, bad_photo=_photo(session, given.photo), **common)
    if given.key == "unsure":
        return Said("unsure", **common)
    offered = {each.key: each for each in (*choices(question), *filter(None, [naming(question)]))}
    if given.key not in offered:
        raise SettingsError(
            f"{given.key!r} is no answer to this card", f"use {', '.join([*offered, 'unsure', 'bad'])}"
        )
    chosen = offered[given.key]
    right = known_name(session.catalogue.counts, given.name) if given.key == "other" else chosen.right_name
    return Said(chosen.answer, right_name=right, **common)


def _photo(session: Session, key: str | None) -> str | None:
    return None if key is None else str(session.photo(key)["photo_id"])


def _named(reviewer: str | None) -> str | None:
    """A reviewer's name as verdicts hold it."""
    line = re.sub(r"\s+", " ", "".join(c for c in reviewer or "" if c.isprintable() or c.isspace())).strip()
    return line or None


def _add_pictures(app: FastAPI, session: Session, pictures: Pictures) -> None:
    @app.get("/pictures/{key}/{size}.jpg")
    def picture(key: str, size: str) -> Response:
        if size not in SIZES:
            raise Unknown("there is no such picture")
        data = pictures.jpeg(key, session.photo(key), size)
        return Response(data, media_type="image/jpeg", headers={"Cache-Control": _KEEP})


def _add_methods(app: FastAPI, session: Session, methods: Methods) -> None:
    @app.get("/api/methods")
    def listed() -> list[dict[str, Any]]:
        return methods.listed()

    @app.get("/api/marks/{card}")
    def of_card(card: str) -> Response:
        return JSONResponse(marks(session.catalogue, session.card(card).question["pair_id"]))

    @app.get("/colours/{card}/{side}.webp")
    def coloured(card: str, side: str) -> Response:
        if side not in ("a", "b"):
            raise Unknown("a pair has the sides a and b")
        data = colours(session.catalogue, session.card(card).question["pair_id"], side)
        return Response(data, media_type="image/webp", headers={"Cache-Control": _KEEP})

    @app.post("/api/explain/{card}/{method}")
    def explain(card: str, method: str) -> dict[str, Any]:
        found = session.card(card)
        a, b = (session.catalogue.photos[each] for each in found.photos)
        return methods.explained(found.question["pair_id"], (a, b), method).values()

    @app.get("/explained/{card}/{method}/{side}.webp")
    def explained(card: str, method: str, side: str) -> Response:
        kept = methods.kept(session.card(card).question["pair_id"], method)
        if kept is None or side not in ("a", "b"):
            raise Unknown("this explanation was not asked for yet")
        return Response(kept.pictures[side], media_type="image/webp")


def _in_words(request: Request, error: Exception) -> Response:
    """An error of ours as JSON with its cure; anything else is a fault that the server logs."""
    assert isinstance(error, PairxError)
    kinds: dict[type[PairxError], int] = {
        **dict.fromkeys((Unknown, NothingStored), 404),
        SettingsError: 400,
        **dict.fromkeys((PhotoError, EngineError, NotExplained), 422),
    }
    status = next((code for kind, code in kinds.items() if isinstance(error, kind)), 503)
    return JSONResponse({"message": printable_lines(str(error))}, status)


class _BoundedBodies:
    """Refuses bodies that are larger than anything the page sends."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] in ("GET", "HEAD"):
            await self._app(scope, receive, send)
            return
        body = b""
        while True:
            message = await receive()
            body += message.get("body", b"")
            if len(body) > _LARGEST_BODY or message["type"] == "http.disconnect":
                await JSONResponse({"message": "this request is too large"}, 413)(scope, receive, send)
                return
            if not message.get("more_body"):
                break
        left: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

        async def again() -> Message:
            return left.pop() if left else await receive()

        await self._app(scope, again, send)
