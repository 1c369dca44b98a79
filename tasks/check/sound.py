"""The rows of all sound files, in a DuckDB connection with bounded memory."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from tempfile import TemporaryDirectory

import duckdb

from schemas.storage import Stored
from schemas.views.install import install_stored_views
from tasks.check.listing import Listing, StoredFile
from tasks.store.cached_files import CachedFiles
from tasks.store.inventory import addresses
from tasks.store.warehouse import Warehouse

_MEMORY = "2GB"


@dataclass(frozen=True)
class Sound:
    """A warehouse without its damaged files, as views read it."""

    warehouse: Warehouse
    listing: Listing
    rotten: Collection[str]

    def inventory(self) -> Sound:
        """Itself: it does not change."""
        return self

    def files(self, tables: Collection[str]) -> dict[str, list[str]]:
        """Table -> its sound files, as DuckDB opens them."""
        return {table: self._shown(f for f in self.listing.shards if f.place == table) for table in tables}

    def snapshot(self, name: str) -> list[str]:
        """Sound files of a snapshot, as DuckDB opens them."""
        return self._shown(f for f in self.listing.snapshots if f.partition == name)

    def ready(self, files: Iterable[str]) -> None:
        """Nothing to do: all of them have been read before."""

    def attach(self, connection: duckdb.DuckDBPyConnection) -> None:
        """Let the connection open those files; their versions were checked before."""
        if self.warehouse.is_local:
            return
        cache = CachedFiles(self.warehouse.storage)
        # The views of the newest run come into a connection that already has the views of all rows.
        if not connection.filesystem_is_registered(cache.name):
            cache.expect({self._path(f): Stored(f.size, "") for f in self.listing.by_path.values()})
            connection.register_filesystem(cache)

    def _shown(self, files: Iterable[StoredFile]) -> list[str]:
        return addresses(self.warehouse.storage, [self._path(f) for f in files if f.path not in self.rotten])

    def _path(self, file: StoredFile) -> str:
        return f"{self.warehouse.root}/{file.path}"

    @contextmanager
    def connect(self) -> Iterator[duckdb.DuckDBPyConnection]:
        """A connection with the views ``all_TABLE``; it spills to a temporary folder."""
        with TemporaryDirectory(prefix="pairx-check-") as folder, duckdb.connect(":memory:") as connection:
            for name, value in (("memory_limit", _MEMORY), ("temp_directory", folder)):
                connection.execute(f"SET {name} = '{value}'").fetchall()  # our names
            connection.execute("SET preserve_insertion_order = false").fetchall()
            install_stored_views(connection, self)
            yield connection
