"""Paths of photos: from what catalogues write to paths relative to the root.

Absolute paths below the root become relative. Those of another machine need a prefix to be taken off, which a
person must say: a catalogue is untrusted, and does not choose the folder that is read.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence

from schemas.catalogue.cells import Column, read_names
from schemas.errors import PathOutsideRoot, Problem
from schemas.paths import PhotoRoot, check_relative, is_url

_DOWNLOAD = "download the photos and give their paths below the catalogue's root; photos behind single URLs are not read"
_RELATIVE = "give a path below the catalogue's root, with / between folders"
_ABSOLUTE = re.compile(r"/|[A-Za-z]:/")
_WINDOWS = re.compile(r"[A-Za-z]:|//")


def read_paths(
    column: Column | None, count: int, root: str, prefix: str | None, problems: list[Problem]
) -> tuple[list[str | None], list[str]]:
    """Paths in normal form, relative to `root`, after `prefix` is taken off; and remarks.

    Backslashes become /. A path that leaves the root is a problem; that of absolute paths names the prefix that
    they share.
    """
    written = read_names(column, count, problems, required=True, as_written=True)
    if column is None:
        return written, []
    paths = [None if path is None else _slashed(path) for path in written]
    cut = _slashed(prefix).rstrip("/") + "/" if prefix else None
    folder = root.rstrip("/") + "/"
    checker, far, stripped, below = PhotoRoot(root), [], 0, 0
    for i, path in enumerate(paths):
        if path is None:
            continue
        if cut and _begins(path, cut):
            path, stripped = path[len(cut) :].lstrip("/"), stripped + 1
        elif path.startswith(folder):
            path, below = path[len(folder) :].lstrip("/"), below + 1
        elif _ABSOLUTE.match(path):
            far.append(i)
            continue
        try:
            paths[i] = checker.check(path)
        except PathOutsideRoot as error:
            cure = _DOWNLOAD if "://" in path else error.cure or ""
            problems.append(column.problem("path outside root", i, error.message, cure))
    if cut and not stripped:
        first = next((path for path in paths if path is not None), "")
        what = f"no path begins with it; the first is {_short(first)}"
        problems.append(
            Problem(
                "prefix not found", f"--strip-prefix {prefix}", what, _cure([first], root) or "leave it out"
            )
        )
    elif far:
        cure = _cure([paths[i] or "" for i in far], root) or _RELATIVE
        problems += [
            column.problem("path outside root", i, f"{_short(paths[i])!r} is not below the root", cure)
            for i in far
        ]
    turned = sum("\\" in path for path in written if path is not None)
    notes = [
        (turned, f"paths with backslashes, read as /: {turned}"),
        (stripped, f"paths without the prefix {prefix}: {stripped} of {count}"),
        (below, f"absolute paths below the root, read as relative to it: {below}"),
    ]
    return paths, [note for number, note in notes if number]


def _slashed(path: str) -> str:
    path = path.replace("\\", "/")
    return path[7:] if path[:7].lower() == "file://" else path


def _begins(path: str, prefix: str) -> bool:
    """Whether a path lies below a folder; Windows tells no capitals apart."""
    start = path[: len(prefix)]
    return start == prefix or (bool(_WINDOWS.match(prefix)) and start.lower() == prefix.lower())


def _cure(paths: Sequence[str], root: str) -> str:
    """Which prefix to take off: one under which the first photo is found below the root, or the common one."""
    if not all(map(_ABSOLUTE.match, paths)):
        return ""
    found, common = _found_without(paths[0], root), _common(paths)
    if found:
        return f"--strip-prefix {found}: without it, {_short(paths[0])} is there"
    if not common:
        return ""
    here = not is_url(root) and os.path.isdir(common)
    other = f"; or --root {common}, if the photos are in that folder" if here else ""
    return (
        f"all absolute paths lie below {common}: where the rest of each leads to the photo from the root, give "
        f"--strip-prefix {common}{other}"
    )


def _common(paths: Sequence[str]) -> str:
    """The deepest folder that all absolute paths lie below; empty where they share none."""
    split = [path.split("/")[:-1] for path in paths]
    shared: list[str] = []
    for parts in zip(*split, strict=False):
        if len(set(parts)) > 1:
            break
        shared.append(parts[0])
    return "/".join(shared) if any(part for part in shared if not part.endswith(":")) else ""


def _found_without(path: str, root: str) -> str:
    if is_url(root):
        return ""
    parts = path.split("/")
    for k in range(1, len(parts)):
        try:
            rest = check_relative("/".join(parts[k:]))
        except PathOutsideRoot:
            continue
        if os.path.isfile(os.path.join(root, rest)):
            return "/".join(parts[:k])
    return ""


def _short(path: str | None) -> str:
    path = path or ""
    return path if len(path) <= 120 else f"{path[:119]}…"
