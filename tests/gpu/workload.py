"""What the parts measure on: prepared networks with photos, and a small catalogue."""

from __future__ import annotations

import csv
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor

from pairx_engine.device.accelerator import settle
from pairx_engine.models import ReIdModel
from tests.benchmarks.cases import load, prepare_once
from tests.benchmarks.measuring import PeakMemory, seconds
from tests.gpu.part import Task

PHOTOS, FEW_PHOTOS = 21, 4
"""Photos of a prepared network: enough for twenty partners, or for a trial."""
SMALL_SIZE = 96
MINIATURE = "mini_miewid_cows"


@dataclass(frozen=True)
class Workload:
    """A prepared network's folder, what it is called in the benchmark's cases, and in words what it holds."""

    network: str
    folder: Path
    title: str
    size: int | None
    photos: int

    def load(self, device: str) -> tuple[ReIdModel, list[Tensor]]:
        """The model and its normalised chips (3, H, W) on the device, which is settled as a worker's is."""
        settle(torch.device(device))
        return load(self.folder, device)


def workload(task: Task) -> Workload:
    """MiewID's shape at 440 px; MobileNetV2 at 96 px where everything is to be tiny.

    Prepared once for all parts.
    """
    network, size, photos = ("mobilenet", SMALL_SIZE, FEW_PHOTOS) if task.small else ("miewid", None, PHOTOS)
    folder = task.scratch("prepared") / network
    title = prepare_once(network, folder, task.shared_folder, photos, size)
    return Workload(network, folder, title, size, photos)


def timed(work: Callable[[], Any], device: str, repeats: int, warm: int = 2) -> float:
    """Seconds of a run, the median of `repeats` after `warm` runs that are not counted."""
    seconds(work, warm, device)
    return median(seconds(work, repeats, device))


def peak_of(work: Callable[[], Any], device: str) -> float:
    """Most memory, in MB, that a run takes over what was in use."""
    memory = PeakMemory(device)
    work()
    return memory.megabytes()


def cow_catalogue(task: Task, animals: int, photos: int) -> tuple[Path, Path]:
    """A small catalogue of real cows: its `metadata.csv` and the folder that paths are relative to.

    Where the real ones are absent, cows are drawn. Of each animal the photos are spread over all that there
    are: neighbours in the list are frames of one video.
    """
    root = task.shared_folder / "data" / "cows"
    listed = root / "metadata.csv"
    folder = task.scratch(f"catalogue-{animals}-{photos}")
    if not listed.is_file():
        return _drawn(folder)
    with listed.open(encoding="utf-8", newline="") as file:
        rows = sorted(csv.DictReader(file), key=lambda row: (row["identity"], row["path"]))
    by_animal: dict[str, list[dict[str, str]]] = {}
    for row in rows:
        by_animal.setdefault(row["identity"], []).append(row)
    chosen = [row for name in list(by_animal)[:animals] for row in spread(by_animal[name], photos)]
    folder.mkdir(parents=True, exist_ok=True)
    metadata = folder / "metadata.csv"
    with metadata.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, ["image_id", "identity", "path"], extrasaction="ignore")
        writer.writeheader()
        writer.writerows(chosen)
    return metadata, root


def spread(items: list[Any], count: int) -> list[Any]:
    """At most `count` items from the first to the last, evenly spread."""
    if len(items) <= count:
        return items
    return [items[i * (len(items) - 1) // max(1, count - 1)] for i in range(count)]


def _drawn(folder: Path) -> tuple[Path, Path]:
    from tests.small_catalogue import small_catalogue

    return small_catalogue(folder), folder
