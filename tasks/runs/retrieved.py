"""What earlier runs retrieved: whether anything is left to search, and what a search can build on."""

from __future__ import annotations

from contextlib import suppress
from itertools import chain
from pathlib import PurePosixPath

import duckdb

from tasks.job import Job
from tasks.store.inventory import committed
from tasks.store.warehouse import Warehouse

_STATES_KEPT = 2
_OF_A_STATE = ("galleries", "horizons")


def unchanged(
    connection: duckdb.DuckDBPyConnection, pairs_fingerprint: str, state: str, neighbours: int
) -> bool:
    """Whether a finished run has retrieved the pairs of just this catalogue state.

    All of them must still be there, and so must its neighbours, at least as many per photo as are asked
    for. Tables only grow, so stored neighbours are counted without ranking them.
    """
    found = connection.execute(
        """
        SELECT 1 FROM all_runs
        WHERE status = 'finished' AND pairs_fingerprint = ? AND state = ?
          AND CASE
              WHEN json_valid(counts) AND json_valid(settings) THEN
                  TRY_CAST(counts ->> 'pairs' AS BIGINT) = (SELECT count(*) FROM pairs)
                  AND coalesce(TRY_CAST(counts ->> 'neighbours' AS BIGINT), 0) <= (SELECT count(*) FROM run_neighbours)
                  AND coalesce(TRY_CAST(settings ->> 'neighbours' AS INTEGER), 0) >= ?
          END
        LIMIT 1
        """,
        [pairs_fingerprint, state, neighbours],
    ).fetchall()
    return bool(found)


def retrieved_state(connection: duckdb.DuckDBPyConnection, job: Job) -> str | None:
    """The state that the newest finished run of these settings retrieved, if all of it is still there.

    None where a file of neighbours or pairs that was recorded is gone, or was moved aside since.
    """
    prints = job.prints
    newest = connection.execute(
        """
        SELECT state, run_id FROM all_runs
        WHERE status = 'finished' AND pairs_fingerprint = ? AND state IS NOT NULL
          AND CASE WHEN json_valid(settings) THEN TRY_CAST(settings ->> 'neighbours' AS INTEGER) END = ?
        ORDER BY run_id DESC LIMIT 1
        """,
        [prints.pairs, job.settings.neighbours],
    ).fetchone()
    if newest is None:
        return None
    state, run_id = newest
    for table, partition in (("neighbours", prints.of("neighbours")), ("pairs", prints.pairs)):
        folder = f"{table}/fingerprint={partition}/"
        recorded = connection.execute(
            """
            SELECT path, bool_or(digest IS NOT NULL), run_id FROM all_files WHERE starts_with(path, ?)
            GROUP BY path, run_id QUALIFY row_number() OVER (PARTITION BY path ORDER BY run_id DESC) = 1
            """,
            [folder],
        ).fetchall()
        there = job.warehouse.shards(table, partition)
        for path, kept, told_by in recorded:
            present = path.removeprefix(folder).removesuffix(".parquet") in there
            if (kept and not present) or (not kept and told_by > run_id):
                return None
    return str(state)


def remove_old_states(connection: duckdb.DuckDBPyConnection, warehouse: Warehouse) -> list[str]:
    """Remove the galleries and horizons of states that finished runs left behind; returns their paths.

    Of each choice of settings the last two states stay: a night builds on the newest one. Nothing else reads
    them, and what they hold can be made again.
    """
    rows = connection.execute(
        """
        SELECT state, row_number() OVER (PARTITION BY pairs_fingerprint ORDER BY max("at") DESC) <= ?
        FROM all_runs WHERE status = 'finished' AND state IS NOT NULL GROUP BY pairs_fingerprint, state
        """,
        [_STATES_KEPT],
    ).fetchall()
    left = {state for state, _ in rows} - {state for state, kept in rows if kept}
    removed = []
    for path in chain.from_iterable(committed(warehouse.storage, _OF_A_STATE).values()):
        if PurePosixPath(path).stem.partition("-")[0] in left:
            with suppress(FileNotFoundError):  # another run was faster
                warehouse.filesystem.rm_file(path)
                removed.append(path)
    return removed
