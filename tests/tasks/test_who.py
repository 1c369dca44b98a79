"""Which animal a photo shows: answers from a stored judgement, what cannot be said, and the page."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pytest
from PIL import Image

from flows.commands.who import print_answers
from pairx_engine.figure.values import Pixels
from schemas.errors import PairxError, SettingsError
from schemas.failures import Failure, FailureCode
from tasks.pages.comparison import Picture
from tasks.pages.who import AnswerOnPage, PhotoOnPage, Shown, render_who
from tasks.sql.console import connect_analyst
from tasks.store.warehouse import Warehouse
from tasks.who import NEEDS, Answers, answers_for, new_unknown
from tests.tasks.test_report import EVIL, Page
from tests.toy_warehouse import FINGERPRINTS, Pair, Photo, Toy, pair_key, write_judgement, write_photos

GREY: Pixels = np.full((30, 40, 3), 128, dtype=np.uint8)
PHOTOS = [
    *(Photo(f"{name}{i}", name, f"e{name}{i}") for name in "AB" for i in range(2)),
    Photo("alone", "C", "ec"),
    Photo("stranger", None, "es"),
    Photo("other", None, "eo"),
]
ALIKE = {
    ("A0", "stranger"): 0.2,
    ("A1", "stranger"): 0.4,
    ("B1", "stranger"): 0.9,
    ("A0", "B0"): 0.1,
    ("A0", "A1"): 0.95,
}
"""Pairs that were scored, with the probability of one animal. The other unknown photo was compared by its embedding alone."""
CANDIDATES = [
    {"photo_id": "stranger", "rank": 1, "name": "B", "probability": 0.75},
    {"photo_id": "stranger", "rank": 2, "name": None, "probability": 0.2},
    {"photo_id": "stranger", "rank": 3, "name": "A", "probability": 0.05},
    {"photo_id": "other", "rank": 1, "name": None, "probability": 0.6},
    {"photo_id": "other", "rank": 2, "name": "A", "probability": 0.4},
]


def _photo(photo_id: str) -> Photo:
    return next(photo for photo in PHOTOS if photo.photo_id == photo_id)


def write(warehouse: Warehouse, judged: bool = True) -> Warehouse:
    broken = Photo("broken", "A", readable=False)
    gone = Photo("gone", "A", revision=1, present=False)
    failure = Failure("ingest", "broken", FailureCode.TRUNCATED, "it breaks off", revision=0)
    pairs = [Pair(a, b, 0.5) for a, b in ALIKE]
    Toy([*PHOTOS, broken, gone], pairs, failures=[failure.row()]).write(warehouse)
    near = {("A0", "other"): 0.4, ("A1", "other"): 0.5, ("A1", "stranger"): 0.25, ("A0", "stranger"): 0.9}
    warehouse.write("neighbours", FINGERPRINTS["embeddings"], "near", [
        {**{k: v for k, v in pair_key(_photo(a), _photo(b)).items() if k != "pair_id"}, "cosine": cosine}
        for (a, b), cosine in near.items()
    ])  # fmt: skip
    if judged:
        doubts: dict[str, dict[str, Any]] = {
            "B0": {"probability": 0.3, "proposed_name": "A", "proposed_share": 0.5},
            "alone": {"undefended": True},
        }
        write_judgement(warehouse, PHOTOS, doubts, ALIKE)
        key = {"state": "s", "basis": 1}
        warehouse.write(
            "candidates", FINGERPRINTS["judgements"], "judged", [{**key, **row} for row in CANDIDATES]
        )
        numbers = dict.fromkeys(("wrong_names", "wrong_names_low", "wrong_names_high"), 0.0)
        warehouse.write(
            "judged_catalogues",
            FINGERPRINTS["judgements"],
            "judged",
            [{**key, "photos": 7, "names": 3, **numbers}],
        )
    return warehouse


@pytest.fixture
def warehouse(tmp_path: Path) -> Warehouse:
    return write(Warehouse(str(tmp_path / "w")))


@pytest.fixture
def connection(warehouse: Warehouse) -> Iterator[duckdb.DuckDBPyConnection]:
    with connect_analyst(warehouse.url, query=NEEDS) as opened:
        yield opened


def rows(found: Answers) -> list[tuple[Any, ...]]:
    return [tuple(row.values()) for row in found.rows.to_pylist()]


def test_an_unknown_photo_has_ranked_names_with_the_photo_that_speaks_most(
    connection: duckdb.DuckDBPyConnection,
) -> None:
    found = answers_for(connection, ["other", "stranger"], 5)
    assert rows(found) == [
        ("other", None, 1, "(a new animal)", True, 0.6, None, None, None),
        ("other", None, 2, "A", False, 0.4, "A1", None, pytest.approx(0.5)),
        ("stranger", None, 1, "B", False, 0.75, "B1", pytest.approx(0.9), None),
        ("stranger", None, 2, "(a new animal)", True, 0.2, None, None, None),
        ("stranger", None, 3, "A", False, 0.05, "A1", pytest.approx(0.4), pytest.approx(0.25)),
    ]
    assert found.notes == ()
    assert [row[2] for row in rows(answers_for(connection, ["stranger", "stranger"], 2))] == [1, 2]


def test_a_photo_with_a_name_has_that_name_and_the_likeliest_other(
    connection: duckdb.DuckDBPyConnection,
) -> None:
    found = answers_for(connection, ["B0", "alone"], 5)
    assert rows(found) == [
        ("B0", "B", 1, "B", False, pytest.approx(0.7), None, None, None),
        ("B0", "B", 2, "A", False, pytest.approx(0.15), "A0", pytest.approx(0.1), None),
        ("alone", "C", 1, "C", False, pytest.approx(0.999), None, None, None),
    ]
    assert (
        "B0, alone have names: stored are the probabilities of that name and of the likeliest other"
        in found.notes[0]
    )
    assert found.notes[1].startswith("alone: no other photo of that name can speak for it")


def test_of_what_nothing_can_be_said_the_reason_is(warehouse: Warehouse) -> None:
    write_photos(warehouse, [replace(PHOTOS[0], photo_id="late")])
    with connect_analyst(warehouse.url, query=NEEDS) as connection, pytest.raises(SettingsError) as caught:
        answers_for(connection, ["strangr", "stranger", "broken", "gone", "late"], 5)
    assert caught.value.message.splitlines() == [
        "there is no photo 'strangr'; near it are 'stranger'",
        "the photo 'broken' failed in ingest with truncated: it breaks off",
        "the photo 'gone' was withdrawn from the catalogue",
        "the photo 'late' came after the newest finished run and is not judged yet: run again",
    ]
    assert caught.value.exit_code == 2


def test_where_nothing_was_judged_that_is_said(tmp_path: Path) -> None:
    found = write(Warehouse(str(tmp_path / "new")), judged=False)
    with (
        connect_analyst(found.url, query=NEEDS) as connection,
        pytest.raises(PairxError, match="nothing has been judged yet"),
    ):
        answers_for(connection, ["stranger"], 5)


def test_new_unknown_photos_are_found(warehouse: Warehouse, connection: duckdb.DuckDBPyConnection) -> None:
    assert new_unknown(connection) == ["other", "stranger"]  # in a first run all are new


def test_the_command_prints_and_writes_a_page(
    tmp_path: Path, warehouse: Warehouse, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "pages" / "who.html"
    print_answers(warehouse.url, [], True, 3, "json", False, page)
    out, err = capsys.readouterr()
    assert [(row["photo_id"], row["answer"]) for row in json.loads(out)][:3] == [
        ("other", "(a new animal)"), ("other", "A"), ("stranger", "B")
    ]  # fmt: skip
    assert f"page: {page}" in err
    # The toy's photos are no files.
    assert Page(page.read_text(encoding="utf-8")).text.count("no file at images/") == 5
    with pytest.raises(SettingsError, match="no photo is named"):
        print_answers(warehouse.url, [], False, 3, "table", False, None)


def test_the_page_shows_small_pictures_of_real_files(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from hashlib import sha256

    warehouse = Warehouse(str(tmp_path / "w"))
    write(warehouse)
    stored = []
    for photo in PHOTOS:
        file = tmp_path / "images" / f"{photo.photo_id}.jpg"
        file.parent.mkdir(exist_ok=True)
        Image.new("RGB", (900, 600), "tan").save(file)
        row = photo.row() | {
            "root": str(tmp_path),
            "revision": 1,
            "box": None,
            "sha256": sha256(file.read_bytes()).hexdigest(),
        }
        stored.append(row)
    warehouse.write("photos", FINGERPRINTS["photos"], "files", stored)
    print_answers(warehouse.url, ["stranger"], False, 5, "csv", False, tmp_path / "who.html")
    assert capsys.readouterr().out.count("\n") == 4
    shown = Page((tmp_path / "who.html").read_text(encoding="utf-8")).all("img")
    assert [(i["alt"], i["width"], i["height"]) for i in shown] == [
        ("stranger", "320", "213"), ("B1", "320", "213"), ("A1", "320", "213")
    ]  # fmt: skip


def test_the_page_stands_alone_and_keeps_hostile_names_text() -> None:
    def page(name: str) -> Page:
        answers = [
            AnswerOnPage(name, 0.7, Shown(name, Picture.of(GREY)), 0.8),
            AnswerOnPage(None, 0.2, None, None),
            AnswerOnPage(name, 0.1, Shown(name, None, name), 0.1),
        ]
        asked = [
            PhotoOnPage(Shown(name, Picture.of(GREY)), None, answers),
            PhotoOnPage(Shown(name, None, name), name, answers),
        ]
        return Page(render_who(asked, [name], "r1", 3))

    plain, attacked = page("Ada"), page(EVIL)
    assert attacked.raw == plain.raw
    assert "alert(" in attacked.text
    assert not attacked.all("script")
    assert not [a for _, a in attacked.tags if "onerror" in a]
    assert all(str(a.get("src", "data:")).startswith("data:") for _, a in attacked.tags)
    assert "3 more photos are not on this page" in plain.text
    assert "0.700" in plain.text
