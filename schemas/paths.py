"""Paths of photos: relative to a root, and never outside it.

A catalogue is untrusted input. A path in it is checked by its letters (`check_relative`) and, where the root
is a local folder, by where its symbolic links lead (`PhotoRoot`). `safe_join` does both and is the only way
to a photo's address.
"""

from __future__ import annotations

import os
import posixpath
import re
import stat
from collections.abc import Callable

from schemas.errors import PathOutsideRoot

_PLAIN = re.compile(r"(?:[A-Za-z0-9_-][A-Za-z0-9_.-]*/)*[A-Za-z0-9_-][A-Za-z0-9_.-]*")
_DRIVE = re.compile(r"[A-Za-z]:")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_PROTOCOL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")
_WEB_TRICKS = re.compile(r"[?#]|%(2e|2f|5c)", re.IGNORECASE)
_CURE = "give a path below the catalogue's root, with / between folders"


def is_url(place: str) -> bool:
    """Whether `place` is remote (s3://…, memory://…), not a local path or a file:// URL."""
    match = _PROTOCOL.match(place)
    return match is not None and match.group().lower() not in ("file://", "local://")


def local_path(place: str) -> str:
    """The absolute local path of a plain path or a file:// URL.

    `~` and relative paths are resolved, links are not.
    """
    return os.path.abspath(os.path.expanduser(_PROTOCOL.sub("", place, count=1)))


def not_a_file(path: str) -> str | None:
    """What a local path is if no regular file: words such as "a pipe"; None for a file.

    Raises `OSError` where nothing is there. Ask before opening a path from outside: opening a pipe waits
    until somebody writes to it, which may be never.
    """
    mode = os.stat(path).st_mode
    return None if stat.S_ISREG(mode) else next((word for test, word in _KINDS if test(mode)), "no file")


_KINDS: tuple[tuple[Callable[[int], bool], str], ...] = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


def check_relative(relative: str) -> str:
    """`relative` in normal form (no `.`, no doubled /), judged by its letters alone.

    Raises `PathOutsideRoot` for an empty or absolute path, `..`, a leading `~`, a backslash, a drive letter,
    a URL or chained URL, control characters and broken Unicode.
    """
    # Most paths hold only these letters, to which nothing below applies; this is much faster.
    if _PLAIN.fullmatch(relative):
        return relative
    if not relative or not relative.strip("/."):
        raise _refusal(relative, "names no file")
    if _CONTROL.search(relative):
        raise _refusal(relative, "contains control characters")
    if "\\" in relative:
        raise _refusal(relative, "contains a backslash")
    if "://" in relative or "::" in relative:
        raise _refusal(relative, "is a URL")
    if ".." in relative.split("/"):
        raise _refusal(relative, "contains ..")
    # The start is judged in normal form, since `./~` means `~`.
    normal = posixpath.normpath(relative)
    if normal.startswith(("/", "~")) or _DRIVE.match(normal):
        raise _refusal(relative, "is not relative to the root")
    try:
        normal.encode()
    except UnicodeEncodeError as error:
        raise _refusal(relative, "is not valid Unicode") from error
    return normal


class PhotoRoot:
    """A root that checks many paths at one moment: each local folder is resolved once, not once per photo.

    Links may change after the check, so photos are opened through `safe_join`.
    """

    def __init__(self, root: str) -> None:
        self._is_url = is_url(root)
        self._is_web = root.lower().startswith(("http://", "https://"))
        self._root = root.rstrip("/") if self._is_url else local_path(root)
        self._resolved = "" if self._is_url else os.path.realpath(self._root)
        self._folders: dict[str, str] = {}

    def join(self, relative: str) -> str:
        """Address of the photo at `relative`; raises `PathOutsideRoot`."""
        normal = self.check(relative)
        return f"{self._root}/{normal}" if self._is_url else os.path.join(self._root, normal)

    def check(self, relative: str) -> str:
        """`relative` in normal form; `PathOutsideRoot` when its letters or links lead out of the root."""
        normal = check_relative(relative)
        if self._is_web and _WEB_TRICKS.search(normal):
            raise _refusal(
                relative,
                "contains ?, # or an encoded dot or slash, which mean something else to a web server",
            )
        if not self._is_url and not self._stays_inside(normal):
            raise _refusal(relative, "leads out of the root through a symbolic link")
        return normal

    def _stays_inside(self, normal: str) -> bool:
        folder, _, name = normal.rpartition("/")
        if folder not in self._folders:
            self._folders[folder] = os.path.realpath(os.path.join(self._resolved, folder))
        place = os.path.join(self._folders[folder], name)
        resolved = os.path.realpath(place) if os.path.islink(place) else place
        return resolved.startswith(self._resolved.rstrip(os.sep) + os.sep)


def safe_join(root: str, relative: str) -> str:
    """Address of the photo at `relative` under `root`: a URL below a URL, else an absolute path.

    For local roots symbolic links are followed and must stay inside; for URLs the check is by letters
    alone. The file need not exist. Raises `PathOutsideRoot`.
    """
    return PhotoRoot(root).join(relative)


def _refusal(relative: str, why: str) -> PathOutsideRoot:
    shown = relative if len(relative) <= 120 else relative[:119] + "…"
    return PathOutsideRoot(f"path {shown!r} {why}", _CURE)
