"""Runs on a scheduler and workers that somebody else has started: they come and go, differ, and die."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from distributed import Client

from tasks.store.warehouse import Warehouse
from tests.finished_runs import Finished
from tests.flows.dask_processes import Site, changed_source
from tests.flows.running import PAIRX, Command, command_line, run_arguments
from tests.small_catalogue import assert_same_rows


@pytest.fixture
def site(tmp_path: Path, server: str) -> Iterator[Site]:
    found = Site(tmp_path, server)
    yield found
    found.close()


class Night:
    """Runs of one catalogue on a site, over a warehouse in which nothing is scored yet."""

    def __init__(self, site: Site, small: Path, undisturbed: Finished) -> None:
        self.site, self.warehouse, self.undisturbed = site, site.folder / "w", undisturbed
        undisturbed.unscored(self.warehouse)
        self._arguments = run_arguments(small, self.warehouse, pairs_per_shard=4)
        self.started: list[Command] = []

    def run(self) -> Command:
        log = self.site.folder / f"run{len(self.started)}.log"
        words = [*PAIRX, *self._arguments, "--cluster", self.site.address]
        self.started.append(Command.start(log, words, self.site.server))
        return self.started[-1]

    def scored(self) -> set[Path]:
        return set(self.warehouse.glob("scores/*/*.parquet"))

    def assert_ends(self, run: Command) -> None:
        """It ends well, and the rows are those of an undisturbed run."""
        assert run.finish() == 0, run.text
        assert_same_rows(Warehouse(str(self.warehouse)), self.undisturbed.warehouse)
        assert not (self.warehouse / "workers").exists()


@pytest.fixture
def night(site: Site, small: Path, undisturbed: Finished) -> Iterator[Night]:
    found = Night(site, small, undisturbed)
    yield found
    for run in found.started:
        run.kill()


def send(worker: Command, number: signal.Signals) -> None:
    """A signal to a worker and its nanny."""
    for pid in worker.processes():
        os.kill(pid, number)


@pytest.mark.slow
def test_workers_that_come_go_and_die_leave_the_same_rows(night: Night, tmp_path: Path) -> None:
    site = night.site
    site.scheduler()
    first, second = site.ready_worker("first"), site.ready_worker("second")
    run = night.run()
    run.wait_for(lambda: bool(night.scored()))
    # While nobody works, a worker that differs comes: it would get whatever waits.
    for worker in (first, second):
        send(worker, signal.SIGSTOP)
    before = night.scored()
    stranger = site.worker("stranger", changed_source(tmp_path / "changed"))
    stranger.finish()
    assert "it differs from the run: this package is" in stranger.text
    assert night.scored() == before
    site.ready_worker("third")
    second.kill()
    send(first, signal.SIGCONT)
    with Client(site.address, set_as_default=False) as client:
        client.retire_workers(names=["first"])
    night.assert_ends(run)


@pytest.mark.slow
def test_a_worker_that_is_killed_again_and_again_leaves_the_same_rows(night: Night) -> None:
    """Its nanny starts another process each time, which is looked at like any that joins."""
    site = night.site
    site.scheduler()
    worker = site.ready_worker("only")
    run = night.run()
    for _ in range(2):
        seen = night.scored()
        run.wait_for(lambda seen=seen: night.scored() > seen)  # type: ignore[misc]
        (process,) = [pid for pid in worker.processes() if "spawn_main" in command_line(pid)]
        os.kill(process, signal.SIGKILL)
    night.assert_ends(run)


@pytest.mark.slow
def test_a_scheduler_that_dies_ends_the_run_and_the_next_one_goes_on(night: Night) -> None:
    site = night.site
    scheduler, worker = site.scheduler(), site.ready_worker("one")
    run = night.run()
    run.wait_for(lambda: bool(night.scored()))
    begun = time.monotonic()
    scheduler.kill()
    assert run.finish() == 1, run.text
    assert time.monotonic() - begun < 60
    assert f"pairx: the Dask scheduler at {site.address} is gone" in run.text
    assert "Traceback" not in run.text
    before = night.scored()
    worker.kill()
    site.scheduler()
    site.ready_worker("another")
    night.assert_ends(night.run())
    assert before < night.scored()


@pytest.mark.slow
def test_a_worker_that_differs_is_refused_before_anything_starts(night: Night, tmp_path: Path) -> None:
    site = night.site
    site.scheduler()
    site.ready_worker("like")
    other = site.worker("other", changed_source(tmp_path / "changed"))
    other.wait_for(lambda: "Registered to" in other.text)
    run = night.run()
    assert run.finish() == 1, run.text
    assert "1 of 2 workers" in run.text
    assert "(other): this package is" in run.text
    assert "Traceback" not in run.text
    assert not night.scored()
    assert not (night.warehouse / "workers").exists()
