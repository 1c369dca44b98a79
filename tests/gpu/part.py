"""One part of the check in a process of its own: ``python -m tests.gpu.part NAME TASK.json``.

A process of its own keeps a crash or a hang of the device, and whatever a part leaves in the allocator, from
the others.
"""

from __future__ import annotations

import importlib
import json
import signal
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from tests.benchmarks.not_available import NotAvailable
from tests.gpu.findings import Findings

PARTS = {
    "goldens": "GPU against CPU: goldens and families in all formats and presets",
    "profiling": "where a forward pass and the pulls spend their time; layouts in memory",
    "explanations": "explanations against the published way, with peak memory",
    "scoring": "pairs per second without pixel maps, by batch and through the pipeline",
    "embedding": "embeddings and exact neighbours against the bare products",
    "transformers": "a ViT and a Swin against the same rules by replaced operations",
    "pipeline": "whole runs on the device against the CPU, with one worker and two",
}
"""In the order in which they run.

Each is a module of that name beside this one, with a function `measure(task, findings)`.
"""


@dataclass(frozen=True)
class Task:
    """What a part is told: the device, whether everything is to be tiny, its folders, and its deadline."""

    device: str
    small: bool
    shared: str
    folder: str
    findings: str
    ends: float
    """Seconds since the epoch."""

    @property
    def left(self) -> float:
        """Seconds until its end."""
        return self.ends - time.time()

    @property
    def shared_folder(self) -> Path:
        """Photos, weights and goldens."""
        return Path(self.shared)

    def scratch(self, name: str) -> Path:
        """A path below the check's scratch folder, which all parts share."""
        return Path(self.folder) / name

    def write(self, path: Path) -> None:
        """Write it for the part's process."""
        path.write_text(json.dumps(asdict(self)), encoding="utf-8")


def main(name: str, told: str) -> int:
    """Run the part; its findings are in its file whatever happens."""
    task = Task(**json.loads(Path(told).read_text(encoding="utf-8")))
    findings = Findings(Path(task.findings))
    findings.write()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        measure: Callable[[Task, Findings], None] = importlib.import_module(f"tests.gpu.{name}").measure
        measure(task, findings)
    except (NotAvailable, ModuleNotFoundError) as error:
        findings.state = "not available"
        findings.note(str(error))
        return 0
    except KeyboardInterrupt:
        findings.note("ended before it was through")
        return 1
    except Exception as error:
        findings.note(f"{type(error).__name__}: {error}")
        traceback.print_exc()
        return 1
    findings.end()
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
