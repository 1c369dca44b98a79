"""The rules of suspects and the views that they share, over hand-made rows of the judgement."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pytest

from schemas.tables.registry import TABLES
from schemas.tables.reviews import REVIEW_PARTITION, Review
from schemas.thresholds import CERTAIN_COPY, LISTED, SUSPICIOUS
from schemas.views.install import install_views
from tasks.store.warehouse import Warehouse
from tests.toy_warehouse import FINGERPRINTS, Pair, Photo, Toy, pair_key, write_judgement

WRONG, TWO_NAMES, TWO_ANIMALS, COPY = "wrong_name", "two_names_one_animal", "one_name_two_animals", "copy"
NAMES = {f"{name.lower()}{i}": name for name in "ABC" for i in range(3)}


@dataclass
class Judgement:
    """What a judgement says of nine photos of three names, every pair scored.

    All is well but what is given.

    `photos`: photo -> columns of `judged_photos`; `alike`: probabilities of pairs; `names`: rows of
    `judged_names`; `copies`: (photo, photo) -> agreement.
    """

    photos: dict[str, dict[str, Any]] = field(default_factory=dict)
    alike: dict[tuple[str, str], float] = field(default_factory=dict)
    names: Sequence[dict[str, Any]] = ()
    copies: dict[tuple[str, str], float] = field(default_factory=dict)
    unscored: Sequence[tuple[str, str]] = ()
    basis: int = 36


def judged_names(
    kind: str, a: str, b: str, photos_a: str, photos_b: str, probability: float
) -> dict[str, Any]:
    """A row of `judged_names`; photos in one string."""
    return {
        "kind": kind, "name_a": a, "name_b": b, "photos_a": photos_a.split(), "photos_b": photos_b.split(),
        "log_odds": 1.0, "probability": probability, "pairs": 9, "supporting_photos_a": [photos_a.split()[0]],
        "supporting_photos_b": [photos_b.split()[0]], "supporting_pairs": ["never scored"],
    }  # fmt: skip


def store(warehouse: Warehouse, told: Judgement) -> None:
    """Write a judgement of the toy's state, with its copies."""
    toys = {name: Photo(name, NAMES[name]) for name in NAMES}
    across = itertools.combinations(sorted(NAMES), 2)
    usual = {(a, b): 0.95 if NAMES[a] == NAMES[b] else 0.02 for a, b in across}
    write_judgement(warehouse, toys.values(), told.photos, usual | told.alike, told.names, told.basis)
    copies = [
        {
            **pair_key(toys[a], toys[b]), "hash_distance": 3, "transform": "mirrored,cropped", "mirrored": True,
            "matrix": None, "agreement": agreement, "weakest": 0.9, "overlap": 1.0, "inliers": 40, "same_picture": True,
        }
        for (a, b), agreement in told.copies.items()
    ]  # fmt: skip
    warehouse.write("copies", FINGERPRINTS["copies"], f"basis{told.basis}", copies)


Judge = Callable[..., duckdb.DuckDBPyConnection]


@pytest.fixture
def judge(tmp_path: Path) -> Iterator[Judge]:
    """Stores judgements and returns a connection with all views."""
    opened = []

    def judge(*judgements: Judgement) -> duckdb.DuckDBPyConnection:
        pairs = [
            Pair(a, b, 0.8 if NAMES[a] == NAMES[b] else 0.4, n_inliers=40 if (a, b) == ("a1", "c1") else 8)
            for a, b in itertools.combinations(NAMES, 2)
            if (a, b) not in judgements[0].unscored
        ]
        toy = Toy([Photo(photo, name) for photo, name in NAMES.items()], pairs, top_k=20, same_name_k=5)
        warehouse = toy.write(Warehouse(str(tmp_path / "w")))
        for told in judgements:
            store(warehouse, told)
        opened.append(duckdb.connect(":memory:", config={"threads": 1}))
        install_views(opened[-1], warehouse)
        return opened[-1]

    yield judge
    for connection in opened:
        connection.close()


def suspects(connection: duckdb.DuckDBPyConnection) -> list[dict[str, Any]]:
    return list(connection.sql("FROM suspects").to_arrow_table().to_pylist())


def test_names_that_nothing_speaks_against_are_no_suspects(judge: Judge) -> None:
    assert suspects(judge(Judgement())) == []


def test_without_a_judgement_there_is_no_suspect(tmp_path: Path) -> None:
    warehouse = Toy([Photo("a", "A"), Photo("b", "B")], [Pair("a", "b", 0.9)]).write(Warehouse(str(tmp_path)))
    with duckdb.connect() as connection:
        install_views(connection, warehouse)
        assert suspects(connection) == []
        assert connection.execute("FROM expected_precision").fetchall() == []


def test_a_wrong_name_is_one_row_shown_by_its_likeliest_pair_with_the_proposed_name(judge: Judge) -> None:
    told = Judgement(
        {"a0": {"probability": 0.9, "proposed_name": "B"}},
        {("a0", "b1"): 0.8, ("a0", "b2"): 0.7, ("a0", "c0"): 0.99, ("a0", "a1"): 0.1, ("a0", "a2"): 0.05},
    )
    connection = judge(told)
    (row,) = suspects(connection)
    assert (row["kind"], row["photo_a"], row["photo_b"], row["blamed_photo"]) == (WRONG, "a0", "b1", "a0")
    assert (row["proposed_name"], row["probability"], row["score"]) == ("B", 0.9, 0.9)
    assert row["reason"].startswith(
        "a0 is called A and looks like B. One animal with B by a probability of up to 0.80 (2 pairs say so), with A by up to 0.10."
    )
    pairs = connection.sql(
        """SELECT photo_a, photo_b FROM (SELECT unnest(supporting_pairs) AS pair_id, generate_subscripts(supporting_pairs, 1) AS i
        FROM suspicions) JOIN pairs USING (pair_id) ORDER BY i"""
    ).fetchall()
    assert pairs == [("a0", "b1"), ("a0", "b2"), ("a0", "b0"), ("a0", "c0"), ("a0", "a1")]


def test_a_photo_that_looks_like_no_name_is_shown_by_its_nearest_pair(judge: Judge) -> None:
    told = Judgement({"a0": {"probability": 0.6}}, {("a0", "a1"): 0.05, ("a0", "a2"): 0.1, ("a0", "c1"): 0.3})
    (row,) = suspects(judge(told))
    assert (row["kind"], row["photo_a"], row["photo_b"], row["proposed_name"]) == (WRONG, "a0", "c1", None)
    assert "looks like no other name either" in row["reason"]


@pytest.mark.parametrize(
    ("changes", "listed"),
    [
        ({"probability": LISTED}, True),
        ({"probability": 0.9 * LISTED}, False),
        # A photo that stands out is listed where another name speaks louder than its own.
        ({"probability": 0.9 * LISTED, "rival_voice": 1.0}, True),
        ({"probability": 0.9, "undefended": True}, False),
        ({"probability": 0.9, "told_by": "names"}, False),
    ],
    ids=str,
)
def test_what_is_likely_or_stands_out_is_listed(judge: Judge, changes: dict[str, Any], listed: bool) -> None:
    connection = judge(Judgement({"b1": changes}))
    assert connection.sql("FROM listed_photos").fetchall() == ([("b1",)] if listed else [])
    assert [row["blamed_photo"] for row in suspects(connection)] == (["b1"] if listed else [])


def test_photos_that_do_not_stand_out_are_not_listed_for_a_louder_name(judge: Judge) -> None:
    doubts = {photo: {"probability": 0.01 + 0.001 * i, "rival_voice": 1.0} for i, photo in enumerate(NAMES)}
    assert judge(Judgement(doubts)).sql("FROM listed_photos").fetchall() == [("c2",)]


def test_two_names_are_one_row_that_blames_no_photo(judge: Judge) -> None:
    names = [judged_names(TWO_NAMES, "A", "B", "a0 a1 a2", "b0 b1 b2", 0.7)]
    (row,) = suspects(judge(Judgement(names=names, alike={("a2", "b1"): 0.9})))
    assert (row["kind"], row["photo_a"], row["photo_b"], row["blamed_photo"]) == (TWO_NAMES, "a2", "b1", None)
    assert (row["proposed_name"], row["score"]) == ("B", 0.7)
    assert row["reason"].startswith("A (3 photos) and B (3 photos) look like one animal.")


def test_names_without_a_scored_pair_are_shown_by_two_photos(judge: Judge) -> None:
    across = [(a, b) for a, b in itertools.combinations(NAMES, 2) if NAMES[a] == "A" and NAMES[b] == "B"]
    names = [judged_names(TWO_NAMES, "A", "B", "a0 a1 a2", "b0 b1 b2", 0.7)]
    connection = judge(Judgement(names=names, unscored=across))
    (row,) = suspects(connection)
    assert (row["kind"], row["photo_a"], row["photo_b"], row["score"]) == (TWO_NAMES, "a0", "b0", 0.7)
    assert (row["identity_a"], row["identity_b"], row["pair_id"]) == ("A", "B", "never scored")
    assert row["cosine"] is row["n_matches"] is row["match_coverage"] is None
    assert row["reason"].endswith("look like one animal. No pair across was explained.")
    assert connection.sql("SELECT count(*) FROM expected_precision").fetchall() == [(1,)]


@pytest.mark.parametrize("owner", ["", "C"])
def test_a_name_of_two_animals_is_shown_by_the_least_likely_pair_across(judge: Judge, owner: str) -> None:
    names = [judged_names(TWO_ANIMALS, "A", owner, "a0 a1", "a2", 0.6)]
    alike = {("a0", "a1"): 0.01, ("a0", "a2"): 0.2, ("a1", "a2"): 0.1}
    (row,) = suspects(judge(Judgement(names=names, alike=alike)))
    assert (row["kind"], row["photo_a"], row["photo_b"]) == (TWO_ANIMALS, "a1", "a2")
    assert (row["blamed_photo"], row["proposed_name"]) == (None, owner or None)
    assert "two animals: 2 photos and 1 (a2)." in row["reason"]
    assert ("The smaller part looks like C." in row["reason"]) is bool(owner)


@pytest.mark.parametrize(("probability", "kinds"), [(0.7, [TWO_NAMES]), (0.3, [COPY, TWO_NAMES])])
def test_a_copy_under_two_names_that_are_likely_one_animal_is_no_row_of_its_own(
    judge: Judge, probability: float, kinds: list[str]
) -> None:
    names = [judged_names(TWO_NAMES, "A", "C", "a0 a1 a2", "c0 c1 c2", probability)]
    rows = suspects(judge(Judgement(names=names, copies={("a1", "c1"): CERTAIN_COPY + 0.005})))
    assert [row["kind"] for row in rows] == kinds


def test_a_copy_blames_the_photo_whose_name_is_the_likelier_to_be_wrong(judge: Judge) -> None:
    told = Judgement({"c1": {"probability": 0.04}}, copies={("a1", "c1"): CERTAIN_COPY + 0.005})
    (row,) = suspects(judge(told))
    assert (row["kind"], row["photo_a"], row["photo_b"]) == (COPY, "a1", "c1")
    assert (row["blamed_photo"], row["proposed_name"]) == ("c1", "A")
    assert row["score"] == pytest.approx(CERTAIN_COPY + 0.005, abs=1e-6)
    assert "are one picture: mirrored, cropped." in row["reason"]
    assert "The other photos speak against the name of c1." in row["reason"]


def test_where_both_names_are_as_good_a_copy_blames_nobody(judge: Judge) -> None:
    (row,) = suspects(judge(Judgement(copies={("a1", "c1"): 0.98})))
    assert (row["kind"], row["blamed_photo"], row["proposed_name"]) == (COPY, None, None)


def test_duplicates_under_one_name_are_no_copy(judge: Judge) -> None:
    assert suspects(judge(Judgement(copies={("a1", "a2"): 0.999}))) == []


@pytest.mark.parametrize(("agreement", "kind"), [(CERTAIN_COPY + 0.005, COPY), (CERTAIN_COPY - 0.01, WRONG)])
def test_a_copy_with_a_wrong_name_is_one_row_frames_of_a_burst_are_a_wrong_name(
    judge: Judge, agreement: float, kind: str
) -> None:
    told = Judgement({"c1": {"probability": 0.8, "proposed_name": "A"}}, {("a1", "c1"): 0.9})
    told.copies[("a1", "c1")] = agreement
    assert [(row["kind"], row["blamed_photo"]) for row in suspects(judge(told))] == [(kind, "c1")]


def test_the_broadest_judgement_of_a_state_counts(judge: Judge) -> None:
    old = Judgement({"a0": {"probability": 0.9}}, names=[judged_names(TWO_NAMES, "A", "B", "a0", "b0", 0.9)])
    new = Judgement(
        {"b0": {"probability": 0.7}}, names=[judged_names(TWO_NAMES, "B", "C", "b0", "c0", 0.4)], basis=37
    )
    for order in ((old, new), (new, old)):
        rows = suspects(judge(*order))
        assert [(r["kind"], r["blamed_photo"]) for r in rows] == [(WRONG, "b0"), (TWO_NAMES, None)]


def test_a_suspicion_of_nearly_nothing_is_left_out(judge: Judge) -> None:
    names = [judged_names(TWO_NAMES, "A", "B", "a0", "b0", 0.9 * SUSPICIOUS)]
    assert suspects(judge(Judgement(names=names))) == []


def test_rows_fit_the_table_and_are_ranked_by_score_then_kind_then_pair(judge: Judge, tmp_path: Path) -> None:
    told = Judgement(
        {
            "a0": {"probability": 0.9, "proposed_name": "B"},
            "b1": {"probability": 0.4},
            "c2": {"probability": 0.4},
        },
        names=[judged_names(TWO_NAMES, "A", "C", "a0 a1 a2", "c0 c1 c2", 0.4)],
        copies={("a1", "b0"): 0.98},
    )
    connection = judge(told)
    rows = suspects(connection)
    assert {row["kind"] for row in rows} == {WRONG, TWO_NAMES, COPY}
    assert [row["rank"] for row in rows] == list(range(1, len(rows) + 1))
    keys = [(-row["score"], row["kind"], row["pair_id"]) for row in rows]
    assert keys == sorted(keys)
    columns = {name for name in TABLES["suspects"].schema.names if name not in ("state", "basis")}
    assert set(rows[0]) == columns
    warehouse = Warehouse(str(tmp_path / "stored"))
    assert warehouse.write("suspects", "f", "s", [{"state": "s", **row} for row in rows]) == len(rows)
    expected = connection.sql("SELECT rank, expected FROM expected_precision ORDER BY rank").fetchall()
    scores = [row["score"] for row in rows]
    assert expected == [(i, pytest.approx(np.mean(scores[:i]))) for i in range(1, len(rows) + 1)]


def test_inliers_of_a_rejected_homography_do_not_count(tmp_path: Path) -> None:
    photos = [Photo("a", "A"), Photo("b", "B")]
    warehouse = Toy(photos, [Pair("a", "b", 0.9)]).write(Warehouse(str(tmp_path)))
    scores = warehouse.read("scores", FINGERPRINTS["scores"]).to_pylist()
    rejected = [row | {"no_homography_reason": "degenerate", "n_inliers": 50} for row in scores]
    (shard,) = warehouse.shards("scores", FINGERPRINTS["scores"])
    warehouse.write("scores", FINGERPRINTS["scores"], shard, rejected)
    with duckdb.connect() as connection:
        install_views(connection, warehouse)
        assert connection.sql("SELECT max(geometry), max(sameness) FROM evidence").fetchall() == [(0.0, 0.0)]


NOON = datetime(2026, 6, 1, 12, tzinfo=UTC)


def answer(number: int, kind: str, verdict: str, a: str, b: str | None = None) -> Review:
    """A verdict on photos of `NAMES`."""
    toys = {name: Photo(name, NAMES[name]) for name in NAMES}
    second: dict[str, Any] = {}
    if b is not None:
        key = pair_key(toys[a], toys[b])
        second = {"photo_b": b, "chip_b": key["chip_b"], "pair_id": key["pair_id"], "identity_b": NAMES[b]}
    if kind in ("names", "split"):
        second |= {"photos_a": (a,), "photos_b": (b,)}
    at = NOON + timedelta(minutes=number)
    chip = str(toys[a].chip_id)
    return Review(f"r{number}", at, kind, verdict, a, chip, identity_a=NAMES[a], **second)


def test_what_a_person_answered_is_not_asked_again(tmp_path: Path) -> None:
    told = Judgement(
        {"a0": {"probability": 0.9, "proposed_name": "B"}},
        {("a0", "b1"): 0.8},
        [
            judged_names(TWO_NAMES, "A", "B", "a0 a1 a2", "b0 b1 b2", 0.6),
            judged_names(TWO_NAMES, "B", "C", "b0 b1 b2", "c0 c1 c2", 0.7),
            judged_names(TWO_ANIMALS, "C", "", "c0 c1", "c2", 0.8),
        ],
        {("a1", "c1"): 0.995, ("a2", "b0"): 0.993},
    )
    pairs = [Pair(a, b, 0.4) for a, b in itertools.combinations(NAMES, 2)]
    toy = Toy([Photo(photo, name) for photo, name in NAMES.items()], pairs, top_k=20, same_name_k=5)
    warehouse = toy.write(Warehouse(str(tmp_path / "w")))
    store(warehouse, told)

    def asked() -> set[tuple[str, str]]:
        with duckdb.connect(":memory:", config={"threads": 1}) as connection:
            install_views(connection, warehouse)
            found = connection.sql("SELECT kind, identity_a || identity_b FROM suspects").fetchall()
            return {(kind, names) for kind, names in found}

    def say(review: Review) -> None:
        warehouse.write("reviews", REVIEW_PARTITION, review.review_id, [review.row()])

    everything = {(WRONG, "AB"), (TWO_NAMES, "AB"), (TWO_NAMES, "BC"), (TWO_ANIMALS, "CC"), (COPY, "AC")}
    assert asked() == everything
    say(answer(1, "names", "two_animals", "b1", "c0"))
    say(answer(2, "copy", "no_copy", "a1", "c1"))
    assert asked() == everything - {(TWO_NAMES, "BC"), (COPY, "AC")}
    say(answer(3, "split", "cannot_tell", "c0", "c2"))
    say(answer(4, "name", "right", "a0"))
    left = asked()
    assert not left & {(WRONG, "AB"), (TWO_ANIMALS, "CC")}
    say(replace(answer(5, "name", "right", "a0"), verdict="withdrawn"))
    say(replace(answer(6, "copy", "no_copy", "a1", "c1"), verdict="withdrawn"))
    assert asked() == left | {(WRONG, "AB"), (COPY, "AC")}
    say(answer(7, "photo", "bad", "a0"))
    assert asked() == left | {(COPY, "AC")}
    # What was told apart by its names is no longer an echo of these.
    say(answer(8, "names", "two_animals", "a0", "b0"))
    assert asked() == (left | {(COPY, "AC"), (COPY, "AB")}) - {(TWO_NAMES, "AB")}


def test_a_pair_with_a_bad_photo_is_not_shown_again(judge: Judge, tmp_path: Path) -> None:
    across = [("b0", "c0"), ("b0", "c1"), ("b0", "c2"), ("b1", "c0"), ("b1", "c1"), ("b1", "c2")]
    told = Judgement(
        {"a0": {"probability": 0.9, "proposed_name": "B"}},
        {("a0", "b1"): 0.8, ("a0", "b2"): 0.7, ("a2", "b1"): 0.9, ("a1", "b0"): 0.85},
        [
            judged_names(TWO_NAMES, "A", "B", "a0 a1 a2", "b0 b1 b2", 0.6),
            judged_names(TWO_NAMES, "B", "C", "b1 b0", "c0 c1 c2", 0.3),
        ],
        {("a1", "c1"): 0.995},
        unscored=[*across, ("b2", "c0"), ("b2", "c1"), ("b2", "c2")],
    )
    judge(told)
    warehouse = Warehouse(str(tmp_path / "w"))

    def shown(*bad: str) -> dict[str, str]:
        for photo in bad:
            review = replace(answer(1, "photo", "bad", photo), review_id=f"bad-{photo}")
            warehouse.write("reviews", REVIEW_PARTITION, review.review_id, [review.row()])
        with duckdb.connect(":memory:", config={"threads": 1}) as connection:
            install_views(connection, warehouse)
            return {
                f"{row['kind']} {row['identity_a']}{row['identity_b']}": f"{row['photo_a']} {row['photo_b']}"
                for row in suspects(connection)
            }

    names, others, copy = f"{TWO_NAMES} AB", f"{TWO_NAMES} BC", f"{COPY} AC"
    assert shown() == {f"{WRONG} AB": "a0 b1", names: "a2 b1", others: "b1 c0", copy: "a1 c1"}
    # The next pair shows what is asked; two names without one are shown by two photos, and asked no more.
    assert shown("b1") == {f"{WRONG} AB": "a0 b2", names: "a1 b0", copy: "a1 c1"}
    assert shown("c1") == {f"{WRONG} AB": "a0 b2", names: "a1 b0"}
    assert shown("a0") == {names: "a1 b0"}
