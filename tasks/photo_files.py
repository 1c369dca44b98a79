"""Photos as files: bytes from the catalogue's root, change stamps, and cuts kept for a while per process."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import fsspec
from fsspec.core import url_to_fs

from pairx_engine.chips import Box, Pixels, cut_photo, decode_photo
from pairx_engine.errors import PhotoError
from schemas.errors import PathOutsideRoot
from schemas.paths import is_url, safe_join

_CACHED_BYTES = 256 << 20
SEEN_BY = ("photo_id", "chip_id", "root", "path", "sha256", "box", "theta")
"""Columns of `photos` that a worker needs to see a photo; shards carry no others to the scheduler."""


def read_bytes(root: str, path: str) -> bytes:
    """All bytes of a photo; raises `PhotoError` with codes missing_file, unreadable_file or path_outside_root."""
    try:
        with fsspec.open(safe_join(root, path), "rb") as file:
            return bytes(file.read())
    except PathOutsideRoot as error:
        raise PhotoError("path_outside_root", str(error)) from error
    except FileNotFoundError as error:
        raise PhotoError("missing_file", f"no file at {path}") from error
    except (OSError, ValueError) as error:
        raise PhotoError("unreadable_file", f"{path} could not be read: {error}") from error


def cut_of_file(path: Path, box: Box | None, max_pixels: int) -> Pixels:
    """The cut (H, W, 3) of one photo file beside any catalogue; raises `PhotoError` that names the file."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise PhotoError("missing_file", f"{path} cannot be read: {error.strerror}") from error
    try:
        return cut_photo(decode_photo(data, max_pixels), box)
    except PhotoError as error:
        raise PhotoError(error.code, f"{path}: {error}") from error


def stamps(root: str, paths: Sequence[str]) -> list[str | None]:
    """Size and change time of each file, None where there is none: enough to see that a file changed without reading it."""
    filesystem, base = url_to_fs(root)
    if is_url(root):
        # One recursive listing costs an object store far less than one request per photo.
        filesystem.invalidate_cache()
        found = filesystem.find(base, detail=True)
        return [_stamp(found.get(f"{base.rstrip('/')}/{path}")) for path in paths]
    return [_stamp(_info(filesystem, f"{base}/{path}")) for path in paths]


def _info(filesystem: Any, path: str) -> Mapping[str, Any] | None:
    try:
        info: Mapping[str, Any] = filesystem.info(path)
        return info
    except OSError:
        return None


def _stamp(info: Mapping[str, Any] | None) -> str | None:
    if info is None or info.get("type") == "directory":
        return None
    changed = next(
        (info[k] for k in ("mtime", "ETag", "etag", "LastModified", "updated", "created") if k in info), ""
    )
    return f"{info.get('size')}:{changed}"


class CutCache:
    """Cuts of photos by chip id, least recently used first to go; a shard asks for each photo several times."""

    def __init__(self, limit: int = _CACHED_BYTES) -> None:
        self._limit = limit
        self._held = 0
        self._cuts: OrderedDict[str, Pixels] = OrderedDict()

    def cut(self, photo: Mapping[str, Any], max_pixels: int) -> Pixels:
        """The cut of a `photos` row, (h, w, 3).

        Raises `PhotoError`, with code changed_file when the bytes are not those that were ingested.
        """
        key = str(photo["chip_id"])
        if key in self._cuts:
            self._cuts.move_to_end(key)
            return self._cuts[key]
        data = read_bytes(photo["root"], photo["path"])
        if hashlib.sha256(data).hexdigest() != photo["sha256"]:
            raise PhotoError("changed_file", f"{photo['path']} changed since it was ingested; run again")
        cut = cut_photo(decode_photo(data, max_pixels), photo["box"], photo["theta"])
        self._cuts[key], self._held = cut, self._held + cut.nbytes
        while self._held > self._limit and len(self._cuts) > 1:
            self._held -= self._cuts.popitem(last=False)[1].nbytes
        return cut


CUTS = CutCache()
"""This process's cuts."""
