"""Puts the views of `views.sql` and `suspects.sql` over a warehouse's files into a DuckDB connection.

Three levels: ``all_TABLE`` is every committed row; ``run_TABLE`` is what is stored under the fingerprints of one run, the
one row of the table `current_run`; and the views of the SQL files pick from those rows what is current.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from importlib.resources import files as package_files
from typing import Any, Protocol

import duckdb
import pyarrow as pa

from schemas.columns import Table
from schemas.errors import WarehouseError
from schemas.stage_views import failure_fingerprints, install_stages
from schemas.tables import FINGERPRINTS, TABLES

RUN_COLUMNS: dict[str, str] = {
    "run_id": "VARCHAR",
    "status": "VARCHAR",
    **{f"{name}_fingerprint": "VARCHAR" for name in FINGERPRINTS},
    "layer": "VARCHAR",
    "top_k": "INTEGER",
    "same_name_k": "INTEGER",
    "state": "VARCHAR",
    "same_species": "BOOLEAN",
    "same_viewpoint": "BOOLEAN",
}
"""Columns of `current_run`. The last two come from the run's settings."""

NARROW = (
    "photos",
    "pairs",
    "failures",
    "scores",
    "pair_scores",
    "duplicates",
    "identities",
    "typical",
    "evidence",
    "suspects",
)
"""Views without lists or pictures: `materialise` turns them into tables."""

_TYPES: dict[pa.DataType, str] = {
    pa.string(): "VARCHAR",
    pa.bool_(): "BOOLEAN",
    pa.int16(): "SMALLINT",
    pa.int32(): "INTEGER",
    pa.int64(): "BIGINT",
    pa.uint64(): "UBIGINT",
    pa.float16(): "FLOAT",
    pa.float32(): "FLOAT",
    pa.float64(): "DOUBLE",
    pa.binary(): "BLOB",
    pa.timestamp("us", tz="UTC"): "TIMESTAMP WITH TIME ZONE",
}
_READ = """
    SELECT *, parse_filename(filename, true) AS shard
    FROM read_parquet(?, filename = true, union_by_name = true, hive_types = {'fingerprint': VARCHAR})
"""
"""Without `hive_types` a fingerprint of digits alone would come out as a number."""


class Store(Protocol):
    """What the views need of a warehouse."""

    def files(self, table: str, fingerprint: str | None = None) -> list[str]:
        """Committed files of a table or one of its partitions, as DuckDB opens them."""

    def attach(self, connection: duckdb.DuckDBPyConnection) -> None:
        """Let the connection open those files."""


Run = str | Mapping[str, Any] | None


def partitions() -> dict[str, tuple[str, ...]]:
    """Table -> the fingerprints of a run that its rows are stored under. A failure lies under that of what it is missing from."""
    found = {table.name: (table.fingerprint,) for table in TABLES.values() if table.fingerprint}
    return found | {"failures": failure_fingerprints()}


def install_stored_views(connection: duckdb.DuckDBPyConnection, store: Store) -> None:
    """Create ``all_TABLE`` for every table: every committed row of every fingerprint, with `fingerprint` and `shard`."""
    store.attach(connection)
    for table in TABLES.values():
        _stored(connection, table, store.files(table.name)).create_view(f"all_{table.name}", replace=True)


def install_views(
    connection: duckdb.DuckDBPyConnection,
    store: Store,
    run: Run = None,
    materialise: bool | Collection[str] = False,
) -> None:
    """Create ``all_TABLE``, `current_run`, ``run_TABLE`` and the current views in an in-memory connection.

    `run` says whose fingerprints count: None for the newest finished run (or else the newest started), the id of a run,
    or the columns of `current_run` themselves, for use inside a run that has not been written yet; absent columns are
    null, false for `same_species` and `same_viewpoint`. Without any run the views are empty. Views see the files that are
    committed now: install them again to see later ones. `materialise` computes views once and keeps them as tables, for
    repeated use: those named, or with True all of `NARROW`. Raises `WarehouseError` for an unknown run.
    """
    kept = NARROW if materialise is True else materialise or ()
    install_stored_views(connection, store)
    current = dict(run) if isinstance(run, Mapping) else _stored_run(connection, run)
    _install_current_run(connection, current)
    for name, prints in partitions().items():
        chosen = dict.fromkeys(
            current[f"{each}_fingerprint"] for each in prints if current.get(f"{each}_fingerprint")
        )
        paths = [path for fingerprint in chosen for path in store.files(name, fingerprint)]
        _stored(connection, TABLES[name], paths).create_view(f"run_{name}", replace=True)
    install_stages(connection)
    for name, statement in _statements():
        _install(connection, name, statement, name in kept)


def view_names() -> tuple[str, ...]:
    """Names of the current views, in the order in which the SQL files define them."""
    return tuple(name for name, _ in _statements() if name)


def _statements() -> list[tuple[str, str]]:
    """(name of the view, statement) of the SQL files; a macro's name is empty."""
    found = []
    for file in ("views.sql", "suspects.sql"):
        text = package_files("schemas").joinpath(file).read_text(encoding="utf-8")
        for statement in duckdb.extract_statements(text):
            _, is_view, rest = statement.query.partition("CREATE OR REPLACE VIEW ")
            found.append((rest.split(maxsplit=1)[0] if is_view else "", statement.query.strip()))
    return found


def _install(connection: duckdb.DuckDBPyConnection, name: str, statement: str, as_table: bool) -> None:
    for kind, catalogue in (("VIEW", "duckdb_views()"), ("TABLE", "duckdb_tables()")):
        found = f"SELECT 1 FROM {catalogue} WHERE {kind.lower()}_name = ? AND NOT internal"  # noqa: S608  # constants
        if name and connection.execute(found, [name]).fetchall():
            connection.execute(f"DROP {kind} {name}").fetchall()
    if as_table:
        statement = statement.replace("CREATE OR REPLACE VIEW", "CREATE TABLE", 1)
    connection.execute(statement).fetchall()


def _stored_run(connection: duckdb.DuckDBPyConnection, run_id: str | None) -> dict[str, Any]:
    """The columns of `current_run` from the runs table; empty when there is no run at all."""
    wanted = [name for name in RUN_COLUMNS if name in TABLES["runs"].schema.names]
    rows = connection.execute(
        f"""
        SELECT {", ".join(wanted)}, settings FROM all_runs
        WHERE run_id = coalesce($run_id, run_id)
        ORDER BY status = 'finished' DESC, "at" DESC, run_id DESC
        LIMIT 1
        """,  # noqa: S608  # constants
        {"run_id": run_id},
    ).fetchall()
    if not rows:
        if run_id is not None:
            raise WarehouseError(f"the warehouse has no run {run_id!r}", "SELECT run_id FROM runs lists them")
        return {}
    *values, text = rows[0]
    settings = json.loads(text)
    rules = {name: bool(settings.get(name, False)) for name in ("same_species", "same_viewpoint")}
    return dict(zip(wanted, values, strict=True)) | rules


def _install_current_run(connection: duckdb.DuckDBPyConnection, current: Mapping[str, Any]) -> None:
    unknown = sorted(set(current) - set(RUN_COLUMNS))
    if unknown:
        raise WarehouseError(
            f"current_run has no column {', '.join(unknown)}", f"it has {', '.join(RUN_COLUMNS)}"
        )
    columns = ", ".join(f"{name} {kind}" for name, kind in RUN_COLUMNS.items())
    connection.execute(f"CREATE OR REPLACE TABLE current_run ({columns})").fetchall()
    if current:
        values = {"same_species": False, "same_viewpoint": False, **current}
        marks = ", ".join("?" for _ in RUN_COLUMNS)
        row = [values.get(name) for name in RUN_COLUMNS]
        connection.execute(f"INSERT INTO current_run VALUES ({marks})", row).fetchall()  # noqa: S608  # marks


def _stored(connection: duckdb.DuckDBPyConnection, table: Table, paths: list[str]) -> duckdb.DuckDBPyRelation:
    """The rows of the files, or none of the same types; columns that older files lack are null."""
    kinds = {field.name: _type(field.type) for field in table.schema}
    if not paths:
        columns = [f'CAST(NULL AS {kind}) AS "{name}"' for name, kind in kinds.items()]
        columns += ["CAST(NULL AS VARCHAR) AS fingerprint", "CAST(NULL AS VARCHAR) AS shard"]
        return connection.sql(f"SELECT {', '.join(columns)} WHERE false")
    rows = connection.sql(_READ, params=[paths])
    present = set(rows.columns)
    columns = [
        f'CAST("{name}" AS {kind}) AS "{name}"' if name in present else f'CAST(NULL AS {kind}) AS "{name}"'
        for name, kind in kinds.items()
    ]
    return rows.project(", ".join([*columns, "fingerprint", "shard"]))


def _type(kind: pa.DataType) -> str:
    """DuckDB's name of an Arrow type as it comes out of Parquet, where every list is of free length."""
    if pa.types.is_list(kind) or pa.types.is_fixed_size_list(kind):
        return f"{_type(kind.value_type)}[]"
    return _TYPES[kind]
