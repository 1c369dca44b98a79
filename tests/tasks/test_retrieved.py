"""What a night may build on: the newest finished run of its settings, if nothing of it is gone."""

from __future__ import annotations

from pathlib import Path

import pytest

from schemas.settings import Settings
from tasks.job import Job, prepare_job
from tasks.runs.log import RunLog
from tasks.runs.remaining import look
from tasks.runs.retrieved import remove_old_states, retrieved_state
from tasks.store.file_record import keep_record, recording
from tasks.store.warehouse import Warehouse
from tests.small_catalogue import TINY

FIRST, SECOND, LATER = "20260101t000000-aaaaaa", "20260102t000000-aaaaaa", "20260103t000000-aaaaaa"


@pytest.fixture
def job(tmp_path: Path) -> Job:
    return prepare_job(Warehouse(str(tmp_path / "w")), Settings(**TINY))


def stored_files(job: Job) -> dict[str, str]:
    """A file of neighbours and one of pairs, recorded by the first run; path by table."""
    neighbours = {"photo_a": "a", "photo_b": "b", "chip_a": "c", "chip_b": "c", "cosine": 0.5}
    rows = {"neighbours": neighbours, "pairs": neighbours | {"pair_id": "p"}}
    with recording(job.warehouse, FIRST):
        for table, row in rows.items():
            job.warehouse.write(table, job.prints.of(table), "s1", [row])
    RunLog(job, FIRST).write("finished", "state1", counts={"pairs": 1})
    return {table: job.warehouse.shard_path(table, job.prints.of(table), "s1") for table in rows}


def found(job: Job) -> str | None:
    with look(job, RunLog(job).columns()) as (connection, _):
        return retrieved_state(connection, job)


def test_it_is_the_newest_finished_run(job: Job) -> None:
    assert found(job) is None
    stored_files(job)
    assert found(job) == "state1"
    RunLog(job, SECOND).write("finished", "state2")
    RunLog(job, LATER).write("failed", "state3")
    assert found(job) == "state2"


def test_other_settings_are_no_ground(job: Job) -> None:
    stored_files(job)
    for changed in ({"neighbours": 6}, {"same_species": True}, {"top_k": 4}):
        other = prepare_job(job.warehouse, Settings(**TINY | changed))
        assert found(other) is None


@pytest.mark.parametrize("table", ["neighbours", "pairs"])
def test_a_lost_file_is_no_ground(job: Job, table: str) -> None:
    paths = stored_files(job)
    Path(job.warehouse.root, paths[table]).unlink()
    assert found(job) is None


@pytest.mark.parametrize("table", ["neighbours", "pairs"])
def test_a_file_that_was_moved_aside_is_no_ground_until_the_next_run(job: Job, table: str) -> None:
    paths = stored_files(job)
    Path(job.warehouse.root, paths[table]).unlink()
    keep_record(job.warehouse, SECOND, [], [paths[table]])
    assert found(job) is None
    RunLog(job, LATER).write("finished", "state2")
    assert found(job) == "state2"


def test_states_that_later_runs_left_behind_are_removed_and_nothing_else(job: Job) -> None:
    photo = {"photo_id": "p", "chip_id": "c", "perceptual_hash": 0}
    reach = {"photo": 0, "rule": "top_k", "cosine": 0.5, "last": 1}
    other = prepare_job(job.warehouse, Settings(**TINY | {"top_k": 4}))
    for number, (of, state) in enumerate(
        [(job, "s1"), (other, "o1"), (job, "s2"), (job, "s3"), (job, "s1"), (other, "o2"), (job, "s4")]
    ):
        if not of.warehouse.exists("galleries", of.prints.of("galleries"), state):
            of.warehouse.write("galleries", of.prints.of("galleries"), state, [photo])
            of.warehouse.write("horizons", of.prints.pairs, f"{state}-5", [reach])
        RunLog(of, f"2026010{number}t000000-aaaaaa").write("finished", state)
    job.warehouse.write("galleries", job.prints.of("galleries"), "unknown", [photo])
    with look(job, RunLog(job).columns()) as (connection, _):
        removed = remove_old_states(connection, job.warehouse)
        assert len(removed) == 4  # both files of s2 and s3
        assert remove_old_states(connection, job.warehouse) == []
    galleries = job.warehouse.shards("galleries", job.prints.of("galleries"))
    assert galleries == {"s1", "s4", "o1", "o2", "unknown"}
    assert job.warehouse.shards("horizons", job.prints.pairs) == {"s1-5", "s4-5"}
    assert job.warehouse.shards("horizons", other.prints.pairs) == {"o1-5", "o2-5"}
