"""The server: cards as they are, verdicts on disk before it says so, and nothing of a catalogue taken for code."""

from __future__ import annotations

import io
import json
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient

from flows.review import session as sessions
from flows.review.catalogue import Spread, _edges
from flows.review.marks import NothingStored, marks
from flows.review.session import Session
from pairx_engine.figure import encode_map
from pairx_engine.photo.chips import cut_photo
from schemas.errors import StorageError
from schemas.tables.reviews import REVIEW_PARTITION
from tasks.photo_files import read_cut
from tasks.reviews.verdicts import Said, record, review_of
from tasks.store.warehouse import Warehouse
from tests.flows.review.conftest import Cards, client_of
from tests.flows.review.warehouses import reviewed
from tests.hostile.test_hostile_names import NAMES, steering
from tests.toy_warehouse import FINGERPRINTS, LAYER

HOSTILE = (
    ("<script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "\u202egpj.txt", "{{ 7 * 7 }}"),
    ("=cmd|' /C calc'!A0", "\x1b[2J\x1b[31mred", "</bdi></p><h1>", "../../etc/passwd"),
)


def stored(warehouse: Warehouse) -> list[dict[str, Any]]:
    rows = warehouse.read("reviews", REVIEW_PARTITION).to_pylist()
    return sorted(rows, key=lambda row: row["at"])


def say(client: TestClient, card: dict[str, Any], key: str, **more: Any) -> dict[str, Any]:
    answer = client.post("/api/verdict", json={"card": card["id"], "key": key, "reviewer": "ann"} | more)
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def plain(parts: list[list[Any]]) -> str:
    return "".join(text for text, _ in parts)


def test_cards_come_in_order_with_all_that_it_takes_to_answer(cards: Cards, client: TestClient) -> None:
    found = cards()
    assert list(found) == ["copy", "split", "a0", "names", "b2", "d0"]
    card = found["a0"]
    assert plain(card["question"]) == "Is a0, called A, rather B?"
    assert [part for part, is_name in card["question"] if is_name] == ["a0", "A", "B"]
    assert [plain(each["effect"]) for each in card["choices"]] == ["becomes B", "stays A"]
    assert card["sides"]["a"]["photos"] == 3
    assert card["sides"]["a"]["blamed"]
    # Of B's other photos the one that is likelier one animal with a0 would come first; these are alike, so by date and id.
    assert [each["id"] for each in card["sides"]["b"]["others"]] == ["b0", "b2"]
    assert card["sides"]["a"]["photo"] | {"key": "", "path": ""} == {
        "key": "", "id": "a0", "name": "A", "date": "2026-02-03", "viewpoint": "left", "encounter": "", "path": "",
        "size": [120, 100], "box": [10.0, 20.0, 80.0, 60.0], "theta": 0.3,
    }  # fmt: skip
    measures = {each["name"]: each for each in card["measures"]}
    assert measures["probability"]["value"] == pytest.approx(0.8)
    # 12 pairs of one name have .95; of 54 of two 51 have .02, and .7, .75 and .8 are a0-d0, b2-c2 and a0-b1 itself.
    assert measures["probability"]["below"] == pytest.approx([0.0, 53 / 54])
    spread = client.get("/api/start").json()["spreads"]["probability"]
    assert (spread["low"], spread["high"], sum(spread["one"])) == (0.0, 1.0, pytest.approx(1.0))
    assert spread["one"][int(0.95 * len(spread["one"]))] == pytest.approx(1.0)
    # The sides of a split are its own photos only.
    split = found["split"]
    assert [each["id"] for each in split["sides"]["b"]["others"]] == ["c1"]
    assert (split["sides"]["a"]["part"], split["affected"]) == (1, 1)


@pytest.mark.parametrize(
    ("card", "key", "more", "verdict", "right_name"),
    [
        ("a0", "same", {}, "wrong", "B"),
        ("a0", "different", {}, "right", None),
        ("a0", "unsure", {}, "cannot_tell", None),
        ("a0", "other", {"name": "Z"}, "wrong", "Z"),
        ("a0", "other", {"name": None}, "wrong", None),
        ("a0", "bad", {}, "bad", None),
        ("names", "same", {}, "one_animal", None),
        ("names", "other", {"name": "B"}, "one_animal", "B"),
        ("names", "different", {}, "two_animals", None),
        ("split", "same", {}, "one_animal", None),
        ("split", "other", {"name": "New"}, "two_animals", "New"),
        ("copy", "same", {}, "copy", None),
        ("copy", "different", {}, "no_copy", None),
    ],
)
def test_a_button_is_a_verdict_on_disk(
    cards: Cards, client: TestClient, session: Session, card: str, key: str, more: dict[str, Any], verdict: str,
    right_name: str | None,
) -> None:  # fmt: skip
    answer = say(client, cards()[card], key, note=" why\nso ", **more)
    (row,) = stored(session.warehouse)
    assert (row["verdict"], row["right_name"], row["reviewer"], row["note"]) == (
        verdict,
        right_name,
        "ann",
        "why so",
    )
    assert (row["run_id"], row["review_id"]) == ("r1", answer["review_id"])
    assert card not in cards()
    assert answer["state"]["said"][0]["by"] == "ann"


def test_either_photo_may_be_the_bad_one(cards: Cards, client: TestClient, session: Session) -> None:
    card = cards()["a0"]
    say(client, card, "bad", photo=card["sides"]["b"]["photo"]["key"])
    (row,) = stored(session.warehouse)
    assert (row["kind"], row["photo_a"]) == ("photo", "b1")
    # The question is about the other photo, so it is still open, and comes after the others.
    assert list(cards())[-1] == "a0"
    assert client.post("/api/undo", json={"reviewer": "ann"}).json() == {"card": card["id"]}
    assert list(cards())[2] == "a0"


def test_undo_takes_back_ones_own_newest_verdict(cards: Cards, client: TestClient, session: Session) -> None:
    found = cards()
    say(client, found["a0"], "same")
    say(client, found["d0"], "different")
    say(client, found["copy"], "same", reviewer="bob")
    assert client.post("/api/undo", json={"reviewer": " ann "}).json() == {"card": found["d0"]["id"]}
    assert [row["verdict"] for row in stored(session.warehouse)] == ["wrong", "right", "copy", "withdrawn"]
    assert set(cards()) == {"split", "names", "b2", "d0"}
    assert client.post("/api/undo", json={"reviewer": "ann"}).json() == {"card": found["a0"]["id"]}
    refused = client.post("/api/undo", json={"reviewer": "ann"})
    assert (refused.status_code, refused.json()["message"]) == (
        404,
        "there is no verdict of yours to take back",
    )


def test_whoever_comes_second_sees_what_was_said_and_may_answer_too(
    cards: Cards, client: TestClient, session: Session
) -> None:
    card = cards()["a0"]
    first = say(client, card, "same")
    late = {"card": card["id"], "key": "different", "reviewer": "bob"}
    refused = client.post("/api/verdict", json=late)
    assert refused.status_code == 409
    assert refused.json()["state"]["said"][0]["words"] == "the name is wrong"
    assert len(stored(session.warehouse)) == 1
    assert client.post("/api/verdict", json=late | {"seen": first["review_id"]}).status_code == 200
    assert [row["reviewer"] for row in stored(session.warehouse)] == ["ann", "bob"]
    # One's own verdict is replaced without being asked.
    say(client, card, "unsure", reviewer="bob")


def test_news_of_others_reach_a_page(cards: Cards, client: TestClient, session: Session) -> None:
    card, version = cards()["a0"], session.answers.version
    quiet = client.get("/api/changes", params={"since": version, "card": card["id"]}).json()
    assert quiet == {"version": version, "run": "r1"}
    record(session.warehouse, review_of(session.card(card["id"]).question, Said("same", "eve"), None, None))
    session._looked = 0.0
    news = client.get("/api/changes", params={"since": version, "card": card["id"]}).json()
    assert (news["version"], news["state"]["said"][0]["by"]) == (version + 1, "eve")


def test_eight_people_at_once_lose_nothing(cards: Cards, session: Session) -> None:
    ids = [card["id"] for card in cards().values()]
    failed: list[str] = []

    def work(who: int) -> None:
        client = client_of(session)
        for card in ids:
            sent = {"card": card, "key": "unsure", "reviewer": f"p{who}"}
            answer = client.post("/api/verdict", json=sent)
            while answer.status_code == 409:
                seen = answer.json()["state"]["said"][0]["review_id"]
                answer = client.post("/api/verdict", json=sent | {"seen": seen})
            if answer.status_code != 200:
                failed.append(answer.text)

    threads = [threading.Thread(target=work, args=(who,)) for who in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    assert len(
        {(row["reviewer"], row["kind"], row["photo_a"], row["photo_b"]) for row in stored(session.warehouse)}
    ) == 8 * len(ids)


def test_a_server_that_starts_again_goes_on(cards: Cards, client: TestClient, session: Session) -> None:
    say(client, cards()["a0"], "same")
    again = client_of(Session(session.warehouse.url))
    line = again.post("/api/queue", json={}).json()
    assert cards()["d0"]["id"] in line["ids"]
    assert len(line["ids"]) == 5


def test_what_cannot_be_stored_is_said_and_stays_open(
    cards: Cards, client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise StorageError("no space left", "make room")

    before = cards()
    monkeypatch.setattr(sessions, "record", full)
    answer = client.post("/api/verdict", json={"card": before["a0"]["id"], "key": "same"})
    assert answer.status_code == 503
    assert "no space left" in answer.json()["message"]
    assert "make room" in answer.json()["message"]
    assert list(cards()) == list(before)


def test_what_is_not_known_is_refused(cards: Cards, client: TestClient, session: Session) -> None:
    card = cards()["copy"]["id"]
    for path in (
        "/api/cards?ids=x",
        f"/colours/{card}/c.webp",
        "/pictures/../cut.jpg",
        "/pictures/x/cut.jpg",
        "/static/..%2Ffiles.py",
        "/static/files.py",
        f"/explained/{card}/x/a.webp",
        "/docs",
        "/openapi.json",
    ):
        assert client.get(path).status_code == 404, path
    for body, status in (
        ({"card": "x", "key": "same"}, 404),
        ({"card": card, "key": "maybe"}, 400),
        ({"card": card, "key": "other", "name": "Z"}, 400),
        ({"card": card, "key": "bad", "photo": "x"}, 404),
        ({"card": card, "key": "same", "note": "x" * 2001}, 400),
        ({"card": card, "key": "same", "extra": 1}, 422),
        ({"card": card, "key": "same", "note": "x" * 70_000}, 413),
    ):
        assert client.post("/api/verdict", json=body).status_code == status, body
    assert client.post("/api/queue", json={"order": "name; DROP TABLE"}).status_code == 400
    assert stored(session.warehouse) == []


def test_pictures_are_cut_and_turned_as_the_model_saw_them(
    cards: Cards, client: TestClient, session: Session
) -> None:
    photo = cards()["a0"]["sides"]["a"]["photo"]
    row = session.catalogue.photos["a0"]
    for size, wanted in (
        ("cut", read_cut(row, 10**6)),
        ("full", read_cut(row, 10**6)),
        ("whole", np.asarray(Image.open(Path(row["root"], row["path"])))),
    ):
        answer = client.get(f"/pictures/{photo['key']}/{size}.jpg")
        assert answer.headers["content-type"] == "image/jpeg"
        assert "immutable" in answer.headers["cache-control"]
        shown = np.asarray(Image.open(io.BytesIO(answer.content)), dtype=float)
        assert shown.shape == wanted.shape
        assert np.abs(shown - wanted).mean() < 4
    # It is turned: the straight cut is another picture.
    straight = cut_photo(np.asarray(Image.open(Path(row["root"], row["path"]))), row["box"])
    turned = np.asarray(
        Image.open(io.BytesIO(client.get(f"/pictures/{photo['key']}/cut.jpg").content)), dtype=float
    )
    assert np.abs(turned - straight).mean() > 20


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"path": "../../etc/passwd"}, "contains .."),
        ({"path": "gone.jpg"}, "no file"),
        ({"sha256": "0"}, "changed"),
    ],
)
def test_a_photo_that_cannot_be_shown_says_why(
    cards: Cards,
    client: TestClient,
    session: Session,
    change: dict[str, str],
    words: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    key = cards()["a0"]["sides"]["a"]["photo"]["key"]
    monkeypatch.setitem(session.catalogue.by_key, key, {**session.catalogue.by_key[key], **change})
    for size in ("cut", "whole"):
        answer = client.get(f"/pictures/{key}/{size}.jpg")
        assert answer.status_code == 422
        assert words in answer.json()["message"]


def test_residuals_are_spread_by_factors_and_exact_copies_take_no_room() -> None:
    values = np.array([0.02] * 50 + [0.5] * 49 + [1000.0])
    edges = _edges("inverted_residual_mean", values)
    assert edges[[0, -1]] == pytest.approx([0.02, 0.5])
    assert edges[1:] / edges[:-1] == pytest.approx((0.5 / 0.02) ** (1 / (len(edges) - 1)))
    bins = Spread(edges, values, values[:50], True).bins
    assert (bins["log"], bins["one"][-1], bins["two"][0]) == (True, 0.5, 1.0)
    assert (np.diff(_edges("inverted_residual_mean", np.zeros(3))) > 0).all()
    assert np.diff(_edges("cosine", values)) == pytest.approx(np.diff(_edges("cosine", values))[0])


def test_marks_are_in_shares_of_the_cut(cards: Cards, client: TestClient, session: Session) -> None:
    found = client.get(f"/api/marks/{cards()['a0']['id']}").json()
    # Grids of one row and two columns; the toy's matches lead from one cell to the other.
    assert found["grids"] == {"a": [[0.5, 1.0]], "b": [[1.0, 1.0]]}
    assert found["matches"] == [
        {"a": [0.25, 0.5], "b": [0.75, 0.5], "share": 1.0, "residual": 1.5},
        {"a": [0.75, 0.5], "b": [0.25, 0.5], "share": 0.25, "residual": 4.0},
    ]
    with pytest.raises(NothingStored, match="never matched"):
        marks(session.catalogue, "no such pair")


def test_pixel_colours_are_those_that_the_run_stored(warehouse: Warehouse, session: Session) -> None:
    card = next(card for card in session.catalogue.cards.values() if card.blamed == "a0")
    lit = np.zeros((8, 6))
    lit[1:4, 3:6] = 2.0
    png, peak = encode_map(lit)
    row = {
        "pair_id": card.question["pair_id"], "photo_a": "a0", "photo_b": "b1", "layer": LAYER, "n_drawn": 1, "figure": b"", "chips": b"",
        "overlay": b"", "colours": b"", "maps_a": [png], "maps_b": [png], "peak_a": [peak], "peak_b": [peak],
    }  # fmt: skip
    warehouse.write("explanations", FINGERPRINTS["explanations"], "drawn", [row])
    again = Session(warehouse.url)
    client = client_of(again)
    (values,) = client.get("/api/cards", params={"ids": card.card_id}).json()
    assert values["drawn"]
    picture = Image.open(io.BytesIO(client.get(f"/colours/{card.card_id}/a.webp").content)).convert("RGBA")
    pixels = np.asarray(picture.resize((6, 8), Image.Resampling.BOX))
    assert pixels[2, 4, 3] > 225
    assert np.abs(pixels[2, 4, :3].astype(int) - [255, 138, 0]).max() < 12
    assert pixels[6, 1, 3] < 6


def test_hostile_names_are_text(tmp_path: Path) -> None:
    assert {name for four in HOSTILE for name in four} <= set(NAMES)
    for number, four in enumerate(HOSTILE):
        made = reviewed(tmp_path / str(number), dict(zip("ABCD", four, strict=True)))
        client = client_of(Session(made.url))
        ids = client.post("/api/queue", json={}).json()["ids"]
        assert ids
        answer = client.get("/api/cards", params={"ids": ids})
        assert answer.headers["content-type"] == "application/json"
        assert not {c for text in _texts(answer.json()) for c in steering(text)}
        # Nothing of a catalogue is in the page itself.
        assert four[0] not in client.get("/").text
        for card in answer.json():
            sent = {"card": card["id"], "key": "same", "reviewer": four[0]}
            assert client.post("/api/verdict", json=sent).status_code == 200
        kept = {row["right_name"] for row in stored(made)} - {None}
        assert kept <= set(four)


def _texts(value: Any) -> list[str]:
    if isinstance(value, dict):
        return [text for each in value.values() for text in _texts(each)]
    if isinstance(value, list):
        return [text for each in value for text in _texts(each)]
    return [value] if isinstance(value, str) else []


def test_a_name_is_suggested_as_it_is_shown_and_stored_as_it_is(tmp_path: Path) -> None:
    made = reviewed(tmp_path, {"B": "Z\u202eeb", "D": "Dot"})
    client = client_of(Session(made.url))
    (suggested,) = client.get("/api/names", params={"text": "z"}).json()
    assert "\u202e" not in suggested
    assert client.get("/api/names", params={"text": "o"}).json() == ["Dot"]
    ids = client.post("/api/queue", json={"kinds": ["wrong_name"], "name": "d0"}).json()["ids"]
    say(client, {"id": ids[0]}, "other", name=suggested)
    (row,) = stored(made)
    assert row["right_name"] == "Z\u202eeb"


def test_the_page_has_no_inline_script_and_asks_nobody_else(client: TestClient) -> None:
    page = client.get("/").text
    assert "http:" not in page.replace(json.dumps(""), "")
    assert "https:" not in page
    assert " style=" not in page
    assert " onclick" not in page
    names = [part.partition('"')[0] for part in page.split('"/static/')[1:]]
    assert len(names) > 8
    for name in names:
        text = client.get(f"/static/{name}").text
        for word in (
            "innerHTML",
            "outerHTML",
            "insertAdjacentHTML",
            "document.write",
            "eval(",
            "new Function",
            "javascript:",
        ):
            assert word not in text, (name, word)


def test_a_newer_run_brings_its_questions(warehouse: Warehouse) -> None:
    session = Session(warehouse.url)
    client = client_of(session)
    row = warehouse.read("runs", "all").to_pylist()
    finished = next(each for each in row if each["status"] == "finished")
    warehouse.write(
        "runs", "all", "r2-finished", [finished | {"run_id": "r2", "at": finished["at"].replace(year=2027)}]
    )
    assert client.get("/api/start").json()["run"] == "r1"
    session._looked_for_runs = -1e9
    assert client.get("/api/start").json()["run"] == "r2"
