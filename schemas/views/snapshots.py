"""Snapshots: rows of some views at the end of a run, as files, read without window functions.

``current/snapshot=NAME/VIEW-K-of-N.parquet``, one set of files per view whose header says ``-- snapshot:
COLUMN, ...``, sorted by these columns. NAME is the definition of the views, a hyphen, and a hash of what
their rows follow from: the catalogue's state, the run's settings and the files read. So equal rows of one
warehouse have one name, and a program with other views reads the shards.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

from schemas.fingerprints import fingerprint
from schemas.sql.files import macro_texts, view_files
from schemas.tables.registry import TABLES
from schemas.thresholds import THRESHOLDS
from schemas.views.graph import ViewGraph

SNAPSHOTS = "current"
"""Folder of all snapshots in a warehouse."""
ROWS_PER_FILE, ROWS_PER_GROUP = 500_000, 100_000
_FILE = re.compile(r"(?P<view>[a-z][a-z0-9_]*)-(?P<part>\d+)-of-(?P<parts>\d+)\.parquet")
_SAY_WHEN = frozenset({"all_files"})
"""Tables that only say when files were written: what a snapshot takes from them is settled with those files."""
_OWN_NAMES = ("run_id", "status", "snapshot")
"""Columns of `current_run` that tell runs apart and change no row."""


def snapshot_folder(name: str) -> str:
    """Folder of a snapshot below the warehouse's root."""
    return f"{SNAPSHOTS}/snapshot={name}"


def snapshot_file(view: str, part: int, parts: int) -> str:
    """Name of one of a view's files, counted from 1."""
    return f"{view}-{part}-of-{parts}.parquet"


def view_of_file(path: str) -> str | None:
    """The view whose rows a snapshot's file holds; None for a file that is none of a snapshot."""
    found = _FILE.fullmatch(PurePosixPath(path).name)
    return found["view"] if found else None


def snapshot_views() -> dict[str, tuple[str, ...]]:
    """View -> columns that order its rows in a snapshot; no two rows agree in all of them."""
    return {name: view.snapshot for name, view in view_files().items() if view.snapshot}


def whole_snapshot(paths: Iterable[str]) -> dict[str, list[str]]:
    """View -> its files in order, for a folder's files; empty unless all files of all views are there.

    The number of files is part of their names, so the last file, whichever it is, commits a snapshot.
    """
    found: dict[str, dict[int, str]] = {}
    parts: dict[str, int] = {}
    for path in paths:
        if match := _FILE.fullmatch(PurePosixPath(path).name):
            found.setdefault(match["view"], {})[int(match["part"])] = path
            parts[match["view"]] = int(match["parts"])
    complete = all(
        name in found and found[name].keys() == set(range(1, parts[name] + 1)) for name in snapshot_views()
    )
    return {n: [files[k] for k in sorted(files)] for n, files in found.items()} if complete else {}


def definition(graph: ViewGraph) -> str:
    """Hash of all that decides a snapshot's columns and rows: SQL, and the tables' columns; 16 hex digits."""
    views = snapshot_views()
    queries = {n: graph.views[n].query for n in graph.views_behind(views)}
    tables = {source.partition("_")[2] for name in views for source in graph.sources(name)} & TABLES.keys()
    return fingerprint(
        columns={name: TABLES[name].schema.names for name in tables},
        views={name: list(order) for name, order in views.items()},
        queries=queries,
        macros=macro_texts(),
        thresholds=THRESHOLDS,
        sizes=[ROWS_PER_FILE, ROWS_PER_GROUP],
    )


def snapshot_name(graph: ViewGraph, current: Mapping[str, Any], files: Mapping[str, Sequence[str]]) -> str:
    """The name of a snapshot of the views over these rows.

    `current` is the row of `current_run`; `files` are those behind each ``run_TABLE`` and ``all_TABLE``.
    Fingerprints are in the files' folders; those of tables that no view of a snapshot reads do not matter.
    """
    sources = set().union(*(graph.sources(name) for name in snapshot_views()))
    run = {k: v for k, v in current.items() if k not in _OWN_NAMES and not k.endswith("_fingerprint")}
    read = {name: sorted(map(_shard, files[name])) for name in sources & files.keys() - _SAY_WHEN}
    return f"{definition(graph)}-{fingerprint(run=run, files=read)}"


def _shard(path: str) -> str:
    return "/".join(PurePosixPath(path).parts[-2:])
