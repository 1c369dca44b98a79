"""Pictures of photos for the page: the cut in four sizes and the whole photo, encoded once and kept for a while."""

from __future__ import annotations

import hashlib
import io
from collections import OrderedDict
from collections.abc import Mapping
from threading import BoundedSemaphore, Lock
from typing import Any

from PIL import Image

from pairx_engine.errors import PhotoError
from pairx_engine.photo.chips import Pixels, decode_photo, picture_of
from tasks.memory import share
from tasks.photo_files import read_bytes, read_cut

SIZES: Mapping[str, int] = {"thumb": 240, "cut": 1600, "full": 6000, "whole": 2400}
"""Longest side in pixels of each picture; none is enlarged. `whole` is the upright photo, all others its cut."""
_QUALITY = {"thumb": 80, "cut": 90, "full": 92, "whole": 85}
_KEPT, _MOST_KEPT = 1 / 16, 512 << 20
_AT_ONCE = 2
"""Photos that are decoded at a time: a large one takes gigabytes. Thumbnails, of which there are many, wait for
each other and never for long before the large pictures."""


class Pictures:
    """JPEGs of `photos` rows, the least recently used of which go first."""

    def __init__(self, max_pixels: int) -> None:
        self._max_pixels = max_pixels
        self._kept: OrderedDict[tuple[str, str], bytes] = OrderedDict()
        self._held, self._limit = 0, min(_MOST_KEPT, share(_KEPT))
        self._lock = Lock()
        self._decoding, self._thumbs = BoundedSemaphore(_AT_ONCE), BoundedSemaphore(1)

    def jpeg(self, key: str, photo: Mapping[str, Any], size: str) -> bytes:
        """One of `SIZES` of a photo; raises `PhotoError` as `read_cut` does."""
        if (kept := self._known((key, size))) is not None:
            return kept
        with self._thumbs if size == "thumb" else self._decoding:
            if (kept := self._known((key, size))) is not None:
                return kept
            pixels = self._whole(photo) if size == "whole" else read_cut(photo, self._max_pixels)
            # A photo is decoded for one size; what is cheap to make of it besides will be asked for next.
            wanted = (
                (size, "cut", "thumb") if size == "full" else (size, "thumb") if size == "cut" else (size,)
            )
            for each in dict.fromkeys(wanted):
                self._keep((key, each), encoded(pixels, SIZES[each], _QUALITY[each]))
        return self._kept_or_made((key, size), pixels)

    def _whole(self, photo: Mapping[str, Any]) -> Pixels:
        data = read_bytes(photo["root"], photo["path"])
        if hashlib.sha256(data).hexdigest() != photo["sha256"]:
            raise PhotoError("changed_file", f"{photo['path']} changed since it was ingested; run again")
        return decode_photo(data, self._max_pixels)

    def _known(self, key: tuple[str, str]) -> bytes | None:
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
            return self._kept.get(key)

    def _kept_or_made(self, key: tuple[str, str], pixels: Pixels) -> bytes:
        """The picture, made once more where it was too large to be kept."""
        return self._known(key) or encoded(pixels, SIZES[key[1]], _QUALITY[key[1]])

    def _keep(self, key: tuple[str, str], data: bytes) -> None:
        with self._lock:
            if key not in self._kept:
                self._kept[key], self._held = data, self._held + len(data)
            while self._held > self._limit and len(self._kept) > 1:
                self._held -= len(self._kept.popitem(last=False)[1])


def encoded(pixels: Pixels, longest: int, quality: int) -> bytes:
    """A picture (H, W, 3) as JPEG with at most `longest` pixels a side; smaller ones keep their size."""
    buffer = io.BytesIO()
    Image.fromarray(picture_of(pixels, longest)).save(
        buffer, "JPEG", quality=quality, subsampling=0 if quality > 88 else 2
    )
    return buffer.getvalue()
