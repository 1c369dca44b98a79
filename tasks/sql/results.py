"""Rows of a query as text: a table or records for people, CSV and JSON for programs."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable, Iterator
from datetime import date, datetime
from decimal import Decimal
from typing import Any, Literal, get_args

import pyarrow as pa

from schemas.errors import PairxError, did_you_mean
from schemas.foreign_text import escaped_json, printable
from tasks.sql.csv_text import csv_lines
from tasks.sql.table_text import record_lines, table_lines

Format = Literal["table", "records", "csv", "json"]
FORMATS: tuple[Format, ...] = get_args(Format)

_SHOWN_ROWS = 200
_SHOWN_CHARACTERS = 80
_PORTION = 2000


class QueryError(PairxError, ValueError):
    """A query cannot be run: it is not one reading statement, or has an error of its own."""

    exit_code = 2


def known_format(name: str) -> Format:
    """The format of that name; raises `QueryError` that lists the formats."""
    for known in FORMATS:
        if known == name:
            return known
    raise QueryError(
        f"there is no format {name!r}{did_you_mean(name, FORMATS)}", f"formats are {', '.join(FORMATS)}"
    )


def format_result(result: pa.Table, kind: Format = "table", width: int | None = None) -> str:
    """The rows of a table in memory as one text; see `pieces`."""
    return "".join(pieces(result.schema, result.to_batches(), kind, width)).removesuffix("\n")


def pieces(
    schema: pa.Schema, batches: Iterable[pa.RecordBatch], kind: Format = "table", width: int | None = None
) -> Iterator[str]:
    """The rows as a table or as records, both of the first 200, as CSV with a header, or as a JSON array.

    The text comes piece by piece; JSON is an array of objects. No line of a table or record is wider than
    `width`, if that is given. No foreign text steers the terminal or is a formula in the CSV. Lists
    become JSON inside CSV, bytes are shown by their number, and numbers that are not finite are null in
    JSON. Memory: one batch, and what a table shows. Raises `QueryError` for another format.
    """
    match known_format(kind):
        case "csv":
            return _as_csv(schema, batches)
        case "json":
            return _as_json(schema, batches)
        case "records":
            return _for_people(schema, batches, width, as_records=True)
        case "table":
            return _for_people(schema, batches, width, as_records=False)


def _for_people(
    schema: pa.Schema, batches: Iterable[pa.RecordBatch], width: int | None, as_records: bool
) -> Iterator[str]:
    if schema.names == ["explain_key", "explain_value"]:
        for batch in batches:
            for plan in batch["explain_value"].to_pylist():
                yield from (f"{printable(line)}\n" for line in plan.splitlines())
        return
    rows: list[list[str | None]] = []
    count, is_cut = 0, False
    for batch in batches:
        for values in _rows(batch.slice(0, _SHOWN_ROWS - len(rows))):
            cells = [_cell(value) for value in values]
            is_cut |= any(map(_is_cut, values, cells))
            rows.append(cells)
        count += batch.num_rows
    names = [printable(name) for name in schema.names]
    lines: Iterator[str]
    if as_records:
        lines = (line for k, row in enumerate(rows, 1) for line in record_lines(names, row, k, width))
    else:
        lines = table_lines(names, rows, [_is_number(t) for t in schema.types], width)
    for line in lines:
        yield f"{line}\n"
    yield f"{_last_line(count, count - len(rows), is_cut)}\n"


def _last_line(rows: int, hidden: int, is_cut: bool) -> str:
    left_out = [f"{hidden} not shown"] if hidden else []
    left_out += ["long lists are cut"] if is_cut else []
    text = f"{rows} row{'' if rows == 1 else 's'}"
    return f"({text}; {', '.join(left_out)}, csv and json give all)" if left_out else f"({text})"


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind))


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


def _cell(value: Any) -> str | None:
    """A value as one line for people; None stays None."""
    if value is None:
        return None
    if isinstance(value, float):
        return f"{value:.4g}"
    text = printable(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))
    is_list = isinstance(value, list | dict) and len(text) > _SHOWN_CHARACTERS
    return f"{text[: _SHOWN_CHARACTERS - 1]}…" if is_list else text


def _is_cut(value: Any, cell: str | None) -> bool:
    return isinstance(value, list | dict) and cell is not None and cell.endswith("…")
