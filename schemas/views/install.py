"""Creates the views over a warehouse's files in a DuckDB connection and keeps them up to date.

Three levels: ``all_TABLE`` is every committed row; ``run_TABLE`` is what is stored under the fingerprints of
one run, the one row of the table `current_run`; and the views of the SQL files pick from those rows what is
current. Tables only grow: new photos displace old neighbours, corrected names and withdrawn photos take
effect, and nothing is rewritten. A killed run can leave rows that a later run computes again in another
shard: of equal keys the first shard counts. Where a finished run kept a snapshot of some views, these read
its files instead; the SQL files stay the definition.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from itertools import chain
from pathlib import PurePosixPath
from typing import Any, Protocol

import duckdb
import pyarrow as pa

from schemas.errors import NoRun, WarehouseError, did_you_mean
from schemas.sql.files import macro_texts, view_files
from schemas.stored_settings import chosen, stored_settings
from schemas.tables.columns import Table
from schemas.tables.registry import FINGERPRINTS, TABLES
from schemas.thresholds import THRESHOLDS
from schemas.views.compared import install_compared_runs
from schemas.views.graph import ViewGraph
from schemas.views.snapshots import definition, snapshot_name, whole_snapshot
from schemas.views.stages import failure_fingerprints, install_stages, sources_of_made_good

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
    "other_name_k": "INTEGER",
    "references": "INTEGER",
    "neighbours": "INTEGER",
    "snapshot": "VARCHAR",
}
"""Columns of `current_run`."""
FROM_SETTINGS: dict[str, Any] = {
    "same_species": False,
    "same_viewpoint": False,
    "other_name_k": 0,
    "references": 0,
    "neighbours": 0,
}
"""Columns of `current_run` from a run's settings, with their values in runs without the setting."""

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
"""The rows of files; without `hive_types` a fingerprint of digits would come out as a number."""
READ_SNAPSHOT = "FROM read_parquet(?, hive_partitioning = false)"
_RELATIONS = """
    SELECT view_name, 'VIEW' FROM duckdb_views() WHERE NOT internal
    UNION ALL SELECT table_name, 'TABLE' FROM duckdb_tables() WHERE NOT internal
"""


class Files(Protocol):
    """A look at the files of a store."""

    def files(self, tables: Collection[str]) -> dict[str, list[str]]:
        """Table -> its files committed by now, as DuckDB opens them, each in a folder ``fingerprint=F``."""

    def attach(self, connection: duckdb.DuckDBPyConnection) -> None:
        """Let the connection open those files."""

    def snapshot(self, name: str) -> list[str]:
        """All files in a snapshot's folder, as DuckDB opens them; none where there is no such folder."""

    def ready(self, files: Iterable[str]) -> None:
        """Prepare files for reading; `WarehouseError` for those of a newer version of the program."""


class Store(Protocol):
    """What the views need of a warehouse."""

    def inventory(self) -> Files:
        """Look at its files."""


class NoFiles:
    """A store without a file, to describe the views when there is no warehouse at hand."""

    def inventory(self) -> Files:
        """Itself."""
        return self

    def files(self, tables: Collection[str]) -> dict[str, list[str]]:
        """No file of any table."""
        return {table: [] for table in tables}

    def attach(self, connection: duckdb.DuckDBPyConnection) -> None:
        """There is nothing to open."""

    def snapshot(self, name: str) -> list[str]:
        """No file of any snapshot."""
        return []

    def ready(self, files: Iterable[str]) -> None:
        """There is nothing to read."""


Run = str | Mapping[str, Any] | None


def partitions() -> dict[str, tuple[str, ...]]:
    """Table -> the fingerprints of a run that its rows are stored under.

    A failure lies under the fingerprint of the table in which its row is missing.
    """
    found = {table.name: (table.fingerprint,) for table in TABLES.values() if table.fingerprint}
    return found | {"failures": failure_fingerprints()}


def install_stored_views(connection: duckdb.DuckDBPyConnection, store: Store) -> None:
    """Create ``all_TABLE`` for every table: all committed rows, with `fingerprint` and `shard`."""
    look = store.inventory()
    look.attach(connection)
    found = look.files(TABLES)
    look.ready(chain.from_iterable(found.values()))
    for name, files in found.items():
        install_rows(connection, "all", name, files)


def install_views(
    connection: duckdb.DuckDBPyConnection,
    store: Store,
    run: Run = None,
    materialise: bool | Collection[str] = False,
    wanted: Collection[str] | None = None,
    since: str | None = None,
) -> None:
    """Create ``all_TABLE``, `current_run`, ``run_TABLE`` and the current views in an in-memory connection.

    They see the files that are committed now; `Views` brings them up to date later. See `Views.refresh`.
    """
    Views(connection, store).refresh(run, materialise, wanted, since)


class Views:
    """All views over one warehouse in an in-memory connection; each `refresh` brings them up to date."""

    def __init__(self, connection: duckdb.DuckDBPyConnection, store: Store) -> None:
        self._connection = connection
        self._store = store.inventory()
        self._graph = ViewGraph(view_files())
        self._written = set(TABLES)
        self._files: dict[str, list[str]] = {}
        self._run_files: dict[str, list[str]] = {}
        self._snapshot: dict[str, list[str]] = {}
        self._current: dict[str, Any] | None = None
        self._kinds: dict[str, str] = {}
        self._forms: dict[str, tuple[str, bool]] = {}

    def wrote(self, tables: Iterable[str]) -> None:
        """Say that rows may have been committed to some tables: the next `refresh` lists their files again.

        Raises `KeyError` for an unknown table.
        """
        self._written |= {TABLES[table].name for table in tables}

    def refresh(
        self,
        run: Run = None,
        materialise: bool | Collection[str] = False,
        wanted: Collection[str] | None = None,
        since: str | None = None,
    ) -> None:
        """See what is committed now in the tables that were written, and look at a run.

        `run` says whose fingerprints count: None for the newest finished run (or else the newest
        started), the id of a run, or the columns of `current_run` themselves, for use inside a run
        that has not been written yet. Absent columns are null, or as `FROM_SETTINGS` says. Without
        any run the views are empty. Views that the newest finished run kept a snapshot of read its
        files. `materialise` computes other views once and keeps them as tables, for repeated use:
        those named, or with True all that are narrow. They are computed again only when a source of
        theirs was written. Of the current views only those `wanted` are brought up to date, beside
        those that are tables or files, or all of them: to create one takes about as long as to plan
        its query. `since` is the run that news are told against (`install_compared_runs`). Raises
        `WarehouseError` for an unknown run.
        """
        if self._current is None:
            install_macros(self._connection)
            self._store.attach(self._connection)
            self._kinds = dict(self._connection.execute(_RELATIONS).fetchall())
        listed = self._store.files([name for name in TABLES if name in self._written])
        moved = {name for name, files in listed.items() if files != self._files.get(name)}
        self._store.ready(path for name in moved for path in listed[name])
        for name in moved:
            install_rows(self._connection, "all", name, listed[name])
        files = self._files | listed
        current = dict(run) if isinstance(run, Mapping) else stored_run(self._connection, run)
        snapshot = self._files_of(current.get("snapshot"))
        if current and not snapshot:
            current["snapshot"] = None
        changed = {f"{level}_{name}" for level in ("all", "run") for name in self._written}
        if current != self._current:
            install_current_run(self._connection, current)
            changed.add("current_run")
        install_compared_runs(self._connection, current, since)
        for name, prints in partitions().items():
            before, now = (run_partitions(columns or {}, prints) for columns in (self._current, current))
            if name in moved or before != now:
                paths = [
                    path for part in now for path in files[name] if PurePosixPath(path).parent.name == part
                ]
                if paths == files[name]:  # all rows are the run's: no need to open their files once more
                    self._connection.execute(
                        f"CREATE OR REPLACE VIEW run_{name} AS FROM all_{name}"
                    ).fetchall()
                else:
                    install_rows(self._connection, "run", name, paths)
                self._run_files[name] = paths
                changed.add(f"run_{name}")
        if self._current is None:
            install_stages(self._connection)
        if changed & sources_of_made_good():
            changed.add("made_good")
        kept = set(self._graph.narrow() if materialise is True else materialise or ()) - snapshot.keys()
        if snapshot != self._snapshot:
            changed.update(*map(self._graph.sources, kept))
        self._install(kept, changed, snapshot, wanted)
        self._files, self._current, self._snapshot = files, current, snapshot
        self._written.clear()

    def snapshot_name(self) -> str:
        """What a snapshot of the rows that are seen now is called; `refresh` must have been called."""
        files = {f"all_{name}": paths for name, paths in self._files.items()}
        files |= {f"run_{name}": paths for name, paths in self._run_files.items()}
        return snapshot_name(self._graph, self._current or {}, files)

    def _files_of(self, snapshot: str | None) -> dict[str, list[str]]:
        """View -> files of a snapshot; none unless it is whole and was made by the same SQL."""
        if snapshot is None or snapshot.partition("-")[0] != definition(self._graph):
            return {}
        found = whole_snapshot(self._store.snapshot(snapshot))
        if found != self._snapshot:
            self._store.ready(chain.from_iterable(found.values()))
        return found

    def _install(
        self,
        kept: Collection[str],
        changed: set[str],
        snapshot: Mapping[str, list[str]],
        wanted: Collection[str] | None,
    ) -> None:
        """Create the views that are not there in the wanted form, and the tables whose sources changed."""
        for name in self._graph.views:
            if name in snapshot:
                form = ("\n".join(snapshot[name]), False)
            else:
                form = (self._graph.query(name, {*kept, *snapshot}), name in kept)
            if form != self._forms.get(name) or (name in kept and self._graph.sources(name) & changed):
                if wanted is None or name in wanted or name in kept or name in snapshot:
                    self._replace(name, form, snapshot.get(name))
                else:
                    self._forms.pop(name, None)  # when it is wanted again it is created anew

    def _replace(self, name: str, form: tuple[str, bool], files: list[str] | None) -> None:
        """Create a view over its query or over a snapshot's files, or a table; replaces what has the name."""
        if kind := self._kinds.pop(name, None):
            self._connection.execute(f"DROP {kind} {name}").fetchall()
        self._forms.pop(name, None)
        query, as_table = form
        kind = "TABLE" if as_table else "VIEW"
        if files:
            self._connection.sql(READ_SNAPSHOT, params=[files]).create_view(name)
        else:
            self._connection.execute(f"CREATE {kind} {name} AS {query}").fetchall()
        self._kinds[name], self._forms[name] = kind, form


def run_partitions(current: Mapping[str, Any], prints: Iterable[str]) -> list[str]:
    """Folders of the rows that a run stores under some of its fingerprints."""
    found = (current.get(f"{name}_fingerprint") for name in prints)
    return [f"fingerprint={fingerprint}" for fingerprint in dict.fromkeys(found) if fingerprint]


def install_macros(connection: duckdb.DuckDBPyConnection) -> None:
    """Create the thresholds and macros that the SQL files use."""
    for name, number in THRESHOLDS.items():
        connection.execute(f"CREATE OR REPLACE MACRO {name}() AS {number!r}").fetchall()
    for text in macro_texts():
        for statement in duckdb.extract_statements(text):
            connection.execute(statement).fetchall()


def install_rows(connection: duckdb.DuckDBPyConnection, level: str, table: str, paths: list[str]) -> None:
    """Create ``all_TABLE`` or ``run_TABLE`` over these files."""
    _stored(connection, TABLES[table], paths).create_view(f"{level}_{table}", replace=True)


def stored_run(connection: duckdb.DuckDBPyConnection, run_id: str | None) -> dict[str, Any]:
    """The columns of `current_run` from the runs table; empty when there is no run at all.

    A snapshot is what the newest finished run saw: for an earlier run, the rows under its settings are looked
    up among all that is stored today.
    """
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
            known = [
                name for (name,) in connection.execute("SELECT DISTINCT run_id FROM all_runs").fetchall()
            ]
            raise NoRun(
                f"the warehouse has no run {run_id!r}{did_you_mean(run_id, known)}",
                '`pairx sql "SELECT run_id, started_at FROM runs"` lists them',
            )
        return {}
    *values, text = rows[0]
    found = dict(zip(wanted, values, strict=True))
    found |= chosen(found["run_id"], stored_settings(found["run_id"], text), FROM_SETTINGS)
    if run_id is not None and stored_run(connection, None)["run_id"] != run_id:
        found["snapshot"] = None
    return found


def install_current_run(connection: duckdb.DuckDBPyConnection, current: Mapping[str, Any]) -> None:
    """Create the table `current_run` with its one row, or none."""
    unknown = sorted(set(current) - set(RUN_COLUMNS))
    if unknown:
        raise WarehouseError(
            f"current_run has no column {', '.join(unknown)}", f"it has {', '.join(RUN_COLUMNS)}"
        )
    columns = ", ".join(f'"{name}" {kind}' for name, kind in RUN_COLUMNS.items())  # one is a reserved word
    connection.execute(f"CREATE OR REPLACE TABLE current_run ({columns})").fetchall()
    if current:
        values = {**FROM_SETTINGS, **current}
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
    if pa.types.is_map(kind):
        return f"MAP({_type(kind.key_type)}, {_type(kind.item_type)})"
    return _TYPES[kind]
