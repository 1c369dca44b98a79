"""Processes that die or are told to end: workers, driver, scheduler, Prefect server, or all at once."""

from __future__ import annotations

import os
import resource
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager

from tests.flows import dask_processes
from tests.flows.faults.fault import Ends, Fault, Scene

KILLED = -signal.SIGKILL
STOPPED = r"stopped; what is done is kept"
MEMORY_OF_ALL_WORKERS = 3 << 30
REPLACED = r"[\d:.]+ \| (?:WARNING|ERROR) +\| distributed\.(nanny|worker|scheduler)[\w.]* - "
"""Dask's words about a worker that it ends or starts anew."""
_SECONDS = 300


class Worker(Fault):
    name = "worker"
    about = "SIGKILL to one of two worker processes"
    own_cluster = True

    def strike(self, scene: Scene) -> Ends:
        os.kill(scene.rng.choice(_some_workers(scene)), signal.SIGKILL)
        return Ends(0, notices=REPLACED)


class Memory(Fault):
    name = "memory"
    about = "a worker process wants more memory than it may have"
    own_cluster = True

    @contextmanager
    def around(self, scene: Scene) -> Iterator[None]:
        scene.environment |= {"DASK_DISTRIBUTED__WORKER__PRELOAD": "tests.flows.faults.hooks"}
        yield

    def started(self, scene: Scene) -> None:
        limit_memory(scene.driver)

    def strike(self, scene: Scene) -> Ends:
        os.kill(scene.rng.choice(_some_workers(scene)), signal.SIGUSR1)
        return Ends(0, notices=REPLACED)


class Group(Fault):
    name = "group"
    about = "SIGKILL to driver, workers and Prefect server at once"
    own_cluster = own_server = True

    def strike(self, scene: Scene) -> Ends:
        assert scene.command
        scene.command.kill()
        return Ends(KILLED)


class Driver(Fault):
    name = "driver"
    about = "SIGKILL to the driver alone; workers and server must end by themselves"
    own_cluster = own_server = True

    def strike(self, scene: Scene) -> Ends:
        os.kill(scene.driver, signal.SIGKILL)
        return Ends(KILLED)


class Interrupt(Fault):
    name = "interrupt"
    about = "SIGINT or SIGTERM to the driver"
    own_cluster = own_server = True

    def strike(self, scene: Scene) -> Ends:
        number, code = scene.rng.choice([(signal.SIGINT, 130), (signal.SIGTERM, 143)])
        os.kill(scene.driver, number)
        return Ends(code, STOPPED)


class PrefectServer(Fault):
    name = "prefect"
    about = "SIGKILL to the Prefect server; the run goes on without"
    own_cluster = own_server = True

    def strike(self, scene: Scene) -> Ends:
        (server,) = scene.running("runpy.run_module")
        os.kill(server, signal.SIGKILL)
        return Ends(0, notices=r".*the Prefect API at .* does not answer any more")


class Scheduler(Fault):
    name = "scheduler"
    about = "SIGKILL to a scheduler that was started by hand"
    by_hand: dask_processes.Site

    @contextmanager
    def around(self, scene: Scene) -> Iterator[None]:
        self.by_hand = dask_processes.Site(scene.folder, scene.site.server)
        try:
            self.by_hand.scheduler()
            self.by_hand.ready_worker("one")
            scene.settings["cluster"] = self.by_hand.address
            yield
        finally:
            self.by_hand.close()

    def strike(self, scene: Scene) -> Ends:
        self.by_hand.started[0].kill()
        return Ends(1, "the Dask scheduler at .* is gone")


def limit_memory(driver: int) -> None:
    """Let Dask believe that the machine has little memory.

    Dask asks for this limit, which Linux does not enforce.
    """
    resource.prlimit(driver, resource.RLIMIT_RSS, (MEMORY_OF_ALL_WORKERS, MEMORY_OF_ALL_WORKERS))


def _some_workers(scene: Scene) -> list[int]:
    deadline = time.monotonic() + _SECONDS
    while not (found := scene.workers()):
        assert time.monotonic() < deadline, "the run has no workers"
    return found
