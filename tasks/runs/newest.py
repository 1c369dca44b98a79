"""The newest finished run of a warehouse, by one listing and one file."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Any

from tasks.store.inventory import committed
from tasks.store.warehouse import Warehouse


def newest_finished(warehouse: Warehouse) -> dict[str, Any] | None:
    """The row of the finished run that began last; None where there is none."""
    paths = committed(warehouse.storage, ["runs"])["runs"]
    names = {PurePosixPath(path).stem: path for path in paths}
    found = max((name for name in names if name.endswith("-finished")), default=None)
    if found is None:
        return None
    partition = PurePosixPath(names[found]).parent.name.partition("=")[2]
    rows: list[dict[str, Any]] = warehouse.read("runs", partition, [found]).to_pylist()
    return rows[0] if len(rows) == 1 else None
