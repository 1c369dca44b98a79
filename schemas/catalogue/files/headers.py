"""Headers of tables: which row is one, below titles and comments, and the names in it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pyarrow as pa

from schemas.errors import Problem

LINES_SEARCHED = 20
"""Rows at a table's top among which its header is looked for."""
ENOUGH_NAMES = 2
"""Names of columns that make a row a header; a title or a comment has none, or one by chance."""


def key_of(name: str) -> str:
    """The name by which a column is known: trimmed and in lower case."""
    return name.strip().lower()


def names_found(cells: Sequence[str], wanted: Callable[[str], bool]) -> int:
    """How many cells of a row are names of columns that are wanted."""
    return len({key for cell in cells if (key := key_of(cell)) and wanted(key)})


def header_row(rows: Sequence[Sequence[str]], wanted: Callable[[str], bool]) -> int:
    """The place of the first row that is a header; else that of the first that is no comment (#)."""
    for i, cells in enumerate(rows):
        if names_found(uncommented(cells, wanted), wanted) >= ENOUGH_NAMES:
            return i
    return next((i for i, cells in enumerate(rows) if not cells[0].startswith("#")), 0) if rows else 0


def uncommented(header: Sequence[str], wanted: Callable[[str], bool]) -> list[str]:
    """A header without the sign of a comment before its first name, as some tools write it."""
    first = header[0].lstrip("# ") if header and header[0].startswith("#") else ""
    return [first, *header[1:]] if first and wanted(key_of(first)) else list(header)


def note_on_titles(rows: Sequence[str]) -> tuple[str, ...]:
    """A remark on rows above the header, if there are any."""
    filled = [row.strip() for row in rows if row.strip(" ,;|\t\r\n")]
    return (f"rows above the header that are not read: {len(filled)} ({filled[0][:60]!r})",) if filled else ()


def is_plain(kind: pa.DataType) -> bool:
    """Whether a column of this type can be read as text: no lists, no bytes."""
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return not (pa.types.is_nested(kind) or pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def to_read(
    header: Sequence[str], wanted: Callable[[str], bool], plain: Callable[[int], bool] = lambda _: True
) -> list[int]:
    """Places of the columns to read: those that are wanted, and of other plain ones the first of each name."""
    first = {key_of(name): i for i, name in reversed([*enumerate(header)])}
    return [
        i
        for i, name in enumerate(header)
        if (key := key_of(name)) and (wanted(key) or (first[key] == i and plain(i)))
    ]


def refuse_twice(keys: list[str], problems: list[Problem]) -> None:
    """Add a problem for each name that several columns have."""
    for key in sorted({key for key in keys if keys.count(key) > 1}):
        what = f"{keys.count(key)} columns have this name"
        problems.append(
            Problem("doubled column", f"header, column {key}", what, "keep one of them or rename the others")
        )
