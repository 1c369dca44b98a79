"""What verdicts change: worked by hand over a toy warehouse, and applied to its catalogue."""

from __future__ import annotations

import csv
import itertools
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from schemas.catalogue.reader import read_catalogue
from schemas.tables.reviews import REVIEW_PARTITION, Review
from tasks.reviews.corrected.apply import Applied, apply_plan, changes_csv, status_of
from tasks.reviews.corrected.plan import VIEWS, Plan, plan_of
from tasks.reviews.opened import opened
from tasks.store.warehouse import Warehouse
from tests.schemas.test_suspects import Judgement, store
from tests.toy_warehouse import Pair, Photo, Toy, pair_key, write_photos

NOON = datetime(2026, 6, 1, 12, tzinfo=UTC)
NAMES = {
    "a0": "A",
    "a1": "A",
    "a2": "A",
    "b0": "B",
    "b1": "B",
    "c0": "C",
    "c1": "C",
    "c2": "C",
    "d0": "D",
    "e0": None,
}


@pytest.fixture
def warehouse(tmp_path: Path) -> Warehouse:
    pairs = [Pair(a, b, 0.4) for a, b in itertools.combinations(NAMES, 2)]
    return Toy([Photo(p, n) for p, n in NAMES.items()], pairs, top_k=20).write(Warehouse(str(tmp_path / "w")))


@pytest.fixture
def catalogue(tmp_path: Path) -> Path:
    file = tmp_path / "c.csv"
    rows = [[p, n or "", f"images/{p}.jpg"] for p, n in NAMES.items()]
    with file.open("w", newline="") as stream:
        csv.writer(stream).writerows([["image_id", "identity", "path"], *rows, ["a9", "A", "images/a9.jpg"]])
    return file


def say(
    warehouse: Warehouse, number: int, kind: str, verdict: str, a: str, b: str | None = None, **more: Any
) -> Review:
    """Store a verdict; sides of names and parts are all photos of a name, or those given."""
    second: dict[str, Any] = {}
    if b is not None:
        key = pair_key(Photo(a, NAMES[a]), Photo(b, NAMES[b]))
        second = {"photo_b": b, "chip_b": key["chip_b"], "pair_id": key["pair_id"], "identity_b": NAMES[b]}
    if kind == "names":
        second |= {
            f"photos_{s}": tuple(p for p in NAMES if NAMES[p] == NAMES[q])
            for s, q in (("a", a), ("b", str(b)))
        }
    review = Review(
        f"r{number}", NOON + timedelta(minutes=number), kind, verdict, a, f"chip-{a}", identity_a=NAMES[a],
        **second | {"reviewer": "ann"} | more,
    )  # fmt: skip
    warehouse.write("reviews", REVIEW_PARTITION, review.review_id, [review.row()])
    return review


def plan(warehouse: Warehouse, **how: bool) -> Plan:
    with opened(warehouse, VIEWS) as connection:
        return plan_of(connection, **how)


def applied(warehouse: Warehouse, catalogue: Path, **how: bool) -> Applied:
    return apply_plan(str(catalogue), read_catalogue(str(catalogue)), plan(warehouse, **how))


def test_without_verdicts_nothing_changes(warehouse: Warehouse, catalogue: Path) -> None:
    found = applied(warehouse, catalogue)
    assert (found.changes, found.files.files) == ((), {"c.csv": catalogue.read_bytes()})


def test_a_wrong_name_becomes_the_right_one_or_none(warehouse: Warehouse) -> None:
    say(warehouse, 1, "name", "wrong", "a0", right_name="B")
    say(warehouse, 2, "name", "wrong", "c0")
    say(warehouse, 3, "name", "right", "c1")
    say(warehouse, 4, "name", "cannot_tell", "c2")
    found = plan(warehouse)
    assert found.names == {"a0": "B", "c0": None}
    first = found.changes[0]
    assert (first.why, first.reviews, first.reviewers, first.at) == (
        "its name A is wrong; it is B", ("r1",), ("ann",), "2026-06-01T12:01:00+00:00",
    )  # fmt: skip
    assert found.changes[1].why == "its name C is wrong; the right one is not known"


@pytest.mark.parametrize(("given", "kept"), [(None, "A"), ("B", "B"), ("Z", "Z")])
def test_names_of_one_animal_take_the_given_name_or_that_of_more_photos(
    warehouse: Warehouse, given: str | None, kept: str
) -> None:
    say(warehouse, 1, "names", "one_animal", "a0", "b0", right_name=given)
    assert plan(warehouse).names == {p: kept for p, n in NAMES.items() if n in ("A", "B") and n != kept}


def test_merges_follow_each_other_and_ties_go_by_the_alphabet(warehouse: Warehouse) -> None:
    say(warehouse, 1, "names", "one_animal", "b0", "c0")
    say(warehouse, 2, "names", "one_animal", "a0", "b1")
    assert plan(warehouse).names == dict.fromkeys(["b0", "b1", "c0", "c1", "c2"], "A")
    say(warehouse, 3, "name", "wrong", "d0", right_name="C")
    # Photos are renamed first, so that C has most photos now.
    assert plan(warehouse).names == dict.fromkeys(["a0", "a1", "a2", "b0", "b1", "d0"], "C")


def test_the_smaller_part_of_a_name_takes_the_given_name_or_one_that_is_free(warehouse: Warehouse) -> None:
    sides = {"photos_a": ("c1",), "photos_b": ("c0", "c2")}
    review = say(warehouse, 1, "split", "two_animals", "c1", "c2", **sides)
    assert plan(warehouse).names == {"c1": "C_2"}
    write_photos(warehouse, [Photo("f0", "C_2")])
    assert plan(warehouse).names == {"c1": "C_3"}
    say(warehouse, 2, "name", "wrong", "c1", right_name="B")
    assert plan(warehouse).names == {"c1": "B"}
    again = replace(review, review_id="r3", at=NOON + timedelta(hours=1), right_name="D")
    warehouse.write("reviews", REVIEW_PARTITION, "r3", [again.row()])
    assert plan(warehouse).names["c2"] == "D"  # the right name is that of photo_b's side


def test_copies_and_bad_photos_are_listed_or_left_out(warehouse: Warehouse, catalogue: Path) -> None:
    say(warehouse, 1, "copy", "copy", "a0", "b0")
    say(warehouse, 2, "photo", "bad", "c0")
    found = applied(warehouse, catalogue)
    assert [(c.photo, status_of(c)) for c in found.changes] == [("b0", "listed"), ("c0", "listed")]
    assert found.files.files["c.csv"] == catalogue.read_bytes()
    found = applied(warehouse, catalogue, drop_copies=True, drop_bad=True)
    expected = [line for line in catalogue.read_bytes().splitlines(True) if line[:2] not in (b"b0", b"c0")]
    assert found.files.files["c.csv"] == b"".join(expected)
    # The photo that the pictures blame is the copy.
    doubts = {"a0": {"probability": 0.9}}
    store(warehouse, Judgement(doubts, copies={("a0", "b0"): 0.999}))
    assert plan(warehouse, drop_copies=True).dropped == {"a0"}


def test_what_people_disagree_on_is_held_back(warehouse: Warehouse, catalogue: Path) -> None:
    say(warehouse, 1, "name", "wrong", "a0", right_name="B", reviewer="bob")
    say(warehouse, 2, "name", "right", "a0")
    assert plan(warehouse).changes == []
    say(warehouse, 3, "name", "wrong", "a0", right_name="C")
    found = applied(warehouse, catalogue)
    assert [(c.photo, c.after, c.held) for c in found.held] == [
        ("a0", "C", "reviewers disagree (2 of 2 say so)")
    ]
    assert found.files.files["c.csv"] == catalogue.read_bytes()
    say(warehouse, 4, "name", "wrong", "a0")  # no name given: that of the other person holds
    assert plan(warehouse).names == {"a0": "B"}
    say(warehouse, 5, "name", "cannot_tell", "a0", reviewer="cid")
    assert plan(warehouse).names == {}


def test_what_contradicts_by_a_chain_is_held_back_unless_forced(warehouse: Warehouse) -> None:
    say(warehouse, 1, "names", "one_animal", "a0", "b0")
    say(warehouse, 2, "pair", "different_animals", "a1", "b1")
    say(warehouse, 3, "name", "wrong", "d0", right_name="C")
    found = plan(warehouse)
    assert [each.words() for each in found.contradictions] == [
        "a1 = A (r1) = B (r1) = b1 (r1), but a1 ≠ b1 (r2)"
    ]
    assert found.names == {"d0": "C"}
    assert {(c.photo, c.before, c.after) for c in found.held} == {("b0", "B", "A"), ("b1", "B", "A")}
    assert "a1 = A (r1)" in found.held[0].held
    assert plan(warehouse, force=True).names == {"b0": "A", "b1": "A", "d0": "C"}


def test_a_photo_that_has_another_name_by_now_is_not_spoken_for(warehouse: Warehouse) -> None:
    say(warehouse, 1, "names", "one_animal", "a0", "b0")
    say(warehouse, 2, "pair", "different_animals", "a1", "b1")
    assert len(plan(warehouse).contradictions) == 1
    write_photos(warehouse, [Photo("a1", "C", revision=1)])
    found = plan(warehouse)
    assert (found.contradictions, found.names) == ([], {"b0": "A", "b1": "A"})


def test_verdicts_on_other_names_or_pictures_do_not_apply(warehouse: Warehouse) -> None:
    say(warehouse, 1, "name", "wrong", "a0", right_name="B")
    write_photos(warehouse, [Photo("a0", "C", revision=1)])
    assert plan(warehouse).changes == []
    say(warehouse, 2, "names", "one_animal", "b0", "d0")
    write_photos(warehouse, [Photo("d0", "E", revision=1)])
    assert plan(warehouse).changes == []


def test_a_corrected_catalogue_asks_for_no_more_changes(warehouse: Warehouse) -> None:
    say(warehouse, 1, "name", "wrong", "a0", right_name="B")
    say(warehouse, 2, "names", "one_animal", "c0", "d0")
    say(warehouse, 3, "split", "two_animals", "b0", "b1", photos_a=("b0",), photos_b=("b1",), right_name="G")
    names = plan(warehouse).names
    assert names == {"a0": "B", "b1": "G", "d0": "C"}
    write_photos(warehouse, [Photo(p, n, revision=1) for p, n in names.items()])
    found = plan(warehouse)
    assert (found.changes, found.contradictions) == ([], [])
    with opened(warehouse, ["reviews"]) as connection:
        rows = connection.sql(
            "SELECT kind, subject, other, verdict FROM reviews WHERE applies AND carried ORDER BY ALL"
        ).fetchall()
    assert rows == [
        ("name", "a0", None, "right"), ("names", "B", "G", "two_animals"), ("split", "C", None, "one_animal"),
    ]  # fmt: skip


def test_names_that_the_warehouse_does_not_know_are_held_back_and_unread_photos_follow(
    warehouse: Warehouse, catalogue: Path
) -> None:
    say(warehouse, 1, "name", "wrong", "b0", right_name="D")
    say(warehouse, 2, "names", "one_animal", "a0", "c0", right_name="C")
    catalogue.write_bytes(
        catalogue.read_bytes().replace(b"b0,B", b"b0,X").replace(b"c2,C,images/c2.jpg\r\n", b"")
    )
    before = catalogue.read_bytes()
    found = applied(warehouse, catalogue)
    assert [c.held for c in found.held] == [
        "the catalogue calls it X, the warehouse B: `pairx run` the catalogue first"
    ]
    # a9 is in the catalogue alone.
    assert found.files.files["c.csv"] == before.replace(b",A,", b",C,")
    assert [c.photo for c in found.changes] == ["a0", "a1", "a2", "a9", "b0"]


def test_the_list_of_changes_is_safe_for_a_spreadsheet(warehouse: Warehouse, catalogue: Path) -> None:
    say(warehouse, 1, "name", "wrong", "a0", right_name="=cmd()", reviewer="@ann")
    lines = list(csv.DictReader(changes_csv(applied(warehouse, catalogue).changes).splitlines()))
    assert lines == [
        {
            "photo": "a0", "field": "identity", "before": "A", "after": "'=cmd()", "status": "applied",
            "why": "its name A is wrong; it is =cmd()", "review_ids": "r1", "reviewer": "'@ann",
            "date": "2026-06-01T12:01:00+00:00",
        }
    ]  # fmt: skip
