"""Writes Wildbook's spreadsheets back, saved as CSV: one row is an encounter, whose photos share a name.

A name is written where the animal is named, so only all photos of a row can be renamed. A photo that is left
out loses its cells, and the row goes with its last photo.
"""

from __future__ import annotations

import re
from collections import defaultdict

from schemas.catalogue.files.documents import open_document
from schemas.catalogue.files.tables import read_cells
from schemas.catalogue.formats.sheet import Sheet
from schemas.catalogue.writing.corrections import (
    Corrections,
    Listed,
    Written,
    by_place,
    listed,
    unknown_as_written,
)
from schemas.catalogue.writing.csv_text import CsvText, csv_of
from schemas.errors import Problem

_ASSET = re.compile(r"encounter\.mediaasset\.?(\d+)", re.IGNORECASE)


def write_wildbook(file: str, sheet: Sheet, corrections: Corrections) -> Written:
    """The file with other names and without the dropped photos."""
    problems: list[Problem] = []
    header = read_cells(open_document(file), lambda key: True, problems).header
    text, photos, written = csv_of(file, header), listed(sheet), Written()
    for place, name in by_place(photos, corrections, written).items():
        given = unknown_as_written(text.column(place.column)) if name is None else name
        text.set(place.number, place.column, given)
    _drop(text, header, photos, corrections)
    written.files[""] = text.data()
    return written


def _drop(text: CsvText, header: tuple[str, ...], photos: list[Listed], corrections: Corrections) -> None:
    rows: dict[int, list[Listed]] = defaultdict(list)
    for photo in photos:
        rows[photo.photo_at.number].append(photo)
    for row, members in rows.items():
        out = [m for m in members if m.photo_id in corrections.dropped]
        if out and len(out) == len(members):
            text.drop(row)
            continue
        for photo in out:
            slot = _ASSET.fullmatch(photo.photo_at.column)
            own = re.compile(
                rf"(encounter\.mediaasset\.?|annotation){slot[1] if slot else '-'}(\..*)?", re.IGNORECASE
            )
            for name in header:
                if own.fullmatch(name.strip()) and text.value(row, name):
                    text.set(row, name, "")
