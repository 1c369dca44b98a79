"""The snapshot of a run: what some views showed at its end, in large sorted files.

Old snapshots are removed. Readers find it in the row of the finished run (`schemas.views.install`), so they
never read a half-written one.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import duckdb
import pyarrow as pa

from schemas.views.snapshots import (
    ROWS_PER_FILE,
    ROWS_PER_GROUP,
    snapshot_file,
    snapshot_folder,
    snapshot_views,
    whole_snapshot,
)
from tasks.store.shard_files import encode_rows, snapshot_footer_of
from tasks.store.warehouse import Warehouse

KEPT = 2
"""How many snapshots stay: the newest, and the one before for those who opened the warehouse earlier."""
_ABANDONED = timedelta(days=1)


@dataclass(frozen=True)
class Snapshot:
    """A whole snapshot: its name, and the rows now written for it; 0 if it was already there."""

    name: str
    written: int

    def __str__(self) -> str:
        return f"snapshot of {self.written} rows" if self.written else "snapshot unchanged"


def write_snapshot(warehouse: Warehouse, connection: duckdb.DuckDBPyConnection, name: str) -> Snapshot:
    """Store what the views of the connection show, under the name that `Views.snapshot_name` gives it.

    The same rows give the same bytes. Memory: the rows of one file, and what DuckDB needs to sort.
    """
    if whole_snapshot(warehouse.snapshot(name)):
        return Snapshot(name, 0)
    written = 0
    for view, order in snapshot_views().items():
        rows = connection.sql(f"SELECT count(*) FROM {view}").fetchall()[0][0]  # noqa: S608  # our names
        parts = max(1, math.ceil(rows / ROWS_PER_FILE))
        found = connection.sql(f"FROM {view} ORDER BY {', '.join(order)}").to_arrow_reader(ROWS_PER_GROUP)
        for part, table in enumerate(_cut(found, ROWS_PER_FILE), start=1):
            data = encode_rows(table, snapshot_footer_of(view, name, table.num_rows), ROWS_PER_GROUP)
            warehouse.write_file(f"{snapshot_folder(name)}/{snapshot_file(view, part, parts)}", data)
        written += rows
    return Snapshot(name, written)


def _cut(reader: pa.RecordBatchReader, size: int) -> Iterator[pa.Table]:
    """The reader's rows in tables of exactly `size`, the last one shorter; one empty table if none."""
    held: list[pa.RecordBatch] = []
    room, cut = size, 0
    for batch in reader:
        while batch.num_rows >= room:
            held.append(batch.slice(0, room))
            yield pa.Table.from_batches(held, reader.schema).combine_chunks()
            batch, held, room, cut = batch.slice(room), [], size, cut + 1
        if batch.num_rows:
            held.append(batch)
            room -= batch.num_rows
    if held or not cut:
        yield pa.Table.from_batches(held, reader.schema).combine_chunks()


def earlier_snapshots(connection: duckdb.DuckDBPyConnection) -> list[str]:
    """The snapshots of all finished runs that the views know of, newest first."""
    rows = connection.execute(
        """SELECT snapshot FROM all_runs WHERE status = 'finished' AND snapshot IS NOT NULL ORDER BY "at" DESC, run_id DESC"""
    ).fetchall()
    return [row[0] for row in rows]


def remove_old_snapshots(warehouse: Warehouse, newest: Sequence[str]) -> list[str]:
    """Remove all snapshots but the last two of finished runs; returns the names of those removed.

    `newest` names those of finished runs, newest first. A snapshot that no finished run knows may be
    another run's that is still being written: it is removed once it is a day old. A reader of a removed
    snapshot gets an error, and the warehouse's rows when the warehouse is opened again.
    """
    kept = list(dict.fromkeys(newest))[:KEPT]
    removed = []
    for name in warehouse.snapshots():
        if name not in kept and (name in newest or _abandoned(warehouse, name)):
            filesystem = warehouse.filesystem
            try:
                filesystem.rm(f"{warehouse.root}/{snapshot_folder(name)}", recursive=True)
            except FileNotFoundError:
                continue  # another run was faster
            removed.append(name)
    return removed


def _abandoned(warehouse: Warehouse, name: str) -> bool:
    filesystem, folder = warehouse.filesystem, f"{warehouse.root}/{snapshot_folder(name)}"
    try:
        written = [filesystem.modified(path) for path in filesystem.ls(folder, detail=False)]
    except (FileNotFoundError, NotImplementedError):
        return False
    return bool(written) and datetime.now(UTC) - max(written) > _ABANDONED
