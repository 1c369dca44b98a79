"""Signals while scoring and from stored rows: the same bytes, and nothing twice.

Scores do not need them.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from schemas.tables.signals import SIGNALS as TABLE
from tasks.job import Job
from tasks.pairs import ScoredPair
from tasks.runs.remaining import look
from tasks.stages import signals
from tasks.stages.signals import plan_signals, signal_shard
from tasks.store.warehouse import Warehouse
from tests.small_catalogue import Stages, files_of, views_of


@pytest.fixture
def older(done: Stages, tmp_path: Path) -> Job:
    """The finished job in a warehouse that was filled before there were signals."""
    there = Path(
        shutil.copytree(done.warehouse.root, tmp_path / "w", ignore=shutil.ignore_patterns("signals"))
    )
    return Job(**{**vars(done.job), "warehouse": Warehouse(str(there))})


def left_in(job: Job, done: Stages, retry_failed: bool = False) -> list[ScoredPair]:
    with look(job, done.columns(), retry_failed) as (_, left):
        assert left.unscored() == []
        return left.without_signals()


def fill(job: Job, done: Stages) -> None:
    with look(job, done.columns()) as (_, left):
        for shard in plan_signals(left.without_signals(), left.keypoint_shards()):
            signal_shard(job, shard)


def test_every_scored_pair_has_signals_and_none_are_left(done: Stages) -> None:
    found = views_of(done.warehouse, ("scores", "signals"), done.columns())
    assert found["signals"].keys() == found["scores"].keys()
    assert left_in(done.job, done) == []
    assert plan_signals([], {}) == []
    for key, row in found["signals"].items():
        assert row["weighted_matches"] >= row["weighted_agreeing_matches"] >= 0
        assert row["agreeing_matches"] <= found["scores"][key]["n_local_matches"]
        without = found["scores"][key]["homography"] is None
        assert (row["weighted_inliers"] is None) is without
        assert (row["weighted_inverted_residual_mean"] is None) is without


def test_stored_rows_give_the_same_bytes_without_a_model(
    done: Stages, older: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    def loaded(*_: Any) -> Any:
        raise AssertionError("signals need no model")

    monkeypatch.setattr("pairx_engine.engine.load_model", loaded)
    missing = left_in(older, done)
    assert len(missing) > 40
    fill(older, done)
    assert files_of(older.warehouse) == files_of(done.warehouse)
    assert left_in(older, done) == []


def test_a_pair_alone_has_the_row_that_it_has_in_company(done: Stages, older: Job) -> None:
    with look(older, done.columns()) as (_, left):
        keypoints_in = left.keypoint_shards()
        alone = [plan_signals([pair], keypoints_in)[0] for pair in left.without_signals()[::15]]
    for shard in alone:
        assert signal_shard(older, shard).rows == 1
    wanted = views_of(done.warehouse, ("signals",), done.columns())["signals"]
    fill(older, done)
    assert views_of(older.warehouse, ("signals",), done.columns())["signals"] == wanted
    # What is computed later of those shards leaves them out: no row is there twice.
    stored = older.warehouse.read(TABLE.name, older.prints.signals)["pair_id"].to_pylist()
    assert len(stored) == len(set(stored)) == len(wanted)


def test_what_fails_is_one_pairs_and_not_tried_again_unasked(
    done: Stages, older: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    evidence = signals.evidence_between
    asked: list[None] = []

    def failing(*given: Any) -> Any:
        asked.append(None)
        if len(asked) == 3:
            raise ZeroDivisionError("no width")
        return evidence(*given)

    monkeypatch.setattr(signals, "evidence_between", failing)
    n_pairs = len(left_in(older, done))
    fill(older, done)
    found = views_of(older.warehouse, ("signals", "failures"), done.columns())
    ((stage, item, _),) = [key for key in found["failures"] if key[0] == "signals"]
    assert len(found["signals"]) == n_pairs - 1
    assert item not in {pair for pair, _ in found["signals"]}
    assert left_in(older, done) == []
    (again,) = left_in(older, done, retry_failed=True)
    assert again.pair_id == item

    with look(older, done.columns(), True) as (_, left):
        (shard,) = plan_signals(left.without_signals(), left.keypoint_shards())
    assert signal_shard(older, shard).failed == 0
    found = views_of(older.warehouse, ("signals", "failures"), done.columns())
    assert len(found["signals"]) == n_pairs
    assert not [key for key in found["failures"] if key[0] == stage]
