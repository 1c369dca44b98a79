"""Photos as files: bytes from the catalogue's root, change stamps, and cuts kept for a while per process."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import fsspec
from fsspec.core import url_to_fs

from pairx_engine.chips import Box, Pixels, cut_photo, decode_photo
from pairx_engine.errors import PhotoError
from schemas.errors import PathOutsideRoot
from schemas.paths import is_url, not_a_file, safe_join

_CACHED_BYTES = 256 << 20
MOST_BYTES = 1 << 30
"""Larger files are refused unread: none is a photo."""
_REFUSED: ContextVar[str | None] = ContextVar("why photos are refused", default=None)
SEEN_BY = ("photo_id", "chip_id", "root", "path", "sha256", "box", "theta")
"""Columns of `photos` that a worker needs to see a photo; shards carry no others to the scheduler."""


@contextmanager
def refusing_photos(why: str) -> Iterator[None]:
    """A block in which no photo is read: each is a `PhotoError` with code worker_died and these words.

    So a shard that ended its workers gets its rows of `failures` from the stage itself, without being processed.
    """
    token = _REFUSED.set(why)
    try:
        yield
    finally:
        _REFUSED.reset(token)


def _refuse() -> None:
    if (why := _REFUSED.get()) is not None:
        raise PhotoError("worker_died", why)


def read_bytes(root: str, path: str) -> bytes:
    """All bytes of a photo; raises `PhotoError` with codes missing_file, unreadable_file or path_outside_root."""
    _refuse()
    try:
        address = safe_join(root, path)
        if not is_url(address) and (kind := not_a_file(address)):
            raise PhotoError("unreadable_file", f"{path} is {kind}, no file")
        with fsspec.open(address, "rb") as file:
            data = bytes(file.read(MOST_BYTES + 1))
        if len(data) > MOST_BYTES:
            raise PhotoError("unreadable_file", f"{path} is larger than {MOST_BYTES >> 20} MiB")
        return data
    except PhotoError:
        raise
    except PathOutsideRoot as error:
        raise PhotoError("path_outside_root", str(error)) from error
    except FileNotFoundError as error:
        raise PhotoError("missing_file", f"no file at {path}") from error
    except (OSError, ValueError) as error:
        raise PhotoError("unreadable_file", f"{path} could not be read: {error}") from error


def cut_of_file(path: Path, box: Box | None, max_pixels: int) -> Pixels:
    """The cut (H, W, 3) of one photo file beside any catalogue; raises `PhotoError` that names the file."""
    try:
        if kind := not_a_file(str(path)):
            raise PhotoError("unreadable_file", f"{path} is {kind}, no file")
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
        _refuse()
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
