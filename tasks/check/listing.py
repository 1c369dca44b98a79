"""Every file of a warehouse by one listing, sorted by place.

Places are shards, snapshots, and reports with their pictures. Parquet files that no run put there are kept apart.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import PurePosixPath

from schemas.tables.registry import TABLES
from schemas.views.snapshots import SNAPSHOTS, view_of_file
from tasks.store.reports import is_of_reports
from tasks.store.shard_files import SUFFIX
from tasks.store.warehouse import Warehouse, is_name


@dataclass(frozen=True)
class StoredFile:
    """A file: its path below the root, its size in bytes, and what its folders and its name say.

    `place` is its table, or the folder of snapshots or reports; `partition` a fingerprint or the name of a
    snapshot.
    """

    path: str
    size: int
    place: str
    partition: str
    shard: str


@dataclass(frozen=True)
class Listing:
    """The files in a warehouse, sorted by path: ours, and foreign Parquet files in tables' folders."""

    shards: tuple[StoredFile, ...]
    snapshots: tuple[StoredFile, ...]
    reports: tuple[StoredFile, ...]
    strangers: tuple[StoredFile, ...]

    @cached_property
    def by_path(self) -> dict[str, StoredFile]:
        """Every file that is ours by its path below the root."""
        return {f.path: f for f in (*self.shards, *self.snapshots, *self.reports)}


def list_files(warehouse: Warehouse) -> Listing:
    """The files as they are now, without temporary files and whatever else lies in the folder."""
    root = warehouse.root
    found: dict[str, list[StoredFile]] = {"shard": [], "snapshot": [], "report": [], "stranger": []}
    for path, stored in sorted(warehouse.storage.find(root).items()):
        file = placed(path.removeprefix(f"{root}/"), stored.size)
        if kind := _kind(file):
            found[kind].append(file)
    return Listing(*(tuple(files) for files in found.values()))


def placed(path: str, size: int = 0) -> StoredFile:
    """The file at a path below the root, as the path describes it."""
    parts = PurePosixPath(path).parts
    partition = parts[1].partition("=")[2] if len(parts) == 3 else ""
    return StoredFile(path, size, parts[0], partition, PurePosixPath(path).stem)


def _kind(file: StoredFile) -> str | None:
    name = PurePosixPath(file.path).name
    if file.place in TABLES:
        if not name.endswith(SUFFIX) or name.startswith("."):
            return None
        ours = f"{file.place}/fingerprint={file.partition}/{name}" == file.path
        return "shard" if ours and is_name(file.partition) and is_name(file.shard) else "stranger"
    if file.place == SNAPSHOTS:
        ours = f"{SNAPSHOTS}/snapshot={file.partition}/{name}" == file.path
        return "snapshot" if ours and is_name(file.partition) and view_of_file(name) else None
    return "report" if is_of_reports(file.path) else None
