"""Small pictures of both photos of suspects that got no figure, so that each of a report's questions can be seen.

They are named by what the model saw of a photo, its chip, so a photo is decoded for its first report alone.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable
from dataclasses import dataclass

import duckdb

from pairx_engine.errors import PhotoError
from pairx_engine.figure import encode_webp
from pairx_engine.photo.chips import picture_of
from schemas.errors import StorageError
from tasks.pages.report import ReportSuspect
from tasks.photo_files import SEEN_BY, read_cut
from tasks.store.reports import photo_name

LONGEST = 640
"""Longest side in pixels; no photo is enlarged."""
_MOST_SECONDS = 60.0
"""Time for reading photos in one run; what is left comes with the next."""


@dataclass(frozen=True)
class Picture:
    """The name of a photo's picture, and its bytes; None where it is stored already."""

    name: str
    data: bytes | None


def photo_pictures(
    connection: duckdb.DuckDBPyConnection,
    suspects: Iterable[ReportSuspect],
    there: Collection[str],
    max_pixels: int,
    late: list[str] | None = None,
) -> dict[str, Picture]:
    """Pictures of the photos of suspects without a figure, by photo; `there` are the names of those that are stored.

    A photo that cannot be read from here is left out, as on a cluster whose workers alone see the photos. Photos for
    which there was no time are added to `late`.
    """
    wanted = sorted(
        {photo for each in suspects if each.chips is None for photo in (each.photo_a, each.photo_b)}
    )
    asked = connection.execute(
        f"SELECT {', '.join(SEEN_BY)} FROM photos "  # noqa: S608  # names of columns
        "WHERE chip_id IS NOT NULL AND list_contains(CAST(? AS VARCHAR[]), photo_id) ORDER BY photo_id",
        [wanted],
    )
    found: dict[str, Picture] = {}
    end = time.monotonic() + _MOST_SECONDS
    for row in asked.fetchall():
        photo = dict(zip(SEEN_BY, row, strict=True))
        name = photo_name(photo["photo_id"], photo["chip_id"])
        if name in there:
            found[photo["photo_id"]] = Picture(name, None)
        elif time.monotonic() < end:
            try:
                found[photo["photo_id"]] = Picture(
                    name, encode_webp(picture_of(read_cut(photo, max_pixels), LONGEST))
                )
            except PhotoError:
                continue
            except StorageError:
                end = 0.0  # the store does not answer: others would not come either
        elif late is not None:
            late.append(photo["photo_id"])
    return found
