"""The columns of boxes: under which names they are found, and the boxes of all rows.

A table may spell its boxes in one column (a list) or in four, as x, y, w, h or by two corners. The first
complete spelling of `SPELLINGS` is read; other columns that look like boxes give a remark.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from schemas.catalogue.boxes import Box, looks_relative, make_box, parse_numbers
from schemas.catalogue.cells import Column, read_names, read_numbers
from schemas.catalogue.table_files import Cells, Origin, columns_in_words
from schemas.errors import Problem


@dataclass(frozen=True)
class Spelling:
    """Names (lower case) of one column of lists or of four columns, and what their numbers mean."""

    names: tuple[str, ...]
    shares: bool = False
    corners: bool = False


SPELLINGS = (
    Spelling(("bbox",)),
    Spelling(("box",)),
    Spelling(("bbox_relative",), shares=True),
    Spelling(("x", "y", "w", "h")),
    Spelling(("bbox_x", "bbox_y", "bbox_w", "bbox_h")),
    Spelling(("bbox_x", "bbox_y", "bbox_width", "bbox_height")),
    Spelling(("bbox1", "bbox2", "bbox3", "bbox4")),
    Spelling(("rel_x", "rel_y", "rel_w", "rel_h"), shares=True),
    Spelling(("bboxx", "bboxy", "bboxwidth", "bboxheight"), shares=True),
    Spelling(("xmin", "ymin", "xmax", "ymax"), corners=True),
    Spelling(("x_min", "y_min", "x_max", "y_max"), corners=True),
    Spelling(("bbox_xmin", "bbox_ymin", "bbox_xmax", "bbox_ymax"), corners=True),
    Spelling(("bbox_x1", "bbox_y1", "bbox_x2", "bbox_y2"), corners=True),
    Spelling(("x1", "y1", "x2", "y2"), corners=True),
)
"""Spellings of boxes, the first ones before the others; `bbox1` to `bbox4` are animl's x, y, w, h."""

BOX_COLUMNS = frozenset(name for spelling in SPELLINGS for name in spelling.names)
_SIDE = r"(?:x|y|w|h|width|height|left|top|right|bottom|[xy]?_?(?:min|max|cent(?:er|re)|[0-4]))"
_LOOKS = re.compile(
    rf"(?:\w+[_. ])?b?box(?:es)?(?:[_. ]?{_SIDE})?|(?:rel_?)?[xy]_?(?:min|max|[12])|rel_?[wh]"
)
"""Names (lower case) of columns that look like boxes, or like a side of one."""
_NOTHING = re.compile(
    r"(?:(?:np\.|numpy\.)?array\()?[\[(][\s,]*(?:(?:np\.(?:float\d\d\()?)?(?:nan|none|null)\)?[\s,]*)+[\])](?:, dtype=\w+\))?\)?",
    re.IGNORECASE | re.ASCII,
)
"""A list of missing numbers, as Python, JSON and NumPy write a missing box."""


_FEW = 0.1
"""Share of boxes of the other sort, pixels or shares, up to which it is they that are wrong."""


@dataclass
class Boxes:
    """One box per row (None = whole photo), whether all are shares of the photo's size, and remarks.

    `bad` holds the problems of rows whose box cannot be used, by row; their box is None.
    """

    boxes: list[Box | None]
    relative: bool = False
    notes: list[str] = field(default_factory=list)
    bad: dict[int, list[Problem]] = field(default_factory=lambda: defaultdict(list))


def spelling_of(cells: Cells) -> Spelling | None:
    """The spelling that the boxes of a table are read by; None where it has none."""
    return next((each for each in SPELLINGS if set(each.names) <= cells.columns.keys()), None)


def read_boxes(cells: Cells, problems: list[Problem]) -> Boxes:
    """The boxes of a table; what is wrong with its columns, not with single boxes, goes to `problems`."""
    spelling = spelling_of(cells)
    if spelling is None:
        return Boxes([None] * len(cells.rows), notes=[*_incomplete(cells, problems), *_unread(cells, ())])
    names = spelling.names
    found = Boxes([], spelling.shares, _unread(cells, names))
    column = Column(",".join(names), cells.columns[names[0]], _joint_origin(cells, names))
    raw = (
        _listed_boxes(column, found.bad)
        if len(names) == 1
        else _four_column_boxes(cells, spelling, found.bad)
    )
    found.boxes = _valid_boxes(raw, spelling.corners, column, found)
    relative = [i for i, box in enumerate(found.boxes) if box is not None and looks_relative(box)]
    absolute = [i for i, box in enumerate(found.boxes) if box is not None and not looks_relative(box)]
    if spelling.shares:
        cure = "give shares between 0 and 1, or use columns x, y, w, h"
        for i in absolute:
            what = f"box {found.boxes[i]} is larger than the photo"
            found.bad[i].append(column.problem("box not relative", i, what, cure))
            found.boxes[i] = None
        return found
    if relative and absolute:
        _part_mixture(found, relative, absolute, column, problems)
    found.relative = len(relative) > len(absolute)
    if found.relative:
        found.notes.append(
            "boxes are read as shares of the photo's size: all their numbers lie within [-1, 1]"
        )
    return found


def _part_mixture(
    found: Boxes, relative: list[int], absolute: list[int], column: Column, problems: list[Problem]
) -> None:
    """The fewer boxes of the other sort are bad; where they are many, nobody knows which are: a problem."""
    fewer, looks = (relative, "shares") if len(relative) <= len(absolute) else (absolute, "pixels")
    count = len(relative) + len(absolute)
    cure = "give all boxes in pixels (x, y, w, h) or all as shares (rel_x, rel_y, rel_w, rel_h)"
    for i in fewer:
        what = f"box {found.boxes[i]} looks like {looks}, unlike the other {count - len(fewer)}"
        problem = column.problem("mixed boxes", i, what, cure)
        if len(fewer) > _FEW * count:
            problems.append(problem)
        else:
            found.bad[i].append(problem)
            found.boxes[i] = None


def _incomplete(cells: Cells, problems: list[Problem]) -> list[str]:
    """Handle box columns of which some are missing; returns remarks for the user.

    Where one of them is a size, or one number of two corners is lacking, that is a problem. x and y alone
    may be a position and give a remark.
    """
    remarks = []
    told: set[str] = set()
    for spelling in SPELLINGS:
        names = spelling.names
        found = [name for name in names if name in cells.columns]
        if set(found) & set(names[2:]) if not spelling.corners else len(found) == 3:
            lacking = ", ".join(name for name in names if name not in found)
            what = f"columns {', '.join(found)} are there, {lacking} not"
            cure = f"give all of {', '.join(names)}, or rename the columns if they are no boxes"
            problems.append(Problem("incomplete box columns", "header", what, cure))
        elif found and not told.issuperset(found):
            told.update(found)
            remarks.append(f"columns {', '.join(found)} are ignored: a box needs {', '.join(names)}")
    return remarks


def _unread(cells: Cells, used: Sequence[str]) -> list[str]:
    """A remark on columns that look like boxes and are not read, besides those `_incomplete` tells of."""
    spare = {name for each in SPELLINGS if set(each.names) <= cells.columns.keys() for name in each.names}
    names = [
        name
        for name in cells.header
        if name.strip() not in cells.sources.values()
        and (key := name.strip().lower()) not in (used or BOX_COLUMNS)
        and (key in spare or _LOOKS.fullmatch(key))
    ]
    if not names:
        return []
    read = f"boxes are read from {', '.join(used)}" if used else "no boxes are read"
    return [f"{read}; these columns look like boxes and are not read: {columns_in_words(names)}"]


def _valid_boxes(raw: list[Any], corners: bool, column: Column, found: Boxes) -> list[Box | None]:
    cure = "give x, y, w, h as finite numbers with w and h above 0, or leave the box out"
    boxes: list[Box | None] = []
    undetected = 0
    for i, numbers in enumerate(raw):
        box = None
        if numbers is not None and not _missing(numbers):
            if _undetected(numbers):
                undetected += 1
            else:
                try:
                    box = make_box(_from_corners(numbers) if corners else numbers)
                except ValueError as error:
                    found.bad[i].append(column.problem("bad box", i, str(error), cure))
        boxes.append(box)
    if undetected:
        what = (
            "boxes -1, -1, -1, -1 (a detector found nothing) are no boxes, so these whole photos are compared"
        )
        found.notes.append(f"{what}: {undetected}")
    return boxes


def _missing(numbers: Sequence[float | None]) -> bool:
    """Whether a list holds nothing but missing numbers (None, NaN); an empty list is no box at all."""
    return len(numbers) > 0 and all(n is None or n != n for n in numbers)


def _undetected(numbers: Sequence[float | None]) -> bool:
    """Whether four numbers are -1, by which detectors' users say that there is no detection."""
    return len(numbers) == 4 and numbers[0] == -1 and all(n == -1 for n in numbers)


def _listed_boxes(column: Column, bad: dict[int, list[Problem]]) -> list[Any]:
    kind = column.cells.type
    values: list[Any] = []
    is_list = pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    if is_list and (pa.types.is_integer(kind.value_type) or pa.types.is_floating(kind.value_type)):
        values = column.cells.to_pylist()
        return values
    cure = "write the box as [x, y, w, h]"
    unreadable: list[Problem] = []
    for i, text in enumerate(read_names(column, len(column.cells), unreadable)):
        try:
            values.append(None if text is None or _NOTHING.fullmatch(text) else parse_numbers(text))
        except ValueError as error:
            bad[i].append(column.problem("bad box", i, str(error), cure))
            values.append(None)
    _sort_to_rows(unreadable, column, bad)
    return values


def _four_column_boxes(cells: Cells, spelling: Spelling, bad: dict[int, list[Problem]]) -> list[Any]:
    """The four numbers of each row; None for a row with none of them, or whose box is bad already."""
    found: list[Problem] = []
    sides = [
        read_numbers(Column(n, cells.columns[n], cells.origin(n)), "bad box", "give a plain number", found)
        for n in spelling.names
    ]
    name = spelling.names[0]
    _sort_to_rows(found, Column(name, cells.columns[name], cells.origin(name)), bad)
    return [
        None if i in bad or not any(v is not None for v in quad) else quad
        for i, quad in enumerate(zip(*sides, strict=True))
    ]


def _sort_to_rows(found: list[Problem], column: Column, bad: dict[int, list[Problem]]) -> None:
    """Give each problem of a cell to its row; one of a whole column belongs to the first row."""
    if not found:
        return
    rows: dict[str, list[Problem]] = defaultdict(list)
    for problem in found:
        rows[problem.where.partition(",")[0]].append(problem)
    for i in range(len(column.cells)):
        if own := rows.pop(column.row(i), None):
            bad[i] += own
    for left in rows.values():
        bad[0] += left


def _from_corners(quad: Sequence[float | None]) -> Sequence[float | None]:
    if len(quad) != 4 or any(side is None for side in quad):
        return quad
    x, y, right, bottom = (side or 0.0 for side in quad)
    return x, y, right - x, bottom - y


def _joint_origin(cells: Cells, names: tuple[str, ...]) -> Origin:
    """The origin of a value that several columns of one row make up."""
    origins = [cells.origin(name) for name in names]

    def origin(index: int) -> tuple[str, str]:
        fields = [each(index)[1] for each in origins]
        return origins[0](index)[0], ",".join([fields[0], *(f.removeprefix("column ") for f in fields[1:])])

    return origin
