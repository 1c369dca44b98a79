"""Writes Camtrap DP back: `individualID` of observations changes; other tables stay as they are.

A photo that is left out loses its observation, and its row of the media where it has no other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from schemas.catalogue.files.documents import open_document
from schemas.catalogue.formats.camtrap_dp import REQUIRED
from schemas.catalogue.formats.json_text import parse_json
from schemas.catalogue.writing.corrections import Corrections, Listed, Written, by_place
from schemas.catalogue.writing.csv_text import CsvText, csv_of
from schemas.errors import SettingsError
from schemas.paths import is_url, local_path, safe_join


def write_camtrap_dp(file: str, photos: Sequence[Listed], corrections: Corrections) -> Written:
    """The tables that change, by their paths in the package."""
    folder = folder_of(file)
    content = parse_json(open_document(file), [])
    paths = {name: path for name, path in _paths(content).items() if name in REQUIRED}
    tables = {path: csv_of(safe_join(folder, path), REQUIRED[name]) for name, path in paths.items()}
    written = Written()
    names = by_place(photos, corrections, written)
    observations = tables[paths["observations"]]
    for place in names:
        if not observations.has(place.column):
            raise SettingsError(
                f"{paths['observations']} has no column {place.column} to write names into", "add it, empty"
            )
    observations.rename(names)
    _drop(tables[paths["media"]], observations, photos, corrections)
    written.files = {path: table.data() for path, table in tables.items()}
    return written


def package_files(file: str) -> list[str]:
    """The files of a package by their paths in it: the descriptor and all its tables, no photos."""
    content = parse_json(open_document(file), [])
    return ["datapackage.json", *dict.fromkeys(_paths(content).values())]


def folder_of(file: str) -> str:
    """The folder or URL that a package's datapackage.json lies in."""
    place = file.partition("?")[0] if is_url(file) else local_path(file)
    return place.rpartition("/")[0] or "/"


def _paths(content: Mapping[str, Any]) -> dict[str, str]:
    """Resource -> path, of all resources with one relative path."""
    found: dict[str, str] = {}
    for each in content.get("resources") or ():
        path = each.get("path") if isinstance(each, dict) else None
        if isinstance(path, list) and len(path) == 1:
            path = path[0]
        if isinstance(path, str) and "://" not in path:
            found[str(each.get("name"))] = path
    return found


def _drop(media: CsvText, observations: CsvText, photos: Sequence[Listed], corrections: Corrections) -> None:
    out = [photo for photo in photos if photo.photo_id in corrections.dropped]
    kept = {p.photo_at.number for p in photos if p.photo_id not in corrections.dropped}
    shared = {p.at.number for p in photos if p.photo_id not in corrections.dropped}
    gone = {p.at.number for p in out} - shared
    ids = {media.value(p.photo_at.number, "mediaID") for p in out if p.photo_at.number not in kept}
    for row in observations.rows:
        # What else was observed in a photo that goes has nothing left to be about.
        if row in gone or (
            row != observations.header_row and observations.value(row, "mediaID") in ids - {""}
        ):
            observations.drop(row)
    for row in {p.photo_at.number for p in out} - kept:
        media.drop(row)
