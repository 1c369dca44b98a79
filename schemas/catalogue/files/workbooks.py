"""Workbooks of Excel (.xlsx): one sheet as cells of text, as they would stand in a CSV.

Dates become ISO 8601, 12.0 becomes 12, formulas give the value that was stored with them. Nothing in a
workbook is run.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterator
from datetime import date, datetime, time
from itertools import islice
from typing import Any

import pyarrow as pa

from schemas.catalogue.files.archives import Archive
from schemas.catalogue.files.documents import Document
from schemas.catalogue.files.headers import (
    ENOUGH_NAMES,
    LINES_SEARCHED,
    header_row,
    key_of,
    names_found,
    note_on_titles,
    refuse_twice,
    to_read,
)
from schemas.catalogue.table_files import Cells, hopeless
from schemas.errors import Problem

WORKBOOK_SUFFIXES = (".xlsx", ".xlsm")
_OLD = b"\xd0\xcf\x11\xe0"
_ERRORS = ("#NULL!", "#DIV/0!", "#VALUE!", "#REF!", "#NAME?", "#NUM!", "#SPILL!", "#CALC!")
"""What formulas give that failed; #N/A is the word for a missing value."""
_WITHOUT_VALUE = re.compile(rb"<c(?: [^>]*)?><f(?:/>|[ >][^<]*</f>)(?:<v ?/>|<v></v>)?</c>")
_SHOWN = 8


def workbook_cells(document: Document, wanted: Callable[[str], bool], problems: list[Problem]) -> Cells:
    """The columns of the sheet that the document means.

    That is the one named behind `#`, or the only one with content, or the only one with a header that is
    understood. Raises `CatalogueError` where no such sheet can be told or read.
    """
    sheets = _sheets(document)
    name, notes = _chosen(document, sheets, wanted)
    numbers, rows, header, above = _rows(sheets[name], wanted)
    notes += note_on_titles(above)
    places = to_read(header, wanted)
    read = [i for i in places if wanted(key_of(header[i]))]
    refuse_twice([key_of(header[i]) for i in read], problems)
    for i in read:
        for number, row in zip(numbers, rows, strict=True):
            if row[i] in _ERRORS:
                what = f"the formula gives {row[i]}"
                where = f"row {number}, column {header[i]}"
                problems.append(
                    Problem("failed formula", where, what, "mend the formula, or write the value")
                )
    columns = {
        key_of(header[i]): pa.chunked_array([pa.array([row[i] for row in rows], pa.string())])
        for i in reversed(places)
    }
    return Cells(columns, numbers, header, notes=notes)


def _sheets(document: Document) -> dict[str, Any]:
    """The sheets with their names, opened for reading row by row."""
    source, data = document.source, document.data
    if data.startswith(_OLD):
        what = "it is a workbook with a password, or of Excel before 2007"
        cure = "save it as .xlsx without a password, or as 'CSV UTF-8'"
        raise hopeless(source, "unknown format", what, cure)
    archive = Archive(source, data)
    archive.refuse_bombs()
    _refuse_formulas_without_values(source, archive)
    try:
        import openpyxl
    except ImportError as error:
        cure = "pip install openpyxl, or save it as 'CSV UTF-8'"
        raise hopeless(source, "unknown format", "workbooks need the package openpyxl", cure) from error
    try:
        workbook = openpyxl.load_workbook(io.BytesIO(data), read_only=True, data_only=True, keep_links=False)
        return {sheet.title: sheet for sheet in workbook.worksheets}
    except Exception as error:  # a damaged workbook raises errors of many classes
        what = f"not a valid workbook: {type(error).__name__}: {error}"
        raise hopeless(source, "unreadable file", what[:300], "save it again with a spreadsheet") from error


def _refuse_formulas_without_values(source: str, archive: Archive) -> None:
    for name in archive.names:
        if name.startswith("xl/worksheets/") and (found := _WITHOUT_VALUE.search(archive.read(name))):
            cell = re.search(rb' r="([A-Z]{1,3}[0-9]{1,7})"', found.group())
            what = f"a formula has no stored value{f' (cell {cell[1].decode()})' if cell else ''}"
            cure = "open it in a spreadsheet and save it, which computes the formulas"
            raise hopeless(source, "formula without a value", what, cure)


def _chosen(
    document: Document, sheets: dict[str, Any], wanted: Callable[[str], bool]
) -> tuple[str, tuple[str, ...]]:
    place = document.source if document.part is None else document.source.removesuffix(f"#{document.part}")
    names = ", ".join(repr(name[:60]) for name in list(sheets)[:_SHOWN])
    if document.part is not None:
        if document.part in sheets:
            return document.part, ()
        what = f"it has no sheet {document.part[:60]!r}, but {names}"
        raise hopeless(document.source, "no such sheet", what, "name one of its sheets behind the #")
    tops = {name: _top(sheet) for name, sheet in sheets.items()}
    filled = [name for name, rows in tops.items() if rows]
    read = [name for name in filled if any(names_found(row, wanted) >= ENOUGH_NAMES for row in tops[name])]
    if len(filled) == 1:
        return filled[0], ()
    if len(read) == 1:
        others = ", ".join(repr(name[:60]) for name in filled if name not in read)
        return read[0], (f"read from the sheet {read[0]!r}; other sheets are not read: {others}",)
    if not filled:
        raise hopeless(document.source, "empty catalogue", "it has no content", "write one row per photo")
    what = f"it has the sheets {names}"
    cure = f"say which is meant: '{place}#{(read or filled)[0]}'"
    raise hopeless(document.source, "several sheets", what, cure)


def _top(sheet: Any) -> list[list[str]]:
    rows = ([_text(cell) for cell in row] for row in _values(sheet, None))
    return [row for row in islice(rows, LINES_SEARCHED) if any(row)]


def _values(sheet: Any, width: int | None) -> Iterator[tuple[Any, ...]]:
    """The rows from the first one on; what a sheet says of its own size is not believed."""
    sheet.reset_dimensions()
    try:
        yield from sheet.iter_rows(max_col=width, values_only=True)
    except Exception as error:  # a damaged sheet raises errors of many classes
        what = f"not a valid workbook: {type(error).__name__}: {error}"
        raise hopeless(
            sheet.title, "unreadable file", what[:300], "save it again with a spreadsheet"
        ) from error


def _rows(
    sheet: Any, wanted: Callable[[str], bool]
) -> tuple[list[int], list[list[str]], tuple[str, ...], list[str]]:
    """Numbers and texts of the filled rows below the header, the header, and the rows above it."""
    top = [[_text(cell) for cell in row] or [""] for row in islice(_values(sheet, None), LINES_SEARCHED)]
    at = header_row([row if any(row) else [""] for row in top], wanted)
    header = [name.strip() for name in top[at]] if top else []
    while header and not header[-1]:
        header.pop()
    numbers: list[int] = []
    rows: list[list[str]] = []
    width = len(header)
    for number, values in enumerate(_values(sheet, max(1, width)), start=1):
        if number <= at + 1 or not any(value is not None for value in values):
            continue
        row = [_text(value) for value in values]
        if any(row):
            numbers.append(number)
            rows.append((row + [""] * width)[:width])
    return numbers, rows, tuple(header), [" ".join(filter(None, row)) for row in top[:at]]


def _text(value: Any) -> str:
    """A cell as it would stand in a CSV."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() else repr(value)
    if isinstance(value, datetime):
        moment = value.replace(microsecond=0) if value.microsecond < 500_000 else value
        return moment.date().isoformat() if moment.time() == time() else moment.isoformat()
    if isinstance(value, date | time):
        return value.isoformat()
    return str(value)
