"""Flag: the ranked suspects of this moment as rows, so that plain Parquet readers have them."""

from __future__ import annotations

import duckdb
import pyarrow as pa

from schemas.stages import FLAG
from schemas.tables.registry import SUSPECTS
from tasks.job import Job
from tasks.shards import commit
from tasks.store.warehouse import shard_name


def flag(job: Job, connection: duckdb.DuckDBPyConnection, state: str) -> int:
    """Write the suspects of catalogue state `state`; returns how many.

    The ranking is a function of the state and of its judgement, so the same judgement writes the same
    shard. A state is judged anew when pairs are scored later or people have said more.
    """
    basis = judged_basis(connection)
    keyed = ("state", "basis")
    columns = ", ".join(name for name in SUSPECTS.schema.names if name not in keyed)
    rows = connection.sql(f"SELECT {columns} FROM suspects ORDER BY rank").to_arrow_table()  # noqa: S608 - our names
    rows = rows.append_column("state", [[state] * rows.num_rows])
    rows = rows.append_column("basis", pa.array([basis] * rows.num_rows, pa.int64()))
    scored = connection.execute("SELECT count(*) FROM scores").fetchall()[0][0]
    name = shard_name([state, str(scored), str(basis)])
    return commit(job, FLAG, name, {"suspects": rows}).rows


def judged_basis(connection: duckdb.DuckDBPyConnection) -> int | None:
    """The evidence that the judgement which the views show rests on; None where nothing was judged."""
    basis: int | None = connection.execute("SELECT max(basis) FROM judged_photos").fetchall()[0][0]
    return basis
