"""A Dask scheduler and workers as processes of their own, as a site would start them, on loopback."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass, field
from pathlib import Path

from tests.flows.running import REPOSITORY, Command

_PACKAGES = ("pairx_engine", "schemas", "tasks", "flows")


def changed_source(folder: Path) -> Path:
    """A copy of our packages with one comment more."""
    for package in _PACKAGES:
        shutil.copytree(REPOSITORY / package, folder / package, ignore=shutil.ignore_patterns("__pycache__"))
    with (folder / "tasks" / "flag.py").open("a", encoding="utf-8") as file:
        file.write("# another version\n")
    return folder


@dataclass
class Site:
    """A scheduler and its workers; `server` is the Prefect server that all of them know."""

    folder: Path
    server: str
    started: list[Command] = field(default_factory=list)

    def scheduler(self) -> Command:
        """Start the scheduler, or another one at the same address, and wait until it listens."""
        file = self.folder / "scheduler.json"
        port = self.address.rpartition(":")[2] if file.exists() else "0"
        file.unlink(missing_ok=True)
        options = ["--host", "127.0.0.1", "--port", port, "--no-dashboard", "--scheduler-file", str(file)]
        found = self._start("scheduler", options)
        found.wait_for(lambda: bool(file.exists() and file.read_text(encoding="utf-8").strip()))
        return found

    @property
    def address(self) -> str:
        """Of the scheduler."""
        return str(json.loads((self.folder / "scheduler.json").read_text(encoding="utf-8"))["address"])

    def worker(self, name: str, source: Path = REPOSITORY) -> Command:
        """Start a worker with one thread, on our packages in `source`."""
        options = [
            "--nthreads",
            "1",
            "--no-dashboard",
            "--host",
            "127.0.0.1",
            "--death-timeout",
            "30",
            "--name",
            name,
        ]
        return self._start("worker", [self.address, *options], source)

    def ready_worker(self, name: str) -> Command:
        """Start a worker, and wait until the scheduler has let it in."""
        found = self.worker(name)
        found.wait_for(lambda: "Registered to" in found.text)
        return found

    def _start(self, kind: str, options: list[str], source: Path = REPOSITORY) -> Command:
        log = self.folder / f"{len(self.started)}-{kind}.log"
        # Packages come from `source` alone, and from no current folder.
        words = ["-P", "-m", f"distributed.cli.dask_{kind}", *options]
        self.started.append(
            Command.start(log, words, self.server, PYTHONPATH=str(source), CUDA_VISIBLE_DEVICES="")
        )
        return self.started[-1]

    def close(self) -> None:
        """End everything."""
        for one in reversed(self.started):
            one.kill()
