"""What a warehouse holds when a reader looks: each table's committed files, by few listings.

``TABLE/fingerprint=F/SHARD.parquet``; whatever else lies in the folder does not count.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor

import duckdb

from schemas.storage import Storage, Stored
from schemas.tables.registry import TABLES
from schemas.views.snapshots import SNAPSHOTS, snapshot_folder
from tasks.store.cached_files import CachedFiles
from tasks.store.shard_files import SUFFIX, read_footer
from tasks.store.versions import check_version
from tasks.store.written import Written

NAME = re.compile(r"[a-z0-9_-]+")
"""Valid names of fingerprints, shards and snapshots."""
OTHER_FOLDERS = (SNAPSHOTS, "reports", "lease", "quarantine")
"""What a warehouse holds besides its tables."""
_SHARD = re.compile(rf"([a-z_]+)/fingerprint={NAME.pattern}/{NAME.pattern}{re.escape(SUFFIX)}")
_AT_ONCE = 8
_FEW = 4
"""Up to this number of tables are listed one by one; for more tables everything is listed."""


def committed(storage: Storage, tables: Collection[str]) -> dict[str, dict[str, Stored]]:
    """Table -> its committed files by path, sorted."""
    found: dict[str, dict[str, Stored]] = {table: {} for table in tables}
    if not tables:
        return found
    if len(tables) <= _FEW or storage.is_local or not storage.probe() <= {*TABLES, *OTHER_FOLDERS}:
        # This also serves a bucket that holds other things: listing them all could cost more than one listing
        # per table.
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            folders = list(
                pool.map(lambda table: storage.find(f"{storage.root}/{table}", sizes=False), tables)
            )
        listed = {path: stored for folder in folders for path, stored in folder.items()}
    else:
        listed = storage.find(storage.root)
    for path in sorted(listed):
        match = _SHARD.fullmatch(path.removeprefix(f"{storage.root}/"))
        if match and match[1] in found:
            found[match[1]][path] = listed[path]
    return found


class Inventory:
    """One reader's look at a warehouse: implements `schemas.views.install.Files`.

    Files are listed anew on every call. Raises `WarehouseError` for files of a newer version of the
    program.
    """

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._cache = None if storage.is_local else CachedFiles(storage)
        self._paths: dict[str, str] = {}
        """File as DuckDB opens it -> its path."""
        self._known: set[str] = set()
        """Partitions whose version was checked."""

    def attach(self, connection: duckdb.DuckDBPyConnection) -> None:
        """Let a DuckDB connection open the files."""
        if self._cache is not None:
            connection.register_filesystem(self._cache)

    def files(self, tables: Collection[str]) -> dict[str, list[str]]:
        """Table -> its committed files, sorted, as DuckDB opens them."""
        return {table: self._listed(files) for table, files in committed(self._storage, tables).items()}

    def snapshot(self, name: str) -> list[str]:
        """All files in a snapshot's folder, sorted, as DuckDB opens them; none for what is no name."""
        if not NAME.fullmatch(name):
            return []
        found = self._storage.find(f"{self._storage.root}/{snapshot_folder(name)}", sizes=False)
        return self._listed({path: found[path] for path in sorted(found) if path.endswith(SUFFIX)})

    def ready(self, files: Iterable[str]) -> None:
        """Fetch what DuckDB will ask of these files, many at once, and refuse those of a newer version.

        One footer per partition is enough: the schema version is part of the fingerprint, so its
        files share one version.
        """
        paths = [self._paths[file] for file in files]
        if self._cache is not None:
            self._cache.fetch(paths)
        last = {path.rpartition("/")[0]: path for path in paths}
        new = {folder: path for folder, path in last.items() if folder not in self._known}
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            list(pool.map(lambda path: check_version(path, self._footer(path)), new.values()))
        self._known |= new.keys()

    def _listed(self, found: Mapping[str, Stored]) -> list[str]:
        if self._cache is not None:
            self._cache.expect(found)
        shown = addresses(self._storage, found)
        self._paths.update(zip(shown, found, strict=True))
        return shown

    def _footer(self, path: str) -> Mapping[bytes, bytes]:
        with open(path, "rb") if self._cache is None else self._cache.open(path) as stream:
            return read_footer(path, stream)[0]


class Followed(Inventory):
    """A run's look at its warehouse: each table is listed once, then the run tells what it writes.

    So no listing is repeated after every stage. What others write, or a worker that died, is seen when
    everything is listed again.
    """

    def __init__(self, storage: Storage) -> None:
        super().__init__(storage)
        self._found: dict[str, dict[str, Stored]] = {}
        self._heard: set[str] = set()

    def inventory(self) -> Followed:
        """Itself."""
        return self

    def hear(self, file: Written) -> None:
        """A file has been written."""
        table = file.path.partition("/")[0]
        if table in TABLES:
            self._heard.add(table)
        if table in self._found:
            path = f"{self._storage.root}/{file.path}"
            if self._cache is not None:
                self._cache.drop({path})
            self._found[table][path] = Stored(file.bytes, f"digest:{file.digest}")

    def news(self) -> set[str]:
        """Tables that were written to since this was asked last."""
        heard, self._heard = self._heard, set()
        return heard

    def vanished(self) -> list[str]:
        """Files that were listed or written and are missing now, sorted; lists their tables again."""
        now = committed(self._storage, list(self._found))
        return sorted(
            path for table, known in self._found.items() for path in known.keys() - now[table].keys()
        )

    def files(self, tables: Collection[str]) -> dict[str, list[str]]:
        """Table -> its committed files, sorted, as DuckDB opens them."""
        self._found |= committed(self._storage, [table for table in tables if table not in self._found])
        return {table: self._listed(dict(sorted(self._found[table].items()))) for table in tables}


def addresses(storage: Storage, paths: Iterable[str]) -> list[str]:
    """Paths as DuckDB opens them, with wildcards escaped, since it expands them in every path."""
    if storage.is_local:
        return [without_wildcards(path) for path in paths]
    return [storage.address(path) for path in paths]


def without_wildcards(path: str) -> str:
    """The path as a pattern that matches only itself."""
    return re.sub(r"([*?\[])", r"[\1]", path)
