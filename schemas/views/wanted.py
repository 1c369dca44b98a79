"""Creates only the views that one question reads; lists no other table and opens no other file.

On an object store every table costs a listing and every file a request, so a question about the newest run
must not pay for all that the warehouse holds.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from itertools import chain
from pathlib import PurePosixPath
from typing import Any

import duckdb

from schemas.errors import SettingsError
from schemas.sql.files import view_files
from schemas.tables.registry import TABLES
from schemas.views.compared import install_compared_runs
from schemas.views.graph import ViewGraph, relations, syntax_tree
from schemas.views.install import (
    READ_SNAPSHOT,
    Store,
    install_current_run,
    install_macros,
    install_rows,
    partitions,
    run_partitions,
    stored_run,
)
from schemas.views.snapshots import definition, whole_snapshot
from schemas.views.stages import install_stages, sources_of_made_good

_ENOUGH_RUNS = 3
"""How many of the last finished runs are read to find the newest two.

File names sort runs by their starts, but the newest is the one that ended last. Runs hardly ever overlap.
"""
_PLAIN_FUNCTIONS = frozenset({"unnest", "range", "generate_series"})
"""Functions whose tables come from their arguments alone."""


def views_of(query: str) -> set[str] | None:
    """The views and tables that a query reads; None where that cannot be told.

    The same for a query that asks which views or tables there are.
    """
    try:
        named = {name.lower() for name in relations("the query", query)}
        plain = all(map(_is_plain, _parts(syntax_tree(query))))
    except (
        SettingsError,
        RecursionError,
        ValueError,
        duckdb.Error,
    ):  # whoever runs it will say what is wrong
        return None
    ours = {
        "current_run",
        "compared_runs",
        *view_files(),
        *_rows_of("all", TABLES),
        *_rows_of("run", partitions()),
    }
    return named if plain and named <= ours else None


def _is_plain(part: dict[str, Any]) -> bool:
    match part.get("type"):
        case "SHOW_REF":
            return not part["table_name"]
        case "BASE_TABLE":
            return part["schema_name"] in ("", "main")
        case "TABLE_FUNCTION":
            return part["function"]["function_name"] in _PLAIN_FUNCTIONS
    return True


def _parts(tree: Any) -> Iterator[dict[str, Any]]:
    if isinstance(tree, dict):
        yield tree
    for part in tree.values() if isinstance(tree, dict) else tree if isinstance(tree, list) else ():
        yield from _parts(part)


def install_wanted(
    connection: duckdb.DuckDBPyConnection,
    store: Store,
    wanted: Collection[str],
    run_id: str | None = None,
    since: str | None = None,
) -> None:
    """Create the views of `views_of` in an in-memory connection, and what they read.

    They show the same rows as those of `install_views`. Raises `WarehouseError` for an unknown run, as
    `run_id` or `since`.
    """
    look = store.inventory()
    look.attach(connection)
    install_macros(connection)
    files = look.files(["runs"])
    runs = _newest(files["runs"]) if run_id is None and since is None else files["runs"]
    look.ready(runs)
    install_rows(connection, "all", "runs", runs)
    current = stored_run(connection, run_id)
    graph = ViewGraph(view_files())
    snapshot: dict[str, list[str]] = {}
    if (name := current.get("snapshot")) and name.partition("-")[0] == definition(graph):
        snapshot = whole_snapshot(look.snapshot(name))
    if current and not snapshot:
        current["snapshot"] = None
    install_current_run(connection, current)
    install_compared_runs(connection, current, since)

    computed = graph.views_behind([name for name in wanted if name not in snapshot], snapshot)
    read = set(wanted).union(*(graph.reads[name] for name in computed))
    if "made_good" in read:
        read |= sources_of_made_good()
    tables = [table for table in TABLES if table != "runs" and read & {f"all_{table}", f"run_{table}"}]
    files |= look.files(tables)
    rows = {("all", table): files[table] for table in files}
    for table, prints in partitions().items():
        folders = run_partitions(current, prints)
        rows["run", table] = [f for f in files.get(table, ()) if PurePosixPath(f).parent.name in folders]
    shown = {key: found for key, found in rows.items() if "_".join(key) in read}
    kept = {name: found for name, found in snapshot.items() if name in read}
    look.ready(chain(*shown.values(), *kept.values()))
    for (level, table), found in shown.items():
        install_rows(connection, level, table, found)
    if read & {"made_good", "failing_stages"}:
        install_stages(connection)
    for name, found in kept.items():
        connection.sql(READ_SNAPSHOT, params=[found]).create_view(name)
    for name in computed:
        if name in wanted:
            connection.execute(f"CREATE VIEW {name} AS {graph.query(name, snapshot)}").fetchall()


def _rows_of(level: str, tables: Collection[str]) -> set[str]:
    return {f"{level}_{table}" for table in tables}


def _newest(runs: Sequence[str]) -> list[str]:
    """Files of `runs` among whose rows the newest finished run is, or else the newest."""
    by_name = sorted(runs, key=lambda file: PurePosixPath(file).stem)
    finished = [file for file in by_name if PurePosixPath(file).stem.endswith("-finished")]
    return (finished or by_name)[-_ENOUGH_RUNS:]
