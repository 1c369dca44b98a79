"""A stage with a table of its own, and a table alone, from outside: no other file knows of them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pytest
from prefect import flow

from flows.work.on_cluster import run_on_cluster
from flows.work.progress import Silent
from flows.work.stage_runner import StageRunner
from pairx_engine.photo.chips import decode_photo
from schemas.failures import Failure
from schemas.settings import Settings
from schemas.stages import INGEST, STAGES, Failing, StageFacts, register_stage
from schemas.tables.columns import F64, STRING, Table, required
from schemas.tables.registry import TABLES, register_table
from schemas.views.install import install_views
from tasks.check.findings import check
from tasks.job import Job, prepare_job
from tasks.photo_files import read_bytes
from tasks.runs.log import RunLog
from tasks.runs.remaining import look
from tasks.runs.report import write_report
from tasks.runs.tonight import Tonight
from tasks.shards import ShardResult, Stage, chunks, commit, or_failure
from tasks.sql.listing import describe
from tasks.store.warehouse import Warehouse, shard_name
from tests.small_catalogue import TINY, Stages, read_small

KEY = [
    required("photo_id", STRING, "image_id of the catalogue"),
    required("chip_id", STRING, "what was seen"),
]
BRIGHTNESS = register_table(
    Table(
        "brightness",
        "one row per photo and chip: how bright the picture is",
        ("photo_id", "chip_id"),
        pa.schema([*KEY, required("brightness", F64, "mean of all its values")]),
        fingerprint="photos",
    )
)


@dataclass(frozen=True)
class Dim:
    """Photos to measure."""

    photos: tuple[Mapping[str, Any], ...]

    @property
    def name(self) -> str:
        return shard_name(f"dim\0{p['photo_id']}\0{p['chip_id']}" for p in self.photos)


def dim_shard(job: Job, shard: Dim) -> ShardResult:
    rows: list[dict[str, Any]] = []
    failures: list[Failure] = []
    for photo in shard.photos:
        key = {"photo_id": photo["photo_id"], "chip_id": photo["chip_id"]}
        with or_failure(failures, "dim", photo["photo_id"], chip_id=photo["chip_id"]):
            pixels = decode_photo(read_bytes(photo["root"], photo["path"]), job.settings.max_pixels)
            rows.append(key | {"brightness": float(pixels.mean())})
    return commit(job, DIM, shard.name, {"brightness": rows}, {"brightness": failures})


DIM = Stage.of(
    register_stage(StageFacts("dim", "photos", ("brightness",), Failing("photo", ("brightness",)))),
    dim_shard,
    lambda shard: len(shard.photos),
)

_WORK: ContextVar[Job] = ContextVar("job of the toy")


@flow(name="toy")
def dim() -> str:
    return _dim_all()


def _dim_all() -> str:
    """One run that consists of the toy stage; returns the report's address."""
    job = _WORK.get()
    log, stages = RunLog(job), StageRunner(job, Silent())
    with look(job, log.columns()) as (connection, left):
        done = set(connection.execute("SELECT photo_id, chip_id FROM run_brightness").fetchall())
        done |= left.given_up("brightness")
        due = [p for p in left.present() if p["chip_id"] and (p["photo_id"], p["chip_id"]) not in done]
    stages.run(DIM, [Dim(tuple(part)) for part in chunks(due, 16)], "all photos are measured")
    with look(job, log.columns()) as (connection, _):
        report, counts = write_report(job, log, connection, (), stages.logs, Tonight())
    log.write("finished", None, stages.logs, counts)
    return report


def test_a_stage_is_seen_everywhere(small: Path, scheduler: str, tmp_path: Path) -> None:
    metadata = shutil.copytree(small.parent, tmp_path / "catalogue") / small.name
    warehouse = Warehouse(str(tmp_path / "w"))
    photos = Stages.run(read_small(metadata), warehouse, until="ingest").photos()
    readable = {i: p for i, p in photos.items() if p["chip_id"]}
    lost = Path(readable[min(readable)]["root"], readable[min(readable)]["path"])
    settings = Settings(**{**TINY, "cluster": scheduler})
    job = prepare_job(warehouse, settings)

    def ask(query: str) -> list[tuple[Any, ...]]:
        with duckdb.connect() as connection:
            install_views(connection, warehouse)
            return connection.execute(query).fetchall()

    # A photo is away for a while: it fails, everything else goes on.
    lost.rename(tmp_path / "away")
    report = run_on_cluster(dim, job, _WORK, job)
    wanted = {
        i: decode_photo((metadata.parent / p["path"]).read_bytes()).mean()
        for i, p in readable.items()
        if i != min(readable)
    }
    assert dict(ask("SELECT photo_id, brightness FROM run_brightness")) == pytest.approx(wanted)
    assert warehouse.shards("brightness", job.prints.photos) == {
        name for (name,) in ask("SELECT DISTINCT shard FROM all_brightness")
    }
    failure = "SELECT item, code FROM failures WHERE stage = 'dim'"
    assert ask(failure) == [(min(readable), "missing_file")]
    assert "dim" in Path(report).read_text(encoding="utf-8")
    ((stages, timings),) = ask("SELECT stages, timings FROM runs")
    assert json.loads(stages)["dim"]["rows"] == len(wanted)
    assert json.loads(timings).keys() == {"dim"}
    assert "mean of all its values" in describe(None, "run_brightness")

    # It is back: the failure is made good, and nothing is measured twice.
    (tmp_path / "away").rename(lost)
    run_on_cluster(dim, job, _WORK, job)
    assert ask(failure) == []
    assert ask("SELECT count(*), count(DISTINCT photo_id) FROM run_brightness") == [(len(readable),) * 2]
    assert not check(warehouse).problems


def test_a_table_alone_is_seen_everywhere(tmp_path: Path) -> None:
    notes = register_table(
        Table(
            "notes",
            "one row per note",
            ("note",),
            pa.schema([required("note", STRING, "the text")]),
            "suspects",
        )
    )
    warehouse = Warehouse(str(tmp_path / "w"))
    job = prepare_job(warehouse, Settings(**TINY))
    warehouse.write("notes", job.prints.of("notes"), "s", [{"note": "hello"}])
    with look(job, RunLog(job).columns()) as (connection, _):
        for view in ("all_notes", "run_notes"):
            assert connection.execute(f"SELECT note FROM {view}").fetchall() == [("hello",)]
            assert "the text" in describe(connection, view)
    assert not check(warehouse).problems
    path = Path(warehouse.root, warehouse.shard_path("notes", job.prints.of("notes"), "s"))
    path.write_bytes(path.read_bytes()[:-9])
    assert [problem.kind for problem in check(warehouse).problems] == ["unreadable file"]
    assert TABLES["notes"] is notes


def test_names_are_taken_once() -> None:
    assert register_table(BRIGHTNESS) is TABLES["brightness"]
    with pytest.raises(ValueError, match="another table photos"):
        register_table(Table("photos", "x", ("photo_id",), pa.schema(KEY)))
    with pytest.raises(ValueError, match="not dimness"):
        register_table(Table("dark", "x", ("photo_id",), pa.schema(KEY), "dimness"))
    assert "dark" not in TABLES
    with pytest.raises(ValueError, match="another stage ingest"):
        register_stage(StageFacts("ingest", "pairs", ()))
    assert STAGES["ingest"] is INGEST
