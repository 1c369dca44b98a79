"""Running the nightly flow in tests: in this process, or as a command in a process group that can be killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flows.nightly import RunOptions, RunSummary, run
from schemas.settings import Settings
from tasks.warehouse import Warehouse
from tests.small_catalogue import TINY, read_small

REPOSITORY = Path(__file__).resolve().parents[2]
_SECONDS = 180


def run_flow(
    metadata: Path, warehouse: Warehouse, cluster: str, options: RunOptions | None = None, **settings: Any
) -> RunSummary:
    """One run of the flow with the tiny settings, changed by `settings`."""
    chosen = Settings(**{**TINY, "cluster": cluster, **settings})
    return run(read_small(metadata), warehouse, chosen, options or RunOptions())


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
    command = [sys.executable, "-m", "flows.cli", *map(str, arguments)]
    return subprocess.run(
        command,
        env=environment(**extra),
        capture_output=True,
        text=True,
        timeout=_SECONDS,
        stdin=subprocess.DEVNULL,
    )


def run_arguments(metadata: Path, warehouse: Path) -> list[str]:
    """Arguments of `pairx run` with the tiny settings."""
    toml = warehouse.with_suffix(".toml")
    warehouse.parent.mkdir(parents=True, exist_ok=True)
    toml.write_text("".join(f"{k} = {v!r}\n".replace("'", '"') for k, v in TINY.items()), encoding="utf-8")
    return ["run", str(metadata), "--warehouse", str(warehouse), "--settings", str(toml)]


@dataclass
class Command:
    """A `pairx` command that leads a process group of its own."""

    process: subprocess.Popen[bytes]
    log: Path

    @classmethod
    def start(cls, log: Path, arguments: list[str], server: str | None = None) -> Command:
        """Start it; with the address of a Prefect `server` it starts none of its own."""
        command = [sys.executable, "-m", "flows.cli", *arguments]
        with log.open("wb") as file:
            process = subprocess.Popen(
                command, env=environment(**({"PREFECT_API_URL": server} if server else {})), stdout=file, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
                start_new_session=True,
            )  # fmt: skip
        return cls(process, log)

    def wait_for(self, happened: Callable[[], bool]) -> None:
        """Wait until something is seen in the warehouse; fails when the command ends before."""
        deadline = time.monotonic() + _SECONDS
        while not happened():
            assert self.process.poll() is None, f"ended too early:\n{self.text}"
            assert time.monotonic() < deadline, f"never happened:\n{self.text}"
            time.sleep(0.005)

    def finish(self) -> int:
        """Wait for the end; the exit code."""
        return self.process.wait(_SECONDS)

    def kill(self) -> None:
        """SIGKILL to the whole group at once; fails when anything that it had started lives on."""
        everyone = self.processes()
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(30)
        left = still_there(everyone)
        assert left == [], "processes were left behind"

    def processes(self) -> dict[int, str]:
        """The command and all that it started, by process id, with the time of their start."""
        living = _processes()
        return {
            pid: living[pid][19]
            for pid in (self.process.pid, *descendants(self.process.pid))
            if pid in living
        }

    def clean_up(self) -> None:
        """End whatever is left of a failed test."""
        for pid in self.processes():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait(30)

    @property
    def text(self) -> str:
        return self.log.read_text(encoding="utf-8", errors="replace")[-4000:]


def _stat(pid: int) -> list[str] | None:
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8")
    except (FileNotFoundError, ProcessLookupError):
        return None
    return text.rpartition(")")[2].split()


def _processes() -> dict[int, list[str]]:
    """State, parent, group … of every living process (no zombies)."""
    found = {int(p.name): _stat(int(p.name)) for p in Path("/proc").iterdir() if p.name.isdigit()}
    return {pid: stat for pid, stat in found.items() if stat is not None and stat[0] not in "ZX"}


def still_there(processes: dict[int, str], seconds: float = 20) -> list[str]:
    """Command lines of those processes (id: time of start) that still live after so many seconds."""
    deadline = time.monotonic() + seconds
    while True:
        living = _processes()
        left = [pid for pid, start in processes.items() if pid in living and living[pid][19] == start]
        if not left or time.monotonic() > deadline:
            return [command_line(pid) for pid in left]
        time.sleep(0.05)


def descendants(pid: int) -> list[int]:
    """Living children of a process, their children, and so on."""
    parents = {child: int(stat[1]) for child, stat in _processes().items()}
    found: list[int] = []
    level = [pid]
    while level:
        level = [child for child, parent in parents.items() if parent in level]
        found += level
    return found


def command_line(pid: int) -> str:
    """The words that a process was started with."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return ""
