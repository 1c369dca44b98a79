"""The record of a run: rows of `files` for each file that it wrote, which checks compare."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress

import pyarrow as pa

from schemas.errors import LeaseLost
from schemas.tables.files import FILES, FILES_PARTITION
from tasks.store.warehouse import Warehouse, shard_name
from tasks.store.written import Written, heard_by

_KEEP_EVERY = 600.0
"""Seconds after which a long run stores its record so far.

If the run is killed, files written since then have no record.
"""


@contextmanager
def recording(warehouse: Warehouse, run_id: str) -> Iterator[Callable[[], None]]:
    """Record what the block writes, also when the block fails; in parts, if it takes long.

    The block gets a function that stores the record so far.
    """
    heard: set[Written] = set()
    kept_at = time.monotonic()

    def keep() -> None:
        nonlocal heard, kept_at
        rows, heard, kept_at = heard, set(), time.monotonic()
        keep_record(warehouse, run_id, rows)

    def hear(file: Written) -> None:
        heard.add(file)
        if time.monotonic() - kept_at > _KEEP_EVERY:
            keep()

    try:
        with heard_by(hear):
            yield keep
    except LeaseLost:
        raise  # what was written is gone, or not this run's to speak of
    except BaseException:
        with suppress(Exception):  # what stopped the run is what its user should hear of
            keep()
        raise
    keep()


def keep_record(
    warehouse: Warehouse, run_id: str, written: Iterable[Written], gone: Iterable[str] = ()
) -> None:
    """Commit rows for files that were written or moved aside; without any, no file is made."""
    rows = [{"path": f.path, "run_id": run_id, "bytes": f.bytes, "digest": f.digest} for f in written]
    rows += [{"path": path, "run_id": run_id, "bytes": None, "digest": None} for path in gone]
    if rows:
        rows.sort(key=lambda row: (str(row["path"]), str(row["digest"])))
        table = pa.Table.from_pylist(rows, schema=FILES.schema)
        warehouse.write("files", FILES_PARTITION, record_name(table), table)


def record_name(rows: pa.Table) -> str:
    """The shard that holds these rows of `files`, named by a hash of all that they say.

    No other record vouches for it.
    """
    return shard_name("\0".join(map(str, row.values())) for row in rows.to_pylist())
