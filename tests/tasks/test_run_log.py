from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from pairx_engine.device.accelerator import describe
from schemas.errors import PairxError
from schemas.views.install import RUN_COLUMNS, install_views
from tasks.check.findings import check
from tasks.job import Job
from tasks.runs.log import (
    Balance,
    RunLog,
    StageLog,
    balances,
    balances_with_outside,
    devices_of,
    refuse_all_failed,
    versions,
)
from tasks.runs.remaining import look
from tasks.runs.retrieved import unchanged
from tasks.shards import ShardResult
from tasks.stages.embed import embed_shard
from tasks.stages.ingest import ingest_shard
from tasks.store.warehouse import Warehouse
from tests.small_catalogue import Stages
from tests.toy_warehouse import Pair, Photo, Toy

PHOTOS = [
    Photo("a", "A", "e1"),
    Photo("b", "A", "e2"),
    Photo("c", "B", "e3"),
    Photo("d", "B", "e4", readable=False),
]
PAIRS = [Pair("a", "b", 0.9), Pair("a", "c", 0.3), Pair("b", "c", 0.2)]
UNREADABLE = {"stage": "ingest", "item": "d", "code": "truncated", "message": "breaks off", "revision": 0}


def sums(
    warehouse: Warehouse, listed: tuple[str, ...] = ("a", "b", "c", "d"), retrieved: int = 3
) -> dict[str, Balance]:
    connection = duckdb.connect()
    install_views(connection, warehouse)
    return {b.name: b for b in (*balances_with_outside(connection, listed, retrieved), *balances(connection))}


def runs(job: Job) -> list[tuple[Any, ...]]:
    connection = duckdb.connect()
    install_views(connection, job.warehouse)
    return connection.execute("SELECT run_id, status, message, counts, timings, state FROM runs").fetchall()


def test_sums_that_add_up(tmp_path: Path) -> None:
    found = sums(Toy(PHOTOS, PAIRS, failures=[UNREADABLE]).write(Warehouse(str(tmp_path))))
    assert found["photos"] == Balance("photos", 4, 3, "embedded", 1)
    assert found["pairs"] == Balance("pairs", 3, 3, "scored", 0)
    assert found["catalogue"] == Balance("catalogue", 4, 3, "taken in", 1)
    assert found["retrieved"] == Balance("retrieved", 3, 3, "stored", 0)
    assert all(b.ok for b in found.values())
    assert str(found["photos"]) == "photos 4 = embedded 3 + failed 1"


def test_a_photo_that_vanished_without_a_failure_shows(tmp_path: Path) -> None:
    lost = sums(Toy(PHOTOS, PAIRS).write(Warehouse(str(tmp_path))))["photos"]
    assert not lost.ok
    assert str(lost) == "photos 4 ≠ embedded 3 + failed 0"


def test_a_pair_that_vanished_shows_and_one_that_failed_does_not(tmp_path: Path) -> None:
    warehouse = Toy(PHOTOS, PAIRS, failures=[UNREADABLE]).write(Warehouse(str(tmp_path)))
    (scores,) = Path(tmp_path).glob("scores/*/*.parquet")
    rows = warehouse.read("scores", "00d4")
    warehouse.write("scores", "00d4", scores.stem, rows.slice(1))
    assert not sums(warehouse)["pairs"].ok
    pair = rows["pair_id"][0].as_py()
    warehouse.write("failures", "00d4", "s", [
        {"stage": "score", "item": pair, "code": "score_not_finite", "message": "NaN", "layer": "blocks.3"}
    ])  # fmt: skip
    assert sums(warehouse)["pairs"] == Balance("pairs", 3, 2, "scored", 1)


def test_sums_of_an_empty_warehouse_are_zero(tmp_path: Path) -> None:
    assert all(b.ok and b.planned == 0 for b in sums(Warehouse(str(tmp_path)), (), 0).values())


def test_what_is_gone_from_all_tables_shows_against_what_came_from_outside(tmp_path: Path) -> None:
    found = sums(Warehouse(str(tmp_path)))
    assert str(found["catalogue"]) == "catalogue 4 ≠ taken in 0 + failed 0"
    assert str(found["retrieved"]) == "retrieved 3 ≠ stored 0 + failed 0"
    others = {name for name, balance in found.items() if balance.ok}
    assert others == found.keys() - {"catalogue", "retrieved"}


def test_photos_that_other_catalogues_brought_do_not_count_for_this_one(tmp_path: Path) -> None:
    warehouse = Toy(PHOTOS, PAIRS, failures=[UNREADABLE]).write(Warehouse(str(tmp_path)))
    assert sums(warehouse, ("a", "new"))["catalogue"] == Balance("catalogue", 2, 1, "taken in", 0)


FINE = Balance("photos", 4, 1, "embedded", 3)


@pytest.mark.parametrize(
    ("sums", "stages", "words"),
    [
        ([FINE, Balance("pairs", 9, 0, "scored", 9)], [], "none of 9 pairs could be scored"),
        ([Balance("photos", 1, 0, "embedded", 1)], [], "none of 1 photos could be embedded"),
        ([FINE], [StageLog("embed", failed=7, items=7)], "embed: all 7 failed"),
        ([FINE], [StageLog("embed", failed=4, items=4)], None),
        ([FINE], [StageLog("embed", failed=7, items=8)], None),
        ([FINE, Balance("pairs", 0, 0, "scored", 0)], [StageLog("score")], None),
    ],
)
def test_where_all_failed_there_is_no_success(
    sums: list[Balance], stages: list[StageLog], words: str | None
) -> None:
    if words is None:
        refuse_all_failed(sums, stages)
    else:
        with pytest.raises(PairxError, match=words):
            refuse_all_failed(sums, stages)


def test_a_run_is_written_at_its_start_and_its_end(job: Job) -> None:
    log = RunLog(job)
    log.write("started")
    assert runs(job) == [(log.run_id, "started", None, None, None, None)]
    log.write("finished", "s", [StageLog("embed", seconds=1.23456)], {"photos": 3})
    ((run_id, status, message, counts, timings, state),) = runs(job)
    assert (run_id, status, message, state) == (log.run_id, "finished", None, "s")
    assert json.loads(counts) == {"photos": 3}
    assert json.loads(timings) == {"embed": 1.235}


def test_a_failed_run_says_why_and_ids_sort_by_time(job: Job) -> None:
    first = RunLog(job)
    first.write("failed", message="ValueError: no")
    assert [row[:3] for row in runs(job)] == [(first.run_id, "failed", "ValueError: no")]
    assert first.run_id.startswith(f"{datetime.now(UTC):%Y%m%d}t")
    assert len({RunLog(job).run_id for _ in range(20)}) == 20


def test_columns_describe_the_run_to_the_views(job: Job) -> None:
    columns = RunLog(job).columns("s")
    assert columns.keys() <= RUN_COLUMNS.keys()
    assert RUN_COLUMNS.keys() - columns.keys() == {"status", "snapshot"}
    assert (columns["layer"], columns["top_k"], columns["state"]) == (job.layers[0], 3, "s")


def test_a_state_counts_as_done_only_after_a_finished_run_of_the_same_settings(job: Job) -> None:
    def is_done(state: str, fingerprint: str) -> bool:
        with look(job, RunLog(job).columns()) as (connection, _):
            return unchanged(connection, fingerprint, state, job.settings.neighbours)

    log = RunLog(job)
    log.write("started", "s")
    log.write("failed", "s", message="killed")
    assert not is_done("s", job.prints.pairs)
    log.write("finished", "s", counts={"pairs": 0})
    assert is_done("s", job.prints.pairs)
    assert not is_done("t", job.prints.pairs)
    assert not is_done("s", "other")


def test_stage_logs_sum_their_shards() -> None:
    shards = [ShardResult("embed", "a", 3, 1, 2.0, 1.5, 100), ShardResult("embed", "b", 4, 0, 1.0, 0.5, 300)]
    log = StageLog.of("embed", shards, 9.0)
    assert log == StageLog("embed", 2, 7, 1, 9.0, 3.0, 2.0, 300)
    assert StageLog.of("embed", [], 0.1).peak_bytes == 0
    assert StageLog.of("embed", shards, 9.0, 12, 3).done == 8


def test_a_run_names_the_devices_that_computed(job: Job) -> None:
    gpu, cpu = "NVIDIA H100 80GB HBM3, torch 2.15.0, CUDA 13.2", "cpu, torch 2.15.0"
    shards = [ShardResult("score", str(i), 1, 0, device=d) for i, d in enumerate((gpu, cpu, gpu, None))]
    log = StageLog.of("score", shards, 1.0)
    assert log.devices == (gpu, cpu)
    assert devices_of([StageLog("ingest"), log, StageLog("draw", devices=(cpu,))]) == [gpu, cpu]
    RunLog(job).write("finished", stages=[StageLog("ingest"), log])
    connection = job.warehouse.connect()
    assert connection.execute("SELECT devices FROM all_runs").fetchall() == [([gpu, cpu],)]


def test_shards_tell_the_device_where_the_engine_computed(done: Stages, tmp_path: Path) -> None:
    job = Job(**{**vars(done.job), "warehouse": Warehouse(str(tmp_path / "w"))})
    assert ingest_shard(job, done.ingest[0]).device is None
    found = embed_shard(job, done.embed[0]).device
    assert found == describe(torch.device("cpu"))
    assert found.startswith("cpu, torch ")


@pytest.mark.parametrize("also_new", [False, True])
def test_runs_stored_before_the_devices_were_known_are_read(job: Job, also_new: bool) -> None:
    """A file without the column, as an older program wrote it: alone, and beside one that has it."""
    old = RunLog(job)
    old.write("finished", "s", counts={"pairs": 0})
    (path,) = Path(job.warehouse.root).glob("runs/*/*.parquet")
    table = pq.read_table(path, partitioning=None)
    pq.write_table(table.drop_columns(["devices"]), path)
    if also_new:
        RunLog(job, f"{old.run_id}-later").write("finished", "t", [StageLog("embed", devices=("cpu",))])
    connection = duckdb.connect()
    install_views(connection, job.warehouse)
    for view in ("runs", "all_runs"):
        found = [
            row[0] for row in connection.execute(f"SELECT devices FROM {view} ORDER BY run_id").fetchall()
        ]
        assert found == ([None, ["cpu"]] if also_new else [None])
    stored = job.warehouse.read("runs", job.prints.suspects)
    assert stored.num_rows == 1 + also_new
    assert not check(job.warehouse).problems
    with look(job, old.columns()) as (connection, _):
        assert unchanged(connection, job.prints.pairs, "s", 0)


def test_a_run_whose_stored_texts_are_damaged_says_nothing_of_what_is_done(job: Job) -> None:
    log = RunLog(job)
    log.write("finished", "s", counts={"pairs": 0})
    (path,) = Path(job.warehouse.root).glob("runs/*/*.parquet")
    table = pq.read_table(path, partitioning=None)
    for name in ("settings", "counts"):
        place = table.schema.get_field_index(name)
        table = table.set_column(place, table.schema.field(place), pa.array(["{broken"]))
    pq.write_table(table, path)
    with look(job, log.columns()) as (connection, _):
        assert not unchanged(connection, job.prints.pairs, "s", 0)


def test_versions_name_what_computes() -> None:
    found = versions()
    assert {"torch", "numpy", "duckdb", "prefect"} <= found.keys()
    assert found["numpy"] == __import__("numpy").__version__


def test_the_finished_job_balances(done: Stages) -> None:
    with look(done.job, done.columns()) as (connection, _):
        ids, pairs = (
            [row[0] for row in connection.execute(query).fetchall()]
            for query in ("SELECT photo_id FROM photos", "SELECT DISTINCT pair_id FROM run_pairs")
        )
        sums = (*balances(connection), *balances_with_outside(connection, ids, len(pairs)))
        found = {b.name: b for b in sums}
    assert all(b.ok for b in found.values())
    assert found["photos"].failed == 6
    assert found["pairs"].planned > 40


@pytest.mark.parametrize("state", [None, "s"])
def test_log_rows_pass_the_tables_own_check(job: Job, state: str | None) -> None:
    RunLog(job).write("started", state)
    assert not check(job.warehouse).problems
