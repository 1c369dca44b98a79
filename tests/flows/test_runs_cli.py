"""`pairx runs`: every number by hand."""

from __future__ import annotations

import csv
import io
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from flows.commands.runs import print_runs
from schemas.errors import NoRun, NoWarehouse
from schemas.tables.registry import FINGERPRINTS
from tasks.sql.results import QueryError
from tasks.store.lease import at_work
from tasks.store.warehouse import Warehouse

BEGAN = datetime(2026, 3, 1, 22, 0, tzinfo=UTC)
OLD, BROKEN, KILLED, DONE = (f"2026030{day}t220000-aaaaa{day}" for day in (1, 2, 3, 4))


def write(warehouse: Warehouse, run_id: str, status: str, after: float, day: int, **columns: Any) -> None:
    row = {f"{name}_fingerprint": "f" for name in FINGERPRINTS}
    row |= {"layer": "blocks.3", "top_k": 5, "same_name_k": 2, "settings": "{}", "versions": "{}"}
    at = BEGAN + timedelta(days=day, seconds=after)
    warehouse.write(
        "runs", "f", f"{run_id}-{status}", [{**row, "run_id": run_id, "status": status, "at": at, **columns}]
    )


@pytest.fixture
def warehouse(tmp_path: Path) -> Warehouse:
    """Four runs: one of an older program, one that failed, one that was killed, one with all numbers."""
    found = Warehouse(str(tmp_path / "w"))
    counts = {"photos": 300, "pairs": 1300, "suspects": 47, "failures": 2}
    write(found, OLD, "started", 0, 0)
    write(
        found,
        OLD,
        "finished",
        90.5,
        0,
        counts=json.dumps(counts),
        stages=json.dumps({"score": {"items": 1300}}),
    )
    write(found, BROKEN, "started", 0, 1)
    write(found, BROKEN, "failed", 12, 1, message="OSError: no space", counts="no JSON {", stages="no JSON {")
    write(found, KILLED, "started", 0, 2)
    stages = {
        "embed": {"seconds": 4.0, "items": 6, "failed": 1, "shards": 1, "worker_seconds": 3.5, "processor_seconds": 2.0,
                  "parts": {"decoding": 2.5, "reading": 0.25}},
        "score": {"seconds": 10.0, "items": 50, "failed": 0, "shards": 1, "worker_seconds": 9.0, "processor_seconds": 8.0,
                  "parts": {}},
    }  # fmt: skip
    write(found, DONE, "started", 0, 3)
    write(
        found, DONE, "finished", 30, 3, counts=json.dumps(counts | {"photos": 306, "new_photos": 6}),
        stages=json.dumps(stages), processor_seconds=18.0,
    )  # fmt: skip
    return found


def asked(
    capsys: pytest.CaptureFixture[str], warehouse: Warehouse, run: str | None = None, **options: Any
) -> list[dict[str, Any]]:
    given = {"top": 20, "stages": False, "price": None, "output": "json", "wide": False, **options}
    print_runs(warehouse.url, run, **given)
    found: list[dict[str, Any]] = json.loads(capsys.readouterr().out)
    return found


def test_runs_are_listed_newest_first_with_what_they_cost(
    capsys: pytest.CaptureFixture[str], warehouse: Warehouse
) -> None:
    rows = asked(capsys, warehouse, price=0.05)
    assert [(r["run_id"], r["started"], r["state"], r["seconds"]) for r in rows] == [
        (DONE, "2026-03-04 22:00", "finished", 30.0),
        (KILLED, "2026-03-03 22:00", "interrupted", None),
        (BROKEN, "2026-03-02 22:00", "failed", 12.0),
        (OLD, "2026-03-01 22:00", "finished", 90.5),
    ]
    done, _, broken, old = rows
    # 18 s of processors for 50 pairs are 360 s for a thousand, at 0.05 an hour 0.005.
    assert {k: done[k] for k in ("photos", "new", "pairs", "suspects", "failures", "scored")} == {
        "photos": 306, "new": 6, "pairs": 1300, "suspects": 47, "failures": 2, "scored": 50
    }  # fmt: skip
    assert (done["processor_seconds"], done["per_1000_pairs"], done["cost_per_1000_pairs"]) == (
        18.0,
        360.0,
        0.005,
    )
    assert (broken["message"], broken["photos"], broken["scored"]) == ("OSError: no space", None, None)
    assert (old["photos"], old["new"], old["processor_seconds"], old["cost_per_1000_pairs"]) == (
        300,
        None,
        None,
        None,
    )
    assert [r["run_id"] for r in asked(capsys, warehouse, top=2)] == [DONE, KILLED]
    assert "cost_per_1000_pairs" not in asked(capsys, warehouse)[0]


def test_a_run_without_an_end_is_running_while_somebody_has_the_warehouse(
    capsys: pytest.CaptureFixture[str], warehouse: Warehouse
) -> None:
    now = (datetime.now(UTC) - BEGAN).total_seconds() + 60
    with at_work(warehouse, "pairx run"):
        write(warehouse, "20990101t000000-aaaaaa", "started", now, 0)
        rows = asked(capsys, warehouse)
        assert [r["state"] for r in rows if r["state"] in ("running", "interrupted")] == [
            "running",
            "interrupted",
        ]
        assert rows[0]["run_id"].startswith("2099")
    assert [r["state"] for r in asked(capsys, warehouse)][:1] == ["interrupted"]


def test_stages_say_where_the_time_went(capsys: pytest.CaptureFixture[str], warehouse: Warehouse) -> None:
    embed, score = asked(capsys, warehouse, stages=True, top=1)
    assert embed == {
        "run_id": DONE, "stage": "embed", "seconds": 4.0, "items": 6, "per_second": 1.5, "failed": 1, "shards": 1,
        "worker_seconds": 3.5, "processor_seconds": 2.0, "loading": None, "reading": 0.25, "decoding": 2.5,
        "features": None, "device": None, "writing": None,
    }  # fmt: skip
    assert (score["stage"], score["per_second"]) == ("score", 5.0)
    everything = asked(capsys, warehouse, stages=True)
    assert [(r["run_id"], r["stage"]) for r in everything] == [
        (DONE, "embed"),
        (DONE, "score"),
        (OLD, "score"),
    ]


def test_one_run_is_printed_whole_and_an_unknown_one_is_near_another(
    capsys: pytest.CaptureFixture[str], warehouse: Warehouse
) -> None:
    (row,) = asked(capsys, warehouse, BROKEN)
    assert (row["run_id"], row["status"], row["message"], row["standing"]) == (
        BROKEN,
        "failed",
        "OSError: no space",
        None,
    )
    print_runs(warehouse.url, DONE, 20, False, None, "table", False)
    out = capsys.readouterr().out
    assert out.startswith("-- 1 ---")
    assert max(map(len, out.splitlines())) <= 80
    with pytest.raises(NoRun, match=f"no run {DONE[:-1]!r}.*did you mean {DONE}"):
        print_runs(warehouse.url, DONE[:-1], 20, False, None, "table", False)


def test_formats_are_those_of_other_commands(
    capsys: pytest.CaptureFixture[str], warehouse: Warehouse
) -> None:
    print_runs(warehouse.url, None, 20, False, None, "csv", False)
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert [row["state"] for row in rows] == ["finished", "interrupted", "failed", "finished"]
    print_runs(warehouse.url, None, 20, False, None, "table", False)
    assert max(map(len, capsys.readouterr().out.splitlines())) <= 80
    with pytest.raises(QueryError, match="no format 'xml'"):
        print_runs(warehouse.url, None, 20, False, None, "xml", False)
    with pytest.raises(NoWarehouse):
        print_runs(warehouse.url + "-none", None, 20, False, None, "table", False)
