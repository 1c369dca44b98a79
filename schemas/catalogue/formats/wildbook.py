"""Wildbook's spreadsheets, saved as CSV: bulk import, and exports of encounters with annotations.

One row is one encounter of one animal with several photos, `Encounter.mediaAsset0`, `1`, …
(`Annotation0.bbox` belongs to photo 0, and so on). Each photo is a sighting. Photos are known by their file
names, which Wildbook wants unique within one import: the order of photos in a row changes from one export to
the next. A name that several pictures have, as their `filePath` or `imageUrl` tells, gives way to that path.

The encounter is the id of the sighting (occurrence), because encounters of one visit show the same animals,
or its own id, or the number in `Encounter.sourceUrl`, or else the row's first photo in the alphabet. The
animal is the first of `IDENTITY` that the file has; nicknames are not read. Columns without a meaning here are
kept with each photo of their row.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime
from urllib.parse import parse_qs, unquote, urlsplit

from schemas.catalogue.boxes import parse_number
from schemas.catalogue.cells import known
from schemas.catalogue.extra import Extra, read_extra, taken
from schemas.catalogue.formats.sheet import (
    Counts,
    Layout,
    Sheet,
    Sighting,
    file_in,
    is_video,
    other_cells,
    texts_of,
    to_sheet,
)
from schemas.catalogue.table_files import Cells, columns_in_words
from schemas.errors import Problem

FORMAT = "Wildbook"
IDENTITY = (
    "MarkedIndividual.individualID",
    "Encounter.individualID",
    "MarkedIndividual.primaryName",
    "MarkedIndividual.name",
    "Name0.value",
)
SIGHTING = (
    "Occurrence.occurrenceID",
    "Encounter.occurrenceID",
    "Sighting.sightingID",
    "Encounter.sightingID",
)
ENCOUNTER = ("Encounter.catalogNumber", "Encounter.id", "Encounter.encounterID")
DATE = ("Encounter.year", "Encounter.month", "Encounter.day", "Encounter.hour", "Encounter.minutes")
MILLISECONDS = "Encounter.dateInMilliseconds"
_OTHERS = ("Encounter.genus", "Encounter.specificEpithet", "Encounter.viewpoint", "Encounter.sourceUrl")
_FIXED = {name.lower(): name for name in (*IDENTITY, *SIGHTING, *ENCOUNTER, *DATE, MILLISECONDS, *_OTHERS)}
_MEDIA = re.compile(r"encounter\.mediaasset\.?(\d{1,4})")
_PER_PHOTO = re.compile(
    r"(?:encounter\.mediaasset\.?|annotation)(\d{1,4})\.(bbox|theta|viewpoint|filepath|imageurl|keywords)"
)
_WHOLE = re.compile(r"-?\d{1,4}(?:\.0+)?", re.ASCII)


def is_wildbook_column(key: str) -> bool:
    """Whether a column of this lower-case name is read from Wildbook's files."""
    return key in _FIXED or bool(_MEDIA.fullmatch(key) or _PER_PHOTO.fullmatch(key))


def is_wildbook(cells: Cells) -> bool:
    """Whether a table is Wildbook's: it has columns of media assets."""
    return any(_MEDIA.fullmatch(key) for key in cells.columns)


def read_wildbook(cells: Cells, problems: list[Problem]) -> Sheet:
    """The sightings in a table with columns `Encounter.mediaAsset0` and so on."""
    counts = Counts(cells.notes)
    header = {name.strip().lower(): name.strip() for name in cells.header}
    names = {key: header[key] for key in cells.columns if is_wildbook_column(key)}
    paths = {
        name for key, name in names.items() if _MEDIA.fullmatch(key) or key.endswith(("filepath", "imageurl"))
    }
    texts = {name.lower(): column for name, column in texts_of(cells, names, paths, problems).items()}
    table = _Table(texts, len(cells.rows))
    identity = next((name for name in IDENTITY if name.lower() in texts), None)
    if identity is None:
        what = f"there is none; the columns are {columns_in_words(cells.header)}"
        cure = f"export a column that names the animal (read are {', '.join(IDENTITY)}), empty where it is unknown"
        problems.append(Problem("missing column", "header, column identity", what, cure))
    sightings: list[Sighting] = []
    for i, row in enumerate(cells.rows):
        found = _row_sightings(table, i, f"row {row}", identity, counts)
        if not found:
            counts.add("encounters without a photo left out")
        sightings += found
    spare = {name.lower() for name in IDENTITY if name != identity}
    extra = read_extra(other_cells(cells, names.keys() - spare), len(cells.rows))

    def extra_of(entries: Sequence[Sighting]) -> Extra:
        return taken(extra, [entry.row for entry in entries])

    return to_sheet(sightings, _layout(table, header, identity), counts, problems, extra_of)


class _Table:
    """The texts of all columns, None where unknown, and the columns of each photo's slot."""

    def __init__(self, texts: dict[str, list[str | None]], count: int) -> None:
        self.texts = texts
        self.nothing: list[str | None] = [None] * count
        self.media: dict[int, str] = {}
        self.per_photo: dict[tuple[int, str], str] = {}
        for key in texts:
            if match := _MEDIA.fullmatch(key):
                self.media.setdefault(int(match[1]), key)
            elif match := _PER_PHOTO.fullmatch(key):
                self.per_photo.setdefault((int(match[1]), match[2]), key)
        self.shared = self._shared_names()

    def cell(self, name: str | None, row: int) -> str | None:
        """The text of column `name`, in any case, in the row at `row`; None without such a column."""
        return self.texts.get((name or "").lower(), self.nothing)[row]

    def photos(self, row: int) -> dict[int, str]:
        """The paths of a row's photos by slot: their names or, where others share a name, their places."""
        names = {slot: self.cell(key, row) for slot, key in sorted(self.media.items())}
        return {
            slot: (self._place(slot, name, row) or name) if name in self.shared else name
            for slot, name in names.items()
            if name is not None
        }

    def _shared_names(self) -> set[str]:
        """The file names that stand for pictures at several places."""
        places: dict[str, str] = {}
        shared: set[str] = set()
        for slot, key in self.media.items():
            if not self.per_photo.keys() & {(slot, "filepath"), (slot, "imageurl")}:
                continue
            for row, name in enumerate(self.texts[key]):
                if name is None or (place := self._place(slot, name, row)) is None:
                    continue
                if places.setdefault(name, place) != place:
                    shared.add(name)
        return shared

    def _place(self, slot: int, name: str, row: int) -> str | None:
        """Where a photo lies: its `filePath`, or the path in its `imageUrl`."""
        path = self.of_photo(slot, "filepath", row)
        if path is not None:
            return file_in(path, name)
        try:
            return unquote(urlsplit(self.of_photo(slot, "imageurl", row) or "").path).lstrip("/") or None
        except ValueError:
            return None

    def of_photo(self, slot: int, name: str, row: int) -> str | None:
        """The text of a photo's own column `name`."""
        return self.cell(self.per_photo.get((slot, name)), row)


def _row_sightings(table: _Table, i: int, place: str, identity: str | None, counts: Counts) -> list[Sighting]:
    photos = table.photos(i)
    if not photos:
        return []
    encounter = _encounter(table, i) or min(photos.values())
    visit = _first(table, SIGHTING, i) or encounter
    found: list[Sighting] = []
    seen: dict[tuple[str | None, ...], int] = {}
    for slot, path in photos.items():
        if is_video(path):
            counts.add("videos left out")
            continue
        box, theta = table.of_photo(slot, "bbox", i), table.of_photo(slot, "theta", i)
        if (path, box, theta) in seen:
            counts.add("photos listed twice in one row and read once")
            continue
        seen[path, box, theta] = slot
        if path != table.cell(table.media[slot], i):
            counts.add("photos that share a file name with others, known by their filePath or imageUrl")
        again = sum(s.path == path for s in found)
        found.append(
            Sighting(
                photo=path,
                animal=encounter if not again else f"{encounter}/{again + 1}",
                path=path,
                photo_at=place,
                animal_at=place,
                identity=table.cell(identity, i),
                species=_species(table, i),
                encounter=visit,
                date=_date([table.cell(name, i) for name in DATE]) or _moment(table.cell(MILLISECONDS, i)),
                viewpoint=table.of_photo(slot, "viewpoint", i) or table.cell("Encounter.viewpoint", i),
                # Wildbook puts an underscore between keywords.
                keywords=(table.of_photo(slot, "keywords", i) or "").replace("_", ";") or None,
                theta=theta,
                box=(box,),
                slot=slot,
                row=i,
            )
        )
    return found


def _first(table: _Table, names: Sequence[str], i: int) -> str | None:
    return next((found for name in names if (found := table.cell(name, i)) is not None), None)


def _encounter(table: _Table, i: int) -> str | None:
    if (own := _first(table, ENCOUNTER, i)) is not None:
        return own
    url = table.cell("Encounter.sourceUrl", i)
    try:
        numbers = parse_qs(urlsplit(url or "").query).get("number", [])
    except ValueError:
        return None
    return known(numbers[0]) if numbers else None


def _species(table: _Table, i: int) -> str | None:
    parts = (table.cell("Encounter.genus", i), table.cell("Encounter.specificEpithet", i))
    return " ".join(part for part in parts if part is not None) or None


def _date(parts: Sequence[str | None]) -> str | None:
    """ISO 8601 from year, month, day, hour and minutes, as far as they are known.

    A part below its range means "not known". Spreadsheets write whole numbers as 5 or 5.0. A text that is
    no number is kept as it is, for the reader of dates to report.
    """
    numbers: list[int] = []
    for text, lowest in zip(parts, (1, 1, 1, 0, 0), strict=True):
        if text is None:
            break
        if not _WHOLE.fullmatch(text):
            return "-".join(part for part in parts[:3] if part is not None)
        if int(float(text)) < lowest:
            break
        numbers.append(int(float(text)))
    if not numbers:
        return None
    day = "-".join(f"{n:0{width}d}" for n, width in zip(numbers[:3], (4, 2, 2), strict=False))
    if len(numbers) < 4:
        return day
    return f"{day}T{numbers[3]:02d}:{numbers[4] if len(numbers) > 4 else 0:02d}"


def _moment(milliseconds: str | None) -> str | None:
    """ISO 8601 from milliseconds since 1970, to the second; a text that is no such number is kept."""
    try:
        seconds = int(parse_number(milliseconds or "0") // 1000)
        return datetime.fromtimestamp(seconds, UTC).isoformat() if seconds else None
    except (ValueError, OverflowError, OSError):
        return milliseconds


def _layout(table: _Table, header: dict[str, str], identity: str | None) -> Layout:
    annotated = any(key.startswith("annotation") for key in table.per_photo.values())
    photo = "Annotation{slot}" if annotated else "Encounter.mediaAsset{slot}"
    dotted = any(key.startswith("encounter.mediaasset.") for key in table.media.values())
    asset = "Encounter.mediaAsset.{slot}" if dotted else "Encounter.mediaAsset{slot}"
    encounter = next(
        (name for name in (*SIGHTING, *ENCOUNTER) if name.lower() in header), "Encounter.mediaAsset{slot}"
    )
    fields = {
        "image_id": asset,
        "path": asset,
        "identity": identity or IDENTITY[0],
        "species": "Encounter.genus",
        "encounter": encounter,
        "date": DATE[0],
        "viewpoint": f"{photo}.viewpoint",
        "theta": f"{photo}.theta",
        "keywords": f"{asset}.keywords",
        "bbox": f"{photo}.bbox",
    }
    return Layout(FORMAT, {column: ("photo", name) for column, name in fields.items()})
