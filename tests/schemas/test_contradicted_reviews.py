"""Answers against which later photos speak: found, asked again and told; older photos and weak pairs change nothing."""

from __future__ import annotations

import itertools
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pytest

from schemas.tables.reviews import REVIEW_PARTITION, Review
from schemas.views.install import install_views
from tasks.reviews.questions import ANSWERED, key_of, open_questions
from tasks.reviews.verdicts import Said, review_of
from tasks.store.warehouse import Warehouse
from tests.schemas.test_suspects import TWO_NAMES, judged_names
from tests.toy_warehouse import (
    FINGERPRINTS,
    Pair,
    Photo,
    Toy,
    pair_key,
    write_judgement,
    write_pairs,
    write_photos,
)

NOON = datetime(2026, 6, 1, 12, tzinfo=UTC)
OLD = {"a0": "A", "a1": "A", "a2": "A", "b0": "B", "b1": "B"}
NEW = {"a9": "A", "b9": "B"}
NAMES = OLD | NEW
PHOTOS = {p: Photo(p, n) for p, n in NAMES.items()}


class Catalogue:
    """Old photos and two that a run stored after noon; `arrive` says when, `judged` what the pairs look like."""

    def __init__(self, folder: Path) -> None:
        pairs = [Pair(a, b, 0.4) for a, b in itertools.combinations(sorted(NAMES), 2)]
        self.warehouse = Warehouse(str(folder / "w"))
        Toy([PHOTOS[p] for p in OLD], [], top_k=20, same_name_k=9).write(
            self.warehouse, "20260501t000000-aaaaaa"
        )
        write_photos(self.warehouse, [PHOTOS[p] for p in NEW], "later")
        write_pairs(self.warehouse, list(PHOTOS.values()), pairs)
        old = next(s for s in self.warehouse.shards("photos", FINGERPRINTS["photos"]) if s != "later")
        self.record(old, "20260501t000000-aaaaaa")
        self.record("later", "20260701t000000-bbbbbb")

    def record(self, shard: str, run: str) -> None:
        path = f"photos/fingerprint={FINGERPRINTS['photos']}/{shard}.parquet"
        self.warehouse.write("files", "all", run, [{"path": path, "run_id": run, "bytes": 1, "digest": "d"}])

    def judged(self, alike: dict[tuple[str, str], float], names: Any = ()) -> None:
        pairs = itertools.combinations(sorted(NAMES), 2)
        usual = {(a, b): 0.95 if NAMES[a] == NAMES[b] else 0.02 for a, b in pairs}
        write_judgement(self.warehouse, PHOTOS.values(), {}, usual | alike, names)

    def say(self, kind: str, verdict: str, a: str, b: str | None = None, **more: Any) -> Review:
        second: dict[str, Any] = {}
        if b is not None:
            key = pair_key(PHOTOS[a], PHOTOS[b])
            second = {
                "photo_b": b,
                "chip_b": key["chip_b"],
                "pair_id": key["pair_id"],
                "identity_b": NAMES[b],
            }
        review = Review(
            "r1", NOON, kind, verdict, a, f"chip-{a}", identity_a=NAMES[a], reviewer="ann", **second | more
        )
        self.warehouse.write("reviews", REVIEW_PARTITION, "r1", [review.row()])
        return review

    def connection(self) -> duckdb.DuckDBPyConnection:
        connection = duckdb.connect(":memory:", config={"threads": 1})
        install_views(connection, self.warehouse)
        return connection

    def contradicted(self) -> list[tuple[Any, ...]]:
        with self.connection() as connection:
            return connection.sql(
                "SELECT kind, subject, right_name, new_photos, score FROM contradicted_reviews"
            ).fetchall()


@pytest.fixture
def catalogue(tmp_path: Path) -> Catalogue:
    return Catalogue(tmp_path)


def test_photos_arrive_with_the_run_that_recorded_their_first_file(catalogue: Catalogue) -> None:
    catalogue.judged({})
    write_photos(catalogue.warehouse, [replace(PHOTOS["a0"], identity="A2", revision=1)], "newer")
    catalogue.record("newer", "20260801t000000-cccccc")
    write_photos(catalogue.warehouse, [Photo("z", "Z")], "unrecorded")
    with catalogue.connection() as connection:
        found = dict(
            connection.sql("SELECT photo_id, CAST(epoch(first_stored_at) AS BIGINT) FROM arrivals").fetchall()
        )
    may, july = (int(datetime(2026, month, 1, tzinfo=UTC).timestamp()) for month in (5, 7))
    assert found == dict.fromkeys(OLD, may) | dict.fromkeys(NEW, july)


def test_a_right_name_is_asked_again_where_new_photos_of_another_name_are_more_alike(
    catalogue: Catalogue,
) -> None:
    catalogue.judged(
        {("a0", "a1"): 0.5, ("a0", "a2"): 0.4, ("a0", "a9"): 0.3, ("a0", "b9"): 0.92, ("a0", "b0"): 0.99}
    )
    review = catalogue.say("name", "right", "a0")
    assert catalogue.contradicted() == [("name", "a0", "B", ["b9"], 0.92)]
    with catalogue.connection() as connection:
        (question,) = open_questions(connection).rows
        assert key_of(question) == ("name", "a0", None)
        assert (question["asks"], question["photo_a"], question["photo_b"], question["blamed_photo"]) == (
            "name",
            "a0",
            "b9",
            "a0",
        )
        words = "The name of a0 was answered on 2026-06-01 (right by ann); since then 1 new photo says otherwise (b9)."
        assert question["reason"].startswith(words)
        assert (question["other_name"], question["answered_at"]) == ("B", NOON)
        assert connection.execute(ANSWERED).fetchall() == []
    # Answered anew, it is settled.
    again = replace(review, review_id="r2", at=NOON + timedelta(days=60))
    catalogue.warehouse.write("reviews", REVIEW_PARTITION, "r2", [again.row()])
    assert catalogue.contradicted() == []
    with catalogue.connection() as connection:
        assert open_questions(connection).rows == ()
        assert len(connection.execute(ANSWERED).fetchall()) == 1


@pytest.mark.parametrize(
    "alike",
    [
        {("a0", "a1"): 0.5, ("a0", "a2"): 0.4, ("a0", "a9"): 0.3, ("a0", "b9"): 0.89},
        {("a0", "a1"): 0.95, ("a0", "b9"): 0.92},
        {("a0", "a1"): 0.5, ("a0", "a2"): 0.4, ("a0", "a9"): 0.3, ("a0", "b0"): 0.99},
    ],
    ids=["not sure", "its own name is more alike", "no new photo"],
)
def test_a_right_name_stays_answered(catalogue: Catalogue, alike: dict[tuple[str, str], float]) -> None:
    catalogue.judged(alike)
    catalogue.say("name", "right", "a0")
    assert catalogue.contradicted() == []


@pytest.mark.parametrize(
    ("verdict", "alike", "expected"),
    [
        ("two_animals", {("a0", "b9"): 0.93, ("a0", "b0"): 0.99}, (["b9"], 0.93)),
        ("two_animals", {("a9", "b9"): 0.93, ("a1", "b9"): 0.95}, (["a9", "b9"], 0.95)),
        ("two_animals", {("a0", "b0"): 0.99}, None),
        # b9 is like none of A, but a9 is like one of B.
        ("one_animal", {("a9", "b0"): 0.5}, (["b9"], 0.98)),
        ("one_animal", {("a9", "b0"): 0.5, ("a1", "b9"): 0.2}, None),
    ],
)
def test_an_answer_on_two_names_is_asked_again(
    catalogue: Catalogue,
    verdict: str,
    alike: dict[tuple[str, str], float],
    expected: tuple[list[str], float] | None,
) -> None:
    catalogue.judged(alike)
    catalogue.say("names", verdict, "a0", "b0", photos_a=("a0", "a1", "a2"), photos_b=("b0", "b1"))
    found = [("names", "A", "B", expected[0], pytest.approx(expected[1]))] if expected else []
    assert catalogue.contradicted() == found
    with catalogue.connection() as connection:
        rows = open_questions(connection).rows
        assert [key_of(row) for row in rows] == ([("names", "A", "B")] if expected else [])
        for row in rows:
            assert (row["photos_a"], row["photos_b"]) == (["a0", "a1", "a2", "a9"], ["b0", "b1", "b9"])
            assert review_of(row, Said("same", right_name="B"), None, None).verdict == "one_animal"


@pytest.mark.parametrize(
    ("verdict", "alike", "sides"),
    [
        ("two_animals", {("a0", "a9"): 0.95, ("a2", "a9"): 0.93}, (["a0", "a1"], ["a2", "a9"])),
        ("two_animals", {("a0", "a9"): 0.95, ("a2", "a9"): 0.8}, None),
        (
            "one_animal",
            {("a0", "a9"): 0.05, ("a1", "a9"): 0.1, ("a2", "a9"): 0.02},
            (["a0", "a1", "a2"], ["a9"]),
        ),
        ("one_animal", {("a0", "a9"): 0.05, ("a1", "a9"): 0.2, ("a2", "a9"): 0.02}, None),
    ],
)
def test_an_answer_on_the_parts_of_a_name_is_asked_again(
    catalogue: Catalogue,
    verdict: str,
    alike: dict[tuple[str, str], float],
    sides: tuple[list[str], list[str]] | None,
) -> None:
    catalogue.judged(alike)
    catalogue.say("split", verdict, "a0", "a2", photos_a=("a0", "a1"), photos_b=("a2",))
    with catalogue.connection() as connection:
        rows = open_questions(connection).rows
        assert [(row["photos_a"], row["photos_b"]) for row in rows] == ([sides] if sides else [])
        for row in rows:
            assert key_of(row) == ("split", "A", None)
            assert review_of(row, Said("different"), None, None).verdict == "two_animals"


def test_where_a_rule_asks_the_same_the_words_say_that_it_was_answered(catalogue: Catalogue) -> None:
    names = [judged_names(TWO_NAMES, "B", "A", "b0 b1 b9", "a0 a1 a2 a9", 0.7)]
    catalogue.judged({("a0", "b9"): 0.93}, names)
    catalogue.say("names", "two_animals", "a0", "b0", photos_a=("a0",), photos_b=("b0",))
    with catalogue.connection() as connection:
        (row,) = open_questions(connection).rows
    assert (row["kind"], row["probability"]) == (TWO_NAMES, 0.7)
    assert row["reason"].startswith(
        "Whether A and B are one animal was answered on 2026-06-01 (two animals by ann); since then 1 new photo"
    )
    assert "look like one animal." in row["reason"]
    assert row["photos_a"] == ["a0", "a1", "a2", "a9"]
