"""Compares what finished runs counted with what is stored: vanished rows, sums that do not add up."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator
from typing import Any

import duckdb

from schemas.tables.registry import TABLES
from tasks.check.damage import Damage, cure_of
from tasks.check.records import Record

_GROWS = {
    "photos": ("photos", "count(DISTINCT photo_id)"),
    "neighbours": ("neighbours", "count(*)"),
    "pairs": ("pairs", "count(DISTINCT pair_id)"),
    "scored": ("scores", "count(DISTINCT pair_id)"),
    "figures": ("explanations", "count(*)"),
}
"""A run's count -> its table and how it was taken.

Tables only grow, so there are at least as many rows now.
"""
_RUN_AGAIN = "run again: what is missing is computed"


def too_few(
    connection: duckdb.DuckDBPyConnection, record: Record, lacking: Collection[str]
) -> Iterator[Damage]:
    """Counts of finished runs that are higher than what the tables hold now.

    Tables in `lacking` are not checked, nor are runs from before files were moved aside: some of those
    rows are not needed any more.
    """
    stored = {name: _by_fingerprint(connection, *of) for name, of in _GROWS.items() if of[0] not in lacking}
    for run in _finished(connection):
        if run["run_id"] < record.moved_at:
            continue
        try:
            counts = {name: int(said) for name, said in json.loads(run["counts"] or "{}").items()}
        except (ValueError, TypeError, AttributeError):
            yield _of_run(run, "unreadable counts", "its counts are no JSON of numbers", cure_of("runs"))
            continue
        for name in stored.keys() & counts.keys():
            table = _GROWS[name][0]
            found = stored[name].get(run[f"{TABLES[table].fingerprint}_fingerprint"], 0)
            if found < counts[name]:
                what = f"it counted {counts[name]} {name}; of all that {table} holds under its settings {found} are left"
                yield _of_run(run, "missing rows", what, _RUN_AGAIN)


def newest_finished(connection: duckdb.DuckDBPyConnection) -> dict[str, Any] | None:
    """The row of the run that finished last, with its fingerprint and shard."""
    return max(_finished(connection), key=lambda run: (run["at"], run["run_id"]), default=None)


def unbalanced(
    connection: duckdb.DuckDBPyConnection, newest: dict[str, Any], record: Record, killed: Collection[str]
) -> Iterator[Damage]:
    """Sums of the run that finished last that do not add up any more.

    Nothing is found where something was written or moved since. The connection has the run's views.
    """
    from tasks.runs.log import balances  # beside the run's own log lies what reads photos

    if any(run > newest["run_id"] for run in (*record.runs, *killed, record.moved_at)):
        return
    try:
        ran = json.loads(newest["stages"] or "null")
    except ValueError:
        ran = None
    if newest["report_run"]:  # it found what an earlier run had done, in all stages
        ran = None
    for balance in balances(connection, ran if isinstance(ran, dict) else None):
        if not balance.ok:
            yield _of_run(
                newest, "unbalanced counts", f"of its rows not all are there any more: {balance}", _RUN_AGAIN
            )


def _by_fingerprint(connection: duckdb.DuckDBPyConnection, table: str, what: str) -> dict[str, int]:
    query = f"SELECT fingerprint, {what} FROM all_{table} GROUP BY fingerprint"  # noqa: S608  # names from code
    return dict(connection.sql(query).fetchall())


def _of_run(run: dict[str, Any], kind: str, what: str, cure: str) -> Damage:
    return Damage(
        kind,
        f"runs/fingerprint={run['fingerprint']}/{run['shard']}.parquet",
        f"run {run['run_id']}: {what}",
        cure,
    )


def _finished(connection: duckdb.DuckDBPyConnection) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = (
        connection.sql("FROM all_runs WHERE status = 'finished' ORDER BY run_id").to_arrow_table().to_pylist()
    )
    return rows
