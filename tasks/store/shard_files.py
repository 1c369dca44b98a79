"""The file of one shard: rows in their table's schema, with one encoding, put in place whole."""

from __future__ import annotations

import io
import os
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, TypeAlias

import pyarrow as pa
import pyarrow.parquet as pq

from schemas.errors import WarehouseError
from schemas.tables.columns import Table
from schemas.tables.registry import SCHEMA_VERSION

Rows: TypeAlias = pa.Table | Sequence[Mapping[str, Any]]

SUFFIX = ".parquet"
REMOVE = "`pairx check --quarantine` moves it aside, and `pairx run` computes it again"
TEMPORARY = ".part"
"""Suffix of a file that is being written; no reader takes it for a shard."""


def typed_rows(table: Table, rows: Rows) -> pa.Table:
    """The rows in order as a table of exactly the table's schema; absent nullable columns are filled.

    Raises `WarehouseError` for an unknown column, a value that does not fit, a null where none may be, a
    repeated key.
    """
    schema = table.schema
    names = (
        rows.column_names
        if isinstance(rows, pa.Table)
        else dict.fromkeys(name for row in rows for name in row)
    )
    unknown = sorted(set(names) - set(schema.names))
    if unknown:
        raise WarehouseError(
            f"table {table.name} has no column {', '.join(unknown)}", f"it has {', '.join(schema.names)}"
        )
    try:
        if isinstance(rows, pa.Table):
            present = [
                rows[f.name].cast(f.type) if f.name in names else pa.nulls(len(rows), f.type) for f in schema
            ]
            typed = pa.table(present, schema=schema)
        else:
            typed = pa.Table.from_pylist([dict(row) for row in rows], schema=schema)
    except (pa.ArrowException, TypeError, ValueError, OverflowError) as error:
        raise WarehouseError(
            f"rows do not fit table {table.name}: {error}", "see schemas/tables/registry.py"
        ) from error
    _refuse_nulls_and_twins(table, typed)
    return typed.combine_chunks()


def _refuse_nulls_and_twins(table: Table, rows: pa.Table) -> None:
    nulls = [f.name for f in table.schema if not f.nullable and rows[f.name].null_count]
    if nulls:
        raise WarehouseError(
            f"table {table.name}: {', '.join(nulls)} must not be null", "fill the column in every row"
        )
    keys = rows.select(list(table.key)).group_by(list(table.key)).aggregate([]).num_rows
    if keys != rows.num_rows:
        twins = rows.num_rows - keys
        raise WarehouseError(
            f"table {table.name}: {twins} rows repeat the key {table.key}", "write one row per key"
        )


def encode(table: Table, fingerprint: str, rows: pa.Table) -> bytes:
    """The bytes of a shard's file: see `encode_rows`."""
    return encode_rows(rows, footer_of(table.name, fingerprint, rows.num_rows), table.rows_per_group)


def encode_rows(rows: pa.Table, footer: Mapping[bytes, bytes], rows_per_group: int | None) -> bytes:
    """A file's bytes: the same for the same rows.

    Names repeat and get a dictionary; numbers do not, since embeddings are read several times faster
    without. Lists of 32- and 64-bit floats are split by byte, which zstd packs better; DuckDB cannot read
    that encoding for 16-bit floats.
    """
    texts = [f.name for f in rows.schema if pa.types.is_string(f.type)]
    maps = [f.name for f in rows.schema if pa.types.is_map(f.type)]
    texts += [f"{name}.key_value.{part}" for name in maps for part in ("key", "value")]
    split = [
        f"{f.name}.list.element"
        for f in rows.schema
        if (pa.types.is_list(f.type) or pa.types.is_fixed_size_list(f.type))
        and (pa.types.is_float32(f.type.value_type) or pa.types.is_float64(f.type.value_type))
    ]
    buffer = io.BytesIO()
    pq.write_table(
        rows.replace_schema_metadata(dict(footer)),
        buffer,
        compression="zstd",
        use_dictionary=texts,
        column_encoding=dict.fromkeys(split, "BYTE_STREAM_SPLIT") or None,
        write_page_checksum=True,
        row_group_size=rows_per_group,
    )
    return buffer.getvalue()


def footer_of(table: str, fingerprint: str, rows: int) -> dict[bytes, bytes]:
    """What a file says of itself: schema version, table, fingerprint and rows."""
    return _footer(table=table, fingerprint=fingerprint, rows=rows)


def snapshot_footer_of(view: str, snapshot: str, rows: int) -> dict[bytes, bytes]:
    """What a file of a snapshot says of itself: schema version, view, snapshot and rows."""
    return _footer(view=view, snapshot=snapshot, rows=rows)


def _footer(**values: str | int) -> dict[bytes, bytes]:
    return {
        key.encode(): str(value).encode()
        for key, value in ({"schema_version": SCHEMA_VERSION} | values).items()
    }


def read_footer(path: str, stream: IO[bytes] | io.RawIOBase) -> tuple[dict[bytes, bytes], int]:
    """Key-value metadata and number of rows of a file; raises `WarehouseError` where it is damaged."""
    try:
        metadata = pq.ParquetFile(stream).metadata
        return dict(metadata.metadata or {}), int(metadata.num_rows)
    except (pa.ArrowException, OSError) as error:
        raise damaged(path, error) from error


def damaged(path: str, error: Exception) -> WarehouseError:
    """The error for a file that cannot be read."""
    return WarehouseError(f"{path} is damaged: {error}", REMOVE)


def check_version(path: str, footer: Mapping[bytes, bytes]) -> None:
    """Raise `WarehouseError` for a file that is not of a warehouse, or of a newer schema version."""
    said = footer.get(b"schema_version", b"").decode(errors="replace")
    if not said.isdigit():
        raise WarehouseError(
            f"{path} carries no schema version: it is not a file of this warehouse", "move it elsewhere"
        )
    if int(said) > SCHEMA_VERSION:
        what = f"{path} has schema version {said}, this program reads up to {SCHEMA_VERSION}"
        raise WarehouseError(what, "install a newer version of pairx-pipeline")


def put_in_place(path: Path, data: bytes) -> None:
    """Let the file appear whole or not at all; once this returns, it survives a power failure."""
    with _written_aside(path, data) as temporary:
        os.replace(temporary, path)
    _last(path.parent)


def create_in_place(path: Path, data: bytes) -> bool:
    """As `put_in_place`, but only where there is no such file; returns whether it was made."""
    with _written_aside(path, data) as temporary:
        try:
            os.link(temporary, path)
        except FileExistsError:
            return False
    _last(path.parent)
    return True


@contextmanager
def _written_aside(path: Path, data: bytes) -> Iterator[Path]:
    """A file beside the path that safely holds the data; after the block it has no such name any more."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.stem}.{uuid.uuid4().hex}{TEMPORARY}")
    try:
        with temporary.open("xb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        yield temporary
    finally:
        temporary.unlink(missing_ok=True)


def _last(parent: Path) -> None:
    """Make sure that what was put into a folder survives a power failure."""
    folder = os.open(parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
