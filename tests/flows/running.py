"""Running the nightly flow in tests: in this process, or as a command in a process group that can be killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
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

    def kill(self) -> list[int]:
        """SIGKILL to the whole group and to every descendant; returns who lived outside the group."""
        everyone = descendants(self.process.pid)
        outside = [pid for pid in everyone if _group(pid) not in (None, self.process.pid)]
        if self.process.poll() is None or members(self.process.pid):
            os.killpg(self.process.pid, signal.SIGKILL)
        for pid in outside:
            os.kill(pid, signal.SIGKILL)
        self.process.wait(30)
        deadline = time.monotonic() + 30
        while members(self.process.pid) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert not members(self.process.pid), "processes were left behind"
        return outside

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


def _group(pid: int) -> int | None:
    stat = _stat(pid)
    return None if stat is None else int(stat[2])


def members(group: int) -> list[int]:
    """Living processes of a process group."""
    return [pid for pid, stat in _processes().items() if int(stat[2]) == group]


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
