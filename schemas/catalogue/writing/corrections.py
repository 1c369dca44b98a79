"""What is to be corrected, and where in the user's files each photo's name stands, as the reader says."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from schemas.catalogue.cells import find_column, known
from schemas.catalogue.formats.sheet import Sheet
from schemas.catalogue.reader import CatalogueEntry

_PLACE = re.compile(r"(?:(?P<file>.+) )?(?P<noun>row|annotation|image) (?P<number>\d+)")


@dataclass(frozen=True)
class Corrections:
    """New names of photos (None: unknown), and photos to leave out."""

    names: Mapping[str, str | None] = field(default_factory=dict)
    dropped: frozenset[str] = frozenset()

    def without(self, photos: Iterable[str]) -> Corrections:
        """The same for all photos but these."""
        out = set(photos)
        return Corrections(
            {photo: name for photo, name in self.names.items() if photo not in out}, self.dropped - out
        )

    def __bool__(self) -> bool:
        return bool(self.names or self.dropped)


@dataclass(frozen=True)
class Place:
    """A cell of the user's files: `file` is empty for the only one; `noun` is row, annotation or image."""

    file: str
    noun: str
    number: int
    column: str


@dataclass(frozen=True)
class Listed:
    """A photo of a catalogue: its given name, the place of that name and the place of the photo itself."""

    photo_id: str
    name: str | None
    at: Place
    photo_at: Place


@dataclass
class Written:
    """New bytes of the files that change (the only one is called ""), and photos not written, with why."""

    files: dict[str, bytes] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)


Writer = Callable[[str, Sequence[Listed], Corrections], Written]
"""Takes the catalogue's file, its photos, and the corrections."""


def listed(sheet: Sheet, entries: Sequence[CatalogueEntry]) -> list[Listed]:
    """All photos of a sheet, of whose rows these are the entries; where ids are made, the path is the place."""
    names = find_column(sheet.cells, "identity")
    photos = find_column(sheet.cells, "image_id") or find_column(sheet.cells, "path")
    if names is None or photos is None:
        return []
    return [
        Listed(entry.photo_id, entry.identity, _place(*names.origin(i)), _place(*photos.origin(i)))
        for i, entry in enumerate(entries)
    ]


def by_place(photos: Iterable[Listed], corrections: Corrections, written: Written) -> dict[Place, str | None]:
    """The new name of every place that gets one.

    Where several photos share a place and would not have one name, none of them is written.
    """
    groups: dict[Place, list[Listed]] = defaultdict(list)
    for photo in photos:
        if photo.photo_id not in corrections.dropped:
            groups[photo.at].append(photo)
    found: dict[Place, str | None] = {}
    for place, members in groups.items():
        wanted = {corrections.names.get(m.photo_id, m.name) for m in members}
        changed = [m for m in members if m.photo_id in corrections.names]
        if not changed:
            continue
        if len(wanted) == 1:
            found[place] = wanted.pop()
            continue
        why = (
            f"{place.noun} {place.number} names {len(members)} photos at once, and not all of them get this name: "
            f"give the photo {'a row' if place.noun == 'row' else 'an annotation'} of its own"
        )
        written.refused |= {m.photo_id: why for m in changed}
    return found


def unknown_as_written(texts: Iterable[str | None]) -> str:
    """How a column spells an unknown name: its commonest spelling, or nothing."""
    counts: dict[str, int] = defaultdict(int)
    for text in texts:
        if text is not None and known(text) is None:
            counts[text.strip()] += 1
    return max(sorted(counts), key=counts.__getitem__, default="")


def _place(where: str, column: str) -> Place:
    found = _PLACE.fullmatch(where)
    if found is None:
        raise ValueError(f"the reader names no row, annotation or image: {where!r}")
    name = column.partition(" ")[2]
    return Place(found["file"] or "", found["noun"], int(found["number"]), name)
