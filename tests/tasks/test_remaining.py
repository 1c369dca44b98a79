from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import duckdb
import pytest

from tasks.job import Job
from tasks.runs.remaining import RunViews, look
from tasks.store.warehouse import Warehouse
from tests.toy_warehouse import FINGERPRINTS, LAYER, Photo, write_photos

RUN = {f"{stage}_fingerprint": f for stage, f in FINGERPRINTS.items()} | {"layer": LAYER}


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
