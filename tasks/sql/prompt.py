"""The interactive prompt: statements up to a semicolon, and commands that start with a dot."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import nullcontext, suppress
from typing import TextIO

import duckdb

from schemas.errors import PairxError, did_you_mean
from schemas.foreign_text import printable_lines
from tasks.sql.console import answer
from tasks.sql.line_editing import line_editing
from tasks.sql.listing import cookbook_text, describe, queries, query_number, titles_text
from tasks.sql.results import FORMATS, Format, QueryError, known_format
from tasks.sql.stoppable import TimeLimit
from tasks.sql.table_text import terminal_width, wrapped

COMMANDS = {
    ".help": ("", "this list"),
    ".tables": ("", "the views, a sentence on each"),
    ".describe": ("VIEW", "the columns of a view"),
    ".cookbook": ("[N]", "the titles of ready-made queries; with a number show that query and run it"),
    ".format": ("|".join(FORMATS), "how answers are written"),
    "\\x": ("", "records, a column to a line, instead of a table, and back"),
    ".wide": ("", "tables as wide as their rows instead of as wide as the terminal, and back"),
    ".timeout": ("SECONDS|none", "the time that a statement may take"),
    ".quit": ("", "leave; Ctrl-D does so, too"),
}
"""Command -> its arguments and what it does."""
_ALIASES = {
    **dict.fromkeys(("quit", "exit", ".exit", "\\q"), ".quit"),
    **dict.fromkeys(("help", "\\?", "\\h"), ".help"),
    **dict.fromkeys(("\\d", "\\dt"), ".tables"),
}
"""What people type who come from other prompts."""
_HINT = "`.help` lists the commands"
_GREETING = "SQL ends with a semicolon. `.help` says what else there is, `.quit` leaves."


class Prompt:
    """Reads statements and commands and prints what comes of them.

    It ends with `.quit` or the end of input. `source` and `sink` replace the terminal.
    """

    def __init__(
        self,
        connection: duckdb.DuckDBPyConnection,
        source: TextIO | None = None,
        sink: TextIO | None = None,
        kind: Format = "table",
        seconds: float | None = None,
        wide: bool = False,
        width: Callable[[], int] = terminal_width,
    ) -> None:
        self.connection = connection
        self.source = source
        self.sink = sink if sink is not None else sys.stdout
        self.kind: Format = kind
        self.seconds = seconds
        """Seconds that a statement may take."""
        self.wide = wide
        self._width = width

    @property
    def width(self) -> int | None:
        """Columns that a table may take now; None for as many as it needs."""
        return None if self.wide else self._width()

    def run(self) -> None:
        """Loop: errors are printed and do not end it. Ctrl-C drops the statement, Ctrl-D ends."""
        with nullcontext() if self.source else line_editing(self.connection, COMMANDS):
            self._say(_GREETING)
            self._talk()

    def _talk(self) -> None:
        buffer = ""
        while True:
            try:
                line = self._line("   ...> " if buffer else "pairx> ")
                if line is None:
                    line = ";" if buffer.strip() else ".quit"
                command = None if buffer else _command_in(line)
                if command == [".quit"]:
                    return
                if command is not None:
                    self._command(command)
                    continue
                buffer = f"{buffer}\n{line}" if buffer else line
                if buffer.rstrip().endswith(";"):
                    statement, buffer = buffer, ""
                    self._answer(statement)
            except PairxError as error:
                self._say(str(error))
            except KeyboardInterrupt:
                buffer = ""
                self._say("\ndropped")

    def _line(self, mark: str) -> str | None:
        if self.source is None:
            try:
                return input(mark)
            except EOFError:
                return None
        line = self.source.readline()
        return line.rstrip("\n") if line else None

    def _answer(self, statement: str) -> None:
        for piece in answer(self.connection, statement, self.kind, TimeLimit(self.seconds), self.width):
            print(piece, end="", file=self.sink)

    def _command(self, words: list[str]) -> None:
        match words:
            case []:
                return
            case [".help"]:
                self._say(_help(self._width()))
            case [".tables"]:
                self._say(describe(self.connection, None, self.width))
            case [".describe" | "\\d", view]:
                self._say(describe(self.connection, view.rstrip(";"), self.width))
            case [".cookbook"]:
                self._say(titles_text(self.width))
            case [".cookbook", number]:
                (query,) = queries(query_number(number))["query"].to_pylist()
                self._say(cookbook_text(query_number(number), self.width))
                self._answer(query)
            case [".format", kind]:
                self.kind = known_format(kind)
            case ["\\x"]:
                self.kind = "table" if self.kind == "records" else "records"
                self._say(f"answers are written as {'a table' if self.kind == 'table' else 'records'}")
            case [".wide"]:
                self.wide = not self.wide
                self._say(f"tables are as wide as {'their rows' if self.wide else 'the terminal'}")
            case [".timeout", seconds]:
                self.seconds = _seconds(seconds)
            case [name, *_] if name in COMMANDS:
                raise QueryError(f"{name} is given with {COMMANDS[name][0] or 'nothing'} behind it", _HINT)
            case [name, *_]:
                raise QueryError(f"no command {' '.join(words)!r}{did_you_mean(name, COMMANDS)}", _HINT)

    def _say(self, text: str) -> None:
        print(printable_lines(text), file=self.sink)


def _command_in(line: str) -> list[str] | None:
    """The words of a command, none for an empty line; None for a line that starts a statement."""
    words = line.split()
    if len(words) == 1:
        words = [_ALIASES.get(words[0].rstrip(";").lower(), words[0])]
    return words if not words or words[0].startswith((".", "\\")) else None


def _help(width: int) -> str:
    shown = {"SELECT …;": "one reading statement, over as many lines as you like; Ctrl-C drops it"}
    shown |= {f"{name} {arguments}".rstrip(): about for name, (arguments, about) in COMMANDS.items()}
    lines: list[str] = []
    margin = " " * 17
    for name, about in shown.items():
        if len(name) >= len(margin):
            lines.append(name)
            name = ""
        lines += wrapped(about, width, name.ljust(len(margin)), margin)
    return "\n".join([*lines, "Tab completes views, columns and commands."])


def _seconds(text: str) -> float | None:
    """A time limit from typed text."""
    if text == "none":
        return None
    with suppress(ValueError):
        if 0 < float(text) < float("inf"):
            return float(text)
    raise QueryError(f"{text!r} is no number of seconds", ".timeout 60, or .timeout none")
