"""The analyst's SQL: a read-only connection to the warehouse, and single queries."""

from __future__ import annotations

import json
import os
import re
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import duckdb
import pyarrow as pa

from schemas.errors import SettingsError, WarehouseError
from schemas.views.install import Run, install_views
from schemas.views.snapshots import snapshot_folder
from schemas.views.wanted import install_wanted, views_of
from tasks.sql.columns import in_plain_types
from tasks.sql.results import Format, QueryError, pieces
from tasks.sql.stoppable import LimitReached, TimeLimit, close, stoppable
from tasks.store.warehouse import Warehouse

T = TypeVar("T")
MEMORY = "2GB"
"""Default memory of a query."""
_TEMPORARY = "20GB"
_EXPLAIN = re.compile(r"\s*explain\b\s*(\(.*?\)|analyze\b)?(?P<inner>.*)", re.IGNORECASE | re.DOTALL)
_READING_NODES = frozenset({"SELECT_NODE", "SET_OPERATION_NODE", "RECURSIVE_CTE_NODE", "CTE_NODE"})
_VIEWS = "`pairx sql --tables [VIEW]` lists views and columns, in the prompt `.tables` and `.describe VIEW`"
_EXAMPLES = "`pairx sql --cookbook` prints queries that run"
_REPLACED = "newer runs have replaced the rows that were read: open the warehouse again"
_OF_FILES = re.compile(r"^(IO Error|HTTP Error|Traceback)|\.parquet\b")
_CHECK = "see that the storage answers; `pairx check` names damaged files"
_MORE = "ask for less, such as fewer columns or a filter, or allow more with --memory-limit"
_BATCH_ROWS = 50_000
_READ_ONLY = "this connection only reads: use one SELECT, EXPLAIN, DESCRIBE, SHOW or SUMMARIZE"


def connect_analyst(
    url: str,
    run: Run = None,
    memory_limit: str = MEMORY,
    materialise: bool = False,
    limit: TimeLimit | None = None,
    query: str | None = None,
    since: str | None = None,
) -> duckdb.DuckDBPyConnection:
    """A DuckDB connection that sees the warehouse's views and nothing else of the machine.

    What it answers comes as Arrow (``.sql(query).to_arrow_table()``) or, where pandas is installed (the
    extra `notebook`), as a data frame (``.sql(query).df()``). `run` chooses whose fingerprints count, and
    `since` the run that news are told against, as in `install_views`. `materialise` computes the narrow views once. It keeps within `memory_limit`,
    which holds for every query too, and within the time `limit`, which holds for this call only. With a
    `query` the connection serves that query alone: only the views that it reads need exist, and only
    their files are looked at. External access, extensions and Python variables are off, only the
    warehouse's files can be opened, and the configuration is locked. Raises `NoWarehouse` when the URL
    holds none, `LimitReached` for want of memory or time, and `SettingsError` for an invalid memory
    limit.
    """
    warehouse = Warehouse(url)
    connection = _limited(memory_limit)
    wanted = views_of(query) if query is not None else None

    def open_views() -> None:
        warehouse.require(versions=False)  # the views look at the version of whatever they open
        if wanted is None or isinstance(run, Mapping):
            install_views(connection, warehouse, run, materialise, since=since)
        else:
            install_wanted(connection, warehouse, wanted, run, since)
        _lock(connection, warehouse)

    try:
        stoppable(connection, open_views, limit or TimeLimit())
    except duckdb.OutOfMemoryException as error:
        close(connection)
        raise _out_of_memory(error) from error
    except BaseException:
        close(connection)
        raise
    return connection


def _limited(memory_limit: str) -> duckdb.DuckDBPyConnection:
    """An empty connection that keeps to the limits from its first statement."""
    limits: dict[str, Any] = {
        "memory_limit": memory_limit,
        # DuckDB makes the folder when it first spills, and removes it when the connection is closed.
        "temp_directory": str(Path(tempfile.gettempdir()) / f"pairx-sql-{os.getpid()}"),
        "max_temp_directory_size": _TEMPORARY,
    }
    try:
        return duckdb.connect(":memory:", config=limits)
    except duckdb.Error as error:
        raise SettingsError(
            f"{memory_limit!r} is no amount of memory: {error}", "write it as 500MB or 4GB"
        ) from error


def _lock(connection: duckdb.DuckDBPyConnection, warehouse: Warehouse) -> None:
    settings: dict[str, Any] = {
        "autoinstall_known_extensions": False,
        "autoload_known_extensions": False,
        "python_enable_replacements": False,
        "allowed_directories": warehouse.locations(),
        "enable_external_access": False,
        "lock_configuration": True,
    }
    for name, value in settings.items():
        connection.execute(f"SET {name} = ?", [value]).fetchall()


def run_query(connection: duckdb.DuckDBPyConnection, sql: str, limit: TimeLimit | None = None) -> pa.Table:
    """Run one reading statement and return its rows.

    Values of types that Arrow or Python cannot hold come as DuckDB's text, and so do all dates and times.
    Raises `QueryError` for anything but one SELECT (also as FROM, WITH, VALUES or TABLE), EXPLAIN of one,
    DESCRIBE, SHOW or SUMMARIZE, and for queries with errors of their own; `LimitReached` for those that
    want more than they are allowed.
    """
    schema, batches = _run(connection, sql, limit or TimeLimit())
    return pa.Table.from_batches(batches, schema)


def answer(
    connection: duckdb.DuckDBPyConnection,
    sql: str,
    kind: Format = "table",
    limit: TimeLimit | None = None,
    width: int | None = None,
) -> Iterator[str]:
    """The rows of `run_query` as text, piece by piece, so that any answer takes little memory.

    `width`: the most columns that a line of a table or record takes.
    """
    return pieces(*_run(connection, sql, limit or TimeLimit()), kind, width)


def _run(
    connection: duckdb.DuckDBPyConnection, sql: str, limit: TimeLimit
) -> tuple[pa.Schema, Iterator[pa.RecordBatch]]:
    def start() -> tuple[list[str], pa.RecordBatchReader]:
        _refuse_writing(connection, sql)
        found = connection.sql(sql)
        return found.columns, in_plain_types(found).to_arrow_reader(_BATCH_ROWS)

    def batches() -> Iterator[pa.RecordBatch]:
        while (batch := _in_words(connection, lambda: next(reader, None), limit)) is not None:
            yield batch.rename_columns(names)

    names, reader = _in_words(connection, start, limit)
    # Two columns may have one name, which the query for plain types would change.
    return pa.schema([f.with_name(n) for f, n in zip(reader.schema, names, strict=True)]), batches()


def _in_words(connection: duckdb.DuckDBPyConnection, work: Callable[[], T], limit: TimeLimit) -> T:
    """Do a part of a query; an error in it becomes an error of ours with its cure."""
    try:
        return stoppable(connection, work, limit)
    except (duckdb.Error, pa.ArrowException, OSError) as error:
        text = str(
            error
        )  # Arrow's reader wraps DuckDB's errors in OSError, so that the text alone tells them apart
        if text.startswith("Out of Memory"):
            raise _out_of_memory(error) from error
        if text.startswith("Permission Error") or not _OF_FILES.search(text):
            raise QueryError(text, _VIEWS) from error
        if snapshot_folder("") in text:
            raise QueryError(text, _REPLACED) from error
        # Errors of a file system written in Python come with their traceback; its last line says what
        # happened.
        why = text.strip().rpartition("\n")[2] if text.startswith("Traceback") else text
        raise WarehouseError(f"the warehouse's files cannot be read: {why}", _CHECK) from error


def _out_of_memory(error: Exception) -> LimitReached:
    return LimitReached(f"the memory allowed is not enough: {str(error).partition(chr(10))[0]}", _MORE)


def _refuse_writing(connection: duckdb.DuckDBPyConnection, sql: str) -> None:
    try:
        statements = duckdb.extract_statements(sql)
    except duckdb.Error as error:
        raise QueryError(str(error).strip(), _EXAMPLES) from error
    except TypeError as error:  # half a character, which no text can hold
        raise QueryError("the query is not valid Unicode") from error
    if len(statements) != 1:
        raise QueryError(
            f"one statement at a time, not {len(statements)}", "give one; run several one after another"
        )
    kind = _kind(statements[0])
    if kind == duckdb.StatementType.EXPLAIN:
        explained = _EXPLAIN.fullmatch(sql)
        if explained is None:
            raise QueryError("EXPLAIN must be the first word of its statement", "move comments behind it")
        _refuse_writing(connection, explained["inner"])
    elif kind != duckdb.StatementType.SELECT:
        raise QueryError(f"{kind.name} statements are refused", _READ_ONLY)
    else:
        _refuse_writing_inside(connection, sql)


def _kind(statement: duckdb.Statement) -> duckdb.StatementType:
    try:
        return statement.type
    except ValueError as error:  # the parser knows more kinds of statements than its bindings
        raise QueryError("this kind of statement is refused", _READ_ONLY) from error


def _refuse_writing_inside(connection: duckdb.DuckDBPyConnection, sql: str) -> None:
    """Refuse INSERT, DELETE and COPY inside WITH: only reading nodes of the syntax tree pass."""
    tree = connection.execute("SELECT json_serialize_sql(CAST(? AS VARCHAR))", [sql]).fetchall()[0][0]
    try:
        parsed = json.loads(tree)
    except RecursionError as error:
        raise QueryError("the query is nested too deep", "break it into parts with WITH") from error
    if parsed["error"]:
        raise QueryError("the query holds something that is no plain SELECT, such as PIVOT", _READ_ONLY)
    writing = sorted(_node_types(parsed["statements"]) - _READING_NODES)
    if writing:
        raise QueryError(f"the query holds {', '.join(name.split('_')[0] for name in writing)}", _READ_ONLY)


def _node_types(tree: Any) -> set[str]:
    found: set[str] = set()
    pending = [tree]
    while pending:
        part = pending.pop()
        if isinstance(part, dict):
            kind = part.get("type")
            if isinstance(kind, str) and kind.endswith("_NODE"):
                found.add(kind)
            pending += part.values()
        elif isinstance(part, list):
            pending += part
    return found
