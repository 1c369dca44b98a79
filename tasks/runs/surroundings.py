"""What a process computes with and sees: versions, source, warehouse, a photo, device, model.

A run compares what its workers report with what it sees itself, before any of them gets work.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from itertools import islice
from pathlib import Path
from uuid import uuid4

from pairx_engine.errors import PairxError, PhotoError
from schemas.errors import StorageError
from tasks.job import Job, device, engine_on
from tasks.photo_files import read_bytes
from tasks.store.shard_files import TEMPORARY
from tasks.store.warehouse import Warehouse

COMPUTING = (
    *("torch", "torchvision", "timm", "zennit", "kornia", "numpy", "scipy", "scikit-learn", "pillow"),
    *("safetensors", "pyarrow", "duckdb", "dask", "distributed", "prefect"),
)
"""Packages whose version can change rows, or prevent work from being passed on.

OpenCV is known by its module, since three packages carry it.
"""
_OURS = ("pairx_engine", "schemas", "tasks", "flows")
_SOURCE = (".py", ".sql", ".json", ".j2")
_FOLDER, _DRIVER = "workers", "driver"
_TRIED = 20
"""How many photos are tried to find one that can be read."""
SAME_VERSIONS = "install the same on all machines: pip install -c deploy/constraints.txt ."
_SAME_PLACE = "share it with all machines under one path, or keep it in an object store"
_DEVICE = "the device"
_DEVICES = {
    "cuda": "give each worker that declares the resource GPU a CUDA device that torch can use",
    "cpu": "let workers declare their GPUs (`dask worker … --nthreads 1 --resources GPU=1`) or hide them (CUDA_VISIBLE_DEVICES=)",
}


@dataclass(frozen=True)
class Fact:
    """One thing that must be the same everywhere: what it is, its value in words, and the cure."""

    what: str
    value: str
    cure: str


def versions() -> list[Fact]:
    """Python, the packages that compute, and our own source."""
    import cv2

    found = [("Python", ".".join(map(str, sys.version_info[:2]))), ("opencv", str(cv2.__version__))]
    found += [(package, _version(package)) for package in COMPUTING]
    return [Fact(what, value, SAME_VERSIONS) for what, value in [*found, ("this package", source())]]


def _version(package: str) -> str:
    try:
        # After a plus stands what the package was built for: a CPU, or a version of CUDA.
        return version(package).partition("+")[0]
    except PackageNotFoundError:
        return "none"


@cache
def source() -> str:
    """A hash of our own source, as this process finds it on disk."""
    home, state = Path(__file__).resolve().parents[2], hashlib.sha256()
    files = (p for package in _OURS for p in (home / package).rglob("*") if p.suffix in _SOURCE)
    for path in sorted(files):
        data = path.read_bytes()
        state.update(f"{path.relative_to(home).as_posix()}\0{len(data)}\0".encode() + data)
    return state.hexdigest()[:12]


@dataclass(frozen=True)
class Sight:
    """What to look at: a run's model and matcher, a file in its warehouse, a photo by root and path."""

    job: Job
    token: str
    photo: tuple[str, str] | None = None

    def expected(self, on: str) -> list[Fact]:
        """What a worker must see whose device is of kind `on`, ``cpu`` or ``cuda``.

        This process itself looks on its CPU.
        """
        return [Fact(_DEVICE, on, _DEVICES[on]), *self._looked_at("cpu")]

    def seen(self, on: str) -> list[Fact]:
        """What this process sees; only its device where that is not of kind `on`."""
        kind = _said(lambda: device().type)
        return [Fact(_DEVICE, kind, ""), *(self._looked_at(str(device())) if kind == on else ())]

    def _looked_at(self, on: str) -> Iterator[Fact]:
        job, chosen = self.job, self.job.settings
        yield Fact(
            f"the warehouse {job.warehouse.url}", _said(lambda: _used(job.warehouse, self.token)), _SAME_PLACE
        )
        if self.photo:
            root, path = self.photo
            photo = _said(lambda: _digest(read_bytes(root, path)))
            yield Fact(f"the photo {path} below {root}", photo, _SAME_PLACE)
        model = _said(lambda: _identity(engine_on(job, on).model.identity()))
        yield Fact(f"the model {chosen.model}", model, _SAME_PLACE)
        matcher = _said(lambda: _identity(engine_on(job, on).matcher.identity()))
        yield Fact(f"the matcher {chosen.matcher}", matcher, _SAME_PLACE)


def _said(ask: Callable[[], str]) -> str:
    """An answer, or the text of the error."""
    try:
        return ask()
    except PairxError as error:
        return error.message
    except Exception as error:  # whatever keeps a machine from seeing something is for its owner to read
        return f"{type(error).__name__}: {error}"


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]


def _identity(identity: Mapping[str, object]) -> str:
    return _digest(json.dumps(identity, sort_keys=True).encode())


@contextmanager
def token_in(warehouse: Warehouse) -> Iterator[str]:
    """The name of a file in the warehouse that exists during the block; workers know the place by it.

    Raises `WarehouseError` where it cannot be written. Nothing is left of the file, nor of a folder that
    was made for it.
    """
    token, missing = uuid4().hex, warehouse.is_local and not Path(warehouse.root).exists()
    warehouse.write_file(_place(token, _DRIVER), token.encode())
    try:
        yield token
    finally:
        with suppress(StorageError, OSError):
            warehouse.storage.remove([f"{warehouse.root}/{_place(token, _DRIVER)}"])
            if warehouse.is_local:
                folder = Path(warehouse.root, _FOLDER)
                for left in (folder / token, folder, *([folder.parent] if missing else [])):
                    left.rmdir()


def _used(warehouse: Warehouse, token: str) -> str:
    """Find the driver's file, then write a file and remove it."""
    try:
        warehouse.storage.get(f"{warehouse.root}/{_place(token, _DRIVER)}")
    except FileNotFoundError:
        return "another place, or none: what the run has written there is not seen"
    own = _place(token, uuid4().hex)
    try:
        warehouse.write_file(own, token.encode())
        warehouse.storage.remove([f"{warehouse.root}/{own}"])
    except (OSError, PairxError) as error:
        return f"seen, but cannot be written to: {error}"
    return "seen and written to"


def _place(token: str, name: str) -> str:
    """A path among half-written files, which every later run removes when they are old."""
    return f"{_FOLDER}/{token}/.{name}{TEMPORARY}"


def readable_photo(places: Iterable[tuple[str, str]]) -> tuple[str, str] | None:
    """The first photo, by root and path, that this process can read; None if none of the first few."""
    for root, path in islice(places, _TRIED):
        with suppress(PhotoError):
            read_bytes(root, path)
            return root, path
    return None
