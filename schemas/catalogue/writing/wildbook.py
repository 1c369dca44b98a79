"""Writes Wildbook's spreadsheets back, saved as CSV: one row is an encounter, whose photos share a name.

A name is written where the animal is named, so only all photos of a row can be renamed. A photo that is left
out loses its cells, and the row goes with its last photo.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence

from schemas.catalogue.writing.corrections import Corrections, Listed, Written, by_place
from schemas.catalogue.writing.csv_text import CsvText, csv_of

_ASSET = re.compile(r"encounter\.mediaasset\.?(\d+)", re.IGNORECASE)


def write_wildbook(file: str, photos: Sequence[Listed], corrections: Corrections) -> Written:
    """The file with other names and without the dropped photos."""
    text, written = csv_of(file, {photo.at.column for photo in photos}), Written()
    text.rename(by_place(photos, corrections, written))
    _drop(text, photos, corrections)
    written.files[""] = text.data()
    return written


def _drop(text: CsvText, photos: Sequence[Listed], corrections: Corrections) -> None:
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
            for name in text.header:
                if own.fullmatch(name) and text.value(row, name):
                    text.set(row, name, "")
