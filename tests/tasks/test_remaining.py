from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import duckdb
import pyarrow as pa
import pytest

from schemas.failures import PASSING
from tasks.job import Job
from tasks.runs.remaining import RunViews, look
from tasks.store.warehouse import Warehouse
from tests.toy_warehouse import FINGERPRINTS, LAYER, Photo, write_photos

RUN = {f"{stage}_fingerprint": f for stage, f in FINGERPRINTS.items()} | {"layer": LAYER}

LATER = [Photo(name, "A") for name in "mnopqr"]
FOR_NOW = str(next(iter(PASSING)))


@pytest.fixture
def job(tmp_path: Path) -> Job:
    """As much of a job as questions about photos need."""
    warehouse = Warehouse(str(tmp_path / "w"))
    write_photos(warehouse, [Photo("a", "A")])
    return cast(Job, SimpleNamespace(warehouse=warehouse))


def test_a_run_asks_one_connection_and_sees_what_its_stages_wrote(job: Job) -> None:
    with RunViews(job) as views:
        first, left = views.look(RUN)
        assert (set(left.photos()), left.embedded()) == ({"a"}, {("a", "chip-a")})
        write_photos(job.warehouse, [Photo("b", "A")])
        second, left = views.look(RUN | {"state": "s"}, keep=True)
        assert second is first
        assert set(left.photos()) == {"a", "b"}
        assert left.embedded() == {("a", "chip-a"), ("b", "chip-b")}
        assert second.sql("SELECT state FROM current_run").fetchall() == [("s",)]


@pytest.mark.parametrize("alone", [True, False])
def test_the_connection_is_closed_whatever_happens(job: Job, alone: bool) -> None:
    held: Any = None
    with pytest.raises(KeyError):  # noqa: PT012
        if alone:
            with look(job, RUN) as (held, _):
                raise KeyError
        with RunViews(job) as views:
            held, _ = views.look(RUN)
            raise KeyError
    with pytest.raises(duckdb.ConnectionException):
        held.execute("SELECT 1")


def test_rows_in_order_are_the_rows_of_photos(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tasks.runs.remaining._AT_ONCE", 2)
    herd = [Photo(name, "A") for name in "bdfhk"]
    write_photos(job.warehouse, herd)
    write_photos(job.warehouse, [Photo("d", "B", revision=1), Photo("f", "A", revision=1, present=False)])
    with look(job, RUN) as (_, left):
        rows = left.photos()
        asked = left.photos_in_order()
        assert [asked.get(name) for name in "0abcdehz"] == [rows.get(name) for name in "0abcdehz"]
        gone = left.not_listed(pa.array(["a", "d", "f", "h"]))
    assert gone == {name: rows[name] for name in "bk"}  # f is withdrawn already


def test_what_is_to_be_embedded_is_what_lacks_something_and_did_not_fail_for_good(job: Job) -> None:
    herd = [Photo(name, "A") for name in "bcdefg"]
    write_photos(job.warehouse, herd)
    unread = Photo("x", "A", readable=False)
    job.warehouse.write("photos", FINGERPRINTS["photos"], "more", [p.row() for p in (*LATER, unread)])
    for table, found in (("embeddings", "mn"), ("keypoints", "no")):
        row = {"embeddings": {"norm": 1.0, "embedding": [1.0]}, "keypoints": {
            "view_width": 1, "view_height": 1, "x": [], "y": [], "score": [], "dimension": 2, "descriptors": []}}  # fmt: skip
        rows = [{"photo_id": i, "chip_id": f"chip-{i}", **row[table]} for i in found]
        job.warehouse.write(table, FINGERPRINTS[table], f"more-{table}", rows)
        failed = [
            {"stage": "embed", "item": i, "chip_id": f"chip-{i}", "code": code, "message": "no"}
            for i, code in (("p", "image_truncated"), ("q", FOR_NOW))
        ]
        job.warehouse.write("failures", FINGERPRINTS[table], f"failed-{table}", failed)
    of_run = SimpleNamespace(of=lambda table: FINGERPRINTS[table])
    asking = cast(Job, SimpleNamespace(warehouse=job.warehouse, prints=of_run))
    with look(asking, RUN) as (_, left):
        photos, embedded, detected = left.to_embed()
    assert [p["photo_id"] for p in photos] == ["m", "o", "q", "r"]
    assert (embedded, detected) == ({("m", "chip-m")}, {("o", "chip-o")})
    with look(asking, RUN, retry_failed=True) as (_, left):
        assert [p["photo_id"] for p in left.to_embed()[0]] == ["m", "o", "p", "q", "r"]
