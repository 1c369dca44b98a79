"""Which warehouses this program reads: those of its own schema version and of all older ones.

A file carries its version in its footer. Columns that are newer than a file are null, so older files are
read as they are; newer ones may mean what this program does not know, and are refused.
"""

from __future__ import annotations

import io
from collections.abc import Mapping

from schemas.errors import NewerWarehouse, WarehouseError
from schemas.storage import Storage
from schemas.tables.registry import SCHEMA_VERSION
from tasks.store.shard_files import read_footer

VERSION = b"schema_version"
_MOST_DIGITS = 9


def check_version(path: str, footer: Mapping[bytes, bytes]) -> None:
    """Raise `NewerWarehouse` for a file of a newer schema version, `WarehouseError` for one of none."""
    said = footer.get(VERSION, b"").decode(errors="replace")
    if not (said.isascii() and said.isdigit()):
        raise WarehouseError(
            f"{path} carries no schema version: it is not a file of this warehouse", "move it elsewhere"
        )
    if len(said) > _MOST_DIGITS or int(said) > SCHEMA_VERSION:
        raise NewerWarehouse(
            f"{path} has schema version {said[:_MOST_DIGITS]}, this program reads up to {SCHEMA_VERSION}",
            "install a newer version of pairx-pipeline; the warehouse stays as it is",
        )


def refuse_newer(storage: Storage, runs: Mapping[str, object]) -> None:
    """Raise `NewerWarehouse` where a run of a newer version has written to a warehouse.

    `runs` are the paths of the files of the table of runs. One for each fingerprint is opened, since the
    version is part of it. Damage is left to those who read the rows.
    """
    for path in {path.rpartition("/")[0]: path for path in runs}.values():
        try:
            # A whole file: it holds one row.
            with storage.filesystem.open(path, "rb") if storage.is_local else _whole(storage, path) as stream:
                footer = read_footer(path, stream)[0]
            check_version(path, footer)
        except NewerWarehouse:
            raise
        except (WarehouseError, OSError):
            continue


def _whole(storage: Storage, path: str) -> io.BytesIO:
    return io.BytesIO(storage.get(path))
