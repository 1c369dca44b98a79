"""Problems of one Parquet file by itself: pages, footer, columns, keys, and statistics of rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from io import BytesIO
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from schemas.errors import WarehouseError
from schemas.tables.registry import TABLES
from tasks.check.damage import Damage, cure_of
from tasks.check.listing import StoredFile
from tasks.store.shard_files import encode_rows, footer_of
from tasks.store.versions import VERSION, check_version

UNREADABLE = (pa.ArrowException, OSError, UnicodeDecodeError)
"""What reading damaged Parquet raises."""
_SAID = ("path_in_schema", "physical_type", "num_values", "is_stats_set")
"""What a footer says of a column of a row group, besides statistics, that follows from its rows."""


@dataclass(frozen=True)
class Expected:
    """What a file must be: its footer for a number of rows, its columns (None: any), and its key.

    A file may be older than a column that may be null, and lack it; with `exactly` it must have all
    columns.
    """

    footer: Callable[[int], Mapping[bytes, bytes]]
    schema: pa.Schema | None
    key: tuple[str, ...]
    exactly: bool = False


def expected_of(file: StoredFile) -> Expected:
    """What a shard must be by its place."""
    table = TABLES[file.place]
    return Expected(lambda rows: footer_of(table.name, file.partition, rows), table.schema, table.key)


@dataclass(frozen=True)
class Opened:
    """A file whose footer could be read."""

    file: StoredFile
    expected: Expected
    parquet: pq.ParquetFile

    def damage(self, kind: str, what: str) -> Damage:
        """A problem of this file; moving the file away solves it."""
        return damage_of(self.file, kind, what)


def damage_of(file: StoredFile, kind: str, what: str) -> Damage:
    """A problem of a file; moving the file away solves it."""
    return Damage(kind, file.path, what, cure_of(file.place), (file.path,))


def open_file(file: StoredFile, expected: Expected, source: Any) -> Opened:
    """Open a file-like object or a buffer; page checksums are verified whenever a page is read.

    Raises one of `UNREADABLE`.
    """
    return Opened(file, expected, pq.ParquetFile(source, page_checksum_verification=True))


def newer(opened: Opened) -> Iterator[Damage]:
    """A schema version that this program does not know, or none."""
    try:
        check_version(opened.file.path, opened.parquet.metadata.metadata or {})
    except WarehouseError as error:
        yield Damage(
            "wrong version", opened.file.path, error.message, error.cure or cure_of(opened.file.place)
        )


def footer(opened: Opened) -> Iterator[Damage]:
    """Footer entries that contradict the file's place or rows.

    The entries are table, fingerprint and number of rows. The schema version may be an older one.
    """
    said = opened.parquet.metadata.metadata or {}
    meant = opened.expected.footer(opened.parquet.metadata.num_rows)
    wrong = [key for key, value in meant.items() if key != VERSION and said.get(key) != value]
    if wrong:
        found = ", ".join(f"{k.decode()} = {said.get(k, b'nothing').decode(errors='replace')}" for k in wrong)
        right = ", ".join(f"{k.decode()} = {meant[k].decode()}" for k in wrong)
        yield opened.damage("wrong footer", f"the file says {found}, but its place and rows say {right}")


def columns(opened: Opened) -> Iterator[Damage]:
    """Columns that are not the table's: wrong name, type or nullability, missing, or too many."""
    schema = opened.expected.schema
    if schema is None:
        return
    stored = opened.parquet.schema_arrow
    wrong = [f"{f.name} is no column of it" for f in stored if f.name not in schema.names]
    for field in schema:
        places = stored.get_all_field_indices(field.name)
        if len(places) > 1:
            wrong.append(f"{field.name} is there {len(places)} times")
        elif not places and (opened.expected.exactly or not field.nullable):
            wrong.append(f"{field.name} is missing")
        elif places and not stored.field(places[0]).equals(field.remove_metadata()):
            wrong.append(f"{field.name} is {stored.field(places[0])}, not {field.remove_metadata()}")
    if not wrong and not _as_arrow_stores(opened):
        wrong.append("their types in the file are not those that its Arrow schema stands for")
    if wrong:
        yield opened.damage(
            "wrong columns", f"its columns are not those of {opened.file.place}: {'; '.join(wrong)}"
        )


def _as_arrow_stores(opened: Opened) -> bool:
    """Whether the Parquet columns, which DuckDB reads, are those of the Arrow schema, which we read.

    Other versions of Arrow may store a type in another way, so only a file of this version is checked.
    """
    parquet = opened.parquet
    written = _empty_file(parquet.schema_arrow.remove_metadata())
    if parquet.metadata.created_by != written.metadata.created_by:
        return True
    return bool(parquet.schema.equals(written.schema))


@cache
def _empty_file(schema: pa.Schema) -> pq.ParquetFile:
    return pq.ParquetFile(BytesIO(encode_rows(schema.empty_table(), {}, None)))


def rows(opened: Opened, vouched: bool) -> Iterator[Damage]:
    """Problems in all rows, group by group: wrong page checksums, invalid text, repeated keys.

    For a file without a matching digest, what its footer says of each group of rows is compared with the
    rows as well, since readers skip groups by it. Memory: one group, and the file's keys.
    """
    parquet, key = opened.parquet, list(opened.expected.key)
    keys: list[pa.Table] = []
    try:
        for group in range(parquet.num_row_groups):
            table = parquet.read_row_group(group)
            table.validate(full=True)
            if set(key) <= set(table.column_names):
                keys.append(table.select(key))
            if not vouched and (wrong := _misdescribed(parquet, group, table)):
                yield opened.damage(
                    "wrong statistics", f"its footer says of {', '.join(wrong)} what the rows do not bear out"
                )
                return
    except UNREADABLE as error:
        yield opened.damage("unreadable pages", f"damaged: {error}")
        return
    held = sum(t.num_rows for t in keys)
    if keys and (twice := held - pa.concat_tables(keys).group_by(key).aggregate([]).num_rows):
        yield opened.damage("key twice", f"{twice} of {held} rows repeat the key {', '.join(key)}")


def _misdescribed(parquet: pq.ParquetFile, group: int, rows: pa.Table) -> list[str]:
    """Columns of a row group whose footer entry differs from one written now for the same rows."""
    written = pq.ParquetFile(BytesIO(encode_rows(rows.replace_schema_metadata(None), {}, None))).metadata
    if parquet.metadata.created_by != written.created_by or not rows.num_rows:
        return []
    before, after = parquet.metadata.row_group(group), written.row_group(0)
    pairs = ((before.column(i), after.column(i)) for i in range(after.num_columns))
    return [wanted.path_in_schema for found, wanted in pairs if not _says_the_same(found, wanted)]


def _says_the_same(found: pq.ColumnChunkMetaData, wanted: pq.ColumnChunkMetaData) -> bool:
    """Whether two footers agree on what follows from a column's rows, however they are encoded."""
    if any(getattr(found, name) != getattr(wanted, name) for name in _SAID):
        return False
    # This must come last: Arrow ends the process when asked for statistics of a type other than the column's.
    said, meant = (None if s is None else s.to_dict() for s in (found.statistics, wanted.statistics))
    return repr(said) == repr(meant)
