"""The end of a good run, whatever its cluster does.

The balances are printed, and standard error holds our own words alone.
"""

from __future__ import annotations

import re
import sys
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from flows.cli import main as cli
from flows.clusters import choice as cluster
from flows.clusters import kinds as cluster_kinds
from flows.clusters.kinds import Cluster, Processes, stopped_in_the_end
from schemas.settings import Settings
from schemas.stages import STAGES
from tests.finished_runs import Finished
from tests.flows.running import pairx, run_arguments

OURS = re.compile(rf"(note: .*|\d\d:\d\d:\d\d ({'|'.join(STAGES)}|report) .*|)")
"""Lines that a good run may write to standard error: notes, stages, and empty ones between."""


def raises() -> None:
    raise TimeoutError("worker process still alive after 30 seconds")


def hangs() -> None:
    threading.Event().wait()


class Lingering(Processes):
    """The session's cluster as a kind that cannot be closed; it is left as it is."""

    words = ("lingering",)

    def __init__(self, address: str, close: Callable[[], None]) -> None:
        self._address, self._close = address, close

    def start(
        self, wanted: str, settings: Settings, at_first: int | None = None
    ) -> AbstractContextManager[Cluster]:
        def leave(*_: Any) -> None:
            self._close()

        fake = type("Fake", (), {"__exit__": leave})()
        fake.scheduler_address, fake.workers = (
            self._address,
            {0: SimpleNamespace(pid=4242), 1: SimpleNamespace(job_id="17")},
        )
        return stopped_in_the_end(fake, wanted)


@pytest.mark.parametrize(
    ("close", "why"), [(raises, "TimeoutError worker process still alive"), (hangs, "longer than 1 s")]
)
def test_a_finished_run_whose_cluster_does_not_close_is_finished(
    close: Callable[[], None],
    why: str,
    scheduler: str,
    small: Path,
    undisturbed: Finished,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    undisturbed.unscored(tmp_path / "w")  # without work no cluster starts
    monkeypatch.setattr(cluster_kinds, "_TO_CLOSE", 1.0)
    monkeypatch.setattr(cluster, "KINDS", [Lingering(scheduler, close)])
    arguments = [*run_arguments(small, tmp_path / "w"), "--cluster", "lingering"]
    monkeypatch.setattr(sys, "argv", ["pairx", *arguments])
    capfd.readouterr()
    assert cli._run() == 0
    out, err = capfd.readouterr()
    assert re.search(r"^photos \d+ = embedded \d+", out, re.MULTILINE)
    assert re.search(r"^pairs \d+ = scored \d+", out, re.MULTILINE)
    assert [
        line for line in err.splitlines() if not OURS.fullmatch(line) and "did not close" not in line
    ] == []
    (said,) = [record.getMessage() for record in caplog.records if record.name == "pairx"]
    assert said.startswith("the cluster did not close: ")
    assert why in said
    assert said.endswith("These may be left: process 4242, job 17")


@pytest.mark.slow
def test_standard_error_of_a_good_run_holds_our_own_words_alone(small: Path, tmp_path: Path) -> None:
    """With a Prefect server and a cluster of its own, as anyone runs it."""
    ended = pairx(*run_arguments(small, tmp_path / "w"))
    assert ended.returncode == 0, ended.stderr
    assert [line for line in ended.stderr.splitlines() if not OURS.fullmatch(line)] == []
