"""A store's files as DuckDB reads them, each fetched once: small ones whole, others in ranges.

DuckDB opens every file again whenever it plans a query, and asks each time for its size, its age and its
footer. A warehouse's files do not change, except shards that are tried again, which a listing shows. So the
answers are kept: a file costs one request, whatever is asked of it, or one more per range where it is large.
"""

from __future__ import annotations

import io
from collections import OrderedDict
from collections.abc import Collection, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime
from threading import Lock
from typing import Any
from zlib import crc32

from fsspec import AbstractFileSystem

from schemas.errors import StorageError
from schemas.storage import Storage, Stored

WHOLE, END = 256 << 10, 64 << 10
"""Largest size of files that are read whole, and bytes read from the end of larger ones.

At the end Parquet says where everything is.
"""
BLOCK = 4 << 20
"""Bytes of a block; smaller ranges are read as blocks, since a column's pages are read in sequence."""
_AT_ONCE = 16


class CachedFiles(AbstractFileSystem):
    """A read-only fsspec file system over a store. Paths may be given as URLs."""

    cachable = False
    most_kept = 256 << 20
    """Most bytes that are kept; the least recently used go first."""

    def __init__(self, storage: Storage) -> None:
        super().__init__()
        self.protocol = storage.filesystem.protocol
        self._storage = storage
        self._known: dict[str, Stored] = {}
        self._pieces: OrderedDict[tuple[str, int], bytes] = OrderedDict()
        """Ends of files at key -1, and blocks of large files at their numbers."""
        self._held = 0
        self._lock = Lock()

    @property
    def name(self) -> str:
        """The name under which DuckDB knows this file system."""
        return self.protocol if isinstance(self.protocol, str) else str(self.protocol[0])

    def expect(self, listed: Mapping[str, Stored]) -> None:
        """Take files as a listing shows them, so that their sizes are known.

        What was kept of a file that was replaced is dropped.
        """
        self.drop(
            {path for path, stored in listed.items() if not stored.may_be(self._known.get(path, stored))}
        )
        self._known.update(listed)

    def drop(self, paths: Collection[str]) -> None:
        """Forget what was kept of files that have been written anew."""
        with self._lock:
            for piece in [piece for piece in self._pieces if piece[0] in paths] if paths else ():
                self._held -= len(self._pieces.pop(piece))

    def fetch(self, paths: Iterable[str]) -> None:
        """Fetch small listed files and the ends of large ones in parallel, up to what can be kept."""
        room, wanted = self.most_kept - self._held, []
        for path in paths:
            if (path, -1) not in self._pieces:
                room -= _part(self._known[path].size)
                wanted += [path] if room > 0 else []
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            list(pool.map(self._try_to_fetch, wanted))

    def _try_to_fetch(self, path: str) -> None:
        with suppress(FileNotFoundError):  # removed since it was listed: whoever reads it will say so
            self._end(path)

    def read(self, path: str, start: int, end: int) -> bytes:
        """Bytes [start, end) of a file."""
        kept = self._end(path)
        begins = self._known[path].size - len(kept)
        if start >= begins:
            return kept[start - begins : end - begins]
        if end - start >= BLOCK:
            return self._storage.get(path, start, end)
        first, last = start // BLOCK, (end - 1) // BLOCK
        blocks = b"".join(self._block(path, number) for number in range(first, last + 1))
        return blocks[start - first * BLOCK : end - first * BLOCK]

    def open(self, path: str, mode: str = "rb", **_: Any) -> io.RawIOBase:
        """A file to read from."""
        if mode != "rb":
            raise PermissionError("files are read only")
        place = self._strip(path)
        self._end(place)
        return _File(self, place, self._known[place].size)

    def info(self, path: str, **_: Any) -> dict[str, Any]:
        """Name and size, as listed."""
        place = self._strip(path)
        if place not in self._known:
            self._end(place)
        return {"name": place, "size": self._known[place].size, "type": "file"}

    def modified(self, path: str) -> datetime:
        """A time that changes with the file: DuckDB keeps a file's bytes while its time is the same."""
        self.info(path)
        return datetime.fromtimestamp(crc32(self._known[self._strip(path)].tag.encode()), UTC)

    def glob(self, path: str, **_: Any) -> list[str]:
        """The path itself, since names of shards hold no wildcards."""
        return [self._strip(path)]

    def exists(self, path: str, **_: Any) -> bool:
        """Whether the file was listed."""
        return self._strip(path) in self._known

    def unstrip_protocol(self, name: str) -> str:
        """The path as a URL."""
        return self._storage.address(self._strip(name))

    def _strip(self, path: str) -> str:
        return self._storage.path(path)

    def _end(self, path: str) -> bytes:
        """The end of a file, or all of a small one; from the store where it is not kept."""
        if (data := self._kept((path, -1))) is not None:
            return data
        if stored := self._known.get(path):
            return self._keep((path, -1), self._storage.get(path, stored.size - _part(stored.size)))
        data = self._storage.get(path, -WHOLE)
        self._known[path] = Stored(len(data) if len(data) < WHOLE else self._storage.size(path), "")
        return self._keep((path, -1), data)

    def _block(self, path: str, number: int) -> bytes:
        if (data := self._kept((path, number))) is not None:
            return data
        end = min((number + 1) * BLOCK, self._known[path].size)
        return self._keep((path, number), self._storage.get(path, number * BLOCK, end))

    def _kept(self, piece: tuple[str, int]) -> bytes | None:
        with self._lock:
            if piece in self._pieces:
                self._pieces.move_to_end(piece)
            return self._pieces.get(piece)

    def _keep(self, piece: tuple[str, int], data: bytes) -> bytes:
        with self._lock:
            self._held += len(data) - len(self._pieces.get(piece, b""))
            self._pieces[piece] = data
            while self._held > self.most_kept and len(self._pieces) > 1:
                self._held -= len(self._pieces.popitem(last=False)[1])
        return data


def _part(size: int) -> int:
    """How much of a file's end is fetched at first."""
    return size if size <= WHOLE else END


class _File(io.RawIOBase):
    def __init__(self, files: CachedFiles, path: str, size: int) -> None:
        self._files, self._path, self._size, self._place = files, path, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._place

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._place = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._place, io.SEEK_END: self._size}[whence]
        return self._place

    def read(self, size: int = -1) -> bytes:
        end = self._size if size < 0 else min(self._place + size, self._size)
        try:
            data = self._files.read(self._path, self._place, end) if end > self._place else b""
        except StorageError as error:  # to DuckDB and Arrow a file is a file, with errors of one line
            raise OSError(error.message) from error
        self._place += len(data)
        return data
