"""Kill -9 anywhere, run again: the same rows as an undisturbed run, and nothing left behind."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tasks.warehouse import Warehouse
from tests.flows.conftest import Finished
from tests.flows.running import Command, command_line, descendants, members, run_arguments
from tests.small_catalogue import assert_same_rows

Moment = Callable[[Path], bool]


def committed(table: str) -> Moment:
    """The first file of a table is there."""
    return lambda warehouse: any(warehouse.glob(f"{table}/*/*.parquet"))


def all_pairs_scored(warehouse: Path) -> bool:
    """Suspects are ranked, so drawing is the next thing that starts."""
    return committed("suspects")(warehouse)


MOMENTS: dict[str, Moment] = {
    "ingest": committed("photos"),
    "embed": committed("embeddings"),
    "score": committed("scores"),
    "draw": all_pairs_scored,
}


@pytest.fixture
def command(tmp_path: Path, small: Path) -> Iterator[Callable[[], Command]]:
    """Starts `pairx run` on one warehouse, as often as wanted; nothing survives the test."""
    started: list[Command] = []

    def start() -> Command:
        log = tmp_path / f"run{len(started)}.log"
        started.append(Command.start(log, *run_arguments(small, tmp_path / "w")))
        return started[-1]

    yield start
    for one in started:
        if one.process.poll() is None or members(one.process.pid):
            one.kill()


def killed_at(moment: Moment, command: Callable[[], Command], warehouse: Path) -> None:
    run = command()
    run.wait_for(lambda: moment(warehouse))
    assert run.kill() == [], "processes outside the group would outlive it"


def ends_like(command: Callable[[], Command], warehouse: Path, undisturbed: Finished) -> str:
    """Run to the end and compare; returns what the last run printed."""
    last = command()
    assert last.finish() == 0, last.text
    assert members(last.process.pid) == []
    assert_same_rows(Warehouse(str(warehouse)), undisturbed.warehouse)  # type: ignore[arg-type]
    assert Warehouse(str(warehouse)).check() == []
    return last.text


def test_killed_at_three_stages_one_after_another(
    command: Callable[[], Command], tmp_path: Path, undisturbed: Finished
) -> None:
    warehouse = tmp_path / "w"
    for stage in ("embed", "score", "draw"):
        assert not MOMENTS[stage](warehouse), f"{stage} was done before its kill"
        killed_at(MOMENTS[stage], command, warehouse)
    assert not list(warehouse.glob("reports/*"))
    said = ends_like(command, warehouse, undisturbed)
    assert "all pairs have scores" in said
    assert re.search(r"draw +2 figures", said), "the killed run had drawn nothing"


@pytest.mark.slow
@pytest.mark.parametrize("stage", MOMENTS)
def test_killed_once(stage: str, command: Callable[[], Command], tmp_path: Path, undisturbed: Finished) -> None:
    killed_at(MOMENTS[stage], command, tmp_path / "w")
    ends_like(command, tmp_path / "w", undisturbed)


def test_a_killed_worker_is_replaced(command: Callable[[], Command], tmp_path: Path, undisturbed: Finished) -> None:
    warehouse = tmp_path / "w"
    run = command()
    run.wait_for(lambda: MOMENTS["score"](warehouse))
    (worker,) = [pid for pid in descendants(run.process.pid) if "spawn_main" in command_line(pid)]
    os.kill(worker, signal.SIGKILL)
    assert run.finish() == 0, run.text
    assert members(run.process.pid) == []
    assert_same_rows(Warehouse(str(warehouse)), undisturbed.warehouse)  # type: ignore[arg-type]


def test_no_process_outlives_a_killed_driver(command: Callable[[], Command], tmp_path: Path) -> None:
    """Only the driver dies, as under an out-of-memory killer: workers and server notice and end."""
    run = command()
    run.wait_for(lambda: MOMENTS["embed"](tmp_path / "w"))
    others = {pid: command_line(pid) for pid in descendants(run.process.pid)}
    assert any("spawn_main" in line for line in others.values())
    assert any("prefect" in line for line in others.values())
    run.process.kill()
    run.process.wait(30)
    left = wait_until_gone(run.process.pid, others, 20)
    assert left == {}


def wait_until_gone(group: int, processes: dict[int, str], seconds: float) -> dict[int, str]:
    """The processes of a group that still live after so many seconds."""
    import time

    deadline = time.monotonic() + seconds
    while (living := set(members(group)) & processes.keys()) and time.monotonic() < deadline:
        time.sleep(0.1)
    return {pid: processes[pid] for pid in living}
