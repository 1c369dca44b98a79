"""Where the warehouse lies: a disk that is full, one that cannot be written to any more, a folder that somebody removed."""

from __future__ import annotations

import os
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from tests.flows.faults.fault import Ends, Fault, Scene, remove

_PLENTY = 256 << 20
_SECONDS = 30


class Deleted(Fault):
    name = "deleted"
    about = "the warehouse's folder is removed"

    def strike(self, scene: Scene) -> Ends:
        remove(scene.warehouse)
        return Ends(1, "warehouse")


class _OnADisk(Fault):
    """The warehouse has a disk of its own, in memory."""

    def missing(self) -> str | None:
        return None if may_mount() else "no right to mount a disk; `unshare -Urm` before the command gives it"

    def size(self, scene: Scene) -> int:
        return _PLENTY

    @contextmanager
    def around(self, scene: Scene) -> Iterator[None]:
        with disk(scene.warehouse, self.size(scene)):
            yield


class Full(_OnADisk):
    name = "disk full"
    about = "no room for what comes after the moment"
    strikes = False

    def size(self, scene: Scene) -> int:
        started = 4 << 12  # the row of `runs` that a run begins with
        ahead = scene.course.files[scene.moment.files]
        there = scene.course.bytes_of(scene.course.files[: scene.moment.files])
        return started + there + int(scene.rng.random() * scene.course.bytes_of([ahead]))

    def strike(self, scene: Scene) -> Ends:
        return Ends(1, "No space left on device")

    def mend(self, scene: Scene) -> None:
        _mount("-o", f"remount,size={_PLENTY}", str(scene.warehouse))


class ReadOnly(_OnADisk):
    name = "storage"
    about = "the warehouse's disk turns read-only, as one with errors does"

    def strike(self, scene: Scene) -> Ends:
        deadline = time.monotonic() + _SECONDS
        while not _mount("-o", "remount,ro", str(scene.warehouse)):  # refused while a file is being written
            assert time.monotonic() < deadline, "the disk is always busy"
        return Ends(1, "Read-only file system")

    def mend(self, scene: Scene) -> None:
        _mount("-o", "remount,rw", str(scene.warehouse))


@contextmanager
def disk(folder: Path, size: int) -> Iterator[None]:
    """A disk of so many bytes at a new folder."""
    folder.mkdir(parents=True)
    assert _mount("-t", "tmpfs", "-o", f"size={size}", "pairx-test", str(folder))
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@cache
def may_mount() -> bool:
    """Whether this process may mount a disk."""
    folder = Path(tempfile.mkdtemp())
    try:
        if not _mount("-t", "tmpfs", "-o", "size=4k", "pairx-test", str(folder)):
            return False
        subprocess.run(["umount", str(folder)], check=True)
        return True
    except FileNotFoundError:
        return False
    finally:
        os.rmdir(folder)


def _mount(*words: str) -> bool:
    return subprocess.run(["mount", *words], capture_output=True).returncode == 0
