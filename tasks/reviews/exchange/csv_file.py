"""Questions and verdicts as CSV: written, and read whoever wrote it.

Read are UTF-8 with commas, semicolons or tabs. `kind`, `subject` and `answer` are needed; rows without an answer are
skipped.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping
from typing import Any

from schemas.errors import SettingsError
from schemas.foreign_text import restored
from tasks.reviews.exchange.asked import COLUMNS, Row
from tasks.reviews.exchange.incoming import Answer
from tasks.sql.csv_text import csv_lines

NEEDED = ("kind", "subject", "answer")


def written(rows: Iterable[Row]) -> str:
    """CSV of rows; what a spreadsheet would run is neutralised."""
    return csv_lines([COLUMNS, *([row[name] for name in COLUMNS] for row in rows)])


def answers_in(data: bytes) -> list[Answer]:
    """The answers in a CSV file, with the row of each; `SettingsError` for what is no such file."""
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise SettingsError(f"the file is not UTF-8: {error}", "save it as 'CSV UTF-8'") from error
    first = text.lstrip("\r\n").partition("\n")[0]
    separator = max(",;\t", key=first.count)
    try:
        rows = list(
            csv.reader(io.StringIO(text.lstrip("\r\n"), newline=""), delimiter=separator, strict=True)
        )
    except csv.Error as error:
        raise SettingsError(f"the file is no CSV: {error}", "write it again") from error
    header = [name.strip().lower() for name in rows[0]] if rows else []
    missing = [name for name in NEEDED if name not in header]
    if missing or len(set(header)) < len(header):
        what = f"lacks the columns {', '.join(missing)}" if missing else "has two columns of one name"
        raise SettingsError(f"the file {what}", f"write a header with {', '.join(COLUMNS[:9])}")
    found: list[Answer] = []
    for number, row in enumerate(rows[1:], start=2):
        cells: Mapping[str, Any] = {
            name: restored(cell).strip() for name, cell in zip(header, row, strict=False)
        }
        if any(cells.values()) and (cells.get("answer") or len(row) != len(header)):
            odd = f"it has {len(row)} fields, the header {len(header)}" if len(row) != len(header) else ""
            found.append(Answer(f"row {number}", cells, odd))
    return found
