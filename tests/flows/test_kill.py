"""Kill -9 anywhere, run again: the same rows as an undisturbed run, and nothing left behind."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tasks.check.findings import check
from tasks.warehouse import Warehouse
from tests.flows.conftest import Finished
from tests.flows.running import Command, command_line, run_arguments, still_there
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


class Runs:
    """Starts `pairx run` on one warehouse, as often as wanted, and knows what an undisturbed run gives."""

    def __init__(self, folder: Path, catalogue: Path, server: str) -> None:
        self.folder, self.warehouse = folder, folder / "w"
        self._arguments = run_arguments(catalogue, self.warehouse)
        self._server = server
        self.started: list[Command] = []

    def start(self, own_server: bool = False) -> Command:
        log = self.folder / f"run{len(self.started)}.log"
        self.started.append(Command.start(log, self._arguments, None if own_server else self._server))
        return self.started[-1]

    def kill_at(self, stage: str, own_server: bool = False) -> None:
        """Kill driver, workers and server once a stage has begun to commit."""
        run = self.start(own_server)
        run.wait_for(lambda: MOMENTS[stage](self.warehouse))
        run.kill()

    def end_like(self, undisturbed: Finished, own_server: bool = False) -> str:
        """Run to the end and compare; returns what the run printed."""
        last = self.start(own_server)
        assert last.finish() == 0, last.text
        warehouse = Warehouse(str(self.warehouse))
        assert_same_rows(warehouse, undisturbed.warehouse)
        assert not check(warehouse).problems
        return last.text


@pytest.fixture
def runs(tmp_path: Path, small: Path, server: str) -> Iterator[Runs]:
    """Runs on an empty warehouse; none of their processes survives the test."""
    found = Runs(tmp_path, small, server)
    yield found
    for one in found.started:
        one.clean_up()


@pytest.mark.slow
def test_killed_at_three_stages_one_after_another(runs: Runs, undisturbed: Finished) -> None:
    for stage in ("embed", "score", "draw"):
        assert not MOMENTS[stage](runs.warehouse), f"{stage} was done before its kill"
        runs.kill_at(stage, own_server=stage == "embed")
    assert not list(runs.warehouse.glob("reports/*"))
    said = runs.end_like(undisturbed)
    assert "all pairs have scores" in said
    assert re.search(r"draw +[12] figures", said), "the killed run had drawn everything"


@pytest.mark.slow
@pytest.mark.parametrize("stage", MOMENTS)
def test_killed_once(stage: str, runs: Runs, undisturbed: Finished) -> None:
    runs.kill_at(stage, own_server=True)
    runs.end_like(undisturbed, own_server=True)


def test_a_killed_worker_is_replaced(runs: Runs, undisturbed: Finished) -> None:
    undisturbed.unscored(runs.warehouse)
    run = runs.start()
    run.wait_for(lambda: MOMENTS["score"](runs.warehouse))
    everyone = run.processes()
    (worker,) = [pid for pid in everyone if "spawn_main" in command_line(pid)]
    os.kill(worker, signal.SIGKILL)
    assert run.finish() == 0, run.text
    assert still_there(everyone) == []
    assert_same_rows(Warehouse(str(runs.warehouse)), undisturbed.warehouse)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT], ids=lambda n: n.name)
def test_nothing_outlives_a_driver_that_is_stopped(runs: Runs, number: signal.Signals) -> None:
    """Only the driver gets the signal: killed for want of memory, or stopped by hand or by its service manager."""
    run = runs.start(own_server=True)
    run.wait_for(lambda: MOMENTS["embed"](runs.warehouse))
    everyone = run.processes()
    lines = [command_line(pid) for pid in everyone]
    assert any("spawn_main" in line for line in lines)
    assert any("prefect" in line for line in lines)
    run.process.send_signal(number)
    code = run.finish()
    assert code == {signal.SIGKILL: -9, signal.SIGTERM: 143, signal.SIGINT: 130}[number]
    assert still_there(everyone) == []
