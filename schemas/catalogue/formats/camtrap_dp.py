"""Camtrap DP 1.0: a folder with `datapackage.json`, which names its tables.

Read are the tables of media and observations, not that of deployments. Each
animal observation of a medium is a sighting: `individualID` is its name, `eventID` its encounter. Blanks,
people, vehicles and videos are left out.

An observation of a whole event applies to every image of the event that has not been classified by itself. An
image belongs to an event if an observation of the image names it, or if the image was taken at the same
deployment between `eventStart` and `eventEnd`. Where an image and its event have one animal each, an image's
animal without a name takes that of the event.

Other columns of both tables are kept with the photo, and so is the deployment, which is the station.

Some packages write a folder into `filePath` and the file into `fileName`. A path without a file's suffix is
such a folder.
"""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa

from schemas.catalogue.cells import known
from schemas.catalogue.extra import Extra, read_extra
from schemas.catalogue.files.documents import Folder
from schemas.catalogue.files.tables import read_cells
from schemas.catalogue.formats.resources import Resource, named_resources
from schemas.catalogue.formats.sheet import (
    Counts,
    Layout,
    Sheet,
    Sighting,
    file_in,
    index_ids,
    is_video,
    other_cells,
    texts_of,
    to_sheet,
)
from schemas.catalogue.table_files import columns_in_words
from schemas.errors import CatalogueError, PathOutsideRoot, Problem

FORMAT = "Camtrap DP"
BOX = ("bboxX", "bboxY", "bboxWidth", "bboxHeight")
REQUIRED = {"media": ("mediaID", "filePath"), "observations": ("observationID", "mediaID", "observationType")}
READ = {
    "media": (*REQUIRED["media"], "deploymentID", "timestamp", "fileName", "fileMediatype"),
    "observations": (
        *REQUIRED["observations"], "deploymentID", "eventID", "eventStart", "eventEnd", "observationLevel",
        "scientificName", "count", "individualID", *BOX,
    ),
}  # fmt: skip
PATHS = ("filePath", "fileName")
UNDECIDED = ("unknown", "unclassified")
"""Types of observation that leave open what a photo shows."""
_VERSION = re.compile(r"camtrap-dp/v?(\d+)[./]")
_LAYOUT = Layout(
    FORMAT,
    {
        "image_id": ("photo", "mediaID"),
        "path": ("photo", "filePath"),
        "date": ("photo", "timestamp"),
        "identity": ("animal", "individualID"),
        "species": ("animal", "scientificName"),
        "encounter": ("animal", "eventID"),
        "station": ("photo", "deploymentID"),
        **{name.lower(): ("animal", name) for name in BOX},
    },
    box_columns=tuple(name.lower() for name in BOX),
)


@dataclass(frozen=True)
class _Table:
    """One table of the package: its name for the user, and the texts of its columns, None where unknown.

    `others` are the cells of columns that have no meaning here.
    """

    name: str
    columns: dict[str, list[str | None]]
    rows: Sequence[int]
    notes: tuple[str, ...] = ()
    others: Mapping[str, pa.ChunkedArray] = field(default_factory=dict)

    def place(self, i: int) -> str:
        return f"{self.name} row {self.rows[i]}"

    def cell(self, column: str, i: int) -> str | None:
        return self.columns[column][i] if column in self.columns else None


def read_camtrap_dp(folder: Folder, content: dict[str, Any], problems: list[Problem]) -> Sheet:
    """The sightings in the package in `folder` that a parsed datapackage.json describes."""
    _refuse_other_versions(content, problems)
    resources = named_resources(content, tuple(READ), problems)
    tables = {name: _read_table(folder, each, problems) for name, each in resources.items()}
    counts = Counts(tuple(f"{table.name}: {note}" for table in tables.values() for note in table.notes))
    if "media" not in tables or "observations" not in tables:
        return to_sheet([], _LAYOUT, counts, problems)
    media, observations = tables["media"], tables["observations"]
    sightings = _Package(media, observations, counts, problems).sightings()

    def extra_of(entries: Sequence[Sighting]) -> Extra:
        return _extra(media, observations, entries)

    return to_sheet(sightings, _LAYOUT, counts, problems, extra_of)


def _extra(media: _Table, observations: _Table, entries: Sequence[Sighting]) -> Extra:
    """Other columns of both tables; one that both have is called `observations NAME` there."""
    of_photos, of_animals = ([entry.photo_row for entry in entries], [entry.row for entry in entries])
    stations = [media.cell("deploymentID", i) for i in of_photos]
    columns = {"deploymentID": pa.chunked_array([pa.array(stations, pa.string())])}
    columns |= {name: cells.take(pa.array(of_photos, pa.int64())) for name, cells in media.others.items()}
    for name, cells in observations.others.items():
        own = f"observations {name}" if name in columns else name
        columns[own] = cells.take(pa.array(of_animals, pa.int64()))
    return read_extra(columns, len(entries))


def _refuse_other_versions(content: dict[str, Any], problems: list[Problem]) -> None:
    profile = content.get("profile")
    match = _VERSION.search(profile) if isinstance(profile, str) else None
    if match is not None and match[1] != "1":
        what = f"its profile is {str(profile)[:120]!r}"
        problems.append(
            Problem("other version", "datapackage.json, field profile", what, "export it as Camtrap DP 1.0")
        )


def _read_table(folder: Folder, resource: Resource, problems: list[Problem]) -> _Table:
    name, path = resource.name, resource.path
    names = {column.lower(): column for column in READ[name]}
    found: list[Problem] = []
    table = _Table(path, {}, ())
    try:
        cells = read_cells(folder.open(path), names.__contains__, found, resource.dialect)
    except PathOutsideRoot as error:
        cure = "put the table into the package's folder and name it by a relative path"
        where = f"datapackage.json, resource {name}"
        problems.append(Problem("path outside package", where, error.message, cure))
        return table
    except CatalogueError as error:
        found += error.problems
    else:
        columns = texts_of(cells, names, PATHS, found)
        table = _Table(path, columns, cells.rows, cells.notes, other_cells(cells, names))
        for column in REQUIRED[name]:
            if column not in columns:
                what = f"there is none; the columns are {columns_in_words(cells.header)}"
                cure = "export it as Camtrap DP 1.0; if the table has the column, see that the dialect fits"
                found.append(Problem("missing column", f"header, column {column}", what, cure))
    problems += [_in_table(problem, path) for problem in found]
    return table


def _in_table(problem: Problem, path: str) -> Problem:
    """A problem of a table as one of the package."""
    cure = problem.cure
    if problem.kind == "wrong encoding":
        cure = f'{cure}; or say it in datapackage.json: "encoding": "iso-8859-1" of the resource'
    return replace(problem, where=f"{path} {problem.where}", cure=cure)


class _Package:
    """The two tables, linked: which observations are of which medium, by themselves or through its event."""

    def __init__(self, media: _Table, observations: _Table, counts: Counts, problems: list[Problem]) -> None:
        self.media, self.observations, self.counts, self.problems = media, observations, counts, problems
        self.media_places = index_ids(media.columns.get("mediaID", []), media.place, "mediaID", problems)
        index_ids(
            observations.columns.get("observationID", []), observations.place, "observationID", problems
        )
        self.paths = [self._path(i) for i in range(len(media.rows))]
        self.images = set(self._images())
        self.own: dict[int, list[int]] = defaultdict(list)
        self.classified: set[int] = set()
        self.members: dict[tuple[str | None, str], set[int]] = defaultdict(set)
        events = self._link()
        self.through_event: dict[int, list[int]] = defaultdict(list)
        shots = self._shots()
        for i in events:
            found = self._media_of_event(i, shots)
            if not found:
                counts.add("observations of events that no medium belongs to left out")
            for medium in found:
                self.through_event[medium].append(i)

    def sightings(self) -> list[Sighting]:
        """All animals in images, in the order of the media."""
        found: list[Sighting] = []
        for medium in sorted(self.images):
            own, events = self.own[medium], self.through_event[medium]
            if own:
                found += [self._sighting(medium, i, self._event_of(medium, i)) for i in own]
                if len(own) == len(events) == 1:
                    self._take_name(found[-1], events[0])
            elif events and medium not in self.classified:
                found += [
                    self._sighting(medium, i, self.observations.cell("eventID", i), False) for i in events
                ]
            else:
                self.counts.add("images without an observed animal left out")
        for sighting in found:
            if sighting.encounter is None:
                self.counts.add("photos without an event, so that photos of one visit may be paired")
        return found

    def _path(self, i: int) -> str | None:
        """The path of a medium: `filePath`, or the file in it where that is a folder."""
        path, name = self.media.cell("filePath", i), self.media.cell("fileName", i)
        if path is None or name is None or (file := file_in(path, name)) == path:
            return path
        self.counts.add("media whose filePath is a folder, in which fileName is the file")
        return file

    def _images(self) -> list[int]:
        images = []
        for i in range(len(self.media.rows)):
            sort = self.media.cell("fileMediatype", i)
            if is_video(self.paths[i]) if sort is None else not sort.lower().startswith("image/"):
                self.counts.add("media that are no images (videos) left out")
            else:
                images.append(i)
        return images

    def _link(self) -> list[int]:
        """Sort the observations to their media; returns those of animals in whole events."""
        table, events = self.observations, []
        for i in range(len(table.rows)):
            # The observation type "unknown" reads as a missing value.
            sort = (table.cell("observationType", i) or "unknown").lower()
            target = table.cell("mediaID", i)
            level = (table.cell("observationLevel", i) or ("event" if target is None else "media")).lower()
            if sort != "animal":
                self.counts.add("observations of no animal (blank, human, vehicle, unclassified) left out")
            if level == "event":
                if sort == "animal":
                    events.append(i)
                continue
            medium = self.media_places.get(target or "")
            if medium is None:
                self._unknown_medium(i, target)
                continue
            if sort not in UNDECIDED:
                self.classified.add(medium)
            if (event := table.cell("eventID", i)) is not None:
                self.members[table.cell("deploymentID", i), event].add(medium)
            if sort == "animal":
                self.own[medium].append(i)
        return events

    def _unknown_medium(self, i: int, target: str | None) -> None:
        if "mediaID" not in self.media.columns:
            return
        what = f"no medium has the id {'(empty)' if target is None else repr(target[:60])}"
        where = f"{self.observations.place(i)}, column mediaID"
        self.problems.append(Problem("unknown medium", where, what, f"name a mediaID of {self.media.name}"))

    def _shots(self) -> dict[str, list[tuple[float, int]]]:
        """Moments and places of the media of each deployment, in order of time."""
        shots: dict[str, list[tuple[float, int]]] = defaultdict(list)
        for i in self.images:
            deployment, moment = self.media.cell("deploymentID", i), _moment(self.media.cell("timestamp", i))
            if deployment is not None and moment is not None:
                shots[deployment].append((moment, i))
        return {deployment: sorted(each) for deployment, each in shots.items()}

    def _media_of_event(self, i: int, shots: dict[str, list[tuple[float, int]]]) -> set[int]:
        table = self.observations
        deployment, event = table.cell("deploymentID", i), table.cell("eventID", i)
        media = set() if event is None else set(self.members.get((deployment, event), ()))
        start, end = _moment(table.cell("eventStart", i)), _moment(table.cell("eventEnd", i))
        if start is not None and end is not None:
            each = shots.get(deployment or "", [])
            media.update(
                m
                for _, m in each[
                    bisect_left(each, (start, -1)) : bisect_right(each, (end, len(self.media.rows)))
                ]
            )
        return media

    def _event_of(self, medium: int, i: int) -> str | None:
        """The event of a medium's observation: its own, or that of another observation of the medium."""
        cell = self.observations.cell
        others = (*self.own[medium], *self.through_event[medium])
        return cell("eventID", i) or next((e for j in others if (e := cell("eventID", j)) is not None), None)

    def _take_name(self, sighting: Sighting, event: int) -> None:
        cell = self.observations.cell
        name, species = cell("individualID", event), cell("scientificName", event)
        if sighting.identity is not None or name is None or cell("count", event) not in (None, "1"):
            return
        if sighting.species in (None, species):
            sighting.identity = name
            self.counts.add("photos that take the animal's name from the observation of their event")

    def _sighting(self, medium: int, i: int, event: str | None, with_box: bool = True) -> Sighting:
        cell, media = self.observations.cell, self.media.cell
        return Sighting(
            photo=media("mediaID", medium),
            animal=cell("observationID", i),
            path=self.paths[medium],
            photo_at=self.media.place(medium),
            animal_at=self.observations.place(i),
            identity=cell("individualID", i),
            species=cell("scientificName", i),
            encounter=event,
            date=media("timestamp", medium),
            station=media("deploymentID", medium),
            row=i,
            photo_row=medium,
            box=tuple(cell(name, i) if with_box else None for name in BOX),
        )


def _moment(text: str | None) -> float | None:
    """Seconds since 1970; a time without a zone counts as UTC. None where it cannot be read."""
    try:
        moment = datetime.fromisoformat(known(text) or "")
    except ValueError:
        return None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
