"""Verdicts: what may be said, and that the view shows what counts of it."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.tables.reviews import REVIEW_PARTITION, REVIEWS, VERDICTS, WITHDRAWN, Review
from schemas.views.install import install_views
from schemas.views.wanted import install_wanted
from tasks.store.warehouse import Warehouse, pair_id
from tests.toy_warehouse import Photo, Toy, write_photos

NOON = datetime(2026, 6, 1, 12, tzinfo=UTC)
P, Q = Photo("p", "A"), Photo("q", "B")


def about_pair(
    number: int, verdict: str, reviewer: str | None = "ann", minutes: int = 0, **more: Any
) -> Review:
    pair = pair_id("p", str(P.chip_id), "q", str(Q.chip_id))
    return Review(
        f"r{number}", NOON + timedelta(minutes=minutes), "pair", verdict, "p", str(P.chip_id), "q", str(Q.chip_id),
        pair, "A", "B", reviewer=reviewer, **more,
    )  # fmt: skip


def about_name(number: int, verdict: str, name: str = "A", minutes: int = 0, **more: Any) -> Review:
    at = NOON + timedelta(minutes=minutes)
    return Review(f"n{number}", at, "name", verdict, "p", str(P.chip_id), identity_a=name, **more)


def seen(warehouse: Warehouse, columns: str) -> list[tuple[Any, ...]]:
    with duckdb.connect(":memory:", config={"threads": 1}) as connection:
        install_views(connection, warehouse)
        return connection.sql(f"SELECT {columns} FROM reviews ORDER BY kind, photo_a").fetchall()


def store(warehouse: Warehouse, *reviews: Review) -> Warehouse:
    for review in reviews:
        warehouse.write("reviews", REVIEW_PARTITION, review.review_id, [review.row()])
    return warehouse


@pytest.fixture
def warehouse(tmp_path: Path) -> Warehouse:
    return Toy([P, Q], []).write(Warehouse(str(tmp_path / "w")))


def test_a_review_has_the_columns_of_the_table() -> None:
    assert set(about_pair(1, "same_animal").row()) == set(REVIEWS.schema.names)


@pytest.mark.parametrize(
    "wrong",
    [
        {"kind": "photo"},
        {"verdict": "right"},
        {"photo_b": None},
        {"photo_b": "a"},
        {"chip_b": None},
        {"pair_id": None},
        {"right_name": "C"},
        {"kind": "name", "verdict": "right"},
        {"at": datetime(2026, 6, 1)},
    ],
)
def test_what_answers_no_question_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"."):
        replace(about_pair(1, "same_animal"), **wrong)
    with pytest.raises(ValueError, match="which name"):
        replace(about_name(1, "right"), identity_a=None)


def test_the_latest_verdict_on_a_question_counts_and_opinions_are_counted(warehouse: Warehouse) -> None:
    store(
        warehouse,
        about_pair(1, "same_animal", "ann"),
        about_pair(2, "different_animals", "ann", 1),
        about_pair(3, "different_animals", "bob", 2),
        about_pair(4, "same_animal", None, 3),
        about_name(1, "wrong", right_name="B"),
    )
    assert seen(warehouse, "kind, verdict, right_name, reviewers, agreeing, applies") == [
        ("name", "wrong", "B", 1, 1, True),
        ("pair", "same_animal", None, 3, 1, True),
    ]


def test_what_was_taken_back_does_not_count_and_leaves_the_others(warehouse: Warehouse) -> None:
    store(warehouse, about_pair(1, "same_animal", "ann"), about_pair(2, WITHDRAWN, "ann", 5))
    assert seen(warehouse, "verdict") == []
    store(warehouse, about_pair(3, "different_animals", "bob", 1))
    assert seen(warehouse, "verdict, reviewers, agreeing") == [("different_animals", 1, 1)]


def test_a_verdict_applies_as_long_as_what_it_is_about_is_current(warehouse: Warehouse) -> None:
    store(warehouse, about_pair(1, "same_animal"), about_name(1, "wrong", right_name="C"))
    write_photos(warehouse, [replace(P, identity="C", revision=1)])
    assert seen(warehouse, "kind, applies, carried") == [
        ("name", False, False),
        ("name", True, True),
        ("pair", True, False),
    ]
    store(warehouse, about_name(2, "right", "C", 9))
    assert len(seen(warehouse, "kind")) == 3
    write_photos(warehouse, [replace(Q, content="other", revision=1)])
    assert (("pair", False)) in seen(warehouse, "kind, applies")


def test_a_verdict_stored_twice_counts_once(warehouse: Warehouse) -> None:
    row = about_pair(1, "same_animal").row()
    for shard in ("a", "b"):
        warehouse.write("reviews", REVIEW_PARTITION, shard, [row])
    assert seen(warehouse, "verdict, reviewers") == [("same_animal", 1)]


@given(
    st.lists(
        st.tuples(
            st.sampled_from([*VERDICTS["pair"], WITHDRAWN]),
            st.sampled_from(["ann", "bob", None]),
            st.integers(0, 3),
        ),
        min_size=1,
        max_size=8,
    )
)
@settings(max_examples=8, deadline=None)
def test_the_view_agrees_with_a_naive_reading(given_verdicts: list[tuple[str, str | None, int]]) -> None:
    warehouse = Toy([P, Q], []).write(Warehouse(f"memory://reviews-{abs(hash(tuple(given_verdicts)))}/w"))
    reviews = [about_pair(i, verdict, who, at) for i, (verdict, who, at) in enumerate(given_verdicts)]
    warehouse.write("reviews", REVIEW_PARTITION, "s", [r.row() for r in reviews])
    last: dict[str | None, Review] = {}
    for review in sorted(reviews, key=lambda r: (r.at, r.review_id)):
        last[review.reviewer] = review
    standing = sorted((r for r in last.values() if r.verdict != WITHDRAWN), key=lambda r: (r.at, r.review_id))
    expected = [
        (r.verdict, len(standing), sum(s.verdict == r.verdict for s in standing)) for r in standing[-1:]
    ]
    with duckdb.connect(":memory:", config={"threads": 1}) as connection:
        install_wanted(connection, warehouse, {"reviews"})
        found = connection.sql("SELECT verdict, reviewers, agreeing FROM reviews")
        assert found.fetchall() == expected
