"""Rows of a query as text: an aligned table for people, CSV and JSON for programs."""

from __future__ import annotations

import csv
import io
import json
import math
from collections import Counter
from collections.abc import Callable
from datetime import date, datetime
from decimal import Decimal
from typing import Any, Literal

import pyarrow as pa

from schemas.errors import PairxError

Format = Literal["table", "csv", "json"]

_SHOWN_ROWS = 200
_SHOWN_CHARACTERS = 80


class QueryError(PairxError, ValueError):
    """A query cannot be run: not one statement, not a reading one, or wrong in itself."""

    exit_code = 2


def format_result(result: pa.Table, kind: Format = "table") -> str:
    """The rows as an aligned table (the first 200 rows), as CSV with a header, or as a JSON array of objects.

    Lists become JSON inside CSV, bytes are shown by their number, and numbers that are not finite are null in JSON.
    Raises `QueryError` for another format.
    """
    formats: dict[str, Callable[[pa.Table], str]] = {"table": _as_table, "csv": _as_csv, "json": _as_json}
    if kind not in formats:
        raise QueryError(f"no format {kind!r}", f"formats are {', '.join(formats)}")
    return formats[kind](result)


def _as_table(result: pa.Table) -> str:
    if result.column_names == ["explain_key", "explain_value"]:
        plans = result["explain_value"].to_pylist()
        return "\n".join(_printable(line) for plan in plans for line in plan.splitlines())
    rows = [[_cell(value) for value in row] for row in _rows(result.slice(0, _SHOWN_ROWS))]
    names = [_printable(name) for name in result.column_names]
    widths = [max(map(len, column)) for column in zip(names, *rows, strict=True)]
    right = [
        pa.types.is_integer(t) or pa.types.is_floating(t) or pa.types.is_decimal(t)
        for t in result.schema.types
    ]

    def line(cells: list[str]) -> str:
        pairs = zip(cells, widths, right, strict=True)
        return "  ".join(
            cell.rjust(width) if number else cell.ljust(width) for cell, width, number in pairs
        ).rstrip()

    lines = [line(names), "  ".join("-" * width for width in widths), *map(line, rows)]
    hidden = result.num_rows - len(rows)
    count = f"({result.num_rows} row{'' if result.num_rows == 1 else 's'}"
    return "\n".join(
        [*lines, f"{count}; {hidden} not shown, csv and json give all)" if hidden else f"{count})"]
    )


def _as_csv(result: pa.Table) -> str:
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(result.column_names)
    for row in _rows(result):
        writer.writerow([json.dumps(v, ensure_ascii=False) if isinstance(v, list | dict) else v for v in row])
    return buffer.getvalue().rstrip("\n")


def _as_json(result: pa.Table) -> str:
    seen: Counter[str] = Counter()
    names = []
    for name in result.column_names:
        seen[name] += 1
        names.append(name if seen[name] == 1 else f"{name}_{seen[name]}")
    rows = [json.dumps(dict(zip(names, row, strict=True)), ensure_ascii=False) for row in _rows(result)]
    return "[" + ",\n ".join(rows) + "]"


def _rows(result: pa.Table) -> list[list[Any]]:
    columns = [column.to_pylist() for column in result.columns]
    return [[_plain(value) for value in row] for row in zip(*columns, strict=True)]


def _plain(value: Any) -> Any:
    """A value that JSON can say."""
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
    text = _printable(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))
    is_list = isinstance(value, list | dict) and len(text) > _SHOWN_CHARACTERS
    return f"{text[: _SHOWN_CHARACTERS - 1]}…" if is_list else text


def _printable(text: str) -> str:
    """Names and paths come from others: nothing in them may steer the terminal."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)
