"""Corrected names for other programs: Wildbook's columns for the photos that change, and wildlife-datasets' frame."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any

import duckdb

from tasks.reviews.corrected.plan import Plan
from tasks.sql.csv_text import csv_lines

WILDBOOK = (
    "Encounter.mediaAsset0", "Encounter.individualID", "Occurrence.occurrenceID", "Encounter.genus", "Encounter.specificEpithet",
    "Encounter.year", "Encounter.month", "Encounter.day",
)  # fmt: skip
"""Columns of Wildbook's bulk import that a warehouse can fill."""
FRAME = ("image_id", "identity", "path", "species", "date", "encounter", "viewpoint", "bbox", "theta")
"""Columns of wildlife-datasets."""
_PHOTOS = "SELECT photo_id, identity, path, species, taken_at, encounter, viewpoint, box, theta FROM photos ORDER BY photo_id"
_UNKNOWN = "unknown"


def wildbook_csv(connection: duckdb.DuckDBPyConnection, plan: Plan) -> str:
    """One row per photo whose name changes; an unknown name is empty."""
    rows = [
        [*_wildbook(photo, plan.names[photo["photo_id"]])]
        for photo in _photos(connection)
        if photo["photo_id"] in plan.names
    ]
    return csv_lines([WILDBOOK, *rows])


def frame_csv(connection: duckdb.DuckDBPyConnection, plan: Plan) -> str:
    """All photos but those that are left out, with their corrected names."""
    rows = [
        [
            photo["photo_id"], plan.names.get(photo["photo_id"], photo["identity"]) or _UNKNOWN, photo["path"], photo["species"],
            photo["taken_at"], photo["encounter"], photo["viewpoint"], photo["box"], photo["theta"],
        ]
        for photo in _photos(connection)
        if photo["photo_id"] not in plan.dropped
    ]  # fmt: skip
    return csv_lines([FRAME, *rows])


def _photos(connection: duckdb.DuckDBPyConnection) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = connection.sql(_PHOTOS).to_arrow_table().to_pylist()
    return found


def _wildbook(photo: Mapping[str, Any], name: str | None) -> list[Any]:
    genus, _, epithet = (photo["species"] or "").partition(" ")
    day = (photo["taken_at"] or "")[:10].split("-")
    parts = [int(part) if part.isdecimal() else None for part in day]
    year, month, date = [*parts, None, None, None][:3]
    return [PurePosixPath(photo["path"]).name, name, photo["encounter"], genus, epithet, year, month, date]
