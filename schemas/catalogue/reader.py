"""A catalogue of photos: the value that all stages work from, and its reader.

Formats are read by `schemas.catalogue.formats`, and all are checked by one validator, here. A missing photo
file is no problem of the catalogue: it is counted (`schemas.catalogue.whereabouts`), and later fails alone.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

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
from schemas.catalogue.encounters import by_gap
from schemas.catalogue.files.documents import place_of
from schemas.catalogue.formats import frame
from schemas.catalogue.formats.detection import catalogue_file, read_sheet
from schemas.catalogue.formats.sheet import Sheet
from schemas.catalogue.photo_ids import complete_ids
from schemas.catalogue.photo_paths import read_paths
from schemas.catalogue.reading import AS_NAMED, Reading
from schemas.catalogue.remarks import remarks
from schemas.catalogue.viewpoints import read_viewpoints, with_keywords
from schemas.errors import CatalogueError, Problem
from schemas.paths import check_relative, is_url, local_path
from schemas.storage_errors import masked, refuse_secrets


@dataclass(frozen=True, slots=True)
class CatalogueEntry:
    """One photo as the catalogue gives it.

    `path` is relative to the catalogue's root and stays inside it; `box` is x, y, w, h in pixels of the
    upright photo, or in shares of its size when `box_is_relative`, None for the whole photo; `theta` is in
    radians, counter-clockwise; `taken_at` is ISO 8601 where it could be read. None means unknown. `extra` holds
    the values of other columns (`schemas.catalogue.extra`). `bad_box` says why the box that the catalogue gives
    cannot be used; such a photo fails. Raises `ValueError`.
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
    extra: str = ""
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
    `used` says which columns of the file were read as what, `kept` names those that are kept as they are,
    `unused` those of which nothing was read. `found` is how many photos are there, None if nobody looked. Raises
    `ValueError` when empty, unsorted or with a doubled id.
    """

    root: str
    entries: tuple[CatalogueEntry, ...]
    warnings: tuple[str, ...] = ()
    format: str = frame.FORMAT
    unused: tuple[str, ...] = ()
    used: tuple[tuple[str, str], ...] = ()
    kept: tuple[str, ...] = ()
    found: int | None = None

    def __post_init__(self) -> None:
        if not self.root or not self.entries:
            raise ValueError("a catalogue needs a root and at least one photo")
        if any(a.photo_id >= b.photo_id for a, b in zip(self.entries, self.entries[1:], strict=False)):
            raise ValueError("a catalogue's entries must be sorted by photo id, each id once")


def read_catalogue(source: str, root: str | None = None, reading: Reading = AS_NAMED) -> Catalogue:
    """Read a catalogue of any format: a file, or the folder that holds it, local or by fsspec URL.

    Paths are relative to `root`, by default the folder of the file; `reading` says what the file does not. Raises
    `CatalogueError` that lists everything that is wrong: missing columns, doubled or empty ids, paths that leave
    the root, bad boxes and rotations, rows of wrong length. Where bad boxes may fail alone, they are no error but
    a part of their entries. Raises `NoStorage` for a root with a password in it, which would be stored with every
    photo.
    """
    _refuse_chained(source, root)
    file = catalogue_file(source)
    place = _photo_root(place_of(file), root)
    refuse_secrets(place)
    sheet, entries, notes = read_in_order(file, place, reading)
    entries.sort(key=lambda entry: entry.photo_id)
    warnings = (*sheet.notes, *notes, *remarks(entries))
    kept = sheet.extra.columns if sheet.extra else ()
    used = sheet.used if reading.encounter_gap else tuple(u for u in sheet.used if u[0] != "station")
    return Catalogue(place, tuple(entries), warnings, sheet.format, sheet.unused, used, kept)


def read_in_order(file: str, root: str, reading: Reading) -> tuple[Sheet, list[CatalogueEntry], list[str]]:
    """A catalogue's columns, the entry of each of their rows, and remarks; raises `CatalogueError`."""
    problems: list[Problem] = []
    sheet = read_sheet(file, reading, problems)
    entries, notes = _read_entries(sheet, root, reading, problems)
    if problems:
        # One bad cell can belong to several photos, such as all of an event.
        raise CatalogueError(masked(file), dict.fromkeys(problems))
    return sheet, entries, notes


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
    sheet: Sheet, root: str, reading: Reading, problems: list[Problem]
) -> tuple[list[CatalogueEntry], list[str]]:
    """Entries in the file's order, none when there are problems; and remarks on the columns."""
    cells, count = sheet.cells, len(sheet.cells.rows)
    columns = {meaning: find_column(cells, meaning) for meaning in ALIASES}
    named = ("identity", "species", "encounter", "viewpoint", "station", "keywords")
    names = {meaning: read_names(columns[meaning], count, problems) for meaning in named}
    ids = read_names(columns["image_id"], count, problems, required=True)
    identities, notes = _known_names(names["identity"], reading.unknown_names)
    paths, said = read_paths(columns["path"], count, root, reading.strip_prefix, problems, sheet.urls_by_name)
    dates, unread = read_dates(read_names(columns["date"], count, problems))
    angles = read_angles(columns["theta"], count, problems)
    found = read_boxes(cells, problems)
    ids, made = complete_ids(columns["image_id"], ids, columns["path"], paths, found.boxes, problems)
    for meaning, values in (("image_id", ids), *((each, names[each]) for each in named[:-1])):
        refuse_long(columns[meaning] or columns["path"], values, problems)
    viewpoints, spelled = read_viewpoints(names["viewpoint"])
    viewpoints, from_keywords = _with_sides(viewpoints, names["viewpoint"], names["keywords"])
    on_boxes = [*found.notes, *_judge_bad_boxes(found, reading.bad_boxes, problems)]
    notes += [*made, *on_boxes, *spelled, *from_keywords, *said]
    if unread:
        shown = ", ".join(map(repr, unread[:3]))
        notes.append(f"dates that cannot be read stay as they are ({len(unread)} different): {shown}")
    encounters = names["encounter"]
    if reading.encounter_gap is not None and None in encounters:
        _refuse_no_gap(columns, problems)
        encounters, by_time = by_gap(encounters, names["station"], dates, reading.encounter_gap)
        notes.append(by_time)
    if problems:
        return [], notes
    extra = sheet.extra.texts.to_pylist() if sheet.extra else [""] * count
    entries = [
        CatalogueEntry(
            photo_id=ids[i] or "",
            path=paths[i] or "",
            identity=identities[i],
            species=names["species"][i],
            encounter=encounters[i],
            taken_at=dates[i],
            viewpoint=viewpoints[i],
            box=found.boxes[i],
            box_is_relative=found.relative and found.boxes[i] is not None,
            theta=angles[i],
            extra=extra[i],
            bad_box=found.bad[i][0].what if i in found.bad else None,
        )
        for i in range(count)
    ]
    return entries, notes


def _known_names(names: list[str | None], unknown: Sequence[str]) -> tuple[list[str | None], list[str]]:
    """The names without a person's own words for an unknown animal; and a remark on how many there were."""
    words = {word.lower() for word in unknown}
    known = [None if name is not None and name.lower() in words else name for name in names]
    count = known.count(None) - names.count(None)
    if not words:
        return known, []
    return known, [f"photos whose name is one of --unknown-name, read as unknown animals: {count}"]


def _with_sides(
    viewpoints: list[str | None], given: list[str | None], keywords: list[str | None]
) -> tuple[list[str | None], list[str]]:
    """Viewpoints from keywords, of photos whose viewpoint is not given at all."""
    asked = [words if text is None else None for text, words in zip(given, keywords, strict=True)]
    return with_keywords(viewpoints, asked)


def _refuse_no_gap(columns: Mapping[str, Column | None], problems: list[Problem]) -> None:
    """Add a problem for what encounters cannot be made without."""
    for meaning in ("station", "date"):
        if columns[meaning] is None:
            what = f"encounters are made from station and time, but no column is read as {meaning}"
            cure = f"say which it is, as --column {meaning}=COLUMN (read are {', '.join(ALIASES[meaning])})"
            problems.append(Problem("no encounters by time", "--encounter-gap", what, cure))


def _judge_bad_boxes(found: Boxes, wanted: str, problems: list[Problem]) -> list[str]:
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
