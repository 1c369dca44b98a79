"""Columns of a catalogue that have no meaning here (site, photographer, …), kept with each photo for SQL.

A photo's values are one text, `name`, a unit separator and the value, joined by record separators and sorted by
name: 200,000 photos need no dictionaries, and whether a photo's values changed is one comparison. The table
`photos` holds them as a map.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from schemas.catalogue.cells import CONTROL, MISSING, Column, as_text, without_point
from schemas.catalogue.table_files import columns_in_words
from schemas.errors import Problem

MOST_COLUMNS, LONGEST_NAME, LONGEST_VALUE = 100, 100, 500
_BETWEEN, _WITHIN = "\x1e", "\x1f"
AS_TEXT = "coalesce(array_to_string(list_transform(map_entries(extra), lambda e: e.key || chr(31) || e.value), chr(30)), '')"
"""The column `extra` of `photos` as the text of this module, in SQL."""


@dataclass(frozen=True)
class Extra:
    """One text per photo, the columns that are in it, those that are not, and remarks for the user."""

    texts: pa.ChunkedArray
    columns: tuple[str, ...]
    left_out: tuple[str, ...]
    notes: tuple[str, ...]


def pairs_of(text: str) -> list[tuple[str, str]] | None:
    """The values of a photo by name, as the table holds them; None where there are none."""
    if not text:
        return None
    parts = (part.partition(_WITHIN) for part in text.split(_BETWEEN))
    return [(name, value) for name, _, value in parts]


def read_extra(columns: Mapping[str, pa.ChunkedArray], count: int) -> Extra:
    """The values of `columns` (by the file's names) for each of `count` rows, bounded in number and length.

    Values are trimmed, control characters become spaces, and what programs write for a missing cell is none.
    """
    names = [name for name in columns if 0 < len(name) <= LONGEST_NAME and not _has_control(name)]
    left_out, notes = [name for name in columns if name not in names], []
    if left_out:
        notes.append(
            f"columns whose names have more than {LONGEST_NAME} characters or control characters are not kept"
        )
    if len(names) > MOST_COLUMNS:
        notes.append(f"of {len(names)} other columns the first {MOST_COLUMNS} are kept")
        left_out += names[MOST_COLUMNS:]
    kept: dict[str, pa.ChunkedArray] = {}
    for name in names[:MOST_COLUMNS]:
        texts, note = _texts(name, columns[name])
        notes += [note] if note else []
        if texts is None:
            left_out.append(name)
        else:
            kept[name] = texts
    return Extra(_joined(kept, count), tuple(kept), tuple(left_out), tuple(notes))


def _has_control(name: str) -> bool:
    return any(ord(letter) < 32 or 127 <= ord(letter) < 160 for letter in name)


def _texts(name: str, cells: pa.ChunkedArray) -> tuple[pa.ChunkedArray | None, str]:
    """The values of one column, or None where it holds no texts; and a remark, which may be empty."""
    problems: list[Problem] = []
    texts = as_text(Column(name, cells, lambda i: (f"row {i + 1}", f"column {name}")), problems)
    if texts is None or problems:
        return None, ""
    texts = pc.utf8_trim_whitespace(pc.replace_substring_regex(texts, CONTROL, " "))
    texts = without_point(texts)
    lower = pc.utf8_lower(texts)
    missing = pc.fill_null(pc.is_in(lower, value_set=pa.array(["", *MISSING])), True)
    texts = pc.if_else(missing, pa.scalar(None, pa.string()), texts)
    lengths = pc.utf8_length(texts)
    if (pc.mean(lengths).as_py() or 0) > LONGEST_VALUE:
        return (
            None,
            f"column {columns_in_words([name])} is not kept: most of its values are longer than {LONGEST_VALUE} characters",
        )
    long = pc.sum(pc.greater(lengths, LONGEST_VALUE)).as_py() or 0
    if not long:
        return texts, ""
    cut = pc.binary_join_element_wise(pc.utf8_slice_codeunits(texts, 0, LONGEST_VALUE - 1), "…", "")
    texts = pc.if_else(pc.greater(lengths, LONGEST_VALUE), cut, texts)
    return texts, f"values of column {columns_in_words([name])} cut to {LONGEST_VALUE} characters: {long}"


def _joined(kept: Mapping[str, pa.ChunkedArray], count: int) -> pa.ChunkedArray:
    if not kept:
        return pa.chunked_array([pa.array([""] * count, pa.string())])
    named = (pc.binary_join_element_wise(name, kept[name], _WITHIN) for name in sorted(kept))
    # Skipping nulls would drop rows that hold nothing else.
    pieces = [pc.fill_null(pc.binary_join_element_wise(each, "", _BETWEEN), "") for each in named]
    return pc.utf8_rtrim(pc.binary_join_element_wise(*pieces, ""), characters=_BETWEEN)


def taken(extra: Extra, rows: Sequence[int]) -> Extra:
    """The values of some rows, in that order, each perhaps several times."""
    texts = extra.texts.take(pa.array(rows, pa.int64()))
    return Extra(texts, extra.columns, extra.left_out, extra.notes)
