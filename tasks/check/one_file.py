"""What can be wrong with one Parquet file by itself: pages, footer, columns, keys, and what its footer says
of its rows."""

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
from tasks.store.shard_files import check_version, encode_rows, footer_of

UNREADABLE = (pa.ArrowException, OSError, UnicodeDecodeError)
"""What reading damaged Parquet raises."""
_SAID = ("path_in_schema", "physical_type", "num_values", "is_stats_set")
"""What a footer says of a column of a row group, beside its statistics, that follows from its rows."""


@dataclass(frozen=True)
class Expected:
    """What a file must be: the entries of its footer by its number of rows, its columns (any, if None), and
    its key.

    Files may be older than a column that may be null; with `exactly` they have all.
    """

    footer: Callable[[int], Mapping[bytes, bytes]]
    schema: pa.Schema | None
    key: tuple[str, ...]
    exactly: bool = False


def expected_of(file: StoredFile) -> Expected:
    """What the place of a shard says that it is."""
    table = TABLES[file.place]
    return Expected(lambda rows: footer_of(table.name, file.partition, rows), table.schema, table.key)


@dataclass(frozen=True)
class Opened:
    """A file whose footer could be read."""

    file: StoredFile
    expected: Expected
    parquet: pq.ParquetFile

    def damage(self, kind: str, what: str) -> Damage:
        """A problem of this file that taking it away solves."""
        return damage_of(self.file, kind, what)


def damage_of(file: StoredFile, kind: str, what: str) -> Damage:
    """A problem of a file that taking it away solves."""
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
    """Entries of the footer that its place and its rows contradict: table, fingerprint, schema version,
    number of rows."""
    said = opened.parquet.metadata.metadata or {}
    meant = opened.expected.footer(opened.parquet.metadata.num_rows)
    wrong = [key for key, value in meant.items() if said.get(key) != value]
    if wrong:
        found = ", ".join(f"{k.decode()} = {said.get(k, b'nothing').decode(errors='replace')}" for k in wrong)
        right = ", ".join(f"{k.decode()} = {meant[k].decode()}" for k in wrong)
        yield opened.damage("wrong footer", f"the file says {found}, but its place and rows say {right}")


def columns(opened: Opened) -> Iterator[Damage]:
    """Columns of other names or types than the table's, that may be null and must not, that are missing or
    too many."""
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
    """Whether the Parquet columns, which DuckDB goes by, are those of the Arrow schema, which we go by.

    Other versions of Arrow may store a type in another way, so only a file of this version is asked.
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
    """All rows, group by group: pages whose checksum is wrong, text that is none, keys that occur twice.

    Of a file that no digest has vouched for, what its footer says of each group of rows is compared with the
    rows as well: readers skip groups by it. Memory: one group, and the file's keys.
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
    """Columns of a row group of which its footer says something else than that of the same rows, written now."""
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
    # Only now: Arrow ends the process when it is asked for statistics of a type that is not the column's.
    said, meant = (None if s is None else s.to_dict() for s in (found.statistics, wanted.statistics))
    return repr(said) == repr(meant)
