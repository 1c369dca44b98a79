"""The snapshot of a run: what some views showed at its end, written in large sorted files, checked, and removed when it is old.

Readers take it from the row of the finished run (`schemas.views`), so a half-written one is never read.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from schemas.errors import Problem
from schemas.snapshots import (
    ROWS_PER_FILE,
    ROWS_PER_GROUP,
    definition,
    snapshot_file,
    snapshot_folder,
    snapshot_views,
    view_of_file,
    whole_snapshot,
)
from schemas.sql_files import view_files
from schemas.view_graph import ViewGraph
from schemas.views import NoFiles, install_views
from tasks.shard_files import encode_rows, snapshot_footer_of
from tasks.warehouse import Warehouse

KEPT = 2
"""Snapshots that stay: the newest, and the one before it for those who opened the warehouse a run ago."""
_ABANDONED = timedelta(days=1)
_REMOVE = "delete its folder: the shards are read instead, and the next run writes it anew"


@dataclass(frozen=True)
class Snapshot:
    """A whole snapshot: its name, and how many rows were written for it now; none when it was there already."""

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
    """The reader's rows in tables of exactly `size`, the last one shorter; one empty table where there are none."""
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
    """Remove all snapshots but the last two of finished runs, given newest first; returns the names of those removed.

    One that no finished run knows of may be another run's that is still being written: it goes once it is a day old. Who reads
    a removed one gets an error, and the warehouse's rows when it is opened again.
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


def check_snapshots(warehouse: Warehouse) -> list[Problem]:
    """Files of snapshots that are unreadable, in the wrong place, lack rows, or have other columns than their view."""
    expected = _schemas()
    known = definition(ViewGraph(view_files()))
    return [
        problem
        for name in warehouse.snapshots()
        for problem in _problems(warehouse, name, expected if name.partition("-")[0] == known else {})
    ]


def _schemas() -> dict[str, pa.Schema]:
    """View -> columns of its files in a snapshot made by this program."""
    with duckdb.connect(":memory:") as connection:
        install_views(connection, NoFiles())
        return {name: connection.sql(f"FROM {name}").to_arrow_table().schema for name in snapshot_views()}


def _problems(warehouse: Warehouse, name: str, expected: dict[str, pa.Schema]) -> Iterable[Problem]:
    folder = f"{warehouse.root}/{snapshot_folder(name)}"
    for path in sorted(map(str, warehouse.filesystem.ls(folder, detail=False))):
        view = view_of_file(path)
        if view is None:
            continue
        try:
            with warehouse.filesystem.open(path, "rb") as stream:
                file = pq.ParquetFile(stream)
                rows, schema = file.metadata.num_rows, file.schema_arrow
        except FileNotFoundError:
            continue  # a run that finished just now removed it
        except (pa.ArrowException, OSError) as error:
            yield Problem("unreadable file", path, f"damaged: {error}", _REMOVE)
            continue
        footer = snapshot_footer_of(view, name, rows)
        said = schema.metadata or {}
        wrong = [key.decode() for key, value in footer.items() if said.get(key) != value]
        if wrong:
            yield Problem(
                "wrong footer", path, f"its footer says something else of {', '.join(wrong)}", _REMOVE
            )
        elif view in expected and not schema.equals(expected[view]):
            yield Problem("wrong columns", path, f"its columns are not those of the view {view}", _REMOVE)
