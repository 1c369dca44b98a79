"""Sightings of animals in photos, which every format becomes, and the validator's columns.

A photo that shows one animal is one entry under the photo's own id. A photo with several boxed animals is one
entry per box, under `photo id/animal's id`. Animals without boxes cannot be told apart in a photo. Beside
boxed animals they are left out; else all of them are one entry, whose name is known when they have one name
between them.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Container, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import pyarrow as pa

from schemas.catalogue.cells import Column, known, read_names
from schemas.catalogue.extra import Extra
from schemas.catalogue.table_files import Cells, Origin
from schemas.errors import Problem

VIDEO_SUFFIXES = (".mp4", ".avi", ".mov", ".m4v", ".mkv", ".mpg", ".mpeg", ".wmv", ".webm", ".asf", ".3gp")
_FILE = re.compile(r"[^/\\]\.[A-Za-z][A-Za-z0-9]{1,4}$", re.ASCII)


@dataclass(frozen=True)
class Sheet:
    """A catalogue's columns, the name of the format that they were written in, and remarks for the user.

    `unused` names the file's columns (fields) of which nothing is read, `used` says which are read as what.
    `extra` are the columns that are kept as they are. With `urls_by_name`, URLs say where photos were downloaded
    from, so that they are looked for by the ends of these.
    """

    format: str
    cells: Cells
    notes: tuple[str, ...] = ()
    unused: tuple[str, ...] = ()
    used: tuple[tuple[str, str], ...] = ()
    extra: Extra | None = None
    urls_by_name: bool = False


@dataclass(slots=True)
class Sighting:
    """One animal in one photo, every value as text; None or empty where the file says nothing.

    `box` holds one text (a list) or four (x, y, w, h). `photo_at` and `animal_at` say where the photo and
    the animal stand in the user's files, such as `media.csv row 3`; `slot` numbers the photo where one
    row lists several. `row` is the place of the animal's own record, `photo_row` that of the photo's, from 0, for
    what is kept of them.
    """

    photo: str | None
    animal: str | None
    path: str | None
    photo_at: str
    animal_at: str
    identity: str | None = None
    species: str | None = None
    encounter: str | None = None
    date: str | None = None
    viewpoint: str | None = None
    theta: str | None = None
    keywords: str | None = None
    station: str | None = None
    box: tuple[str | None, ...] = (None,)
    slot: int = 0
    row: int = 0
    photo_row: int = 0

    @property
    def boxed(self) -> bool:
        """Whether the file gives a box."""
        return any(known(text) for text in self.box)


@dataclass(frozen=True)
class Layout:
    """A format's name, the columns of its boxes, and the field that each column comes from.

    `fields`, for messages, maps a column to the part of the sighting (`photo` or `animal`) and the name
    of the field there.
    """

    format: str
    fields: Mapping[str, tuple[str, str]]
    box_columns: tuple[str, ...] = ("bbox",)
    word: str = "column"


@dataclass
class Counts:
    """Counts remarks while a file is read: how often each was met, after those that are already made."""

    made: tuple[str, ...] = ()
    found: dict[str, int] = field(default_factory=lambda: defaultdict(int))

    def add(self, phrase: str, times: int = 1) -> None:
        """Count `phrase` once more, or several times."""
        self.found[phrase] += times

    def notes(self) -> tuple[str, ...]:
        """The phrases with their numbers, in the order in which they were first met."""
        return (*self.made, *(f"{phrase}: {n}" for phrase, n in self.found.items()))


def to_sheet(
    sightings: Sequence[Sighting],
    layout: Layout,
    counts: Counts,
    problems: list[Problem],
    extra_of: Callable[[Sequence[Sighting]], Extra] | None = None,
) -> Sheet:
    """The columns of all `sightings`, with what `extra_of` keeps of them; adds a problem when there is none."""
    entries = _one_per_animal(sightings, counts)
    if not entries and not problems:
        what = "nothing in it is a photo of an animal" + "".join(f"; {note}" for note in counts.notes())
        cure = "name a catalogue with at least one photo of an animal"
        problems.append(Problem("empty catalogue", "the file", what, cure))
    columns = {
        "image_id": [entry.photo for entry in entries],
        "path": [entry.path for entry in entries],
        "identity": [entry.identity for entry in entries],
        "species": [entry.species for entry in entries],
        "encounter": [entry.encounter for entry in entries],
        "date": [entry.date for entry in entries],
        "viewpoint": [entry.viewpoint for entry in entries],
        "theta": [entry.theta for entry in entries],
        "keywords": [entry.keywords for entry in entries],
        "station": [entry.station for entry in entries],
    }
    for place, name in enumerate(layout.box_columns):
        columns[name] = [entry.box[place] if place < len(entry.box) else None for entry in entries]
    cells = Cells(
        {name: pa.chunked_array([pa.array(texts, pa.string())]) for name, texts in columns.items()},
        list(range(1, len(entries) + 1)),
        tuple(columns),
        {name: _origin(entries, layout, name) for name in columns},
    )
    extra = extra_of(entries) if extra_of else None
    notes, unused = (extra.notes, extra.left_out) if extra else ((), ())
    return Sheet(
        layout.format, cells, (*counts.notes(), *notes), unused, used=_used(columns, layout), extra=extra
    )


def _used(columns: Mapping[str, Sequence[str | None]], layout: Layout) -> tuple[tuple[str, str], ...]:
    """Which field is read as what, of columns in which any photo has a value."""
    boxes = set(layout.box_columns)
    return tuple(
        (
            "box" if column in boxes else column,
            layout.fields.get(column, ("", column))[1].replace("{slot}", "N"),
        )
        for column, texts in columns.items()
        if any(text is not None for text in texts)
    )


def _origin(entries: Sequence[Sighting], layout: Layout, column: str) -> Origin:
    part, name = layout.fields.get(column, ("animal", column))

    def origin(index: int) -> tuple[str, str]:
        entry = entries[index]
        place = entry.photo_at if part == "photo" else entry.animal_at
        return place, f"{layout.word} {name.format(slot=entry.slot)}"

    return origin


def _one_per_animal(sightings: Iterable[Sighting], counts: Counts) -> list[Sighting]:
    """One sighting per entry, in the order of the photos; `photo` is the entry's id."""
    photos: dict[Hashable, list[Sighting]] = defaultdict(list)
    for place, sighting in enumerate(sightings):
        # A sighting without a photo id shares no photo with others; the validator reports it.
        photos[place if known(sighting.photo) is None else sighting.photo].append(sighting)
    entries: list[Sighting] = []
    for group in photos.values():
        boxed = [sighting for sighting in group if sighting.boxed]
        if not boxed:
            entries.append(_without_boxes(group, counts))
            continue
        for _ in group[len(boxed) :]:
            counts.add("animals without a box left out, because others in the same photo have one")
        if len(boxed) == 1:
            entries.append(boxed[0])
            continue
        entries += [replace(s, photo=f"{s.photo}/{s.animal}" if s.animal else None) for s in boxed]
    return entries


def _without_boxes(group: list[Sighting], counts: Counts) -> Sighting:
    """All animals of one photo as one sighting, with the one name and species that all have, if any."""
    first = group[0]
    if len(group) == 1:
        return first
    names = {s.identity for s in group} - {None}
    species = {s.species for s in group} - {None}
    if len(names) > 1:
        counts.add("photos of several named animals without boxes, read as photos of unknown animals")
    named = next((s for s in group if s.identity is not None), first) if len(names) == 1 else first
    return replace(
        named,
        identity=names.pop() if len(names) == 1 else None,
        species=species.pop() if len(species) == 1 else None,
    )


def index_ids(
    ids: Sequence[str | None], place: Callable[[int], str], kind: str, problems: list[Problem]
) -> dict[str, int]:
    """The place of each id in `ids`; an id that occurs twice is a problem. Missing ids are left out."""
    places: dict[str, int] = {}
    doubled: dict[str, list[int]] = {}
    for i, text in enumerate(ids):
        if text is None:
            continue
        if text in places:
            doubled.setdefault(text, [places[text]]).append(i)
        else:
            places[text] = i
    for text, members in doubled.items():
        what = f"{text[:60]!r} is the id of {len(members)} of them"
        problems.append(
            Problem(f"doubled {kind}", join_places(map(place, members)), what, "give each an id of its own")
        )
    return places


def join_places(places: Iterable[str], shown: int = 10) -> str:
    """`rows 2, 4, 7` from `row 2`, `row 4`, `row 7`; places of several sorts are listed in full."""
    parts = [place.rpartition(" ") for place in places]
    more = ", …" if len(parts) > shown else ""
    if len({noun for noun, _, _ in parts}) == 1 and parts[0][0]:
        return f"{parts[0][0]}s {', '.join(number for _, _, number in parts[:shown])}{more}"
    return ", ".join(" ".join((noun, number)) for noun, _, number in parts[:shown]) + more


def texts_of(
    cells: Cells, names: Mapping[str, str], paths: Container[str], problems: list[Problem]
) -> dict[str, list[str | None]]:
    """The texts of the columns in `names` (lower case -> the file's spelling), None where unknown.

    Columns in `paths` (the file's spelling) keep their texts as written.
    """

    def column(key: str, name: str) -> Column:
        return Column(name, cells.columns[key], lambda i: (f"row {cells.rows[i]}", f"column {name}"))

    return {
        name: read_names(column(key, name), len(cells.rows), problems, as_written=name in paths)
        for key, name in names.items()
        if key in cells.columns
    }


def other_cells(cells: Cells, used: Container[str]) -> dict[str, pa.ChunkedArray]:
    """The columns that are not in `used` (lower case), by the file's names, in its order."""
    return {
        name: cells.columns[key]
        for name in cells.header
        if (key := name.strip().lower()) in cells.columns and key not in used
    }


def is_video(path: str | None) -> bool:
    """Whether a path ends as videos do."""
    return path is not None and path.lower().endswith(VIDEO_SUFFIXES)


def file_in(path: str, name: str) -> str:
    """`path`, or the file `name` in it where it is a folder: it has no file's suffix, but `name` has one."""
    is_folder = not _FILE.search(path) and _FILE.search(name) and "://" not in path
    return f"{path.rstrip('/')}/{name}" if is_folder else path
