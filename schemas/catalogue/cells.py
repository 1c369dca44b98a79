"""From columns of cells to names, dates and numbers, with the problems found.

Readers take the cells of one column and return one value per row. A cell that cannot be read becomes a
`Problem` with its row, and None in its place, so that one pass over a catalogue finds all that is wrong.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from schemas.catalogue.boxes import parse_number
from schemas.catalogue.table_files import Cells, Origin
from schemas.errors import Problem

ALIASES: dict[str, tuple[str, ...]] = {
    "image_id": ("image_id", "photo_id", "file_name"),
    "identity": ("identity", "name", "individual_id", "individualid"),
    "path": ("path", "file_name", "file_path", "filepath"),
    "theta": ("theta",),
    "species": ("species",),
    "date": (
        "date", "taken_at", "datetime", "timestamp", "date_captured", "datetimeoriginal", "datetime_original", "date_time",
    ),
    "encounter": (
        "encounter", "encounter_id", "sequence", "sequence_id", "seq_id", "sighting_id", "sightingid", "occurrence_id",
        "occurrenceid",
    ),
    "viewpoint": ("viewpoint", "orientation", "side", "position"),
    "keywords": ("keywords", "keyword", "tags", "position"),
    "station": (
        "station", "station_id", "stationid", "site", "site_id", "siteid", "location", "location_id", "locationid",
        "location_name", "locationname", "camera", "camera_id", "cameraid", "camera_name", "deployment", "deployment_id",
        "deploymentid",
    ),
}  # fmt: skip
"""Names (lower case) under which a column is found; the first that exists is taken.

In MiewID's CSV `name` is the animal, `file_name` is unique and relative, and `file_path` is absolute, hence
the order.
"""

REQUIRED = ("image_id", "identity", "path")
MISSING = ("null", "nan", "none", "na", "n/a", "#n/a", "<na>")
"""What programs write for a missing cell, in lower case."""
UNKNOWN = ("unknown", "unidentified", "unassigned", *MISSING)
"""Spellings (lower case) of "not known", in columns that may lack a value.

They are people's own words, and what R, pandas and spreadsheets write for a missing cell. An empty cell and
one of underscores only (wbia's `____`) mean the same.
"""
MAX_LENGTH = 512
_WHOLE = r"^(-?[0-9]+)\.0+$"
CONTROL = r"[\x00-\x1f\x7f-\x{9f}]"
_YEAR_OR_MONTH = re.compile(r"\d{4}(-(0[1-9]|1[0-2]))?", re.ASCII)
_DATE_STYLES = (
    "%Y:%m:%d %H:%M:%S",
    "%Y:%m:%d",
    "%Y/%m/%d %H:%M:%S",
    "%Y/%m/%d %H:%M",
    "%Y/%m/%d",
    "%d.%m.%Y %H:%M",
    "%d.%m.%Y",
)


@dataclass(frozen=True)
class Column:
    """One column under its own name in the table, with the origin of each cell in the user's files."""

    name: str
    cells: pa.ChunkedArray
    origin: Origin

    def row(self, index: int) -> str:
        """The row of the cell at `index`, such as `row 12`."""
        return self.origin(index)[0]

    def problem(self, kind: str, index: int, what: str, cure: str) -> Problem:
        """A problem of the cell at `index`."""
        return Problem(kind, ", ".join(self.origin(index)), what, cure)


def find_column(cells: Cells, meaning: str) -> Column | None:
    """The column that holds `meaning` (a key of `ALIASES`), or None."""
    for name in ALIASES[meaning]:
        if name in cells.columns:
            return Column(name, cells.columns[name], cells.origin(name))
    return None


def whole(text: str) -> str:
    """12 for 12.0, which pandas, R and spreadsheets make of 12 once a cell of the column is empty."""
    return re.sub(_WHOLE, r"\1", text) if ".0" in text else text


def without_point(texts: pa.ChunkedArray) -> pa.ChunkedArray:
    """As `whole`, for a column of texts."""
    return pc.replace_substring_regex(texts, _WHOLE, r"\1")


def known(text: str | None) -> str | None:
    """One text as `read_names` reads it: trimmed, and None for every spelling of "not known"."""
    trimmed = (text or "").strip()
    return None if trimmed.lower() in UNKNOWN or not trimmed.strip("_") else whole(trimmed)


def read_names(
    column: Column | None,
    count: int,
    problems: list[Problem],
    required: bool = False,
    as_written: bool = False,
) -> list[str | None]:
    """Trimmed texts; None where unknown.

    With `required` only an empty cell counts as missing, and is a problem. Whole numbers lose their point
    (`whole`), so that a name is one name in every type of file; `as_written`, for paths, keeps it.
    """
    texts = as_text(column, problems) if column is not None else None
    if column is None or texts is None:
        return [None] * count
    texts = pc.utf8_trim_whitespace(texts)
    if not as_written:
        texts = without_point(texts)
    lower = pc.utf8_lower(texts)
    missing = pc.equal(texts, "")
    if not required:
        spelled = pc.is_in(lower, value_set=pa.array(UNKNOWN, pa.string()))
        missing = pc.or_(spelled, pc.match_substring_regex(lower, "^_*$"))
    texts = pc.if_else(pc.fill_null(missing, True), pa.scalar(None, pa.string()), texts)
    if required:
        kind, cure = f"empty {column.name}", "fill the cell in"
        problems += [column.problem(kind, i, "the cell is empty", cure) for i in _where(pc.is_null(texts))]
    control = pc.fill_null(pc.match_substring_regex(texts, CONTROL), False)
    for i in _where(control):
        what = f"{texts[i].as_py()[:60]!r} contains control characters"
        problems.append(
            column.problem("control characters", i, what, "remove line breaks, tabs and the like")
        )
    names: list[str | None] = pc.if_else(control, pa.scalar(None, pa.string()), texts).to_pylist()
    return names


def refuse_long(column: Column | None, values: Iterable[str | None], problems: list[Problem]) -> None:
    """Add a problem for each value of more than `MAX_LENGTH` characters."""
    for i, value in enumerate(values):
        if column is not None and value is not None and len(value) > MAX_LENGTH:
            what = f"{len(value)} characters: {value[:40]!r}…"
            problems.append(column.problem("too long", i, what, f"keep it to {MAX_LENGTH} characters"))


def read_dates(texts: list[str | None]) -> tuple[list[str | None], list[str]]:
    """Dates and times as ISO 8601 where they can be read, unchanged elsewhere; and the unread texts.

    The formats are ISO 8601, EXIF's `2024:05:31 12:00:00`, `2024/05/31` and `31.05.2024`. A date such as
    05/06/2024 means different days in different countries and is not guessed.
    """
    known: dict[str, str | None] = {text: iso_date(text) for text in set(texts) if text is not None}
    unread = sorted(text for text, iso in known.items() if iso is None)
    return [None if text is None else known[text] or text for text in texts], unread


def iso_date(text: str) -> str | None:
    """One date or time as ISO 8601, or None when it cannot be read."""
    if _YEAR_OR_MONTH.fullmatch(text):
        return text
    try:
        return date.fromisoformat(text).isoformat()
    except ValueError:
        pass
    try:
        return datetime.fromisoformat(text).isoformat()
    except ValueError:
        pass
    for style in _DATE_STYLES:
        try:
            moment = datetime.strptime(text, style)
        except ValueError:
            continue
        return moment.isoformat() if "%H" in style else moment.date().isoformat()
    return None


def read_angles(column: Column | None, count: int, problems: list[Problem]) -> list[float]:
    """Rotations in radians; 0 where the cell is empty or NaN."""
    if column is None:
        return [0.0] * count
    cure = "give theta in radians as a plain number, or leave it empty"
    return [value or 0.0 for value in read_numbers(column, "bad theta", cure, problems)]


def read_numbers(column: Column, kind: str, cure: str, problems: list[Problem]) -> list[float | None]:
    """Finite numbers; None where the cell is empty or NaN, and None with a problem for other cells."""
    numeric = pa.types.is_integer(column.cells.type) or pa.types.is_floating(column.cells.type)
    parse: Callable[[Any], float] = float if numeric else parse_number
    raw = column.cells.to_pylist() if numeric else read_names(column, len(column.cells), problems)
    values: list[float | None] = []
    for i, cell in enumerate(raw):
        value = None
        if cell is not None and cell == cell:  # NaN differs from itself
            try:
                value = parse(cell)
                if not math.isfinite(value):
                    raise ValueError(f"{cell} is not finite")
            except ValueError as error:
                problems.append(column.problem(kind, i, str(error), cure))
                value = None
        values.append(value)
    return values


def as_text(column: Column, problems: list[Problem]) -> pa.ChunkedArray | None:
    """The cells as text: whole numbers without a point, times in ISO 8601.

    None, with a problem, for a column of lists and the like.
    """
    cells, kind = column.cells, column.cells.type
    if pa.types.is_floating(kind):
        texts = [
            None if v is None or v != v else str(int(v)) if v.is_integer() else repr(v)
            for v in cells.to_pylist()
        ]
        return pa.chunked_array([pa.array(texts, pa.string())])
    if pa.types.is_nested(kind) or pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
        what = f"the column holds {kind}, not text"
        problems.append(
            Problem("wrong column type", f"column {column.name}", what, "write the column as text")
        )
        return None
    try:
        return cells.cast(pa.string())
    except pa.ArrowException as error:
        what = f"the column holds {kind}: {error}"
        problems.append(
            Problem("wrong column type", f"column {column.name}", what, "write the column as text")
        )
        return None


def _where(mask: pa.ChunkedArray) -> list[int]:
    places: list[int] = pc.indices_nonzero(mask).to_pylist()
    return places
