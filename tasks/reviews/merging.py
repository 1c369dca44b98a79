"""Small files of verdicts become one.

A verdict is a file when it is given. A run puts them together once they are many. The merged file is in place
before any small one goes, so no reader sees a verdict missing; one who reads in between sees it twice, which
the view `reviews` does not count.
"""

from __future__ import annotations

from contextlib import suppress

import pyarrow as pa

from schemas.tables.reviews import REVIEW_PARTITION, REVIEWS
from tasks.store.warehouse import Warehouse, shard_name

MANY = 32
"""Files from which they are put together."""


def merge_reviews(warehouse: Warehouse) -> int:
    """Put the files of all verdicts together, where there are at least `MANY`; returns how many went.

    Only who holds the warehouse's lease may call this. Verdicts that arrive meanwhile stay files of their own.
    Killed anywhere, the next call goes on.
    """
    found = sorted(warehouse.shards("reviews", REVIEW_PARTITION))
    if len(found) < MANY:
        return 0
    rows = warehouse.read("reviews", REVIEW_PARTITION, found)
    once = {row["review_id"]: row for row in rows.to_pylist()}
    name = shard_name(once)
    ordered = [once[review] for review in sorted(once)]
    warehouse.write("reviews", REVIEW_PARTITION, name, pa.Table.from_pylist(ordered, schema=REVIEWS.schema))
    for shard in found:
        if shard != name:
            with suppress(FileNotFoundError):
                path = warehouse.shard_path("reviews", REVIEW_PARTITION, shard)
                warehouse.filesystem.rm_file(f"{warehouse.root}/{path}")
    return sum(shard != name for shard in found)
