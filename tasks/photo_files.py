"""Photos as files: bytes, change stamps, and small views of cuts, kept for a while per process."""

from __future__ import annotations

import hashlib
import os
import stat
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any, Literal, TypeAlias

from pairx_engine.errors import PhotoError
from pairx_engine.photo.chips import (
    Box,
    ChipSpec,
    Pixels,
    chip_of,
    cut_photo,
    decode_photo,
    picture_of,
    view_of,
)
from schemas.errors import PathOutsideRoot, StorageError
from schemas.paths import is_url, local_path, not_a_file, safe_join
from schemas.storage import storage_at
from schemas.storage_errors import is_outage
from tasks.costs import spent_on
from tasks.memory import share

PICTURE: Literal["picture"] = "picture"
"""A cut as people see it."""
Way: TypeAlias = ChipSpec | int | Literal["picture"]
"""How a cut is resized: to a model's chip, to a view with `int` pixels on its long side, or for people."""
_KEPT, _MOST_KEPT = 1 / 16, 256 << 20
"""Share of a task's memory that views may take, and the most bytes that are of use."""
MOST_BYTES = 1 << 30
"""Largest file that is read, in bytes; none larger is a photo."""
_REFUSED: ContextVar[str | None] = ContextVar("why photos are refused", default=None)
SEEN_BY = ("photo_id", "chip_id", "root", "path", "sha256", "box", "theta")
"""Columns of `photos` that a worker needs to see a photo; shards send no others to the scheduler."""


@contextmanager
def refusing_photos(why: str) -> Iterator[None]:
    """A block in which no photo is read: each is a `PhotoError` with code worker_died and the text `why`.

    So the stage itself writes the rows of `failures` for a shard that ended its workers, without
    processing it.
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
    """All bytes of a photo.

    Raises `PhotoError` with codes missing_file, unreadable_file or path_outside_root, and `StorageError`
    for an outage of the store, which is no fault of the photo.
    """
    _refuse()
    with spent_on("reading"):
        return _read(root, path)


def _read(root: str, path: str) -> bytes:
    try:
        address = safe_join(root, path)
        if is_url(address):
            storage = storage_at(root)
            data = storage.get(storage.path(address), 0, MOST_BYTES + 1)
        else:
            _refuse_others(address, path)
            with open(address, "rb") as file:
                # `read` allocates as much as it is asked for before it reads anything.
                data = file.read(min(MOST_BYTES, os.fstat(file.fileno()).st_size) + 1)
        _refuse_large(len(data), path)
        return data
    except PhotoError:
        raise
    except PathOutsideRoot as error:
        raise PhotoError("path_outside_root", str(error)) from error
    except FileNotFoundError as error:
        raise PhotoError("missing_file", f"no file at {path}") from error
    except StorageError as error:
        if error.__cause__ is None or is_outage(error.__cause__):
            raise  # that is no fault of the photo: the shard is tried again
        raise PhotoError("unreadable_file", f"{path} could not be read: {error.message}") from error
    except (OSError, ValueError) as error:
        raise PhotoError("unreadable_file", f"{path} could not be read: {error}") from error


def _refuse_others(address: str, path: str) -> None:
    """Refuse, unread, what is no file or too large for a photo; `OSError` where nothing is there."""
    if kind := not_a_file(address):
        raise PhotoError("unreadable_file", f"{path} is {kind}, no file")
    _refuse_large(os.path.getsize(address), path)


def _refuse_large(size: int, path: str) -> None:
    if size > MOST_BYTES:
        raise PhotoError("unreadable_file", f"{path} is larger than {MOST_BYTES >> 20} MiB")


def cut_of_file(path: Path, box: Box | None, max_pixels: int) -> Pixels:
    """The cut (H, W, 3) of one photo file outside a catalogue; raises `PhotoError` that names the file."""
    try:
        _refuse_others(str(path), str(path))
        data = path.read_bytes()
    except OSError as error:
        raise PhotoError("missing_file", f"{path} cannot be read: {error.strerror}") from error
    try:
        return cut_photo(decode_photo(data, max_pixels), box)
    except PhotoError as error:
        raise PhotoError(error.code, f"{path}: {error}") from error


def stamps(root: str, paths: Sequence[str]) -> list[str | None]:
    """Size and change time of each file as text, None where there is none.

    They are enough to see that a file changed without reading it.
    """
    if is_url(root):
        # One recursive listing costs an object store far less than one request per photo.
        storage = storage_at(root)
        found = storage.find(storage.root)
        listed = (found.get(f"{storage.root}/{path}") for path in paths)
        return [f"{file.size}:{file.tag.partition(':')[2]}" if file else None for file in listed]
    return [_local_stamp(f"{local_path(root)}/{path}") for path in paths]


def _local_stamp(path: str) -> str | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return None if stat.S_ISDIR(found.st_mode) else f"{found.st_size}:{found.st_mtime}"


def read_cut(photo: Mapping[str, Any], max_pixels: int) -> Pixels:
    """The cut (h, w, 3) of a `photos` row, decoded anew every time.

    It has all pixels of its photo, so do not keep it longer than needed. Raises `PhotoError`, with code
    changed_file when the bytes are not those that were ingested.
    """
    data = read_bytes(photo["root"], photo["path"])
    with spent_on("decoding"):
        if hashlib.sha256(data).hexdigest() != photo["sha256"]:
            raise PhotoError("changed_file", f"{photo['path']} changed since it was ingested; run again")
        return cut_photo(decode_photo(data, max_pixels), photo["box"], photo["theta"])


@dataclass(frozen=True)
class Views:
    """What was made of a cut: its own size (W, H), and a picture (h, w, 3) per requested way, in order."""

    cut_size: tuple[int, int]
    pictures: tuple[Pixels, ...]


class ViewCache:
    """Small pictures of photos' cuts, since shards and stages ask for each several times.

    The least recently used goes first. Cuts themselves are never kept: one may take 500 MB, and no stage
    needs more of it than a chip or a view.
    """

    def __init__(self, limit: int | None = None) -> None:
        self._limit = limit
        self._held = 0
        self._views: OrderedDict[tuple[str, Way], Views] = OrderedDict()
        self._lock = Lock()

    def views(self, photo: Mapping[str, Any], max_pixels: int, *ways: Way) -> Views:
        """The cut of a `photos` row in each way; decoded at most once, and not at all if all are kept.

        Raises `PhotoError` as `read_cut` does.
        """
        _refuse()
        keys = [(str(photo["chip_id"]), way) for way in ways]
        found = {key: kept for key in keys if (kept := self._kept(key)) is not None}
        missing = [key for key in keys if key not in found]
        if missing:
            cut = read_cut(photo, max_pixels)
            for key in missing:
                found[key] = Views((cut.shape[1], cut.shape[0]), (_made(cut, key[1]),))
                self._keep(key, found[key])
        return Views(found[keys[0]].cut_size, tuple(found[key].pictures[0] for key in keys))

    def chip(self, photo: Mapping[str, Any], max_pixels: int, spec: ChipSpec) -> Pixels:
        """What a model sees of a `photos` row, (H, W, 3)."""
        return self.views(photo, max_pixels, spec).pictures[0]

    def _kept(self, key: tuple[str, Way]) -> Views | None:
        with self._lock:
            if key in self._views:
                self._views.move_to_end(key)
            return self._views.get(key)

    def _keep(self, key: tuple[str, Way], made: Views) -> None:
        limit = min(_MOST_KEPT, share(_KEPT)) if self._limit is None else self._limit
        with self._lock:
            if key not in self._views:
                self._views[key], self._held = made, self._held + made.pictures[0].nbytes
            while self._held > limit:
                self._held -= self._views.popitem(last=False)[1].pictures[0].nbytes


def _made(cut: Pixels, way: Way) -> Pixels:
    with spent_on("decoding"):
        if isinstance(way, ChipSpec):
            return chip_of(cut, way)
        return picture_of(cut) if way == PICTURE else view_of(cut, int(way))


VIEWS = ViewCache()
"""This process's views."""
