"""The relation `compared_runs`: the two finished runs that the views of what is new compare.

A run's catalogue, pairs and suspects are looked up by its state and by the evidence of its judgement, under its
own fingerprints. So any two runs can be compared, also two with different models.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any

import duckdb

from schemas.errors import WarehouseError

_OF_A_SIDE = {
    "at": "TIMESTAMP WITH TIME ZONE",
    "state": "VARCHAR",
    "basis": "BIGINT",
    "photos_fingerprint": "VARCHAR",
    "judgements_fingerprint": "VARCHAR",
    "suspects_fingerprint": "VARCHAR",
}
_ABOUT = {
    "at": "when it finished; null while it is under way",
    "state": "hash of the state of the catalogue that it saw",
    "basis": "evidence that its judgement rests on; null where the run did not say",
    "photos_fingerprint": "partition of its photos",
    "judgements_fingerprint": "partition of its judgement",
    "suspects_fingerprint": "partition of its suspects",
}
COMPARED_ABOUT = "one row: the two runs that new_photos, new_suspects and the like compare"
COMPARED_COLUMNS: dict[str, str] = {
    "earlier": "run that is compared with; null where the later one is the first",
    "later": "run whose news are shown",
    **{
        f"{side}_{name}": f"of the {side} run: {about}"
        for side in ("earlier", "later")
        for name, about in _ABOUT.items()
    },
}
"""Columns of `compared_runs`, in words."""
_FINISHED = f"""
    SELECT run_id, "at", {", ".join(list(_OF_A_SIDE)[1:])} FROM all_runs
    WHERE status = 'finished' AND state IS NOT NULL
    QUALIFY row_number() OVER (PARTITION BY run_id ORDER BY "at" DESC, shard) = 1
    ORDER BY "at" DESC, run_id DESC
"""  # noqa: S608  # constants
_NEAR = 3


def install_compared_runs(
    connection: duckdb.DuckDBPyConnection, current: Mapping[str, Any], since: str | None = None
) -> None:
    """Create the table `compared_runs`; its row is absent where the current run has no state yet.

    `current` are the columns of `current_run`, the later of the two; `since` is the id of the earlier one, by
    default the last finished before it. Raises `WarehouseError` for an id of no finished run before it.
    """
    found = connection.execute(_FINISHED)
    names = [column[0] for column in found.description]
    finished = [dict(zip(names, row, strict=True)) for row in found.fetchall()]
    own = next((run for run in finished if run["run_id"] == current.get("run_id")), None)
    place = finished.index(own) + 1 if own else 0
    before = finished[place:]
    if since is not None:
        _require(since, [run["run_id"] for run in before], current.get("run_id"))
        before = [run for run in before if run["run_id"] == since]

    sides = {"earlier": before[0] if before else {}, "later": own or dict(current)}
    kinds = {"earlier": "VARCHAR", "later": "VARCHAR"}
    kinds |= {f"{side}_{name}": kind for side in sides for name, kind in _OF_A_SIDE.items()}
    columns = ", ".join(f"{name} {kind}" for name, kind in kinds.items())
    connection.execute(f"CREATE OR REPLACE TABLE compared_runs ({columns})").fetchall()
    if sides["later"].get("state") is None:
        return
    row = [run.get("run_id") for run in sides.values()]
    row += [run.get(name) for run in sides.values() for name in _OF_A_SIDE]
    marks = ", ".join("?" for _ in row)
    connection.execute(f"INSERT INTO compared_runs VALUES ({marks})", row).fetchall()  # noqa: S608  # marks


def _require(since: str, before: list[str], later: str | None) -> None:
    if since in before:
        return
    near = difflib.get_close_matches(since, before, _NEAR) or before[:_NEAR]
    there = f"there are {', '.join(near)}" if near else "there is none"
    raise WarehouseError(
        f"no run {since!r} finished before {later or 'any other'}: {there}",
        "SELECT run_id, status FROM runs lists all",
    )
