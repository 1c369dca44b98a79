"""Answers from files become reviews: each is checked against what the warehouse holds, all problems are told.

The id of a review follows from what it says, so the same file again adds nothing. Where a row gives no time, the
import's counts, and the id is that of the row without a time.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import duckdb

from schemas.errors import SHOWN_PER_KIND, PairxError, Problem, SettingsError
from schemas.tables.reviews import OF_ONE_PHOTO, REVIEW_PARTITION, VERDICTS, WITHDRAWN, Review
from tasks.reviews.questions import key_of
from tasks.reviews.verdicts import ANSWERS, BAD_PHOTO, MOST_LETTERS, one_line
from tasks.store.warehouse import Warehouse, pair_id, shard_name

VIEWS = ("questions", "opinions", "photos", "pairs", "current_run", "all_reviews")
CHANGED = "photos have changed"
_OWN_ID = re.compile(r"[0-9a-z]{1,64}")
_MOST_NAME = 200
_SHOWN = (
    "photo_a",
    "photo_b",
    "chip_a",
    "chip_b",
    "identity_a",
    "identity_b",
    "photos_a",
    "photos_b",
    "pair_id",
)


class AnswersRefused(PairxError, ValueError):
    """A file of verdicts has bad rows; the message lists all problems."""

    exit_code = 2

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        kinds: dict[str, list[Problem]] = {}
        for problem in problems:
            kinds.setdefault(problem.kind, []).append(problem)
        lines = [f"{len(problems)} rows cannot be stored, and nothing was"]
        for kind, members in kinds.items():
            lines.append(f"{kind} ({len(members)})")
            lines += [f"  {p.where}: {p.what}" for p in members[:SHOWN_PER_KIND]]
            lines += [f"  and {len(members) - SHOWN_PER_KIND} more"] * (len(members) > SHOWN_PER_KIND)
            lines += [f"  cure: {cure}" for cure in dict.fromkeys(p.cure for p in members)]
        super().__init__("\n".join(lines), "mend them, or store the others with --skip-bad")

    def __reduce__(self) -> tuple[type[AnswersRefused], tuple[tuple[Problem, ...]]]:
        return type(self), (self.problems,)


@dataclass(frozen=True)
class Answer:
    """One answer in a file: its place, its fields as text (columns of `asked.COLUMNS`), and what is wrong with it."""

    place: str
    cells: Mapping[str, str]
    problem: str = ""

    def get(self, name: str) -> str | None:
        """A field; None where it is empty or absent."""
        return self.cells.get(name) or None


@dataclass
class Incoming:
    """The reviews of a file that are new, how many are stored already, and the problems of its rows."""

    reviews: list[Review] = field(default_factory=list)
    known: int = 0
    problems: list[Problem] = field(default_factory=list)

    @property
    def changed(self) -> int:
        """Rows on photos that look otherwise now."""
        return sum(problem.kind == CHANGED for problem in self.problems)


def reviews_of(
    connection: duckdb.DuckDBPyConnection, answers: Iterable[Answer], reviewer: str | None = None
) -> Incoming:
    """The reviews that answers stand for, from a connection with the `VIEWS`; nothing is stored."""
    asked, found = _Asked(connection), Incoming()
    seen: dict[str, Answer] = {}
    for answer in answers:
        try:
            review = _review(asked, answer, reviewer)
        except _Refused as refused:
            found.problems.append(Problem(refused.kind, answer.place, refused.what, refused.cure))
            continue
        if review.review_id in asked.stored or review.review_id in seen:
            found.known += 1
            continue
        seen[review.review_id] = answer
        found.reviews.append(review)
    return found


def store(warehouse: Warehouse, reviews: Sequence[Review]) -> None:
    """Store reviews, all or none."""
    if reviews:
        ordered = sorted(reviews, key=lambda review: review.review_id)
        name = shard_name(review.review_id for review in ordered)
        warehouse.write("reviews", REVIEW_PARTITION, name, [review.row() for review in ordered])


class _Refused(Exception):
    def __init__(self, kind: str, what: str, cure: str) -> None:
        self.kind, self.what, self.cure = kind, what, cure


class _Asked:
    """What the warehouse knows of questions: those that are open, those that were answered, photos and pairs."""

    def __init__(self, connection: duckdb.DuckDBPyConnection) -> None:
        def rows(query: str) -> list[dict[str, Any]]:
            found: list[dict[str, Any]] = connection.sql(query).to_arrow_table().to_pylist()
            return found

        self.photos = {row["photo_id"]: row for row in rows("SELECT photo_id, chip_id, identity FROM photos")}
        self.pairs = {
            row["pair_id"]: row for row in rows("SELECT pair_id, photo_a, photo_b, chip_a, chip_b FROM pairs")
        }
        self.questions: dict[tuple[str, str, str | None], Mapping[str, Any]] = {
            (r["kind"], r["subject"], r["other"]): r
            for r in rows('FROM opinions WHERE applies ORDER BY "at", review_id')
        }
        self.questions |= {key_of(row): row for row in rows("FROM questions")}
        self.stored: Collection[str] = {
            row["review_id"] for row in rows("SELECT DISTINCT review_id FROM all_reviews")
        }
        run = rows("SELECT run_id, state FROM current_run")
        self.run: dict[str, Any] = run[0] if run else {"run_id": None, "state": None}

    def chip(self, photo: str, given: str | None) -> str:
        """The chip of a photo, which must be the one that was shown where that is known."""
        row = self.photos.get(photo)
        if row is None:
            what = f"the catalogue has no photo {photo[:60]!r} any more"
            raise _Refused("unknown photo", what, "export the questions again")
        if given is not None and row["chip_id"] != given:
            what = f"{photo[:60]!r} looks otherwise than when it was shown"
            raise _Refused(CHANGED, what, "export the questions again, and answer these anew")
        return str(row["chip_id"])

    def of(self, kind: str) -> set[str]:
        """Photos of a name."""
        return {photo for photo, row in self.photos.items() if row["identity"] == kind}


def _review(asked: _Asked, answer: Answer, reviewer: str | None) -> Review:
    if answer.problem:
        raise _Refused("bad row", answer.problem, "mend the row")
    kind, subject = answer.get("kind"), answer.get("subject")
    if kind is None or kind not in VERDICTS or subject is None:
        what = f"kind {kind!r}, subject {subject!r}"
        raise _Refused("no question", what, f"kinds are {', '.join(VERDICTS)}; name a subject, too")
    try:
        shown, verdict = _shown_and_verdict(asked, answer, kind, subject)
        said: dict[str, Any] = {
            "reviewer": one_line(answer.get("reviewer") or reviewer, _MOST_NAME),
            "note": one_line(answer.get("note"), MOST_LETTERS),
            "right_name": _right_name(answer, kind, verdict),
        }
        given_at = _time(answer.get("at"))
        kind = "photo" if answer.cells.get("answer") == BAD_PHOTO else kind
        known = asked.questions.get(_key(kind, subject, answer.get("other")), {})
        own = answer.get("review_id")
        if own is not None and not _OWN_ID.fullmatch(own):
            raise _Refused("bad id", f"review_id {own[:60]!r}", "leave the column empty")
        fields = {"kind": kind, "verdict": verdict, **shown, **said, "at": given_at and given_at.isoformat()}
        return Review(
            review_id=own or shard_name(f"{name}={value}" for name, value in fields.items()),
            at=given_at or datetime.now(UTC),
            kind=kind,
            verdict=verdict,
            proposed_name=answer.get("proposed_name") or known.get("other_name"),
            suspect_kind=answer.get("suspect"),
            **shown,
            **said,
            **asked.run,
        )
    except SettingsError as error:
        raise _Refused("bad text", error.message, error.cure or "mend it") from error
    except ValueError as error:
        raise _Refused("bad row", str(error), "mend the row, or export the questions again") from error


def _shown_and_verdict(asked: _Asked, answer: Answer, kind: str, subject: str) -> tuple[dict[str, Any], str]:
    said = answer.get("answer") or ""
    if said == BAD_PHOTO or kind == "photo":
        photo = answer.get("bad_photo") or (subject if kind in OF_ONE_PHOTO else None)
        if photo is None:
            raise _Refused(
                "no photo",
                "the answer is bad, and nobody knows of which photo",
                "name it in the column bad_photo",
            )
        return _one(asked, answer, photo), _verdict("photo", said)
    verdict = _verdict(kind, said)
    if kind == "name":
        shown = _one(asked, answer, subject)
        if (pair := answer.get("pair_id")) is not None:
            _current_pair(asked, answer, pair)
        return shown, verdict
    if kind in ("pair", "copy"):
        return _current_pair(asked, answer, subject), verdict
    return _sides(asked, answer, kind, subject), verdict


def _verdict(kind: str, said: str) -> str:
    """A verdict, given as the table or as the page says it."""
    if said in (*VERDICTS[kind], WITHDRAWN):
        return said
    if said in ANSWERS.get(kind, {}):
        return ANSWERS[kind][said]
    known = ", ".join(dict.fromkeys([*ANSWERS.get(kind, ()), *VERDICTS[kind], BAD_PHOTO, WITHDRAWN]))
    raise _Refused("no answer", f"{said[:60]!r} answers no question of kind {kind}", f"answers are {known}")


def _right_name(answer: Answer, kind: str, verdict: str) -> str | None:
    given = one_line(answer.get("right_name"), _MOST_NAME)
    if kind == "name" and verdict == "wrong" and answer.get("answer") == "same":
        return given or answer.get("proposed_name") or answer.get("other")
    naming = {("name", "wrong"), ("names", "one_animal"), ("split", "two_animals")}
    return given if (kind, verdict) in naming and answer.get("answer") != BAD_PHOTO else None


def _one(asked: _Asked, answer: Answer, photo: str) -> dict[str, Any]:
    side = next((s for s in "ab" if answer.get(f"photo_{s}") == photo), None)
    chip = asked.chip(photo, answer.get(f"chip_{side}") if side else None)
    name = (answer.get(f"identity_{side}") if side else None) or asked.photos[photo]["identity"]
    return {"photo_a": photo, "chip_a": chip, "identity_a": name}


def _current_pair(asked: _Asked, answer: Answer, pair: str) -> dict[str, Any]:
    """Both photos of a pair, which are still what they were: the pair's id follows from their chips."""
    row: Mapping[str, Any] = asked.pairs.get(pair) or {
        s: answer.get(s) for s in ("photo_a", "photo_b", "chip_a", "chip_b")
    }
    a, b = row["photo_a"], row["photo_b"]
    if a is None or b is None:
        what = f"no pair of photos as they are now has the id {pair[:60]!r}"
        raise _Refused(CHANGED, what, "export the questions again, and answer these anew")
    chip_a, chip_b = asked.chip(a, answer.get("chip_a")), asked.chip(b, answer.get("chip_b"))
    if pair_id(a, chip_a, b, chip_b) != pair:
        what = f"{a[:60]!r} and {b[:60]!r} do not look as when they were shown"
        raise _Refused(CHANGED, what, "export the questions again, and answer these anew")
    names = [answer.get(f"identity_{s}") or asked.photos[p]["identity"] for s, p in (("a", a), ("b", b))]
    return {
        "photo_a": a, "photo_b": b, "chip_a": chip_a, "chip_b": chip_b, "pair_id": pair,
        "identity_a": names[0], "identity_b": names[1],
    }  # fmt: skip


def _sides(asked: _Asked, answer: Answer, kind: str, subject: str) -> dict[str, Any]:
    """The photos of two names, or of both parts of one: as the row says, else as the question was or is asked."""
    found: dict[str, Any] = {name: answer.get(name) for name in _SHOWN}
    for side in ("photos_a", "photos_b"):
        found[side] = _list(found[side])
    if not found["photo_a"] or not found["photos_a"] or not found["photos_b"]:
        question = asked.questions.get(_key(kind, subject, answer.get("other")))
        if question is None:
            what = f"no question of kind {kind} about {subject[:60]!r} is or was asked"
            raise _Refused(
                "no question", what, "give photo_a, photo_b, photos_a and photos_b, as an export does"
            )
        found = {name: question[name] for name in _SHOWN}
    a, b = found["photo_a"], found["photo_b"]
    if a is None or b is None:
        raise _Refused("no photo", "photo_a and photo_b are needed", "export the questions again")
    found |= {"chip_a": asked.chip(a, found["chip_a"]), "chip_b": asked.chip(b, found["chip_b"])}
    for side, photo in (("a", a), ("b", b)):
        found[f"identity_{side}"] = found[f"identity_{side}"] or asked.photos[photo]["identity"]
        found[f"photos_{side}"] = tuple(sorted(found[f"photos_{side}"]))
    found["pair_id"] = pair_id(a, found["chip_a"], b, found["chip_b"])
    names = (found["identity_a"], found["identity_b"])
    wanted = sorted([subject, answer.get("other") or ""]) if kind == "names" else [subject, subject]
    if sorted(map(str, names)) != wanted:
        raise _Refused(
            "other names", f"the photos are of {names[0]!r} and {names[1]!r}", "export the questions again"
        )
    return found


def _key(kind: str, subject: str, other: str | None) -> tuple[str, str, str | None]:
    if kind != "names":
        return kind, subject, None
    one, two = sorted((subject, other or ""))
    return kind, one, two


def _list(text: str | None) -> list[str]:
    try:
        found = json.loads(text or "[]")
    except (ValueError, RecursionError) as error:
        raise _Refused(
            "bad list", f"{(text or '')[:60]!r} is no JSON list of photos", "write it as an export does"
        ) from error
    if not isinstance(found, list) or not all(isinstance(each, str) for each in found):
        raise _Refused(
            "bad list", f"{(text or '')[:60]!r} is no JSON list of photos", "write it as an export does"
        )
    return found


def _time(text: str | None) -> datetime | None:
    """A time in ISO 8601; one without a zone is UTC, one in the future is refused."""
    if text is None:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise _Refused("bad time", f"{text[:60]!r}", "write ISO 8601, such as 2026-06-01T12:00:00Z") from None
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    if moment > datetime.now(UTC) + timedelta(days=1):
        raise _Refused("bad time", f"{text[:60]!r} lies in the future", "mend the clock, or leave it empty")
    return moment
