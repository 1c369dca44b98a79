"""The convention of wildlife-datasets: one row per photo with `image_id`, `identity` and `path`.

Ids may be missing, they are then made (`schemas.catalogue.photo_ids`).
Each column may have one of many names. What such frames hold besides (`segmentation`, `keypoints`,
`video`, …) is not read, so nothing in it is parsed.
"""

from __future__ import annotations

from schemas.catalogue.box_columns import BOX_COLUMNS, spelling_of
from schemas.catalogue.cells import ALIASES, REQUIRED, find_column
from schemas.catalogue.formats.sheet import Sheet, others
from schemas.catalogue.table_files import Cells, columns_in_words
from schemas.errors import Problem

FORMAT = "wildlife-datasets"
WANTED = BOX_COLUMNS.union(*ALIASES.values())


def is_frame_column(key: str) -> bool:
    """Whether a column of this lower-case name is read."""
    return key in WANTED


def read_frame(cells: Cells, problems: list[Problem]) -> Sheet:
    """The table as it is; missing columns or rows are problems."""
    for meaning in REQUIRED:
        if find_column(cells, meaning) is None and (
            meaning != "image_id" or find_column(cells, "path") is None
        ):
            what = f"there is none; the columns are {columns_in_words(cells.header)}"
            cure = f"add or rename a column (read are {', '.join(ALIASES[meaning])})"
            problems.append(Problem("missing column", f"header, column {meaning}", what, cure))
    if not cells.rows:
        problems.append(
            Problem("empty catalogue", "the file", "no row holds a photo", "write one row per photo")
        )
    found = (find_column(cells, meaning) for meaning in ALIASES)
    used = {column.name for column in found if column is not None}
    if (spelling := spelling_of(cells)) is not None:
        used.update(spelling.names)
    return Sheet(FORMAT, cells, cells.notes, others(cells.header, used))
