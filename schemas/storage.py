"""Files behind a path or URL: the one place for time-outs, tries and credentials.

Every operation moves one file, or one range of it, whole, so that it can be tried again. A store must be
strongly consistent, as S3 is: what was written is listed and read at once.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from inspect import signature
from typing import Any, TypeVar, cast

from fsspec.config import conf
from fsspec.core import url_to_fs
from fsspec.implementations.local import LocalFileSystem

from schemas.errors import NoStorage, StorageError, WarehouseError, did_you_mean
from schemas.paths import is_url, not_a_file
from schemas.storage_errors import code_of, explained, is_final, is_ill, is_missing, is_unreachable, masked

T = TypeVar("T")
CONNECT_SECONDS, SILENT_SECONDS = 5, 20
"""Seconds that a connection may take, and that a store may be silent, before a request has failed."""
TRIES_OF_A_REQUEST, TRIES = 3, 3
"""Tries of the client for each request, and of whole files after a pause: nine in all."""
_PROBE_SECONDS = 15.0
_PAUSE_SECONDS = 1.0
_OPTIONS: dict[str, dict[str, Any]] = {
    "s3": {
        "config_kwargs": {
            "connect_timeout": CONNECT_SECONDS,
            "read_timeout": SILENT_SECONDS,
            "retries": {"mode": "standard", "total_max_attempts": TRIES_OF_A_REQUEST},
        }
    }
}
_PROTOCOLS = ("file", "s3", "gs", "az", "abfs", "http", "https")
_INSTALL = "give a path, or install the fsspec package of that protocol: pip install '.[s3]' for s3://"


@dataclass(frozen=True)
class Stored:
    """A file as listed or as written: its size in bytes, and a tag that changes with its content.

    A tag begins with its kind, such as ``ETag:``; tags of two kinds cannot be compared.
    """

    size: int
    tag: str

    def may_be(self, other: Stored) -> bool:
        """Whether both may be the same file: nothing tells them apart."""
        (kind, _, mine), (other_kind, _, its) = self.tag.partition(":"), other.tag.partition(":")
        return self.size == other.size and (kind != other_kind or mine == its)


class Storage:
    """The files below a path or fsspec URL, whose paths are those of `filesystem`.

    `storage_at` keeps one per address. Raises `NoStorage` where no file system knows the address.
    Operations raise `FileNotFoundError` for a file that is not there, and `StorageError` with a cure for
    everything else, once `TRIES` have failed.
    """

    def __init__(self, url: str) -> None:
        try:
            self.filesystem, root = url_to_fs(url, **_options(url))
        except (ImportError, ValueError) as error:
            near = did_you_mean(url.partition("://")[0], _PROTOCOLS)
            raise NoStorage(f"{masked(url)} cannot be opened: {error}{near}", _INSTALL) from error
        if hasattr(self.filesystem, "retries"):
            # s3fs would repeat requests that its client has already repeated.
            self.filesystem.retries = 1
        self.url = url
        self.root = str(root).rstrip("/")

    @property
    def is_local(self) -> bool:
        """Whether the files are those of this machine."""
        return isinstance(self.filesystem, LocalFileSystem)

    def probe(self, writing: str | None = None) -> set[str]:
        """See within seconds whether the store can be used; returns the names right below the root.

        Raises `NoStorage` where it cannot be reached or refuses us, and `StorageError` where it is there
        and fails, which may pass. `writing` names a file that is put and removed again, to see that this is
        allowed, too.
        """
        patience = {"timeout": _PROBE_SECONDS} if self.filesystem.async_impl else {}
        self.filesystem.invalidate_cache(self.root)
        found: list[str] = []
        try:
            with suppress(FileNotFoundError):  # nothing is there yet
                found = self._tried(
                    "list",
                    self.root,
                    lambda: self.filesystem.ls(self.root, detail=False, **patience),
                    quick=True,
                )
            if writing is not None:
                self._tried(
                    "write", writing, lambda: self.filesystem.pipe_file(writing, b"", **patience), quick=True
                )
                self._tried(
                    "delete", writing, lambda: self.filesystem.rm_file(writing, **patience), quick=True
                )
        except StorageError as error:
            if is_ill(error):
                raise
            raise NoStorage(error.message, error.cure) from error
        return set(map(_name, found))

    def get(self, path: str, start: int = 0, end: int | None = None) -> bytes:
        """The bytes of a file, of its range [start, end), or of its end (`start` < 0), by one request."""
        return self._tried("read", path, lambda: bytes(self.filesystem.cat_file(path, start=start, end=end)))

    def size(self, path: str) -> int:
        """The bytes of a file."""
        return self._tried("read", path, lambda: int(self.filesystem.size(path)))

    def put(self, path: str, data: bytes) -> None:
        """Put a file whole, over what is there."""
        self._tried("write", path, lambda: self.filesystem.pipe_file(path, data))

    def create(self, path: str, data: bytes) -> bool:
        """Put a file unless there is one; returns whether the file there now holds this data.

        It may be a twin that put the same data. Exact where the store knows conditional puts
        (If-None-Match of S3); elsewhere a question comes before the put.
        """
        # The file may be our own, from an earlier try whose answer was lost.
        return self._tried("write", path, lambda: self._create(path, data)) or self.get(path) == data

    def find(self, folder: str, sizes: bool = True) -> dict[str, Stored]:
        """All files below a folder, at any depth, by path: one request per thousand.

        Empty where there is no such folder. Without `sizes` those of local files are -1, since each
        size costs a look of its own there.
        """
        if self.is_local and not sizes:
            return dict.fromkeys(_files_below(folder), Stored(-1, ""))
        try:
            found = self._tried("list", folder, lambda: self._find(folder))
        except FileNotFoundError:
            return {}
        return {str(path): Stored(int(info.get("size") or 0), _tag(info)) for path, info in found.items()}

    def names(self, folder: str) -> set[str]:
        """Names of what lies right in a folder."""

        def attempt() -> list[str]:
            self.filesystem.invalidate_cache(folder)
            return list(self.filesystem.ls(folder, detail=False))

        with suppress(FileNotFoundError, NotADirectoryError):
            return {_name(path) for path in self._tried("list", folder, attempt)}
        return set()

    def remove(self, paths: Sequence[str]) -> None:
        """Remove files; one that is gone already is no error."""
        if paths:
            self._tried("delete", paths[0], lambda: self._remove(paths))

    def path(self, url: str) -> str:
        """The path of a file whose URL is given."""
        return str(self.filesystem._strip_protocol(url))

    def address(self, path: str) -> str:
        """A path of the file system as a URL; a path of this machine stays one."""
        return path if self.is_local else str(self.filesystem.unstrip_protocol(path))

    def _create(self, path: str, data: bytes) -> bool:
        try:
            self.filesystem.pipe_file(path, data, mode="create")
        except FileExistsError:
            return False
        except (OSError, NotImplementedError) as error:
            if code_of(error) in ("PreconditionFailed", "412"):
                return False
            if not isinstance(error, NotImplementedError) and code_of(error) not in ("NotImplemented", "501"):
                raise
            if self.filesystem.exists(path):
                return False
            self.filesystem.pipe_file(path, data)
        return True

    def _find(self, folder: str) -> Mapping[str, Mapping[str, Any]]:
        self.filesystem.invalidate_cache(folder)
        parent, _, name = folder.rpartition("/")
        if parent and "prefix" in signature(self.filesystem.find).parameters:
            # For a folder that does not exist, these clients would send two more requests, to see whether it
            # is a file.
            found = self.filesystem.find(parent, detail=True, prefix=f"{name}/")
        else:
            found = self.filesystem.find(folder, detail=True)
        return cast("Mapping[str, Mapping[str, Any]]", found)

    def _remove(self, paths: Sequence[str]) -> None:
        with suppress(FileNotFoundError):
            self.filesystem.rm(list(paths))

    def _tried(self, verb: str, path: str, action: Callable[[], T], quick: bool = False) -> T:
        for tried in range(1, TRIES + 1):
            try:
                return action()
            except Exception as error:  # every store's package has classes of its own
                if is_missing(error):
                    raise
                if tried == TRIES or is_final(error) or (quick and is_unreachable(error)):
                    raise explained(error, verb, self.address(path)) from error
            time.sleep(_PAUSE_SECONDS * 2**tried * random.random())
        raise AssertionError("the last try returns or raises")


def storage_at(url: str) -> Storage:
    """This process's `Storage` of an address: all its threads share the connections."""
    return _storage(url, os.getpid())


@lru_cache(maxsize=64)
def _storage(url: str, process: int) -> Storage:
    return Storage(url)


def _options(url: str) -> dict[str, Any]:
    """Our options for a protocol's client; fsspec's own configuration (FSSPEC_S3) overrides them."""
    protocol = url.partition("://")[0].lower() if is_url(url) else ""
    ours = _OPTIONS.get("s3" if protocol == "s3a" else protocol, {})
    theirs = conf.get(protocol, {})
    return {name: {**values, **theirs.get(name, {})} for name, values in ours.items()}


def _name(path: str) -> str:
    return path.rstrip("/").rpartition("/")[2]


def _tag(info: Mapping[str, Any]) -> str:
    names = ("ETag", "etag", "mtime", "LastModified", "updated", "created")
    return next((f"{name}:{info[name]}" for name in names if name in info), "")


def _files_below(folder: str) -> Iterator[str]:
    """Paths of all files below a local folder; links to folders are not followed.

    Raises `WarehouseError` for a pipe, a socket or a device: who reads one may wait for ever.
    """
    pending = [folder]
    while pending:
        try:
            entries = list(os.scandir(pending.pop()))
        except OSError:
            continue  # no such folder, or gone in the meantime
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                pending.append(entry.path)
            elif entry.is_file():
                yield entry.path
            elif not entry.is_dir():
                _refuse_special(entry.path)
                yield entry.path


def _refuse_special(path: str) -> None:
    try:
        kind = not_a_file(path)
    except OSError:
        return  # a link to nothing, which is told where it is opened
    if kind:
        cure = "remove it: no run of this program makes such a thing"
        raise WarehouseError(f"{path} is {kind}, no file", cure)
