"""Runs of the nightly flow in tests: in this process, or as a command whose group can be killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flows.night.run import run
from flows.night.values import RunOptions, RunSummary
from schemas.settings import Settings
from tasks.job import prepare_job
from tasks.store.lease import at_work
from tasks.store.warehouse import Warehouse
from tests.small_catalogue import TINY, read_small

REPOSITORY = Path(__file__).resolve().parents[2]
PAIRX = ("-m", "flows.cli.main")
"""Words behind `python` that start `pairx`."""
_SECONDS = 180
_MARK = "PAIRX_TEST_RUN"


def run_flow(
    metadata: Path, warehouse: Warehouse, cluster: str, options: RunOptions | None = None, **settings: Any
) -> RunSummary:
    """One run of the flow with the tiny settings, changed by `settings`."""
    chosen = Settings(**{**TINY, "cluster": cluster, **settings})
    warehouse.prepare()
    job = prepare_job(warehouse, chosen)
    with at_work(warehouse, "test") as lease:
        return run(read_small(metadata), job, lease, options or RunOptions())


def shards_of(summary: RunSummary) -> dict[str, int]:
    """Shards worked off in each stage."""
    return {log.stage: log.shards for log in summary.stages}


def environment(**extra: str) -> dict[str, str]:
    """The environment of a command: this checkout, one thread, a Prefect server of its own."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("PREFECT", "PYTEST"))}
    ours = {"PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
    return kept | ours | {"HF_HUB_OFFLINE": "1", "COLUMNS": "200"} | extra


def pairx(*arguments: object, **extra: str) -> subprocess.CompletedProcess[str]:
    """Run `pairx` to its end."""
    command = [sys.executable, *PAIRX, *map(str, arguments)]
    return subprocess.run(
        command,
        env=environment(**extra),
        capture_output=True,
        text=True,
        timeout=_SECONDS,
        stdin=subprocess.DEVNULL,
    )


def run_arguments(metadata: Path, warehouse: Path, address: str | None = None, **settings: Any) -> list[str]:
    """Arguments of `pairx run` with the tiny settings, changed by `settings`.

    The settings' file lies beside the warehouse's folder. `address`: where the warehouse is, if not in that
    folder.
    """
    toml = warehouse.with_suffix(".toml")
    warehouse.parent.mkdir(parents=True, exist_ok=True)
    chosen = {**TINY, **settings}
    toml.write_text("".join(f"{k} = {v!r}\n".replace("'", '"') for k, v in chosen.items()), encoding="utf-8")
    return ["run", str(metadata), "--warehouse", address or str(warehouse), "--settings", str(toml)]


@dataclass
class Command:
    """A Python process, mostly a `pairx` command, that leads a process group of its own.

    All that it starts bears its mark.
    """

    process: subprocess.Popen[bytes]
    log: Path
    mark: str

    @classmethod
    def start(cls, log: Path, words: Sequence[str], server: str | None = None, **extra: str) -> Command:
        """Start it; with the address of a Prefect `server` it starts none of its own.

        `extra`: for its environment.
        """
        mark = uuid.uuid4().hex
        inherited = {**({"PREFECT_API_URL": server} if server else {}), **extra, _MARK: mark}
        with log.open("wb") as file:
            process = subprocess.Popen(
                [sys.executable, *words], env=environment(**inherited),
                stdout=file, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, start_new_session=True,
            )  # fmt: skip
        return cls(process, log, mark)

    def wait_for(self, happened: Callable[[], bool], seconds: float = _SECONDS) -> None:
        """Wait until something is seen, in the warehouse for instance; fails when the command ends before."""
        deadline = time.monotonic() + seconds
        while not happened():
            assert self.process.poll() is None, f"ended too early:\n{self.text}"
            assert time.monotonic() < deadline, f"never happened:\n{self.text}"
            time.sleep(0.005)

    def finish(self, seconds: float = _SECONDS) -> int:
        """Wait for the end; the exit code."""
        return self.process.wait(seconds)

    def processes(self) -> list[int]:
        """Ids of the command and of all that it started, whoever is their parent now."""
        entry = f"{_MARK}={self.mark}".encode()
        return [pid for pid in _living() if entry in _read(pid, "environ").split(b"\0")]

    def left(self, seconds: float = 20) -> list[str]:
        """Command lines of its processes that still live after so many seconds."""
        deadline = time.monotonic() + seconds
        while (found := self.processes()) and time.monotonic() < deadline:
            time.sleep(0.05)
        return [command_line(pid) for pid in found]

    def kill(self) -> None:
        """SIGKILL to all of its processes."""
        while found := self.processes():
            for pid in found:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        self.process.wait(30)

    @property
    def text(self) -> str:
        """All that it said."""
        return self.log.read_text(encoding="utf-8", errors="replace")


def command_line(pid: int) -> str:
    """The words that a process was started with."""
    return _read(pid, "cmdline").replace(b"\0", b" ").decode(errors="replace")


def _living() -> list[int]:
    """All processes but zombies."""
    found = [int(p.name) for p in Path("/proc").iterdir() if p.name.isdigit()]
    return [
        pid for pid in found if _read(pid, "stat").rpartition(b")")[2].split()[:1] not in ([], [b"Z"], [b"X"])
    ]


def _read(pid: int, file: str) -> bytes:
    """A file of a process's folder in /proc; nothing where it ended or is another user's."""
    try:
        return Path(f"/proc/{pid}/{file}").read_bytes()
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return b""
