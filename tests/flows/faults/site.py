"""What all trials share: a Prefect server and a worker that stay up, and undisturbed runs."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from unittest.mock import patch

from flows.api.server import prefect_server
from flows.cli import main as cli
from flows.clusters.choice import dask_cluster
from flows.clusters.kinds import Cluster
from schemas.settings import Settings
from tests.flows.faults.course import SETTINGS, Course, dozen_photos
from tests.flows.running import run_arguments


@dataclass(frozen=True)
class Site:
    """A folder for everything, an undisturbed run on all photos, the server's and the scheduler's address."""

    folder: Path
    course: Course
    server: str
    scheduler: str

    def undisturbed(self, catalogue: Path, warehouse: Path) -> Course:
        """The run on another catalogue, made once."""
        return _undisturbed(catalogue, warehouse, self.scheduler)


@contextmanager
def site(folder: Path) -> Iterator[Site]:
    """A site with an undisturbed run on twelve photos."""
    catalogue = dozen_photos(folder / "catalogue")
    with on_two_cores(), prefect_server() as server, worker_with_one_thread() as cluster:
        course = _undisturbed(catalogue, folder / "undisturbed" / "w", cluster.address)
        yield Site(folder, course, server, cluster.address)


@contextmanager
def worker_with_one_thread() -> Iterator[Cluster]:
    """A cluster of one worker that computes on one thread: sums of floats depend on how many share them."""
    with ExitStack() as stack:
        with patch("flows.clusters.kinds.cores", lambda: 1):  # asked while the worker is started
            found = stack.enter_context(dask_cluster(Settings(cluster="local", workers=1)))
        yield found


@contextmanager
def on_two_cores() -> Iterator[None]:
    """A block in which this process and those that it starts have two cores, where it has more."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, sorted(before)[:2])
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def _undisturbed(catalogue: Path, warehouse: Path, scheduler: str) -> Course:
    if not warehouse.exists():
        words = run_arguments(catalogue, warehouse, **SETTINGS, cluster=scheduler)
        code, text = command_here(words)
        assert code == 0, text
    return Course.of(catalogue, warehouse)


def command_here(words: Sequence[str]) -> tuple[int, str]:
    """The exit status of a `pairx` command and what it says.

    It runs in this process, which has loaded everything already.
    """
    said = io.StringIO()
    with (
        patch.object(sys, "argv", ["pairx", *words]),
        redirect_stdout(said),
        redirect_stderr(said),
    ):
        return cli._run(), said.getvalue()
