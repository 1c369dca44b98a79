"""Relations over the stages, for the views that tell which failures still stand."""

from __future__ import annotations

import duckdb

from schemas.stages import ITEM_KEYS, STAGES, StageFacts
from schemas.tables.registry import TABLES


def failure_fingerprints() -> tuple[str, ...]:
    """The fingerprints of a run under which its stages' failures lie."""
    return tuple(dict.fromkeys(TABLES[table].fingerprint or "" for _, table in _failing()))


def install_stages(connection: duckdb.DuckDBPyConnection) -> None:
    """Create `failing_stages` (stage, items) and `made_good`, the rows that may cancel failures.

    `made_good` holds every row of a run that a failure of a stage may have stood in for, as (stage,
    fingerprint, item, chip_id, layer); a column that the row's table lacks is null. The views
    ``run_TABLE`` must be there.
    """
    connection.execute("CREATE OR REPLACE TABLE failing_stages (stage VARCHAR, items VARCHAR)").fetchall()
    for stage in STAGES.values():
        if stage.failing:
            connection.execute(
                "INSERT INTO failing_stages VALUES (?, ?)", [stage.name, stage.failing.items]
            ).fetchall()
    rows = [_rows(stage, table) for stage, table in _failing() if _made_good_by_a_row(stage)]
    connection.execute(f"CREATE OR REPLACE VIEW made_good AS {' UNION ALL '.join(rows)}").fetchall()


def sources_of_made_good() -> set[str]:
    """The relations that `made_good` reads."""
    return {f"run_{table}" for stage, table in _failing() if _made_good_by_a_row(stage)}


def _failing() -> list[tuple[StageFacts, str]]:
    """Stages of a run with each table that their failures stand in for."""
    return [
        (stage, table)
        for stage in STAGES.values()
        if stage.failing
        for table in stage.failing.tables
        if TABLES[table].fingerprint
    ]


def _made_good_by_a_row(stage: StageFacts) -> bool:
    return stage.failing is not None and stage.failing.made_good_by == "row"


def _rows(stage: StageFacts, table: str) -> str:
    """The rows of one table, in the columns of `made_good`; all names in the SQL come from code."""
    assert stage.failing
    present = TABLES[table].schema.names
    chip, layer = (
        name if name in present else f"CAST(NULL AS VARCHAR) AS {name}" for name in ("chip_id", "layer")
    )
    item = ITEM_KEYS[stage.failing.items][0]
    return f"SELECT '{stage.name}' AS stage, fingerprint, {item} AS item, {chip}, {layer} FROM run_{table}"  # noqa: S608
