"""Processes that die or are told to end: workers, the driver, all at once, the scheduler, the Prefect server."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.flows.faults.fault import Ends, Fault, Scene
from tests.flows.running import environment

KILLED = -signal.SIGKILL
STOPPED = r"stopped; what is done is kept"
MEMORY_OF_ALL_WORKERS = 3 << 30
REPLACED = r"[\d:.]+ \| WARNING +\| distributed\.(nanny|worker)[\w.]* - "
"""Dask's words about a worker that it ends or starts anew."""
_SECONDS = 300


class Worker(Fault):
    name = "worker"
    about = "SIGKILL to one of two worker processes"
    own_cluster = True
    workers = 2

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
    process: subprocess.Popen[bytes]

    @contextmanager
    def around(self, scene: Scene) -> Iterator[None]:
        place = scene.folder / "scheduler.json"
        words = ["--scheduler-file", str(place), "--no-dashboard"]
        self.process = self._start(scene, "scheduler", *words, "--host", "127.0.0.1", "--port", "0")
        workers = self._start(
            scene, "worker", *words, "--nworkers", "2", "--nthreads", "1", "--death-timeout", "60"
        )
        try:
            scene.settings["cluster"] = _address(place)
            yield
        finally:
            for process in (self.process, workers):
                os.killpg(process.pid, signal.SIGKILL)
                process.wait(30)

    def _start(self, scene: Scene, kind: str, *words: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", f"distributed.cli.dask_{kind}", *words]
        with (scene.folder / f"{kind}.log").open("wb") as log:
            return subprocess.Popen(
                command, env=environment(PREFECT_API_URL=scene.site.server), cwd=scene.folder,
                stdout=log, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, start_new_session=True,
            )  # fmt: skip

    def strike(self, scene: Scene) -> Ends:
        self.process.kill()
        return Ends(1, "scheduler")


def limit_memory(driver: int) -> None:
    """Let Dask believe that the machine has little memory: it asks for this limit, which Linux does not enforce."""
    resource.prlimit(driver, resource.RLIMIT_RSS, (MEMORY_OF_ALL_WORKERS, MEMORY_OF_ALL_WORKERS))


def _some_workers(scene: Scene) -> list[int]:
    deadline = time.monotonic() + _SECONDS
    while not (found := scene.workers()):
        assert time.monotonic() < deadline, "the run has no workers"
    return found


def _address(place: Path) -> str:
    """Wait until a scheduler with workers has said where it is."""
    from distributed import Client

    deadline = time.monotonic() + _SECONDS
    while not place.exists():
        assert time.monotonic() < deadline, "the scheduler did not start"
        time.sleep(0.05)
    with Client(scheduler_file=str(place), timeout=_SECONDS) as client:
        client.wait_for_workers(2, _SECONDS)
        return str(client.scheduler.address)
