"""Time and memory of the measured process, and what machine it ran on."""

from __future__ import annotations

import contextlib
import os
import platform
import re
import resource
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")
_CORES_USED = Path("/proc/stat")
_FORGET_PEAK = "5"


def seconds(task: Callable[[], Any], repeats: int, device: str) -> list[float]:
    """Wall-clock seconds of each run; on a GPU up to the end of all its kernels."""
    taken = []
    for _ in range(repeats):
        _wait(device)
        start = time.perf_counter()
        task()
        _wait(device)
        taken.append(time.perf_counter() - start)
    return taken


def _wait(device: str) -> None:
    if device != "cpu":
        torch.cuda.synchronize()


class PeakMemory:
    """Most memory in use since this was made, in MB (1e6 bytes), over what was in use then.

    On a CPU it is the high-water mark of the process's resident memory. Linux lets a process reset this mark.
    Elsewhere it covers the process from its start, and loading the network may hide smaller peaks. On a GPU
    it is what PyTorch's allocator has handed out.
    """

    def __init__(self, device: str) -> None:
        self.device = device
        if device != "cpu":
            torch.cuda.reset_peak_memory_stats()
            self._before = float(torch.cuda.memory_allocated())
            return
        with contextlib.suppress(OSError):
            _CLEAR.write_text(_FORGET_PEAK)
        self._before = _resident("VmRSS") or _high_water()

    def megabytes(self) -> float:
        """The peak so far."""
        if self.device != "cpu":
            peak = float(torch.cuda.max_memory_allocated())
        else:
            peak = _resident("VmHWM") or _high_water()
        return (peak - self._before) / 1e6


def _resident(name: str) -> float | None:
    if not _STATUS.exists():
        return None
    found = re.search(rf"^{name}:\s+(\d+) kB", _STATUS.read_text(), re.MULTILINE)
    return float(found[1]) * 1024 if found else None


def _high_water() -> float:
    # macOS counts bytes, the others kilobytes.
    return float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss) * (
        1 if sys.platform == "darwin" else 1024
    )


class OtherProcesses:
    """How much other processes have taken of this process's cores since this was made."""

    def __init__(self) -> None:
        self._start = time.perf_counter()
        self._busy, self._own = _busy_seconds(), time.process_time()

    def share(self) -> float | None:
        """Their share of the cores' time, in [0, 1]; None where the system does not tell."""
        busy, elapsed = _busy_seconds(), time.perf_counter() - self._start
        if busy is None or self._busy is None:
            return None
        others = (busy - self._busy) - (time.process_time() - self._own)
        return min(1.0, max(0.0, others / (elapsed * all_cores())))


def _busy_seconds() -> float | None:
    """Seconds that all processes together have spent on the cores that this one may use."""
    if not _CORES_USED.exists() or not hasattr(os, "sched_getaffinity"):
        return None
    mine = {f"cpu{core}" for core in os.sched_getaffinity(0)}
    lines = [line.split() for line in _CORES_USED.read_text().splitlines()]
    # user, nice, system, idle, waiting for disks, interrupts (two kinds), stolen
    ticks = [
        sum(int(n) for i, n in enumerate(line[1:9]) if i not in (3, 4)) for line in lines if line[0] in mine
    ]
    return sum(ticks) / os.sysconf("SC_CLK_TCK")


def machine(device: str, threads: int) -> dict[str, str]:
    """What the numbers depend on, in words."""
    facts = {
        "processor": f"{_processor()}, {all_cores()} cores, {threads} threads used",
        "load before": " ".join(f"{load:.2f}" for load in os.getloadavg()) + " (1, 5, 15 minutes)",
        "python": platform.python_version(),
        "libraries": ", ".join(f"{name} {version(name)}" for name in ("torch", "zennit", "timm")),
    }
    if device != "cpu":
        facts["device"] = f"{torch.cuda.get_device_name()}, CUDA {torch.version.cuda}"
    return facts


def _processor() -> str:
    listed = Path("/proc/cpuinfo")
    found = (
        re.search(r"^model name\s*:\s*(.+)$", listed.read_text(), re.MULTILINE) if listed.exists() else None
    )
    return found[1] if found else platform.processor() or platform.machine()


def all_cores() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
