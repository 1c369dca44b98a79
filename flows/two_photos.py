"""Two photos to explain: files, or photos of a warehouse by their ids, seen as its newest run saw them."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import tasks  # noqa: F401  # settings learn from it what they may name
from flows.inherited import with_inherited
from pairx_engine.errors import PhotoError
from pairx_engine.photo.chips import Box, Pixels
from schemas.errors import PairxError, SettingsError, WarehouseError
from schemas.settings import Settings, load_settings
from tasks.photo_files import cut_of_file, read_cut
from tasks.sql.stored_photos import missing_photo, photos_named, require_seen
from tasks.store.warehouse import Warehouse

Row = Mapping[str, Any]


@dataclass(frozen=True)
class GivenPhoto:
    """A photo to explain: a file with or without a box, or a row of `photos`."""

    title: str
    box: Box | None
    file: Path | None = None
    row: Row | None = None

    @property
    def photo_id(self) -> str | None:
        """Its id in the warehouse; None for a file."""
        return None if self.row is None else str(self.row["photo_id"])

    def cut(self, max_pixels: int) -> Pixels:
        """The cut (H, W, 3); raises `PhotoError` that names the photo."""
        if self.file is not None:
            return cut_of_file(self.file, self.box, max_pixels)
        assert self.row is not None
        try:
            return read_cut(self.row, max_pixels)
        except PhotoError as error:
            raise PhotoError(error.code, f"photo {self.photo_id}: {error}") from error

    def arrays(self, end: str) -> dict[str, NDArray[Any]]:
        """`box` (4,) as x, y, w, h (NaN: the whole photo), `theta` and `photo`, with `end` behind each name."""
        theta = 0.0 if self.row is None else float(self.row["theta"])
        box = [np.nan] * 4 if self.box is None else [float(side) for side in self.box]
        named = {
            "box": np.array(box),
            "theta": np.asarray(theta),
            "photo": np.asarray(self.photo_id or self.title),
        }
        return {f"{name}{end}": value for name, value in named.items()}


@dataclass(frozen=True)
class TwoPhotos:
    """Two photos, the settings to see them with, and the warehouse that was named.

    `notes` are what the user should know of how the photos were understood.
    """

    photos: tuple[GivenPhoto, GivenPhoto]
    settings: Settings
    warehouse: Warehouse | None = None
    notes: Sequence[str] = field(default_factory=tuple)

    @property
    def ids(self) -> tuple[str, str] | None:
        """Both ids; None where a file is among the photos."""
        a, b = (photo.photo_id for photo in self.photos)
        return None if a is None or b is None else (a, b)


def two_photos(
    named: tuple[str | os.PathLike[str], str | os.PathLike[str]],
    boxes: tuple[Box | None, Box | None],
    warehouse: str | None,
    asked: Mapping[str, Any],
) -> TwoPhotos:
    """What two names mean, and the settings for them.

    With a warehouse a name is the id of one of its photos, or else a file. Its newest run's settings hold
    unless others are asked for. Two of its photos come in the order in which it stores pairs. Raises
    `PairxError` for names that are neither, and for a warehouse whose settings cannot be used.
    """
    asked = {name: value for name, value in asked.items() if value is not None}
    if warehouse is None:
        a, b = (_file(name, box) for name, box in zip(named, boxes, strict=True))
        return TwoPhotos((a, b), load_settings(overrides=asked))
    place = Warehouse(warehouse)
    place.require()
    rows = photos_named(place, [str(name) for name in named])
    a, b = (_stored(place, str(name), box, rows) for name, box in zip(named, boxes, strict=True))
    settings = _settings(place, asked, needed=not (a.row is None and b.row is None))
    notes = []
    if a.photo_id is not None and b.photo_id is not None and a.photo_id > b.photo_id:
        a, b = b, a
        notes.append(
            f"{a.photo_id} stands first, as in the warehouse's pairs: residuals are measured in the second"
        )
    return TwoPhotos((a, b), settings, place, notes)


def _file(name: str | os.PathLike[str], box: Box | None) -> GivenPhoto:
    path = Path(name)
    return GivenPhoto(path.name, box, path)


def _stored(place: Warehouse, name: str, box: Box | None, rows: Mapping[str, Row]) -> GivenPhoto:
    row = rows.get(name)
    if row is None:
        if Path(name).is_file():
            return _file(name, box)
        raise missing_photo(place, name)
    if box is not None:
        raise SettingsError(
            f"photo {name} has its box in the warehouse",
            "leave the option out, or give the photo's file and a box",
        )
    require_seen(row)
    return GivenPhoto(f"{name} · {row['identity'] or 'unknown'}", row["box"], row=row)


def _settings(place: Warehouse, asked: Mapping[str, Any], needed: bool) -> Settings:
    """The settings asked for, and for the rest those of the newest finished run."""
    from flows.evaluation import settings_of_newest_run

    alone = load_settings(overrides=asked)
    inherited = settings_of_newest_run(place)
    if not inherited:
        if needed and "model" not in asked:
            raise PairxError(
                f"no run has finished in {place.url}, so that its settings are not known",
                "say with --model (and other options) how its photos are to be seen, or run to the end",
            )
        return alone
    try:
        return with_inherited(inherited, asked)
    except SettingsError as error:
        raise WarehouseError(
            f"the newest run of {place.url} was made by another version of the program: {error.message}",
            "run again with this version, or give the photos' files without --warehouse",
        ) from error
