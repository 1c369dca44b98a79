"""A catalogue of photos: the value that all stages work from, and its reader.

The format is that of wildlife-datasets: one row per photo with `image_id`, `identity` and `path`, and optionally `bbox` or
`x, y, w, h`, `theta`, `species`, `date`, `encounter` and `viewpoint`, as CSV or Parquet. Other names of these columns are
listed in `catalogue_columns.ALIASES`. A missing photo file is no problem of the catalogue: it fails alone, later.
"""

from __future__ import annotations

import math
import os
from collections import defaultdict
from dataclasses import dataclass

from schemas.boxes import Box, make_box, to_pixels
from schemas.catalogue_columns import (
    ALIASES,
    REQUIRED,
    WANTED,
    Column,
    find_column,
    read_angles,
    read_boxes,
    read_dates,
    read_names,
    refuse_long,
)
from schemas.catalogue_files import Cells, read_cells
from schemas.catalogue_remarks import remarks
from schemas.errors import CatalogueError, PathOutsideRoot, Problem
from schemas.paths import PhotoRoot, check_relative, is_url, local_path


@dataclass(frozen=True, slots=True)
class CatalogueEntry:
    """One photo as the catalogue gives it.

    `path` is relative to the catalogue's root and stays inside it; `box` is x, y, w, h in pixels of the upright photo, or
    in shares of its size when `box_is_relative`, None for the whole photo; `theta` is in radians, counter-clockwise;
    `taken_at` is ISO 8601 where it could be read. None means unknown. Raises `ValueError`.
    """

    photo_id: str
    path: str
    identity: str | None = None
    species: str | None = None
    encounter: str | None = None
    taken_at: str | None = None
    viewpoint: str | None = None
    box: Box | None = None
    box_is_relative: bool = False
    theta: float = 0.0

    def __post_init__(self) -> None:
        if not self.photo_id:
            raise ValueError("a catalogue entry needs a photo id")
        check_relative(self.path)
        if self.box is not None:
            make_box(self.box)
        if not math.isfinite(self.theta):
            raise ValueError(f"theta of photo {self.photo_id!r} must be finite, not {self.theta}")

    def box_in(self, width: int, height: int) -> Box | None:
        """The box in pixels of the upright photo of `width` x `height` pixels; None for the whole photo."""
        if self.box is None or not self.box_is_relative:
            return self.box
        return to_pixels(self.box, width, height)


@dataclass(frozen=True)
class Catalogue:
    """All photos, sorted by id, with the URL or absolute folder that their paths are relative to.

    `warnings` are remarks on what is allowed but looks odd. Raises `ValueError` when empty, unsorted or with a doubled id.
    """

    root: str
    entries: tuple[CatalogueEntry, ...]
    warnings: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.root or not self.entries:
            raise ValueError("a catalogue needs a root and at least one photo")
        if any(a.photo_id >= b.photo_id for a, b in zip(self.entries, self.entries[1:], strict=False)):
            raise ValueError("a catalogue's entries must be sorted by photo id, each id once")


def read_catalogue(source: str, root: str | None = None) -> Catalogue:
    """Read a catalogue from a CSV or Parquet file, local or behind an fsspec URL.

    Paths are relative to `root`, by default the folder of `source`. Raises `CatalogueError` that lists everything that is
    wrong: missing columns, doubled or empty ids, paths that leave the root, bad boxes and rotations, rows of wrong length.
    """
    problems: list[Problem] = []
    place = _photo_root(source, root)
    cells = read_cells(source, WANTED, problems)
    for meaning in REQUIRED:
        if find_column(cells, meaning) is None:
            what = f"there is none; the columns are {', '.join(cells.header) or 'none at all'}"
            cure = f"add or rename a column (read are {', '.join(ALIASES[meaning])})"
            problems.append(Problem("missing column", f"header, column {meaning}", what, cure))
    if not cells.rows:
        problems.append(
            Problem("empty catalogue", "the file", "no row holds a photo", "write one row per photo")
        )
    entries, notes = _read_entries(cells, place, problems)
    if problems:
        raise CatalogueError(source, problems)
    entries.sort(key=lambda entry: entry.photo_id)
    return Catalogue(place, tuple(entries), tuple(notes + remarks(entries)))


def _photo_root(source: str, root: str | None) -> str:
    """The root as a URL or absolute folder; `CatalogueError` for chained URLs and folders that do not exist."""
    for place in (source, root or ""):
        if "::" in place and "://" in place:
            problem = Problem(
                "chained URL", place, "URLs of several file systems are not read", "unpack the archive first"
            )
            raise CatalogueError(source, [problem])
    if root is None:
        path = source.partition("?")[0]
        return path.rpartition("/")[0] if is_url(source) else os.path.dirname(local_path(source))
    if is_url(root):
        return root.rstrip("/")
    folder = local_path(root)
    if not os.path.isdir(folder):
        problem = Problem(
            "no such root", folder, "there is no such folder", "name the folder that the paths start from"
        )
        raise CatalogueError(source, [problem])
    return folder


def _read_entries(cells: Cells, root: str, problems: list[Problem]) -> tuple[list[CatalogueEntry], list[str]]:
    """Entries in the file's order, none when there are problems; and remarks from reading the columns."""
    count = len(cells.rows)
    columns = {meaning: find_column(cells, meaning) for meaning in ALIASES}
    named = ("identity", "species", "encounter", "viewpoint")
    names = {meaning: read_names(columns[meaning], count, problems) for meaning in named}
    ids = read_names(columns["image_id"], count, problems, required=True)
    for meaning, values in (("image_id", ids), *names.items()):
        refuse_long(columns[meaning], values, problems)
    _refuse_doubled_ids(columns["image_id"], ids, problems)
    paths = _read_paths(columns["path"], count, root, problems)
    dates, unread = read_dates(read_names(columns["date"], count, problems))
    angles = read_angles(columns["theta"], count, problems)
    boxes, relative, notes = read_boxes(cells, problems)
    if unread:
        shown = ", ".join(map(repr, unread[:3]))
        notes.append(f"dates that cannot be read stay as they are ({len(unread)} different): {shown}")
    if problems:
        return [], notes
    entries = [
        CatalogueEntry(
            photo_id=ids[i] or "",
            path=paths[i] or "",
            identity=names["identity"][i],
            species=names["species"][i],
            encounter=names["encounter"][i],
            taken_at=dates[i],
            viewpoint=_lower(names["viewpoint"][i]),
            box=boxes[i],
            box_is_relative=relative and boxes[i] is not None,
            theta=angles[i],
        )
        for i in range(count)
    ]
    return entries, notes


def _lower(text: str | None) -> str | None:
    return None if text is None else text.lower()


def _refuse_doubled_ids(column: Column | None, ids: list[str | None], problems: list[Problem]) -> None:
    rows: dict[str, list[int]] = defaultdict(list)
    for i, photo_id in enumerate(ids):
        if column is not None and photo_id is not None:
            rows[photo_id].append(column.rows[i])
    for photo_id, members in rows.items():
        if len(members) > 1:
            where = ", ".join(map(str, members[:10])) + (", …" if len(members) > 10 else "")
            what = f"{photo_id[:60]!r} is the id of {len(members)} rows"
            problems.append(
                Problem("doubled image_id", f"rows {where}", what, "give every photo an id of its own")
            )


def _read_paths(column: Column | None, count: int, root: str, problems: list[Problem]) -> list[str | None]:
    paths = read_names(column, count, problems, required=True)
    checker = PhotoRoot(root)
    for i, path in enumerate(paths):
        if column is None or path is None:
            continue
        try:
            paths[i] = checker.check(path)
        except PathOutsideRoot as error:
            problems.append(column.problem("path outside root", i, error.message, error.cure or ""))
    return paths
