"""A catalogue of photos: the value that all stages work from, and its reader.

Four formats are read (`schemas.catalogue.formats`) and checked by one validator, here: frames in the
convention of wildlife-datasets, Camtrap DP, COCO Camera Traps, and Wildbook's spreadsheets. A missing photo
file is no problem of the catalogue: it is counted (`schemas.catalogue.whereabouts`), and later fails alone.
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass, replace
from typing import Literal

from schemas.catalogue.box_columns import Boxes, read_boxes
from schemas.catalogue.boxes import Box, make_box, to_pixels
from schemas.catalogue.cells import (
    ALIASES,
    Column,
    find_column,
    read_angles,
    read_dates,
    read_names,
    refuse_long,
)
from schemas.catalogue.files.documents import place_of
from schemas.catalogue.formats import frame
from schemas.catalogue.formats.detection import catalogue_file, read_sheet
from schemas.catalogue.formats.sheet import Sheet
from schemas.catalogue.photo_ids import complete_ids
from schemas.catalogue.photo_urls import below_root, by_tails, refuse_remote
from schemas.catalogue.remarks import remarks
from schemas.catalogue.viewpoints import read_viewpoints
from schemas.errors import CatalogueError, PathOutsideRoot, Problem
from schemas.paths import PhotoRoot, check_relative, is_url, local_path
from schemas.storage_errors import masked, refuse_secrets

BadBoxes = Literal["refuse", "fail"]
"""What a box that cannot be used does: the catalogue is refused, or its photo fails alone."""


@dataclass(frozen=True, slots=True)
class CatalogueEntry:
    """One photo as the catalogue gives it.

    `path` is relative to the catalogue's root and stays inside it; `box` is x, y, w, h in pixels of the
    upright photo, or in shares of its size when `box_is_relative`, None for the whole photo; `theta` is in
    radians, counter-clockwise; `taken_at` is ISO 8601 where it could be read. None means unknown. `bad_box`
    says why the box that the catalogue gives cannot be used; such a photo fails. Raises `ValueError`.
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
    bad_box: str | None = None

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

    `warnings` are remarks on what is allowed but looks odd; `format` names the format that it was read from,
    `unused` the columns of the file of which nothing was read. Raises `ValueError` when empty, unsorted or with a doubled id.
    """

    root: str
    entries: tuple[CatalogueEntry, ...]
    warnings: tuple[str, ...] = ()
    format: str = frame.FORMAT
    unused: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.root or not self.entries:
            raise ValueError("a catalogue needs a root and at least one photo")
        if any(a.photo_id >= b.photo_id for a, b in zip(self.entries, self.entries[1:], strict=False)):
            raise ValueError("a catalogue's entries must be sorted by photo id, each id once")


def read_catalogue(source: str, root: str | None = None, bad_boxes: BadBoxes = "refuse") -> Catalogue:
    """Read a catalogue of any format: a file, or the folder that holds it, local or by fsspec URL.

    Paths are relative to `root`, by default the folder of the file. Raises `CatalogueError` that lists
    everything that is wrong: missing columns, doubled or empty ids, paths that leave the root, bad boxes
    and rotations, rows of wrong length. With `bad_boxes` "fail", single bad boxes are no error but a part
    of their entries. Raises `NoStorage` for a root with a password in it, which would be stored with every
    photo.
    """
    problems: list[Problem] = []
    _refuse_chained(source, root)
    file = catalogue_file(source)
    place = _photo_root(place_of(file), root)
    refuse_secrets(place)
    sheet = read_sheet(file, problems)
    entries, notes = _read_entries(sheet, place, bad_boxes, problems)
    if problems:
        # One bad cell can belong to several photos, such as all of an event.
        raise CatalogueError(masked(source), dict.fromkeys(problems))
    entries.sort(key=lambda entry: entry.photo_id)
    warnings = (*sheet.notes, *notes, *remarks(entries))
    return Catalogue(place, tuple(entries), warnings, sheet.format, sheet.unused)


def _refuse_chained(source: str, root: str | None) -> None:
    for place in (source, root or ""):
        if "::" in place and "://" in place:
            problem = Problem(
                "chained URL", place, "URLs of several file systems are not read", "unpack the archive first"
            )
            raise CatalogueError(source, [problem])


def _photo_root(source: str, root: str | None) -> str:
    """The root as a URL or absolute folder; `CatalogueError` for a folder that does not exist."""
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


def _read_entries(
    sheet: Sheet, root: str, bad_boxes: BadBoxes, problems: list[Problem]
) -> tuple[list[CatalogueEntry], list[str]]:
    """Entries in the file's order, none when there are problems; and remarks on the columns."""
    cells = sheet.cells
    count = len(cells.rows)
    columns = {meaning: find_column(cells, meaning) for meaning in ALIASES}
    named = ("identity", "species", "encounter", "viewpoint")
    names = {meaning: read_names(columns[meaning], count, problems) for meaning in named}
    ids = read_names(columns["image_id"], count, problems, required=True)
    paths, turned = _read_paths(columns["path"], count, root, sheet.urls_by_name, problems)
    dates, unread = read_dates(read_names(columns["date"], count, problems))
    angles = read_angles(columns["theta"], count, problems)
    found = read_boxes(cells, problems)
    ids, made = complete_ids(columns["image_id"], ids, columns["path"], paths, found.boxes, problems)
    for meaning, values in (("image_id", ids), *names.items()):
        refuse_long(columns[meaning] or columns["path"], values, problems)
    notes = [*made, *turned, *found.notes, *_judge_bad_boxes(found, bad_boxes, problems)]
    viewpoints, spelled = read_viewpoints(names["viewpoint"])
    notes += spelled
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
            viewpoint=viewpoints[i],
            box=found.boxes[i],
            box_is_relative=found.relative and found.boxes[i] is not None,
            theta=angles[i],
            bad_box=found.bad[i][0].what if i in found.bad else None,
        )
        for i in range(count)
    ]
    return entries, notes


def _judge_bad_boxes(found: Boxes, wanted: BadBoxes, problems: list[Problem]) -> list[str]:
    """Bad boxes as problems, or as one remark where they fail alone: not where all are bad."""
    if not found.bad:
        return []
    each = [problem for i in sorted(found.bad) for problem in found.bad[i]]
    alone = len(found.bad) < len(found.boxes)
    if wanted == "fail" and alone:
        first = found.bad[min(found.bad)][0]
        return [
            f"boxes that cannot be used, whose photos will fail: {len(found.bad)} (first: {first.where}: {first.what})"
        ]
    hint = "; or let only the photos of such boxes fail: --bad-boxes fail" if alone else ""
    problems += [replace(problem, cure=f"{problem.cure}{hint}") for problem in each]
    return []


def _read_paths(
    column: Column | None, count: int, root: str, urls_by_name: bool, problems: list[Problem]
) -> tuple[list[str | None], list[str]]:
    """Paths in normal form, and remarks on those that were written otherwise."""
    paths = read_names(column, count, problems, required=True, as_written=True)
    if column is None:
        return paths, []
    checker, turned, notes = PhotoRoot(root), 0, []
    remote: list[int] = []
    for i, path in enumerate(paths):
        if path is None:
            continue
        if "://" in path and is_url(path):
            inside = below_root(path, root)
            if inside is None:
                remote.append(i)
                continue
            path = inside
        turned += "\\" in path
        try:
            paths[i] = checker.check(path.replace("\\", "/"))
        except PathOutsideRoot as error:
            problems.append(column.problem("path outside root", i, error.message, error.cure or ""))
    if turned:
        notes.append(f"paths with backslashes, read as /: {turned}")
    if remote and urls_by_name:
        tails, parts = by_tails([paths[i] or "" for i in remote])
        ends = "their file names" if parts == 1 else f"the last {parts} parts of their addresses"
        notes.append(f"photos with addresses elsewhere, looked for below the root by {ends}: {len(remote)}")
        for i, tail in zip(remote, tails, strict=True):
            try:
                paths[i] = checker.check(tail)
            except PathOutsideRoot as error:
                problems.append(column.problem("path outside root", i, error.message, error.cure or ""))
    elif remote:
        refuse_remote(column, paths, remote, problems)
    return paths, notes
