"""Columns that a person says the meaning of: they stand for that meaning, whatever the names in the file.

The cells come out under the meaning's own name, so that all readers find them, and say in messages which column
of the file they are. A column that was given one meaning is not taken for another one by its name.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import replace

import pyarrow as pa

from schemas.catalogue.box_columns import BOX_COLUMNS, SPELLINGS, Spelling
from schemas.catalogue.cells import ALIASES
from schemas.catalogue.table_files import Cells, Origin, columns_in_words
from schemas.errors import Problem

_SHARED = ("image_id", "path")
"""One column may be both: a file's name is often its photo's id."""


def with_chosen(cells: Cells, chosen: Sequence[tuple[str, str]], problems: list[Problem]) -> Cells:
    """The cells with the chosen columns under the names of their meanings; see the module.

    Columns that the file lacks become problems.
    """
    if not chosen:
        return cells
    keys = {meaning: key for meaning, name in chosen if (key := _key_in(cells, name)) is not None}
    for meaning, name in chosen:
        if meaning not in keys:
            problems.append(_no_column(cells, meaning, name))
    # What a chosen column holds is known, so nothing else is read from it by its name.
    taken = {key for meaning, key in keys.items() if key != meaning and not _may_be_both(meaning, key, keys)}
    columns = {name: column for name, column in cells.columns.items() if name not in taken}
    columns |= {meaning: cells.columns[key] for meaning, key in keys.items()}
    origins: dict[str, Origin] = {**cells.origins}
    sources = dict(cells.sources)
    for meaning, key in keys.items():
        sources[meaning] = cells.source(key)
        origins[meaning] = _origin(cells, sources[meaning])
    for meaning in {meaning for meaning, _ in chosen} - keys.keys():
        columns.pop(meaning, None)
    columns = _with_one_box(columns, {meaning for meaning, _ in chosen} & BOX_COLUMNS, keys, problems)
    return replace(cells, columns=columns, origins=origins, sources=sources)


def _key_in(cells: Cells, name: str) -> str | None:
    key = name.strip().lower()
    return key if key in cells.columns else None


def _may_be_both(meaning: str, key: str, keys: Mapping[str, str]) -> bool:
    other = next((each for each in _SHARED if each != meaning), "") if meaning in _SHARED else ""
    return bool(other) and other not in keys and key in ALIASES[other]


def _origin(cells: Cells, name: str) -> Origin:
    return lambda i: (f"row {cells.rows[i]}", f"column {name}")


def _no_column(cells: Cells, meaning: str, name: str) -> Problem:
    named = {each.strip().lower(): each.strip() for each in cells.header if each.strip()}
    near = difflib.get_close_matches(name.strip().lower(), named, n=1, cutoff=0.6)
    what = f"the file has no column {name[:60]!r} that can be read; its columns are {columns_in_words(cells.header)}"
    cure = f"--column {meaning}={named[near[0]]} is near" if near else "name one of the file's columns"
    return Problem("no such column", f"--column {meaning}={name[:60]}", what, cure)


def _with_one_box(
    columns: dict[str, pa.ChunkedArray], chosen: set[str], keys: Mapping[str, str], problems: list[Problem]
) -> dict[str, pa.ChunkedArray]:
    """The columns without boxes of another spelling, where a person has said which columns are the box."""
    if not chosen or not chosen <= keys.keys():
        return columns
    fitting = [spelling for spelling in SPELLINGS if chosen <= set(spelling.names)]
    complete = next((each for each in fitting if set(each.names) <= columns.keys()), None)
    if complete is None:
        problems.append(_no_box(chosen, fitting))
    kept = set(complete.names) if complete else set()
    return {name: column for name, column in columns.items() if name in kept or name not in BOX_COLUMNS}


def _no_box(chosen: set[str], fitting: Sequence[Spelling]) -> Problem:
    said = ", ".join(sorted(chosen))
    if not fitting:
        what, cure = f"no box is made of {said}", "give x, y, w, h, or xmin, ymin, xmax, ymax, or bbox alone"
    else:
        lacking = [name for name in fitting[0].names if name not in chosen]
        what = f"a box of {', '.join(fitting[0].names)} lacks {', '.join(lacking)}"
        cure = f"give the others, too: {' '.join(f'--column {name}=…' for name in lacking)}"
    return Problem("incomplete box columns", f"--column {said}", what, cure)
