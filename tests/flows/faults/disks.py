"""Faults of the place where the warehouse lies.

The disk is full, or cannot be written to any more; somebody has removed the folder; the bucket is out of
reach.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any
from unittest.mock import patch

from tests.flows.faults.course import FINISHED
from tests.flows.faults.fault import Ends, Fault, Scene, remove
from tests.object_store import BUCKET, Proxy, environment, forget_connections, proxy_before, s3_server

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


class ObjectStore(Fault):
    name = "object store"
    about = "a bucket's store does not answer any more"
    own_cluster = True
    proxy: Proxy

    @contextmanager
    def around(self, scene: Scene) -> Iterator[None]:
        with s3_server() as store, proxy_before(store) as self.proxy:
            where = environment(self.proxy.endpoint)
            scene.environment |= where
            with patch.dict(os.environ, where):
                forget_connections()
                try:
                    yield
                finally:
                    forget_connections()

    def address(self, scene: Scene) -> str:
        return f"s3://{BUCKET}/w"

    def begin(self, scene: Scene) -> None:
        super().begin(scene)
        if scene.moment.copied:
            self._files().put(f"{scene.warehouse}/", f"{BUCKET}/w/", recursive=True)
        remove(scene.warehouse)
        self.proxy.forget()

    def committed(self, scene: Scene) -> int:
        new = {r.key for r in self.proxy.requests if r.method == "PUT" and r.key.endswith(FINISHED)}
        return scene.moment.copied + len(new)

    def strike(self, scene: Scene) -> Ends:
        how = scene.rng.choice(["reset before", "503 SlowDown"])
        self.proxy.fail(scene.rng.getrandbits(32), 1.0, [how])
        # A run that is struck as it begins is told that there is no store where nothing answers.
        return Ends(1, "storage|store", or_code=2 if how == "reset before" else None)

    def mend(self, scene: Scene) -> None:
        self.proxy.fail(0, 0.0)

    def cluster_afterwards(self, scene: Scene) -> Mapping[str, Any]:
        return {"cluster": "local", "workers": 2}  # the worker that stays up knows of no store

    def fetch(self, scene: Scene) -> None:
        self._files().get(f"{BUCKET}/w/", f"{scene.warehouse}/", recursive=True)

    @staticmethod
    def _files() -> Any:
        import fsspec

        return fsspec.filesystem("s3")
