"""Line editing of the prompt: Tab completes, and what was typed is remembered for the user.

Both need the module readline; without it the prompt reads plain lines.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from functools import cached_property
from pathlib import Path

import duckdb

from schemas.sql.cookbook import cookbook
from schemas.views.descriptions import view_sentences
from tasks.sql.results import FORMATS

_REMEMBERED = 1000
_BREAKS = " \t\n,()=<>+-*/;|'\"[]{}"
"""What ends a word; a dot does not, so that `pairs.co` is one."""
_WORD = re.compile(r"\w+")
_BEFORE_VIEWS = frozenset({"from", "join", "summarize", "describe"})
_KEYWORDS = (
    *("SELECT", "FROM", "WHERE", "GROUP BY", "ORDER BY", "LIMIT", "JOIN", "LEFT JOIN", "USING", "HAVING"),
    *("DISTINCT", "COUNT", "SUMMARIZE", "DESCRIBE", "EXPLAIN", "WITH", "UNION ALL", "QUALIFY", "DESC", "AND"),
)


class Completer:
    """What a word may go on as, of a connection's views and columns, SQL's words and the prompt's commands."""

    def __init__(self, connection: duckdb.DuckDBPyConnection, commands: Collection[str]) -> None:
        self._connection = connection
        self._commands = commands

    def completions(self, word: str, before: str) -> list[str]:
        """All that `word` may become, where `before` stands before it in its line."""
        first = before.split()[:1]
        if not first and word.startswith((".", "\\")):
            return [name for name in self._commands if name.startswith(word)]
        match first:
            case [".describe"]:
                return _starting(word, self._columns)
            case [".format"]:
                return _starting(word, FORMATS)
            case [".cookbook"]:
                return _starting(word, map(str, range(1, len(cookbook()) + 1)))
        view, dot, start = word.rpartition(".")
        if dot:
            return [f"{view}.{name}" for name in _starting(start, self._columns.get(view.lower(), ()))]
        views = _starting(word, self._columns if word.startswith(("all_", "run_")) else view_sentences())
        if not _BEFORE_VIEWS.isdisjoint(before.lower().split()[-1:]):
            return views
        named = {name.lower() for name in _WORD.findall(before)} & self._columns.keys()
        columns = {name for view in named or view_sentences() for name in self._columns.get(view, ())}
        words = [w if word[:1].isupper() else w.lower() for w in _KEYWORDS]
        return [*views, *_starting(word, sorted(columns)), *_starting(word, words)]

    @cached_property
    def _columns(self) -> dict[str, list[str]]:
        """View -> its columns, asked for at the first Tab."""
        found: dict[str, list[str]] = {}
        rows = self._connection.execute(
            "SELECT table_name, column_name FROM duckdb_columns() WHERE NOT internal ORDER BY table_name, column_index"
        ).fetchall()
        for view, column in rows:
            found.setdefault(view, []).append(column)
        return found


def _starting(word: str, known: Collection[str] | Iterator[str]) -> list[str]:
    return [name for name in known if name.lower().startswith(word.lower())]


@contextmanager
def line_editing(connection: duckdb.DuckDBPyConnection, commands: Collection[str]) -> Iterator[None]:
    """Tab and a remembered history for `input()` on a terminal; elsewhere, and without readline, nothing."""
    try:
        import readline
    except ImportError:
        readline = None  # type: ignore[assignment]  # some builds of Python come without it
    if readline is None or not sys.stdin.isatty():
        yield
        return
    completer = Completer(connection, commands)
    readline.set_completer(_asked_one_by_one(completer, readline.get_line_buffer, readline.get_begidx))
    readline.set_completer_delims(_BREAKS)
    # On some systems another library stands behind the module, which has its own words for the key.
    is_libedit = "libedit" in (readline.__doc__ or "")
    readline.parse_and_bind("bind ^I rl_complete" if is_libedit else "tab: complete")
    place = history_file()
    with suppress(OSError):
        readline.read_history_file(place)
    try:
        yield
    finally:
        readline.set_completer(None)
        readline.set_history_length(_REMEMBERED)
        with suppress(OSError):
            place.parent.mkdir(parents=True, exist_ok=True)
            place.touch(mode=0o600)
            readline.write_history_file(place)


def _asked_one_by_one(
    completer: Completer, line: Callable[[], str], begin: Callable[[], int]
) -> Callable[[str, int], str | None]:
    """A completer as readline calls it: for the first completion, the second, and so on until None."""
    found: list[str] = []

    def ask(word: str, number: int) -> str | None:
        if number == 0:
            found[:] = completer.completions(word, line()[: begin()])
        return found[number] if number < len(found) else None

    return ask


def history_file() -> Path:
    """Where typed lines are kept: with the user's other state, never in a warehouse that others read."""
    state = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(state) / "pairx" / "sql_history"
