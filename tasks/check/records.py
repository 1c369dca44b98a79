"""Compares files with the record of the runs that wrote them: changed, gone or copied files."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property

import pyarrow as pa

from schemas.errors import WarehouseError
from schemas.tables.files import FILES_PARTITION
from tasks.check.damage import Damage, cure_of
from tasks.check.listing import Listing, StoredFile
from tasks.check.one_file import UNREADABLE, damage_of
from tasks.store.file_record import record_name
from tasks.store.warehouse import REPLACED, Warehouse

_MAY_GO = ("current", "reports", "galleries", "horizons")
"""Folders whose files may be deleted by anybody: runs remove old snapshots and states themselves."""


@dataclass(frozen=True)
class Entry:
    """What the newest run or check that knows a path recorded of it: sizes and digests.

    There are none if the file was moved aside.
    """

    run_id: str
    sizes: frozenset[int] = frozenset()
    digests: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Record:
    """All that runs recorded, by path, and record shards whose rows do not match their name."""

    entries: Mapping[str, Entry] = field(default_factory=dict)
    forged: tuple[str, ...] = ()

    @cached_property
    def runs(self) -> frozenset[str]:
        """Runs that have a record."""
        return frozenset(entry.run_id for entry in self.entries.values())

    @cached_property
    def bereft(self) -> frozenset[str]:
        """Tables and folders of files that were moved aside and have not come back.

        Some of their rows may be lost for good.
        """
        return frozenset(path.partition("/")[0] for path, e in self.entries.items() if not e.digests)

    @property
    def moved_at(self) -> str:
        """When a file that has not come back was last moved aside, as a run id; empty if none."""
        return max((e.run_id for e in self.entries.values() if not e.digests), default="")


def read_record(warehouse: Warehouse, shards: Iterable[StoredFile]) -> Record:
    """The record of a warehouse, as far as it is readable; other checks find unreadable shards."""
    newest: dict[str, tuple[str, set[int], set[str]]] = {}
    forged: list[str] = []
    for file in shards:
        if file.place != "files":
            continue
        try:
            rows = warehouse.read("files", FILES_PARTITION, [file.shard])
        except (WarehouseError, *UNREADABLE):
            continue
        if record_name(rows) != file.shard:
            forged.append(file.path)
            continue
        _take(rows, newest)
    entries = {
        path: Entry(run, frozenset(sizes), frozenset(digests))
        for path, (run, sizes, digests) in newest.items()
    }
    return Record(entries, tuple(forged))


def _take(rows: pa.Table, newest: dict[str, tuple[str, set[int], set[str]]]) -> None:
    for row in rows.to_pylist():
        known = newest.get(row["path"])
        if known is None or row["run_id"] > known[0]:
            known = newest[row["path"]] = (row["run_id"], set(), set())
        if row["run_id"] == known[0] and row["digest"] is not None:
            known[1].add(row["bytes"])
            known[2].add(row["digest"])


def strangers(listing: Listing) -> Iterator[Damage]:
    """Foreign Parquet files in a table's folders; plain readers of the folder take them for rows."""
    for file in listing.strangers:
        yield Damage(
            "strange file",
            file.path,
            f"no run writes a file of this name into {file.place}, and whoever reads the whole folder takes it for rows",
            "move it out of the warehouse, or let `pairx check --quarantine` do it",
            (file.path,),
        )


def forged(record: Record, listing: Listing) -> Iterator[Damage]:
    """Shards of the record whose name is not the hash of their rows."""
    for path in record.forged:
        what = "digests in it were changed: its name is a hash of them, and of others than it holds"
        yield damage_of(listing.by_path[path], "changed file", what)


def gone(record: Record, listing: Listing) -> Iterator[Damage]:
    """Files that a run wrote and nobody moved aside, and that are missing now."""
    for path, entry in sorted(record.entries.items()):
        place = path.partition("/")[0]
        if entry.digests and path not in listing.by_path and place not in _MAY_GO:
            yield Damage(
                "missing file",
                path,
                f"run {entry.run_id} wrote it, and it is gone",
                f"put it back from a copy, or else note that it is gone; {cure_of(place)}",
                (path,),
            )


@dataclass(frozen=True)
class Vouching:
    """Tells whether single files are what their record says."""

    record: Record
    killed: frozenset[str]
    """Runs that have started and left no record: they were killed, or are still at work."""

    @classmethod
    def of(cls, record: Record, listing: Listing) -> Vouching:
        """The vouching for a warehouse with this record and these files."""
        started = (f.shard for f in listing.shards if f.place == "runs" and f.shard.endswith("-started"))
        return cls(record, frozenset(s.removesuffix("-started") for s in started) - record.runs)

    def entry(self, file: StoredFile) -> Entry | None:
        """What the record says of a file and must still be true.

        None where it says nothing, and where a run without a record may have replaced the file.
        """
        entry = self.record.entries.get(file.path)
        if entry is None or not entry.digests:
            return None
        if file.place in REPLACED and any(run > entry.run_id for run in self.killed):
            return None
        return entry

    def changed_size(self, file: StoredFile) -> Iterator[Damage]:
        """A problem if the file's size is not the recorded one."""
        entry = self.entry(file)
        if entry and file.size not in entry.sizes:
            sizes = " or ".join(map(str, sorted(entry.sizes)))
            yield damage_of(
                file, "changed file", f"it has {file.size} bytes; run {entry.run_id} wrote {sizes}"
            )

    def changed(self, file: StoredFile, digest: str) -> Iterator[Damage]:
        """A problem if the file's bytes are not the recorded ones."""
        entry = self.entry(file)
        if entry and digest not in entry.digests:
            yield damage_of(file, "changed file", f"its bytes are not those that run {entry.run_id} wrote")
