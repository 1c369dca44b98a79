"""The rows of all files that are sound, in a DuckDB connection whose memory is bounded."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from tempfile import TemporaryDirectory

import duckdb

from schemas.views import install_stored_views
from tasks.check.listing import Listing
from tasks.warehouse import Warehouse

_MEMORY = "2GB"


@dataclass(frozen=True)
class Sound:
    """A warehouse without some of its files, as views read it."""

    warehouse: Warehouse
    listing: Listing
    rotten: Collection[str]

    def files(self, table: str) -> list[str]:
        """Sound files of a table, as DuckDB opens them."""
        paths = (f.path for f in self.listing.shards if f.place == table and f.path not in self.rotten)
        return self.warehouse.addresses(f"{self.warehouse.root}/{path}" for path in paths)

    def snapshot(self, name: str) -> list[str]:
        """Sound files of a snapshot, as DuckDB opens them."""
        paths = (f.path for f in self.listing.snapshots if f.partition == name and f.path not in self.rotten)
        return self.warehouse.addresses(f"{self.warehouse.root}/{path}" for path in paths)

    def attach(self, connection: duckdb.DuckDBPyConnection) -> None:
        """Let the connection open those files; whether they are too new was asked before."""
        if not self.warehouse.is_local:
            connection.register_filesystem(self.warehouse.filesystem)

    @contextmanager
    def connect(self) -> Iterator[duckdb.DuckDBPyConnection]:
        """A connection with the views ``all_TABLE``; what does not fit into memory goes to a temporary folder."""
        with TemporaryDirectory(prefix="pairx-check-") as folder, duckdb.connect(":memory:") as connection:
            for name, value in (("memory_limit", _MEMORY), ("temp_directory", folder)):
                connection.execute(f"SET {name} = '{value}'").fetchall()  # our names
            connection.execute("SET preserve_insertion_order = false").fetchall()
            install_stored_views(connection, self)
            yield connection
