"""Writes the convention of wildlife-datasets back, as CSV or Parquet: one row per photo."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from schemas.catalogue.files.tables import PARQUET_SUFFIXES
from schemas.catalogue.table_files import read_bytes, suffix_of
from schemas.catalogue.writing.corrections import (
    Corrections,
    Listed,
    Written,
    by_place,
    unknown_as_written,
)
from schemas.catalogue.writing.csv_text import csv_of


def write_frame(file: str, photos: Sequence[Listed], corrections: Corrections) -> Written:
    """The file with other names and without the dropped rows.

    Raises `SettingsError` for a file that is neither plain CSV nor Parquet.
    """
    if suffix_of(file) in PARQUET_SUFFIXES:
        return _parquet(read_bytes(file), photos, corrections)
    written = Written()
    text = csv_of(file, {place.column for photo in photos for place in (photo.at, photo.photo_at)})
    text.rename(by_place(photos, corrections, written))
    for photo in photos:
        if photo.photo_id in corrections.dropped:
            text.drop(photo.photo_at.number)
    written.files[""] = text.data()
    return written


def _parquet(data: bytes, photos: Sequence[Listed], corrections: Corrections) -> Written:
    written = Written()
    source = pq.ParquetFile(io.BytesIO(data))
    table = source.read()
    names = {place.number - 1: name for place, name in by_place(photos, corrections, written).items()}
    if names and photos:
        column = next(i for i, n in enumerate(table.column_names) if n.strip().lower() == photos[0].at.column)
        changed = _renamed(table.column(column), names, photos, corrections, written)
        table = table.set_column(column, table.schema.field(column), changed)
    out = {photo.photo_at.number - 1 for photo in photos if photo.photo_id in corrections.dropped}
    if out:
        table = table.take(pa.array([i for i in range(table.num_rows) if i not in out], pa.int64()))
    written.files[""] = _encoded(table, source.metadata)
    return written


def _renamed(
    column: pa.ChunkedArray,
    names: dict[int, str | None],
    photos: Sequence[Listed],
    corrections: Corrections,
    written: Written,
) -> pa.ChunkedArray:
    """The column with other names, of the same type; names that do not fit the type are refused."""
    kind = column.type
    plain = kind.value_type if pa.types.is_dictionary(kind) else kind
    values = column.to_pylist()
    unknown = unknown_as_written(v if isinstance(v, str) else None for v in values)
    owners = {photo.at.number - 1: photo.photo_id for photo in photos}
    for row, name in names.items():
        try:
            values[row] = _fitting(name, plain, unknown)
        except (ValueError, pa.ArrowException):
            why = f"the column {photos[0].at.column} holds {plain}, which {name!r} does not fit: store the names as text"
            written.refused[owners[row]] = why
    return pa.chunked_array([pa.array(values, plain).cast(kind)])


def _fitting(name: str | None, kind: pa.DataType, unknown: str) -> Any:
    text = pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)
    if name is None:
        return unknown or None if text else None
    if text:
        return name
    if str(float(name) if pa.types.is_floating(kind) else int(name)).removesuffix(".0") != name:
        raise ValueError(name)
    return pa.scalar(float(name) if pa.types.is_floating(kind) else int(name), kind).as_py()


def _encoded(table: pa.Table, metadata: pq.FileMetaData) -> bytes:
    """A Parquet file of the same compression and row groups."""
    groups = [metadata.row_group(i) for i in range(metadata.num_row_groups)]
    compression = groups[0].column(0).compression.lower() if groups and groups[0].num_columns else "snappy"
    stream = io.BytesIO()
    pq.write_table(
        table,
        stream,
        compression="none" if compression == "uncompressed" else compression,
        row_group_size=max((g.num_rows for g in groups), default=None) or None,
    )
    return stream.getvalue()
