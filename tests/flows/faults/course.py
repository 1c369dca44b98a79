"""An undisturbed run on a dozen photos: what it commits, in which order and when.

Moments of a strike are drawn from it.
"""

from __future__ import annotations

import shutil
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from pathlib import Path
from random import Random
from typing import Any

from flows.demo.catalogue import Planting, write_drawn_catalogue
from tests.small_catalogue import rewrite

PHOTOS = 12
SETTINGS: dict[str, Any] = {"workers": 2, "photos_per_shard": 3, "pairs_per_shard": 6, "n_pixel_maps": 1}
"""Changes of the tiny settings: several shards in each stage, though there are few photos."""
_ANIMALS = {"spots": 2}
_PLANTING = Planting(wrong_name_share=0.0, unknown_share=0.1, copies=0, duplicates=1, broken=1)
FINISHED = (".parquet", ".html")
"""Suffixes of tables and reports: not of a file that is being written, nor of a lease."""
_NEVER_LAST = 3
"""So many files from the end no run is struck any more: there must be something left to disturb."""
_MOST_BEFORE = 5
_PAGE = 4096


def dozen_photos(folder: Path) -> Path:
    """The table of a catalogue below `folder`: twelve photos of two animals.

    One photo is unknown, one broken, one a duplicate.
    """
    metadata = folder / "metadata.csv"
    if not metadata.exists():
        write_drawn_catalogue(folder, 2, _ANIMALS, _PLANTING)
    return rewrite(metadata, "dozen.csv", lambda rows: rows[:PHOTOS])


@dataclass(frozen=True)
class Moment:
    """When to strike.

    The run starts with the first `copied` files, and is struck `delay` seconds after there are `files`.
    """

    copied: int
    files: int
    delay: float
    table: str

    def __str__(self) -> str:
        return f"{self.delay:.2f} s after file {self.files}, of {self.table}"


@dataclass(frozen=True)
class Course:
    """A finished run: its catalogue, its warehouse, and its files in the order of their commits."""

    catalogue: Path
    warehouse: Path
    files: tuple[Path, ...]
    seconds: tuple[float, ...]
    settings: Mapping[str, Any]

    @classmethod
    def of(cls, catalogue: Path, warehouse: Path, settings: Mapping[str, Any] = SETTINGS) -> Course:
        """Read the order from the files' times."""
        files = sorted(finished_files(warehouse), key=lambda p: p.stat().st_mtime_ns)
        seconds = tuple(p.stat().st_mtime for p in files)
        return cls(catalogue, warehouse, tuple(p.relative_to(warehouse) for p in files), seconds, settings)

    @property
    def patience(self) -> float:
        """Seconds after which a run that was struck is taken to hang: the machine may be slower now and then."""
        return 60 + 4 * (self.seconds[-1] - self.seconds[0])

    def draw(self, rng: Random, share: float) -> Moment:
        """The moment at a share in [0, 1) of the run.

        The run's length is measured half in files and half in seconds. By seconds alone a strike would hardly
        ever meet files that are written one right after another; by files alone it would never meet the work
        between them.
        """
        gaps = [later - earlier for earlier, later in pairwise(self.seconds)][:-_NEVER_LAST]
        ends = list(accumulate((1 / len(gaps) + gap / sum(gaps)) / 2 for gap in gaps))
        place = min(bisect_right(ends, share), len(gaps) - 1)
        begin = ends[place - 1] if place else 0.0
        part = (share - begin) / (ends[place] - begin)
        copied = max(0, place + 1 - rng.randint(1, _MOST_BEFORE))
        return Moment(copied, place + 1, gaps[place] * part, self.files[place].parts[0])

    def begin(self, warehouse: Path, files: int) -> None:
        """Put the first files into another warehouse, as a run that was killed at that moment leaves them."""
        warehouse.mkdir(parents=True, exist_ok=True)
        for path in self.files[:files]:
            (warehouse / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(self.warehouse / path, warehouse / path)

    def bytes_of(self, files: Sequence[Path]) -> int:
        """Bytes that the files fill on a disk of pages."""
        return sum(-(-(self.warehouse / path).stat().st_size // _PAGE) * _PAGE for path in files)


def finished_files(warehouse: Path) -> list[Path]:
    """Tables and reports below a folder."""
    return [path for path in warehouse.rglob("*") if path.suffix in FINISHED]
