"""`pairx sql` on a terminal, through a pseudo-terminal: Tab, width, history, interruption."""

from __future__ import annotations

import os
import select
import stat
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tasks.store.warehouse import Warehouse
from tests.flows.running import PAIRX, environment
from tests.toy_warehouse import Pair, Photo, Toy

pty, fcntl, termios = (pytest.importorskip(name) for name in ("pty", "fcntl", "termios"))
pytest.importorskip("readline")


class Terminal:
    """A terminal of 60 columns on which a command runs."""

    def __init__(self, *arguments: str, **extra: str) -> None:
        self.waiting = b""
        kept = environment(TERM="xterm", **extra)
        del kept["COLUMNS"]
        self.process, self.screen = pty.fork()
        if not self.process:
            fcntl.ioctl(0, termios.TIOCSWINSZ, b"\x18\0\x3c\0\0\0\0\0")
            os.execve(sys.executable, [sys.executable, *PAIRX, *arguments], kept)

    def read(self, until: str, seconds: float = 60) -> str:
        """All that appears up to and with a text; what came behind it stays for the next call."""
        deadline, wanted = time.monotonic() + seconds, until.encode()
        while wanted not in self.waiting:
            assert time.monotonic() < deadline, (
                f"{until!r} did not come after {self.waiting.decode(errors='replace')!r}"
            )
            if select.select([self.screen], [], [], 0.1)[0]:
                self.waiting += os.read(self.screen, 65536)
        before, found, self.waiting = self.waiting.partition(wanted)
        return (before + found).decode()

    def type(self, keys: str, until: str) -> str:
        os.write(self.screen, keys.encode())
        return self.read(until)

    def interrupt(self, until: str) -> str:
        """Press Ctrl-C, again after two seconds: one between the prompt and Python's wait for keys has no effect."""
        for _ in range(10):
            os.write(self.screen, b"\x03")
            with suppress(AssertionError):
                return self.read(until, 2)
        raise AssertionError(f"Ctrl-C brought no {until!r}")

    def close(self) -> int:
        with suppress(OSError):
            while os.read(self.screen, 65536):
                pass
        os.close(self.screen)
        return os.waitstatus_to_exitcode(os.waitpid(self.process, 0)[1])


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    photos = [Photo(name, name[0], f"e{name}") for name in ("A0", "A1", "B0")]
    Toy(photos, [Pair("A0", "A1", 0.5), Pair("A0", "B0", 0.25)]).write(Warehouse(str(tmp_path / "w")))
    return tmp_path


def test_tab_completes_and_lines_are_remembered(place: Path) -> None:
    before = sorted((place / "w").rglob("*"))
    state = place / "state"
    terminal = Terminal("sql", "--warehouse", str(place / "w"), XDG_STATE_HOME=str(state))
    terminal.read("pairx> ")
    assert "the views, a sentence" in terminal.type(".he\t\n", "pairx> ")
    said = terminal.type("SELECT max(cosi\t) AS most FROM pair_sc\t;\n", "(1 row)")
    assert "max(cosine) AS most FROM pair_scores;" in said
    assert " 0.5" in said
    terminal.read("pairx> ")
    terminal.type("SELECT 'unwanted'\n", "...> ")
    assert "dropped" in terminal.interrupt("pairx> ")
    wide = terminal.type("SELECT 1 AS n, repeat('ab ', 30) AS words;\n", "(1 row)")
    assert max(map(len, wide.replace("\r", "").splitlines()[1:])) <= 60
    assert wide.count("ab") == 30 + 1
    terminal.read("pairx> ")
    os.write(terminal.screen, b"\x04")
    assert terminal.close() == 0
    (history,) = state.rglob("sql_history")
    assert "pair_scores" in history.read_text()
    assert stat.S_IMODE(history.stat().st_mode) == 0o600
    assert sorted((place / "w").rglob("*")) == before
