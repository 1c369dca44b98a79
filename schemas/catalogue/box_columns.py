"""The columns of boxes: under which names they are found, and the boxes of all rows.

A table may spell its boxes in one column (a list) or in four, as x, y, w, h or by two corners. The first
complete spelling of `SPELLINGS` is read; other columns that look like boxes give a remark.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
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


def spelling_of(cells: Cells) -> Spelling | None:
    """The spelling that the boxes of a table are read by; None where it has none."""
    return next((each for each in SPELLINGS if set(each.names) <= cells.columns.keys()), None)


def read_boxes(cells: Cells, problems: list[Problem]) -> tuple[list[Box | None], bool, list[str]]:
    """One box per row (None = whole photo), whether all are shares, and remarks for the user.

    Shares are of the photo's size.
    """
    spelling = spelling_of(cells)
    if spelling is None:
        return [None] * len(cells.rows), False, [*_incomplete(cells, problems), *_unread(cells, ())]
    notes = _unread(cells, spelling.names)
    names = spelling.names
    column = Column(",".join(names), cells.columns[names[0]], _joint_origin(cells, names))
    raw = (
        _listed_boxes(column, problems) if len(names) == 1 else _four_column_boxes(cells, spelling, problems)
    )
    boxes = _valid_boxes(raw, column, problems)
    relative = [i for i, box in enumerate(boxes) if box is not None and looks_relative(box)]
    absolute = [i for i, box in enumerate(boxes) if box is not None and not looks_relative(box)]
    if spelling.shares:
        cure = "give shares between 0 and 1, or use columns x, y, w, h"
        for i in absolute:
            what = f"box {boxes[i]} is larger than the photo"
            problems.append(column.problem("box not relative", i, what, cure))
        return boxes, True, notes
    if relative and absolute:
        _refuse_mixture(boxes, relative, absolute, column, problems)
    if relative and not absolute:
        notes.append("boxes are read as shares of the photo's size: all their numbers lie within [-1, 1]")
    return boxes, bool(relative and not absolute), notes


def _refuse_mixture(
    boxes: list[Box | None], relative: list[int], absolute: list[int], column: Column, problems: list[Problem]
) -> None:
    fewer, looks = (relative, "shares") if len(relative) <= len(absolute) else (absolute, "pixels")
    others = len(relative) + len(absolute) - len(fewer)
    cure = "give all boxes in pixels (x, y, w, h) or all as shares (rel_x, rel_y, rel_w, rel_h)"
    for i in fewer:
        what = f"box {boxes[i]} looks like {looks}, unlike the other {others}"
        problems.append(column.problem("mixed boxes", i, what, cure))


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


def _valid_boxes(raw: list[Any], column: Column, problems: list[Problem]) -> list[Box | None]:
    cure = "give x, y, w, h as finite numbers with w and h above 0, or leave the box out"
    boxes: list[Box | None] = []
    for i, numbers in enumerate(raw):
        try:
            boxes.append(None if numbers is None or _missing(numbers) else make_box(numbers))
        except ValueError as error:
            problems.append(column.problem("bad box", i, str(error), cure))
            boxes.append(None)
    return boxes


def _missing(numbers: Sequence[float | None]) -> bool:
    """Whether a list holds nothing but missing numbers (None, NaN); an empty list is no box at all."""
    return len(numbers) > 0 and all(n is None or n != n for n in numbers)


def _listed_boxes(column: Column, problems: list[Problem]) -> list[Any]:
    kind = column.cells.type
    values: list[Any] = []
    is_list = pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    if is_list and (pa.types.is_integer(kind.value_type) or pa.types.is_floating(kind.value_type)):
        values = column.cells.to_pylist()
        return values
    cure = "write the box as [x, y, w, h]"
    for i, text in enumerate(read_names(column, len(column.cells), problems)):
        try:
            values.append(None if text is None or _NOTHING.fullmatch(text) else parse_numbers(text))
        except ValueError as error:
            problems.append(column.problem("bad box", i, str(error), cure))
            values.append(None)
    return values


def _four_column_boxes(cells: Cells, spelling: Spelling, problems: list[Problem]) -> list[Any]:
    """x, y, w, h per row; a row with none of them has no box, one with only some has an invalid box."""
    before = len(problems)
    sides = [
        read_numbers(Column(n, cells.columns[n], cells.origin(n)), "bad box", "give a plain number", problems)
        for n in spelling.names
    ]
    told = {problem.where.partition(",")[0] for problem in problems[before:]}
    row = cells.origin(spelling.names[0])
    quads: list[Any] = []
    for i, quad in enumerate(zip(*sides, strict=True)):
        if not any(v is not None for v in quad) or (told and row(i)[0] in told):
            quads.append(None)
        else:
            quads.append(_from_corners(quad) if spelling.corners else quad)
    return quads


def _from_corners(quad: tuple[float | None, ...]) -> tuple[float | None, ...]:
    x, y, right, bottom = quad
    if x is None or y is None or right is None or bottom is None:
        return quad
    return x, y, right - x, bottom - y


def _joint_origin(cells: Cells, names: tuple[str, ...]) -> Origin:
    """The origin of a value that several columns of one row make up."""
    origins = [cells.origin(name) for name in names]

    def origin(index: int) -> tuple[str, str]:
        fields = [each(index)[1] for each in origins]
        return origins[0](index)[0], ",".join([fields[0], *(f.removeprefix("column ") for f in fields[1:])])

    return origin
