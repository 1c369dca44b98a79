"""Flag: the ranked suspects of this moment as rows, so that plain Parquet readers have them."""

from __future__ import annotations

import duckdb

from schemas.stages import FLAG
from schemas.tables.registry import SUSPECTS
from tasks.job import Job
from tasks.shards import commit
from tasks.store.warehouse import shard_name


def flag(job: Job, connection: duckdb.DuckDBPyConnection, state: str) -> int:
    """Write the suspects of catalogue state `state`; returns how many.

    The ranking is a function of the state and the scores, so the same state writes the same shard.
    """
    columns = ", ".join(name for name in SUSPECTS.schema.names if name != "state")
    rows = connection.sql(f"SELECT {columns} FROM suspects ORDER BY rank").to_arrow_table()  # noqa: S608 - our names
    rows = rows.append_column("state", [[state] * rows.num_rows])
    scored = connection.execute("SELECT count(*) FROM scores").fetchall()[0][0]
    # Pairs of a state may be scored later, when failures are retried; the ranking is then made anew.
    name = shard_name([state, str(scored)])
    return commit(job, FLAG, name, {"suspects": rows}).rows
