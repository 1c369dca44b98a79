"""A connection to the views of a warehouse that verdicts need, and no others."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager

import duckdb

from schemas.views.wanted import install_wanted
from tasks.store.warehouse import Warehouse


@contextmanager
def opened(warehouse: Warehouse, views: Collection[str]) -> Iterator[duckdb.DuckDBPyConnection]:
    """Some views over a warehouse, for the length of a block; `NoWarehouse` where there is none."""
    warehouse.require()
    with duckdb.connect(":memory:") as connection:
        install_wanted(connection, warehouse, set(views))
        yield connection
