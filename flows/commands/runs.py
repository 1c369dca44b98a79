"""`pairx runs`: what runs there were, how they ended, what they cost."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import duckdb
import pyarrow as pa

from flows.commands.ask import analyst, width_for
from schemas.errors import NoRun, did_you_mean
from tasks.sql.columns import in_plain_types
from tasks.sql.results import format_result, known_format
from tasks.sql.stoppable import TimeLimit, stoppable
from tasks.store.lease import present_owner
from tasks.store.warehouse import Warehouse

_RUNS = """
WITH told AS (
    SELECT *, if(json_valid(counts), counts, NULL) AS counted, if(json_valid(stages), stages, NULL) AS staged FROM runs
)
SELECT
    run_id,
    strftime(started_at AT TIME ZONE 'UTC', '%Y-%m-%d %H:%M') AS started,
    CASE
        WHEN status <> 'started' THEN status
        WHEN started_at >= $since THEN 'running'
        ELSE 'interrupted'
    END AS state,
    if(status = 'started', NULL, round(seconds, 1)) AS seconds,
    TRY_CAST(counted ->> 'photos' AS BIGINT) AS photos,
    TRY_CAST(counted ->> 'new_photos' AS BIGINT) AS new,
    TRY_CAST(counted ->> 'pairs' AS BIGINT) AS pairs,
    TRY_CAST(counted ->> 'suspects' AS BIGINT) AS suspects,
    TRY_CAST(counted ->> 'failures' AS BIGINT) AS failures,
    TRY_CAST(staged -> 'score' ->> 'items' AS BIGINT) AS scored,
    round(processor_seconds, 1) AS processor_seconds,
    round(1000 * processor_seconds / nullif(scored, 0), 1) AS per_1000_pairs,
    {price}
    message
FROM told
ORDER BY run_id DESC
LIMIT $top
"""
_PRICE = "round($price / 3600 * 1000 * processor_seconds / nullif(scored, 0), 4) AS cost_per_1000_pairs,"
_STAGES = """
SELECT
    run_id,
    stage,
    round(TRY_CAST(said ->> 'seconds' AS DOUBLE), 2) AS seconds,
    TRY_CAST(said ->> 'items' AS BIGINT) AS items,
    round(items / nullif(TRY_CAST(said ->> 'seconds' AS DOUBLE), 0), 1) AS per_second,
    TRY_CAST(said ->> 'failed' AS BIGINT) AS failed,
    TRY_CAST(said ->> 'shards' AS BIGINT) AS shards,
    round(TRY_CAST(said ->> 'worker_seconds' AS DOUBLE), 2) AS worker_seconds,
    round(TRY_CAST(said ->> 'processor_seconds' AS DOUBLE), 2) AS processor_seconds,
    {parts}
FROM (
    SELECT run_id, unnest(json_keys(stages)) AS stage, stages -> stage AS said
    FROM (FROM runs WHERE json_valid(stages) ORDER BY run_id DESC LIMIT $top)
)
ORDER BY run_id DESC
"""
_ONE = "FROM runs WHERE run_id = $run"


def print_runs(
    warehouse: str, run_id: str | None, top: int, stages: bool, price: float | None, output: str, wide: bool
) -> None:
    """Print runs, newest first, or their stages, or the whole record of one.

    `price` is that of one processor for an hour. Raises `NoWarehouse` where there is none, `NoRun` for an unknown
    run, `QueryError` for an unknown format.
    """
    kind = known_format(output)
    if run_id is not None:
        found = _asked(warehouse, _ONE, {"run": run_id})
        if not found.num_rows:
            raise _unknown(warehouse, run_id)
        kind = "records" if kind == "table" else kind
    elif stages:
        from tasks.costs import PARTS

        parts = ", ".join(
            f"round(TRY_CAST(said -> 'parts' ->> '{part}' AS DOUBLE), 2) AS {part}" for part in PARTS
        )
        found = _asked(warehouse, _STAGES.format(parts=parts), {"top": top})
    else:
        given: dict[str, Any] = {"top": top, "since": _at_work_since(warehouse)}
        given |= {} if price is None else {"price": price}
        found = _asked(warehouse, _RUNS.format(price="" if price is None else _PRICE), given)
    print(format_result(found, kind, width_for(wide)))


def _asked(warehouse: str, query: str, given: dict[str, Any]) -> pa.Table:
    def ask(connection: duckdb.DuckDBPyConnection) -> pa.Table:
        return in_plain_types(connection.sql(query, params=given)).to_arrow_table()

    with analyst(warehouse, "SELECT * FROM runs, all_runs") as connection:
        return stoppable(connection, lambda: ask(connection), TimeLimit())


def _at_work_since(warehouse: str) -> datetime | None:
    """When the run that is at work now took the warehouse; None where none is."""
    place = Warehouse(warehouse)
    place.require()
    owner = present_owner(place)
    return None if owner is None else owner.since


def _unknown(warehouse: str, run_id: str) -> NoRun:
    known = _asked(warehouse, "SELECT run_id FROM runs", {})["run_id"].to_pylist()
    return NoRun(
        f"the warehouse has no run {run_id!r}{did_you_mean(run_id, known)}", "`pairx runs` lists them"
    )
