"""The check of a warehouse: list it, read every file, and ask questions of all sound rows."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import duckdb
import pyarrow as pa

from schemas.stages import STAGES
from schemas.tables.registry import TABLES
from schemas.views.snapshots import SNAPSHOTS
from tasks.check import one_file, records, relations, run_counts
from tasks.check.damage import Damage
from tasks.check.listing import Listing, StoredFile, list_files
from tasks.check.one_file import UNREADABLE, Expected, damage_of, expected_of, open_file
from tasks.check.records import Vouching, read_record
from tasks.check.snapshot_files import SnapshotPlaces, not_what_shards_show, views_of_newest_run
from tasks.check.sound import Sound
from tasks.store.reports import REPORTS, is_other_picture
from tasks.store.warehouse import REPLACED, Warehouse
from tasks.store.written import digest_of

OF_FOOTERS = (one_file.newer, one_file.footer, one_file.columns)
"""Questions to a file with a readable footer; after the first that finds something no other is asked."""
_READERS = 4
Advance = Callable[[int], None]


@dataclass(frozen=True)
class Report:
    """What a check found: problems in the order of its questions, and the files it looked at.

    `recorded` is the number of files with a record.
    """

    problems: tuple[Damage, ...]
    listing: Listing
    recorded: int


@dataclass
class Look:
    """A warehouse while it is checked.

    `rotten`: files that no further question reads. `vouched`: files that are as recorded.
    """

    warehouse: Warehouse
    listing: Listing
    vouching: Vouching
    snapshots: SnapshotPlaces = field(default_factory=SnapshotPlaces)
    rotten: set[str] = field(default_factory=set)
    vouched: set[str] = field(default_factory=set)
    digests: dict[str, list[StoredFile]] = field(default_factory=lambda: defaultdict(list))

    @classmethod
    def at(cls, warehouse: Warehouse) -> Look:
        """List the files and read the record."""
        listing = list_files(warehouse)
        return cls(warehouse, listing, Vouching.of(read_record(warehouse, listing.shards), listing))

    @property
    def lacking(self) -> frozenset[str]:
        """Tables and folders that are known to lack files."""
        return self.vouching.record.bereft | {path.partition("/")[0] for path in self.rotten}

    @property
    def sound(self) -> Sound:
        """All files but the rotten ones."""
        return Sound(self.warehouse, self.listing, self.rotten)

    def expected(self, file: StoredFile) -> Expected:
        """What a file must be by its place."""
        return self.snapshots(file) if file.place == SNAPSHOTS else expected_of(file)


def check(
    warehouse: Warehouse, quick: bool = False, begin: Advance | None = None, advance: Advance | None = None
) -> Report:
    """Everything that is wrong with a warehouse.

    Every byte is read, once: digests, page checksums, columns, keys, and then the relations of rows. With
    `quick` only footers, sizes and the listing are read. `begin` is told how many bytes there are,
    `advance` how many have been looked at. Memory: the files that four threads have at hand, and 2 GB for
    the questions to all rows, which overflow to disk. Raises `WarehouseError` when the storage cannot be
    reached.
    """
    look = Look.at(warehouse)
    found = [*of_listing(look), *of_files(look, quick, begin, advance)]
    if not quick:
        found += of_rows(look)
    recorded = sum(look.vouching.entry(f) is not None for f in look.listing.by_path.values())
    return Report(tuple(found), look.listing, recorded)


def of_listing(look: Look) -> list[Damage]:
    """Problems in the listing beside the record: files that are not ours, or are missing."""
    record, listing = look.vouching.record, look.listing
    found = [
        *records.strangers(listing),
        *records.forged(record, listing),
        *records.gone(record, listing),
    ]
    look.rotten.update(path for damage in found for path in damage.files)
    return found


def of_files(
    look: Look, quick: bool = False, begin: Advance | None = None, advance: Advance | None = None
) -> Iterator[Damage]:
    """Problems of every file by itself."""
    files = [f for f in look.listing.by_path.values() if f.path not in look.rotten]
    if begin:
        begin(sum(f.size for f in files))
    examine = _footers if quick else _bytes

    def one(file: StoredFile) -> list[Damage]:
        damages = list(examine(look, file))
        if advance:
            advance(file.size)
        return damages

    with ThreadPoolExecutor(_READERS) as pool:
        for damages in pool.map(one, files):
            look.rotten.update(d.where for d in damages)
            yield from damages


def _footers(look: Look, file: StoredFile) -> Iterator[Damage]:
    """Problems in a file's listing and footer."""
    if wrong := list(look.vouching.changed_size(file)):
        yield from wrong
    elif file.place != REPORTS:
        with look.warehouse.opened(f"{look.warehouse.root}/{file.path}") as stream:
            yield from _parquet(look, file, stream)


def _bytes(look: Look, file: StoredFile) -> Iterator[Damage]:
    """Problems in all bytes of a file; a file that is not what was written is not read any further."""
    try:
        with look.warehouse.opened(f"{look.warehouse.root}/{file.path}") as stream:
            data = stream.read()
    except OSError as error:
        yield damage_of(file, "unreadable file", f"it cannot be read: {error}")
        return
    digest = digest_of(data)
    if wrong := list(look.vouching.changed(file, digest)):
        yield from wrong
        return
    if look.vouching.entry(file):
        look.vouched.add(file.path)
    if file.place != REPORTS:
        yield from _parquet(look, file, pa.BufferReader(data), digest)
    elif is_other_picture(file.path, data):
        yield damage_of(file, "changed file", "its name is a hash of other bytes than it holds")


def _parquet(look: Look, file: StoredFile, source: object, digest: str | None = None) -> Iterator[Damage]:
    """Problems in its footer and, where its digest is given, in its rows."""
    try:
        opened = open_file(file, look.expected(file), source)
        for question in OF_FOOTERS:
            if wrong := list(question(opened)):
                yield from wrong
                return
    except UNREADABLE as error:
        yield damage_of(file, "unreadable file", f"damaged: {error}")
        return
    if digest is not None:
        if opened.parquet.metadata.num_rows:
            look.digests[digest].append(file)
        yield from one_file.rows(opened, vouched=file.path in look.vouched)


def of_rows(look: Look) -> Iterator[Damage]:
    """Questions to the rows of all sound files."""
    yield from _copied(look)
    record, sound = look.vouching.record, look.sound
    with sound.connect() as connection:
        yield from relations.at_odds(connection, look.vouched)
        yield from relations.dangling(connection, look.lacking, look.vouched)
        yield from run_counts.too_few(connection, record, look.lacking)
        yield from _of_newest_run(look, connection)


def _of_newest_run(look: Look, connection: duckdb.DuckDBPyConnection) -> Iterator[Damage]:
    """Questions to what the newest finished run shows, if all its files are there."""
    newest = run_counts.newest_finished(connection)
    if newest is None or look.lacking:
        return
    views = views_of_newest_run(connection, look.sound)
    if views and newest["snapshot"]:
        yield from not_what_shards_show(connection, look.sound, views, newest["snapshot"])
    yield from run_counts.unbalanced(connection, newest, look.vouching.record, look.vouching.killed)


def _copied(look: Look) -> Iterator[Damage]:
    """Files with the bytes of another shard of their table.

    A shard's name says what is in it, so one of the two is a copy. Only shards that are done are asked: a
    killed run leaves heavy rows without their narrow ones, and a later run may write just these rows
    under another name.
    """
    there = {(f.place, f.shard) for f in look.listing.shards}

    def done(file: StoredFile) -> bool:
        fills = [s.tables[-1] for s in STAGES.values() if file.place in s.tables]
        return all((last, file.shard) in there for last in fills)

    for same in look.digests.values():
        table = TABLES.get(same[0].place)
        if len(same) == 1 or table is None or table.fingerprint is None or table.name in REPLACED:
            continue
        first, *copies = sorted(same, key=lambda f: (f.path not in look.vouched, f.path))
        if all(map(done, same)):
            for copy in copies:
                yield damage_of(copy, "copied file", f"it is the same as {first.path}, byte for byte")
