"""Wildlife Insights: `images.csv` of a download, one row per identification in an image.

The name is `individual_id`, the encounter `sequence_id` where the project has bursts, the species `genus` and
`species` together. Blanks, people and vehicles are left out. `location` is the photo's address at Wildlife
Insights; a downloaded photo is looked for below the root by the end of that address, or by `filename`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from schemas.catalogue.cells import known
from schemas.catalogue.extra import Extra, read_extra, taken
from schemas.catalogue.formats.sheet import (
    Counts,
    Layout,
    Sheet,
    Sighting,
    is_video,
    other_cells,
    texts_of,
    to_sheet,
)
from schemas.catalogue.table_files import Cells
from schemas.errors import Problem

FORMAT = "Wildlife Insights"
MARKS = ("image_id", "deployment_id", "wi_taxon_id")
"""Columns that only this format has together."""
READ = (
    *MARKS, "location", "filename", "is_blank", "genus", "species", "common_name", "timestamp", "individual_id",
    "number_of_objects", "sequence_id",
)  # fmt: skip
NO_ANIMAL = ("blank", "human", "human-camera trapper", "vehicle", "misfire", "setup_pickup", "setup pickup")
"""Common names (lower case) that mean no animal."""
_TRUE = ("1", "true", "yes", "t")


def is_wildlife_insights_column(key: str) -> bool:
    """Whether a column of this lower-case name is read."""
    return key in READ


def is_wildlife_insights(cells: Cells) -> bool:
    """Whether a table is a download's images.csv."""
    return set(MARKS) <= cells.columns.keys() and not {"location", "filename"}.isdisjoint(cells.columns)


def read_wildlife_insights(cells: Cells, problems: list[Problem]) -> Sheet:
    """The sightings in a table with columns `deployment_id`, `image_id` and `wi_taxon_id`."""
    counts = Counts(cells.notes)
    path = "location" if "location" in cells.columns else "filename"
    names = {key: key for key in READ if key in cells.columns}
    texts = texts_of(cells, names, (path,), problems)
    nothing: list[str | None] = [None] * len(cells.rows)

    def cell(name: str, i: int) -> str | None:
        return texts.get(name, nothing)[i]

    sightings: list[Sighting] = []
    for i, row in enumerate(cells.rows):
        common = (cell("common_name", i) or "").lower()
        if (cell("is_blank", i) or "").lower() in _TRUE or common == "blank":
            counts.add("blank images left out")
        elif common in NO_ANIMAL or (cell("genus", i) or "").lower() == "homo":
            counts.add("images of people and vehicles left out")
        elif is_video(cell(path, i)) or is_video(cell("filename", i)):
            counts.add("videos left out")
        else:
            if (cell("number_of_objects", i) or "1") not in ("0", "1") and cell("individual_id", i):
                counts.add("photos of several animals under one name")
            parts = (cell("genus", i), cell("species", i))
            place = f"row {row}"
            sightings.append(
                Sighting(
                    photo=cell("image_id", i),
                    animal=None,
                    path=cell(path, i),
                    photo_at=place,
                    animal_at=place,
                    identity=known(cell("individual_id", i)),
                    species=" ".join(part for part in parts if part) if parts[0] else None,
                    encounter=cell("sequence_id", i),
                    date=cell("timestamp", i),
                    station=cell("deployment_id", i),
                    row=i,
                )
            )
    fields = {
        "image_id": "image_id", "path": path, "identity": "individual_id", "species": "genus", "date": "timestamp",
        "encounter": "sequence_id", "station": "deployment_id",
    }  # fmt: skip
    layout = Layout(FORMAT, {column: ("photo", name) for column, name in fields.items()})
    # The station is kept, too, and so is the file's name where the address is the path.
    used = {*names} - {"deployment_id", *({"filename"} if path == "location" else ())}
    extra = read_extra(other_cells(cells, used), len(cells.rows))

    def extra_of(entries: Sequence[Sighting]) -> Extra:
        return taken(extra, [entry.row for entry in entries])

    return replace(to_sheet(sightings, layout, counts, problems, extra_of), urls_by_name=True)
