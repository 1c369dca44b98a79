"""The stage that compares pictures: planted copies are found whatever their names.

They are compared once, and failures are stored.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pairx_engine.copies.registration import Picture
from pairx_engine.copies.verification import verify_copy
from pairx_engine.errors import PhotoError
from tasks.job import Job
from tasks.pairs import Pair
from tasks.photo_files import read_cut
from tasks.runs.remaining import look
from tasks.stages import verify
from tasks.stages.verify import VerifyShard, plan_verify, verify_shard
from tasks.store.warehouse import Warehouse
from tests.small_catalogue import Stages, views_of

COLUMNS = ("chip_id", "root", "path", "sha256", "box", "theta")


def asked(done: Stages, query: str) -> Sequence[tuple[Any, ...]]:
    with look(done.job, done.columns()) as (connection, _):
        return connection.execute(query).fetchall()


@pytest.fixture
def elsewhere(done: Stages, tmp_path: Path) -> Job:
    return replace(done.job, warehouse=Warehouse(str(tmp_path / "w")))


def test_the_plan_brings_each_pair_once_with_its_photos() -> None:
    photos = {i: dict.fromkeys(COLUMNS) | {"photo_id": i} for i in "abcd"}
    pairs = [Pair("3", "b", "c"), Pair("1", "a", "b"), Pair("2", "a", "d")]
    shards = plan_verify(pairs, photos, 2)
    assert sorted(p.pair_id for s in shards for p in s.pairs) == ["1", "2", "3"]
    assert [[p["photo_id"] for p in s.photos] for s in shards] == [["a", "b", "c"], ["a", "d"]]
    assert len({s.name for s in shards}) == 2
    assert plan_verify([], photos, 2) == []


def test_planted_copies_and_duplicates_are_found_and_nothing_else(done: Stages, small: Path) -> None:
    with (small.parent / "truth.csv").open(encoding="utf-8", newline="") as file:
        planted = {
            tuple(sorted((row["image_id"], row["detail"])))
            for row in csv.DictReader(file)
            if row["planted"] in ("copy", "duplicate")
        }
    assert planted
    found = asked(done, "SELECT photo_a, photo_b FROM copies WHERE same_picture")
    assert set(found) == planted


def test_every_candidate_has_a_row_that_comparing_the_pair_alone_gives(done: Stages) -> None:
    rows = views_of(done.warehouse, ("copies",), done.columns())["copies"]
    assert {(pair,) for (pair,) in rows} == set(asked(done, "SELECT pair_id FROM copy_candidates"))
    photos = done.photos()
    for row in list(rows.values())[:6]:
        pictures = [
            Picture.of(read_cut(photos[row[photo]], done.job.settings.max_pixels))
            for photo in ("photo_a", "photo_b")
        ]
        found = verify_copy(*pictures)
        assert row["agreement"] == pytest.approx(found.agreement, abs=1e-6)
        assert (row["transform"], row["inliers"], row["same_picture"]) == (
            found.transform,
            found.inliers,
            found.same_picture,
        )
        assert row["identity_a"] == photos[row["photo_a"]]["identity"]
        assert row["chip_b"] == photos[row["photo_b"]]["chip_id"]


def test_what_is_done_is_not_done_again(done: Stages) -> None:
    with look(done.job, done.columns()) as (_, left):
        assert left.unverified() == []


def test_a_photo_that_changed_fails_its_pairs_alone(
    done: Stages, elsewhere: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    (shard, *_) = done.verify
    lost = shard.pairs[0].photo_a

    def broken(photo: Any, max_pixels: int) -> Any:
        if photo["photo_id"] == lost:
            raise PhotoError("changed_file", "it changed")
        return read_cut(photo, max_pixels)

    monkeypatch.setattr(verify, "read_cut", broken)
    result = verify_shard(elsewhere, shard)
    failed = {p.pair_id for p in shard.pairs if lost in (p.photo_a, p.photo_b)}
    assert (result.rows, result.failed) == (len(shard.pairs) - len(failed), len(failed))
    rows = elsewhere.warehouse.read("failures", elsewhere.prints.copies).to_pylist()
    assert {(r["stage"], r["item"], r["code"]) for r in rows} == {
        ("verify", p, "changed_file") for p in failed
    }


def test_a_verdict_does_not_depend_on_its_company(done: Stages, elsewhere: Job) -> None:
    (shard, *_) = done.verify
    for pair in shard.pairs[:3]:
        photos = tuple(p for p in shard.photos if p["photo_id"] in (pair.photo_a, pair.photo_b))
        verify_shard(elsewhere, VerifyShard((pair,), photos))
    alone = {r["pair_id"]: r for r in elsewhere.warehouse.read("copies", elsewhere.prints.copies).to_pylist()}
    together = {
        r["pair_id"]: r
        for r in done.warehouse.read("copies", done.job.prints.copies, [shard.name]).to_pylist()
    }
    assert all(together[pair] == row for pair, row in alone.items())
