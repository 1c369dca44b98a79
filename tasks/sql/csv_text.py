"""Rows as CSV, for programs and spreadsheets: exact numbers, and no foreign text runs as a formula."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence

from schemas.foreign_text import neutralised

_QUOTED = frozenset(',;|\t"\r\n')
"""Separators of any locale; unquoted, they would split a text into cells."""


def csv_lines(rows: Iterable[Iterable[object]]) -> str:
    """CSV lines, each with its end, of rows, header included.

    Texts that a spreadsheet would run are neutralised, numbers are exact. Null and NaN are empty. Lists
    and structures are JSON, bytes are given by their number, times are ISO 8601.
    """
    # Many readers skip an empty line.
    return "".join(f"{','.join(map(_cell, row)) or _EMPTY}\n" for row in rows)


_EMPTY = '""'


def _cell(value: object) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, bytes):
        return f"<{len(value)} bytes>"
    if isinstance(value, Mapping) or (isinstance(value, Sequence) and not isinstance(value, str)):
        return _text(json.dumps(value, ensure_ascii=False, default=str))
    isoformat = getattr(value, "isoformat", None)
    return _text(isoformat() if isoformat else str(value))


def _text(text: str) -> str:
    """A text as a cell: neutralised where a spreadsheet would run it, quoted where it holds a separator."""
    text = neutralised(text)
    if text == "" or text != text.strip() or not _QUOTED.isdisjoint(text):
        text = '"' + text.replace('"', '""') + '"'
    return text
