"""Answers become rows of `reviews`: the right ones for each kind of question, each on disk, undone by a row."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import duckdb
import pytest

from schemas.errors import SettingsError
from schemas.tables.reviews import REVIEW_PARTITION
from schemas.views.wanted import install_wanted
from tasks.reviews.merging import MANY, merge_reviews
from tasks.reviews.questions import ANSWERED, key_of, open_questions
from tasks.reviews.verdicts import ANSWERS, MOST_LETTERS, Said, record, review_of, withdrawn
from tasks.store.warehouse import Warehouse
from tests.schemas.test_suspects import NAMES, TWO_ANIMALS, TWO_NAMES, Judgement, judged_names, store
from tests.toy_warehouse import Pair, Photo, Toy

Ask = Callable[[], list[dict[str, Any]]]


@pytest.fixture
def warehouse(tmp_path: Path) -> Warehouse:
    """One question of each kind; the sides of C are told by c1's side first."""
    pairs = [Pair(a, b, 0.4) for a, b in itertools.combinations(NAMES, 2)]
    toy = Toy([Photo(photo, name) for photo, name in NAMES.items()], pairs, top_k=20, same_name_k=5)
    made = toy.write(Warehouse(str(tmp_path / "w")))
    names = [
        judged_names(TWO_NAMES, "B", "C", "b0 b1 b2", "c0 c1 c2", 0.7),
        judged_names(TWO_ANIMALS, "C", "B", "c1 c2", "c0", 0.8),
    ]
    doubt = {"a0": {"probability": 0.9, "proposed_name": "B"}}
    store(made, Judgement(doubt, {("a0", "b1"): 0.8}, names, {("a1", "c1"): 0.995}))
    return made


def questions(warehouse: Warehouse) -> dict[str, dict[str, Any]]:
    with duckdb.connect(":memory:", config={"threads": 1}) as connection:
        install_wanted(connection, warehouse, {"questions", "current_run"})
        return {str(row["asks"]): dict(row) for row in open_questions(connection).rows}


def answered(warehouse: Warehouse) -> list[dict[str, Any]]:
    with duckdb.connect(":memory:", config={"threads": 1}) as connection:
        install_wanted(connection, warehouse, {"reviews", "contradicted_reviews"})
        return list(connection.sql(f"{ANSWERED} ORDER BY kind").to_arrow_table().to_pylist())


def test_every_kind_of_suspect_is_a_question_with_what_it_takes_to_answer(warehouse: Warehouse) -> None:
    found = questions(warehouse)
    assert {kind: key_of(row) for kind, row in found.items()} == {
        "name": ("name", "a0", None),
        "copy": ("copy", found["copy"]["pair_id"], None),
        "names": ("names", "B", "C"),
        "split": ("split", "C", None),
    }
    assert (found["name"]["photo_b"], found["name"]["other_name"]) == ("b1", "B")
    # Photo a has the lower id, so the sides of C are turned.
    split = found["split"]
    assert (split["photo_a"], split["photos_a"], split["photos_b"]) == ("c0", ["c0"], ["c1", "c2"])
    assert found["names"]["photos_b"] == ["c0", "c1", "c2"]
    assert all(row["chip_a"] == f"chip-{row['photo_a']}" for row in found.values())


@pytest.mark.parametrize(
    ("kind", "said"), [(kind, said) for kind in ANSWERS for said in ANSWERS[kind] if kind != "pair"]
)
def test_an_answer_is_stored_and_its_question_goes(warehouse: Warehouse, kind: str, said: str) -> None:
    question = questions(warehouse)[kind]
    review = review_of(question, Said(said, "ann", " a\n note\0 "), "r1", "s")
    record(warehouse, review)
    (row,) = answered(warehouse)
    assert (row["kind"], row["subject"], row["other"]) == key_of(question)
    assert (row["verdict"], row["reviewer"], review.note) == (ANSWERS[kind][said], "ann", "a note")
    assert row["right_name"] == ("B" if (kind, said) == ("name", "same") else None)
    assert kind not in questions(warehouse)
    record(warehouse, withdrawn(review))
    assert answered(warehouse) == []
    assert kind in questions(warehouse)


def test_a_reviewer_gives_a_name_where_one_is_asked_for(warehouse: Warehouse) -> None:
    asked = questions(warehouse)
    for kind, said, name in (
        ("name", "same", "Z"),
        ("name", "other", "Z"),
        ("names", "same", "Z"),
        ("split", "different", "Z"),
        ("name", "different", None),
        ("names", "different", None),
        ("copy", "same", None),
    ):
        assert review_of(asked[kind], Said(said, right_name="Z"), None, None).right_name == name
    assert review_of(asked["name"], Said("other"), None, None).right_name is None


def test_a_bad_photo_is_the_blamed_one_or_the_one_that_is_named(warehouse: Warehouse) -> None:
    asked = questions(warehouse)
    assert review_of(asked["name"], Said("bad"), None, None).photo_a == "a0"
    other = review_of(asked["name"], Said("bad", bad_photo="b1"), None, None)
    assert (other.kind, other.photo_a, other.chip_a, other.identity_a) == ("photo", "b1", "chip-b1", "B")
    with pytest.raises(SettingsError, match="does not show"):
        review_of(asked["name"], Said("bad", bad_photo="c0"), None, None)


@pytest.mark.parametrize("said", [Said("yes"), Said("other"), Said("same", note="x" * (MOST_LETTERS + 1))])
def test_what_is_no_answer_is_refused(warehouse: Warehouse, said: Said) -> None:
    with pytest.raises(SettingsError):
        review_of(questions(warehouse)["copy"], said, None, None)


def test_files_of_verdicts_are_merged_without_loss(warehouse: Warehouse) -> None:
    review = review_of(questions(warehouse)["name"], Said("same", "ann"), None, None)
    rows = [
        replace(review, review_id=f"v{i}", at=review.at + timedelta(seconds=i), reviewer=f"p{i % 5}")
        for i in range(MANY)
    ]
    for row in rows[1:]:
        record(warehouse, row)
    assert merge_reviews(warehouse) == 0
    record(warehouse, rows[0])
    before = answered(warehouse)
    assert merge_reviews(warehouse) == MANY
    assert answered(warehouse) == before
    assert len(warehouse.shards("reviews", REVIEW_PARTITION)) == 1
    stored = warehouse.read("reviews", REVIEW_PARTITION).to_pylist()
    assert sorted(r["review_id"] for r in stored) == sorted(r.review_id for r in rows)
    # Killed before the small files went: they come again, and go.
    for row in rows:
        record(warehouse, row)
    assert merge_reviews(warehouse) == MANY
    assert answered(warehouse) == before
