"""A CSV file as text with the place of every cell, so that single cells and rows can be changed in place.

Byte order mark, separator, quotes, line ends, blank lines and a line `sep=;` stay as they are. The separator is
the one by which the header has the columns that the reader found.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from schemas.catalogue.files.tables import CSV_SUFFIXES
from schemas.catalogue.table_files import read_bytes, suffix_of
from schemas.errors import SettingsError
from schemas.foreign_text import neutralised

_SEPARATORS = ",;\t|"
_NAMED = re.compile(r'"?sep=.?"?[^\r\n]*\r?\n', re.IGNORECASE)
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

    Raises `SettingsError` for a file whose header is not that of the reader.
    """

    def __init__(self, data: bytes, header: Sequence[str]) -> None:
        try:
            self._text = data.decode()
        except UnicodeDecodeError as error:
            raise SettingsError("the file is not UTF-8", "save it as UTF-8") from error
        self._edits: list[tuple[int, int, str]] = []
        body = len(self._text) - len(self._text.lstrip(_BOM).lstrip("\r\n"))
        named = _NAMED.match(self._text, body)
        starts = [named.end(), body] if named else [body]
        wanted = [name.strip() for name in header]
        for start, separator in ((s, c) for s in starts for c in _SEPARATORS):
            first = next(_records(self._text, start, separator), None)
            if first is not None and [self._value(cell).strip() for cell in first.cells] == wanted:
                break
        else:
            raise SettingsError(
                "the file's header cannot be found again in its text", "save it as plain CSV in UTF-8"
            )
        self._separator = separator
        number = 1 + self._text[:start].count("\n")
        self.rows = dict(enumerate(_records(self._text, start, separator), number))
        self._columns = {name.lower(): i for i, name in reversed(list(enumerate(wanted)))}
        self.header_row = number

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


def csv_of(file: str, header: Sequence[str]) -> CsvText:
    """The text of a CSV file whose header the reader found; `SettingsError` for any other file."""
    if (suffix := suffix_of(file)) not in CSV_SUFFIXES:
        raise SettingsError(f"files that end in {suffix or 'nothing'!r} are read but not written", CURE)
    return CsvText(read_bytes(file), header)


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
