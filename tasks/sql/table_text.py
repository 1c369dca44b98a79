"""Rows as text for people: within the width of a terminal, where nothing is cut away."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator, Sequence

from rich.cells import cell_len, chop_cells

_UNKNOWN_WIDTH, _LEAST_WIDTH = 80, 20
_GAP = 2
_BELOW = " " * 4
"""Before what stands below a row."""

Cells = Sequence[str | None]
"""The texts of a row; None for null."""


def terminal_width() -> int:
    """Columns of the terminal, or what COLUMNS says; 80 where neither is known, as in a pipe."""
    return max(_LEAST_WIDTH, shutil.get_terminal_size((_UNKNOWN_WIDTH, 24)).columns)


def table_lines(
    names: Sequence[str], rows: Sequence[Cells], is_number: Sequence[bool], width: int | None
) -> Iterator[str]:
    """A header and a line for each row, none wider than `width`; with None as wide as the rows are.

    Columns that do not fit stand below their row, each with its name, and long ones are wrapped.
    """
    widths = [max(cell_len(cell or "") for cell in column) for column in zip(names, *rows, strict=True)]
    in_line = _columns_in_line(widths, width)
    below = [place for place in range(len(names)) if place not in in_line]

    def line(cells: Cells) -> str:
        return (" " * _GAP).join(_padded(cells[i] or "", widths[i], is_number[i]) for i in in_line).rstrip()

    if in_line:
        yield line(names)
        yield (" " * _GAP).join("-" * widths[i] for i in in_line)
    for row in rows:
        if in_line:
            yield line(row)
        if below and width is not None:
            fields = [f"{names[i]}: {'NULL' if (cell := row[i]) is None else cell}".rstrip() for i in below]
            yield from _flowing(fields, width, _BELOW if in_line else "")


def _columns_in_line(widths: Sequence[int], width: int | None) -> list[int]:
    """Places of the columns that stand side by side.

    Where not all fit, long texts leave first, then those at the end: the first columns say what a row is.
    """
    if width is None or sum(widths) + _GAP * (len(widths) - 1) <= width:
        return list(range(len(widths)))
    chosen: list[int] = []
    left = width
    for place, taken in enumerate(widths):
        if taken > width // 3:
            continue
        if taken > left:
            break
        chosen.append(place)
        left -= taken + _GAP
    return chosen


def _padded(text: str, width: int, is_number: bool) -> str:
    room = " " * (width - cell_len(text))
    return room + text if is_number else text + room


def _flowing(fields: Iterable[str], width: int, margin: str) -> Iterator[str]:
    """The fields one behind the other, as many to a line as fit; one that fits in none is wrapped."""
    line = ""
    for field in fields:
        if line and cell_len(line) + _GAP + cell_len(field) <= width:
            line += " " * _GAP + field
            continue
        if line:
            yield line
        *whole, line = wrapped(field, width, margin, margin + _BELOW)
        yield from whole
    if line:
        yield line


def record_lines(names: Sequence[str], row: Cells, number: int, width: int | None) -> Iterator[str]:
    """One row as lines, one for each column: its name, then its value, which is wrapped."""
    longest = max(map(cell_len, names), default=0)
    room = longest if width is None else min(longest, width // 2)
    title = f"-- {number} "
    yield title + "-" * (max(room + _GAP, 20) - len(title))
    for name, cell in zip(names, row, strict=True):
        first = _padded(name, max(room, cell_len(name)), False) + " " * _GAP
        text = cell or ""
        if width is None or cell_len(first) + cell_len(text) <= width:
            yield (first + text).rstrip()
        elif cell_len(name) <= room:
            yield from wrapped(text, width, first, " " * cell_len(first))
        else:
            yield from wrapped(first + text, width, "", " " * (room + _GAP))


def wrapped(text: str, width: int, first: str = "", next_lines: str = "") -> list[str]:
    """A text in lines of at most `width` columns, broken at spaces, inside words only where one is too long.

    `first` stands before the first line, `next_lines` before the others.
    """
    lines: list[str] = []
    line, is_empty = first, True
    for word in text.split(" "):
        if not is_empty and cell_len(line) + 1 + cell_len(word) <= width:
            line += " " + word
            continue
        if not is_empty:
            lines.append(line)
            line = next_lines
        elif cell_len(line) + cell_len(word) > width and cell_len(line) > width // 2:
            lines.append(line.rstrip())
            line = next_lines
        if cell_len(line) + cell_len(word) > width:
            # A word may have a megabyte, so it is cut up at once, behind what stands on this line.
            head = chop_cells(word[:width], max(1, width - cell_len(line)))[0]
            lines.append(line + head)
            *whole, word = chop_cells(word[len(head) :], max(1, width - cell_len(next_lines))) or [""]
            lines += [next_lines + piece for piece in whole]
            line = next_lines
        line, is_empty = line + word, False
    return [*lines, line]
