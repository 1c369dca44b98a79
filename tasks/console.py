"""The analyst's SQL: a connection that can only read the warehouse, one query at a time, and an interactive prompt."""

from __future__ import annotations

import contextlib
import json
import re
import sys
import tempfile
from pathlib import Path
from typing import Any, TextIO, get_args

import duckdb
import pyarrow as pa

from schemas.errors import PairxError
from schemas.snapshots import snapshot_folder
from schemas.view_descriptions import describe_column, describe_view, view_sentences
from schemas.views import NoFiles, Run, install_views
from tasks.query_results import Format, QueryError, format_result
from tasks.warehouse import Warehouse

_MEMORY = "2GB"
_TEMPORARY = "20GB"
_EXPLAIN = re.compile(r"\s*explain\b\s*(\(.*?\)|analyze\b)?(?P<inner>.*)", re.IGNORECASE | re.DOTALL)
_READING_NODES = frozenset({"SELECT_NODE", "SET_OPERATION_NODE", "RECURSIVE_CTE_NODE", "CTE_NODE"})
_VIEWS = "`.tables` lists the views and `.describe VIEW` their columns"
_REPLACED = "newer runs have replaced the rows that were read: open the warehouse again"
_READ_ONLY = "this connection only reads: use one SELECT, EXPLAIN, DESCRIBE, SHOW or SUMMARIZE"


def connect_analyst(
    url: str, run: Run = None, memory_limit: str = _MEMORY, materialise: bool = False
) -> duckdb.DuckDBPyConnection:
    """A DuckDB connection that sees the warehouse's views and nothing else of the machine.

    What it answers comes as Arrow (``.sql(query).to_arrow_table()``) or, where pandas is installed (the extra `notebook`), as
    a data frame (``.sql(query).df()``).
    `run` chooses whose fingerprints count, as in `install_views`; `materialise` computes the narrow views once. External
    access, extensions and Python variables are off, only the warehouse's files can be opened, and the configuration is
    locked. Raises `NoWarehouse` when the URL holds none.
    """
    warehouse = Warehouse(url)
    warehouse.require()
    connection = duckdb.connect(":memory:")
    try:
        install_views(connection, warehouse, run, materialise)
        _lock(connection, warehouse, memory_limit)
    except BaseException:
        connection.close()
        raise
    return connection


def _lock(connection: duckdb.DuckDBPyConnection, warehouse: Warehouse, memory_limit: str) -> None:
    settings: dict[str, Any] = {
        "memory_limit": memory_limit,
        "temp_directory": str(Path(tempfile.gettempdir()) / "pairx-sql"),
        "max_temp_directory_size": _TEMPORARY,
        "autoinstall_known_extensions": False,
        "autoload_known_extensions": False,
        "python_enable_replacements": False,
        "allowed_directories": warehouse.locations(),
        "enable_external_access": False,
        "lock_configuration": True,
    }
    for name, value in settings.items():
        connection.execute(f"SET {name} = ?", [value]).fetchall()


def run_query(connection: duckdb.DuckDBPyConnection, sql: str) -> pa.Table:
    """Run one reading statement and return its rows.

    Raises `QueryError` for anything but one SELECT (also as FROM, WITH, VALUES or TABLE), EXPLAIN of one, DESCRIBE, SHOW
    or SUMMARIZE, and for queries that are wrong in themselves.
    """
    _refuse_writing(connection, sql)
    try:
        return connection.sql(sql).to_arrow_table()
    except duckdb.Error as error:
        replaced = isinstance(error, duckdb.IOException) and snapshot_folder("") in str(error)
        raise QueryError(str(error), _REPLACED if replaced else _VIEWS) from error


def _refuse_writing(connection: duckdb.DuckDBPyConnection, sql: str) -> None:
    try:
        statements = duckdb.extract_statements(sql)
    except duckdb.Error as error:
        raise QueryError(str(error)) from error
    if len(statements) != 1:
        raise QueryError(
            f"one statement at a time, not {len(statements)}", "give one; run several one after another"
        )
    kind = statements[0].type
    if kind == duckdb.StatementType.EXPLAIN:
        explained = _EXPLAIN.fullmatch(sql)
        if explained is None:
            raise QueryError("EXPLAIN must be the first word of its statement", "move comments behind it")
        _refuse_writing(connection, explained["inner"])
    elif kind != duckdb.StatementType.SELECT:
        raise QueryError(f"{kind.name} statements are refused", _READ_ONLY)
    else:
        _refuse_writing_inside(connection, sql)


def _refuse_writing_inside(connection: duckdb.DuckDBPyConnection, sql: str) -> None:
    """WITH may hold INSERT, DELETE and even COPY, so the syntax tree is searched: only reading nodes pass."""
    tree = connection.execute("SELECT json_serialize_sql(CAST(? AS VARCHAR))", [sql]).fetchall()[0][0]
    parsed = json.loads(tree)
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


def describe(connection: duckdb.DuckDBPyConnection | None = None, view: str | None = None) -> str:
    """What the views hold: all of them in a line each, or the columns of one. Without a connection from the schemas alone.

    Raises `QueryError` for an unknown view.
    """
    sentences = view_sentences()
    if view is None:
        width = max(map(len, sentences))
        listed = [f"{name.ljust(width)}  {about}" for name, about in sentences.items()]
        return "\n".join(
            [
                *listed,
                "",
                "all_TABLE holds every committed row, run_TABLE those of the current run's settings.",
            ]
        )
    if connection is None:
        connection = duckdb.connect(":memory:")
        install_views(connection, NoFiles())
    try:
        found = connection.table(view)
    except duckdb.Error as error:
        raise QueryError(f"there is no view {view!r}", f"views are {', '.join(sentences)}") from error
    columns = [(name, str(kind)) for name, kind in zip(found.columns, found.types, strict=True)]
    name_width, type_width = (max(len(row[i]) for row in columns) for i in (0, 1))
    lines = [
        f"{n.ljust(name_width)}  {t.ljust(type_width)}  {describe_column(view, n)}".rstrip()
        for n, t in columns
    ]
    return "\n".join([f"{view}: {describe_view(view)}", "", *lines])


class Prompt:
    """Reads statements up to a semicolon, and commands that start with a dot, until `.quit` or the end of input."""

    def __init__(
        self,
        connection: duckdb.DuckDBPyConnection,
        source: TextIO | None = None,
        sink: TextIO | None = None,
        kind: Format = "table",
    ) -> None:
        self.connection = connection
        self.source = source
        self.sink = sink if sink is not None else sys.stdout
        self.kind: Format = kind

    def run(self) -> None:
        """Loop; errors are printed and the loop goes on. Ctrl-C drops the statement, Ctrl-D ends."""
        if self.source is None:
            with contextlib.suppress(ImportError):
                import readline  # noqa: F401  # importing it gives input() line editing and a history
        self._say("SQL ends with a semicolon; .tables  .describe VIEW  .format table|csv|json  .quit")
        buffer = ""
        while True:
            try:
                line = self._line("   ...> " if buffer else "pairx> ")
                if line is None:
                    line = ";" if buffer.strip() else ".quit"
                if not buffer and line.strip() in (".quit", ".exit"):
                    return
                if not buffer and (not line.strip() or line.strip().startswith(".")):
                    self._command(line.split())
                    continue
                buffer = f"{buffer}\n{line}" if buffer else line
                if buffer.rstrip().endswith(";"):
                    statement, buffer = buffer, ""
                    self._say(format_result(run_query(self.connection, statement), self.kind))
            except PairxError as error:
                self._say(str(error))
            except KeyboardInterrupt:
                self.connection.interrupt()
                buffer = ""
                self._say("")

    def _line(self, mark: str) -> str | None:
        if self.source is None:
            try:
                return input(mark)
            except EOFError:
                return None
        line = self.source.readline()
        return line.rstrip("\n") if line else None

    def _command(self, words: list[str]) -> None:
        match words:
            case []:
                return
            case [".tables"]:
                self._say(describe(self.connection))
            case [".describe", view]:
                self._say(describe(self.connection, view.rstrip(";")))
            case [".format", kind] if kind in get_args(Format):
                self.kind = kind  # type: ignore[assignment]  # the guard has just checked it
            case _:
                raise QueryError(
                    f"no command {' '.join(words)!r}",
                    ".tables, .describe VIEW, .format table|csv|json, .quit",
                )

    def _say(self, text: str) -> None:
        print(text, file=self.sink)


def prompt(
    connection: duckdb.DuckDBPyConnection,
    source: TextIO | None = None,
    sink: TextIO | None = None,
    kind: Format = "table",
) -> None:
    """The interactive prompt; `source` and `sink` replace the terminal."""
    Prompt(connection, source, sink, kind).run()
