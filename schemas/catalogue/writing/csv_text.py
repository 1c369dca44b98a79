"""A CSV file as text with the place of every cell, so that single cells and rows can be changed in place.

Byte order mark, separator, quotes, line ends, blank lines and what stands above the header stay as they are. The
header is the first line that has all columns that the reader found, by one of the separators.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice, product

from schemas.catalogue.files.headers import LINES_SEARCHED
from schemas.catalogue.files.tables import CSV_SUFFIXES
from schemas.catalogue.table_files import read_bytes, suffix_of
from schemas.catalogue.writing.corrections import Place, unknown_as_written
from schemas.errors import SettingsError
from schemas.foreign_text import neutralised

_SEPARATORS = ",;\t|"
_LINE_END = re.compile(r"\r\n|\n|\r")
_BOM = "\ufeff"
CURE = "save it as CSV (UTF-8) or Parquet, read that with `pairx run`, and correct that file"


@dataclass(frozen=True)
class Record:
    """One row: the span of each of its cells, quotes included, and where the row and its line end stop."""

    cells: tuple[tuple[int, int], ...]
    end: int
    next: int

    @property
    def start(self) -> int:
        """Where the row begins."""
        return self.cells[0][0]


class CsvText:
    """The text of a CSV file; rows are numbered as a spreadsheet and the reader's messages count them.

    Raises `SettingsError` for a file that has no header with all of `columns`, in any case.
    """

    def __init__(self, data: bytes, columns: Iterable[str]) -> None:
        try:
            self._text = data.decode()
        except UnicodeDecodeError as error:
            raise SettingsError("the file is not UTF-8", "save it as UTF-8") from error
        self._edits: list[tuple[int, int, str]] = []
        body = len(self._text) - len(self._text.lstrip(_BOM).lstrip("\r\n"))
        above = islice(_LINE_END.finditer(self._text, body), LINES_SEARCHED)
        starts = enumerate([body, *(each.end() for each in above)])
        wanted = {name.strip().lower() for name in columns}
        for (line, start), separator in product(starts, _SEPARATORS):
            self.header_row = 1 + self._text[:body].count("\n") + line
            first = next(_records(self._text, start, separator), None)
            self.header = [] if first is None else [self._value(cell).strip() for cell in first.cells]
            # The header may stand in a comment.
            self.header[:1] = [name.lstrip("# ") for name in self.header[:1]]
            if wanted <= {name.lower() for name in self.header}:
                break
        else:
            raise SettingsError("the file's header cannot be found again in its text", CURE)
        self._separator = separator
        self.rows = dict(enumerate(_records(self._text, start, separator), self.header_row))
        self._columns = {name.lower(): i for i, name in reversed(list(enumerate(self.header)))}

    def has(self, column: str) -> bool:
        """Whether there is a column of this name, in any case."""
        return column.strip().lower() in self._columns

    def value(self, row: int, column: str) -> str:
        """The text of a cell, without its quotes; empty where the row is too short."""
        place = self._columns[column.strip().lower()]
        cells = self.rows[row].cells
        return self._value(cells[place]) if place < len(cells) else ""

    def column(self, column: str) -> list[str]:
        """The texts of a column, without the header and empty lines."""
        filled = (row for row, record in self.rows.items() if record.end > record.start)
        return [self.value(row, column) for row in filled if row != self.header_row]

    def set(self, row: int, column: str, text: str) -> None:
        """Write another text into a cell; a quoted cell stays quoted, others are quoted where they must be."""
        place, record = self._columns[column.strip().lower()], self.rows[row]
        text = neutralised(text)
        if place >= len(record.cells):
            missing = self._separator * (place - len(record.cells) + 1)
            self._edits.append((record.end, record.end, missing + self._quoted(text, False)))
            return
        start, end = record.cells[place]
        self._edits.append((start, end, self._quoted(text, self._text[start : start + 1] == '"')))

    def rename(self, names: Mapping[Place, str | None]) -> None:
        """Write names into their places; an unknown one as its column writes others."""
        unknown = {column: unknown_as_written(self.column(column)) for column in {p.column for p in names}}
        for place, name in names.items():
            self.set(place.number, place.column, unknown[place.column] if name is None else name)

    def drop(self, row: int) -> None:
        """Leave a row out, with its line end."""
        record = self.rows[row]
        self._edits = [e for e in self._edits if not record.start <= e[0] <= record.end]
        start = record.start
        if record.next == record.end and start:
            # The last row has no line end: that of the row before it goes.
            before = self._text[:start]
            start -= 2 if before.endswith("\r\n") else 1
        self._edits.append((start, record.next, ""))

    def data(self) -> bytes:
        """The bytes of the file with all changes."""
        parts, last = [], 0
        for start, end, text in sorted(self._edits):
            parts += [self._text[last:start], text] if start >= last else [text]
            last = max(last, end)
        return "".join([*parts, self._text[last:]]).encode()

    def _value(self, span: tuple[int, int]) -> str:
        raw = self._text[slice(*span)]
        if not raw.startswith('"'):
            return raw
        close = _closing(raw)
        return raw[1:close].replace('""', '"') + raw[close + 1 :]

    def _quoted(self, text: str, always: bool) -> str:
        special = any(c in text for c in f'{self._separator}"\r\n') or text != text.strip()
        return '"' + text.replace('"', '""') + '"' if always or special else text


def csv_of(file: str, columns: Iterable[str]) -> CsvText:
    """The text of a CSV file with these columns; `SettingsError` for any other file."""
    if (suffix := suffix_of(file)) not in CSV_SUFFIXES:
        raise SettingsError(f"files that end in {suffix or 'nothing'!r} are read but not written", CURE)
    return CsvText(read_bytes(file), columns)


def _closing(raw: str) -> int:
    """The place of the quote that ends a quoted cell; the cell's length where none does."""
    place = 1
    while (place := raw.find('"', place)) >= 0:
        if raw[place + 1 : place + 2] != '"':
            return place
        place += 2
    return len(raw)


def _records(text: str, start: int, separator: str) -> Iterator[Record]:
    """All rows from a place on. A quote counts only at a cell's beginning, as the reader has it."""
    stop = re.compile(f"[{re.escape(separator)}\r\n]")
    cells: list[tuple[int, int]] = []
    place = begin = start
    while place < len(text) or cells:
        if text[place : place + 1] == '"':
            place = _after_quotes(text, place)
        found = stop.search(text, place)
        end = found.start() if found else len(text)
        cells.append((begin, end))
        if found and found.group() == separator:
            place = begin = end + 1
            if place == len(text):
                cells.append((place, place))
                yield Record(tuple(cells), place, place)
                return
            continue
        after = end + (2 if text.startswith("\r\n", end) else 1 if found else 0)
        yield Record(tuple(cells), end, after)
        cells, place, begin = [], after, after


def _after_quotes(text: str, place: int) -> int:
    """Where the quoted part of a cell ends, just behind its last quote."""
    place += 1
    while (place := text.find('"', place)) >= 0:
        if text[place + 1 : place + 2] != '"':
            return place + 1
        place += 2
    return len(text)
