"""Rows of a query as text: an aligned table for people, CSV and JSON for programs."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from datetime import date, datetime
from decimal import Decimal
from typing import Any, Literal

import pyarrow as pa

from schemas.errors import PairxError
from schemas.foreign_text import escaped_json, printable
from tasks.sql.csv_text import csv_lines

Format = Literal["table", "csv", "json"]

_SHOWN_ROWS = 200
_SHOWN_CHARACTERS = 80
_PORTION = 2000


class QueryError(PairxError, ValueError):
    """A query cannot be run: it is not one reading statement, or has an error of its own."""

    exit_code = 2


def format_result(result: pa.Table, kind: Format = "table") -> str:
    """The rows of a table in memory as one text; see `pieces`."""
    return "".join(pieces(result.schema, result.to_batches(), kind)).removesuffix("\n")


def pieces(schema: pa.Schema, batches: Iterable[pa.RecordBatch], kind: Format = "table") -> Iterator[str]:
    """The rows as an aligned table (the first 200), as CSV with a header, or as a JSON array.

    The text comes piece by piece; JSON is an array of objects. No foreign text steers the terminal or is
    a formula in the CSV. Lists become JSON inside CSV, bytes are shown by their number, and numbers that
    are not finite are null in JSON. Memory: one batch, and what a table shows. Raises `QueryError` for
    another format.
    """
    formats: dict[str, Callable[[pa.Schema, Iterable[pa.RecordBatch]], Iterator[str]]]
    formats = {"table": _as_table, "csv": _as_csv, "json": _as_json}
    if kind not in formats:
        raise QueryError(f"no format {kind!r}", f"formats are {', '.join(formats)}")
    return formats[kind](schema, batches)


def _as_table(schema: pa.Schema, batches: Iterable[pa.RecordBatch]) -> Iterator[str]:
    if schema.names == ["explain_key", "explain_value"]:
        for batch in batches:
            for plan in batch["explain_value"].to_pylist():
                yield from (f"{printable(line)}\n" for line in plan.splitlines())
        return
    rows: list[list[str]] = []
    count = 0
    for batch in batches:
        shown = batch.slice(0, _SHOWN_ROWS - len(rows))
        rows += [[_cell(value) for value in row] for row in _rows(shown)]
        count += batch.num_rows
    names = [printable(name) for name in schema.names]
    widths = [max(map(len, column)) for column in zip(names, *rows, strict=True)]
    right = [
        pa.types.is_integer(t) or pa.types.is_floating(t) or pa.types.is_decimal(t) for t in schema.types
    ]

    def line(cells: list[str]) -> str:
        pairs = zip(cells, widths, right, strict=True)
        return "  ".join(
            cell.rjust(width) if number else cell.ljust(width) for cell, width, number in pairs
        ).rstrip()

    hidden = count - len(rows)
    last = f"({count} row{'' if count == 1 else 's'}"
    last += f"; {hidden} not shown, csv and json give all)" if hidden else ")"
    for text in (line(names), "  ".join("-" * width for width in widths), *map(line, rows), last):
        yield f"{text}\n"


def _as_csv(schema: pa.Schema, batches: Iterable[pa.RecordBatch]) -> Iterator[str]:
    yield csv_lines([schema.names])
    for batch in batches:
        for rows in _in_portions(batch):
            yield csv_lines(rows)


def _as_json(schema: pa.Schema, batches: Iterable[pa.RecordBatch]) -> Iterator[str]:
    seen: Counter[str] = Counter()
    names = []
    for name in schema.names:
        seen[name] += 1
        names.append(name if seen[name] == 1 else f"{name}_{seen[name]}")
    before = "["
    for batch in batches:
        for rows in _in_portions(batch):
            texts = (json.dumps(dict(zip(names, row, strict=True)), ensure_ascii=False) for row in rows)
            yield before + ",\n ".join(map(escaped_json, texts))
            before = ",\n "
    yield "]\n" if before != "[" else "[]\n"


def _in_portions(batch: pa.RecordBatch) -> Iterator[list[list[Any]]]:
    """The rows of a batch, a few at a time, so that signals are heard between two portions."""
    for first in range(0, batch.num_rows, _PORTION):
        yield _rows(batch.slice(first, _PORTION))


def _rows(result: pa.RecordBatch) -> list[list[Any]]:
    columns = [
        column.to_pylist(maps_as_pydicts="lossy" if _is_map_of_texts(column.type) else None)
        for column in result.columns
    ]
    return [[_plain(value) for value in row] for row in zip(*columns, strict=True)]


def _is_map_of_texts(kind: pa.DataType) -> bool:
    return bool(pa.types.is_map(kind) and pa.types.is_string(kind.key_type))


def _plain(value: Any) -> Any:
    """The value as one that JSON can hold."""
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    if isinstance(value, Decimal):  # also DuckDB's 128-bit integers, such as every sum()
        return int(value) if value == value.to_integral_value() else float(value)
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, datetime | date):
        return value.isoformat()
    if isinstance(value, bytes):
        return f"<{len(value)} bytes>"
    return value if isinstance(value, str | int | float | bool) or value is None else str(value)


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.4g}"
    text = printable(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))
    is_list = isinstance(value, list | dict) and len(text) > _SHOWN_CHARACTERS
    return f"{text[: _SHOWN_CHARACTERS - 1]}…" if is_list else text
