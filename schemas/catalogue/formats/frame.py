"""The convention of wildlife-datasets: one row per photo with `image_id`, `identity` and `path`.

Each column may have one of many names, or the one that a person says (`schemas.catalogue.chosen_columns`). What
such frames hold besides is kept with the photo as text (`schemas.catalogue.extra`); lists (`segmentation`,
`keypoints`) are not read.
"""

from __future__ import annotations

import pyarrow as pa

from schemas.catalogue.box_columns import BOX_COLUMNS, spelling_of
from schemas.catalogue.cells import ALIASES, REQUIRED, find_column
from schemas.catalogue.chosen_columns import with_chosen
from schemas.catalogue.encounters import with_video
from schemas.catalogue.extra import read_extra
from schemas.catalogue.formats.sheet import Sheet
from schemas.catalogue.reading import Reading
from schemas.catalogue.table_files import Cells, columns_in_words
from schemas.errors import Problem

FORMAT = "wildlife-datasets"
WANTED = BOX_COLUMNS.union(*ALIASES.values())
DESCRIBING = ("keywords", "station")
"""Meanings whose columns are kept as they are, too."""


def is_frame_column(key: str) -> bool:
    """Whether a column of this lower-case name has a meaning."""
    return key in WANTED


def read_frame(table: Cells, reading: Reading, problems: list[Problem]) -> Sheet:
    """The table with its columns under the names of their meanings; missing columns or rows are problems."""
    cells, filmed = with_video(with_chosen(table, reading.columns, problems))
    for meaning in REQUIRED:
        if find_column(cells, meaning) is None and meaning not in dict(reading.columns):
            what = f"there is none; the columns are {columns_in_words(cells.header)}"
            cure = (
                f"say which one it is, as --column {meaning}=COLUMN, or add or rename a column (read are "
                f"{', '.join(ALIASES[meaning])})"
            )
            problems.append(Problem("missing column", f"header, column {meaning}", what, cure))
    if not cells.rows:
        problems.append(
            Problem("empty catalogue", "the file", "no row holds a photo", "write one row per photo")
        )
    used = tuple((meaning, cells.source(name)) for meaning, name in _used(cells))
    read = {name for meaning, name in used if meaning not in DESCRIBING}
    named, unused = _by_header(table)
    extra = read_extra({n: column for n, column in named.items() if n not in read}, len(table.rows))
    notes = (*cells.notes, *_displaced(table, cells, reading), *filmed, *extra.notes)
    return Sheet(FORMAT, cells, notes, (*extra.left_out, *unused), used, extra)


def _by_header(table: Cells) -> tuple[dict[str, pa.ChunkedArray], list[str]]:
    """The columns by the file's names, in its order; and what the file calls those that are not there."""
    found: dict[str, pa.ChunkedArray] = {}
    left, unused = dict(table.columns), []
    for name in (each.strip() for each in table.header):
        column = left.pop(name.lower(), None)
        if column is not None:
            found[name] = column
        elif not name:
            unused.append("(a column without a name)")
        else:
            unused.append(f"{name} (another one)" if name.lower() in table.columns else name)
    return found, unused


def _used(cells: Cells) -> list[tuple[str, str]]:
    """Meanings with the columns that they are read from, by their names in `cells`."""
    found = [(meaning, find_column(cells, meaning)) for meaning in ALIASES]
    used = [(meaning, column.name) for meaning, column in found if column is not None]
    side = dict(used).get("viewpoint")
    used = [(m, name) for m, name in used if not (m == "keywords" and name == side)]
    if (spelling := spelling_of(cells)) is not None:
        used += [("box", name) for name in spelling.names]
    return used


def _displaced(table: Cells, cells: Cells, reading: Reading) -> list[str]:
    """Remarks on columns that would have been read by their names, had no other been chosen."""
    notes = []
    for meaning, chosen in reading.columns:
        usual = find_column(table, meaning) if meaning in ALIASES else None
        if usual is not None and (name := table.source(usual.name)) != cells.source(meaning):
            notes.append(f"column {name} is not read as {meaning}: --column says that {chosen} is")
    return notes
