"""What all hostile cases share: limits of time and memory, and the command line run in this process."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from flows.cli import main as cli

SECONDS = 300
"""A case that takes longer hangs; on a busy machine an honest case takes seconds."""
MEGABYTES = 1500
Said = tuple[int, str, str]


def _peak() -> int:
    """The most memory, in MiB, that this process has held since the last call; 0 where nobody tells."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
        held = next(int(line.split()[1]) >> 10 for line in lines if line.startswith("VmHWM"))
        Path("/proc/self/clear_refs").write_text("5")
    except (OSError, StopIteration):
        return 0
    return held


@pytest.fixture(autouse=True)
def bounded() -> Iterator[None]:
    """No hostile case takes long, and none takes memory without bounds."""

    def stop(number: int, frame: object) -> None:
        raise TimeoutError(f"a hostile case took more than {SECONDS} s")

    previous = signal.signal(signal.SIGALRM, stop)
    _peak()
    before = _peak()
    signal.alarm(SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, previous)
    assert _peak() - before < MEGABYTES


@pytest.fixture
def say(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Callable[..., Said]:
    """Runs a command in this process: exit code, output, messages.

    None of them may hold a traceback or an escape sequence.
    """

    def run(*arguments: object) -> Said:
        monkeypatch.setattr(sys, "argv", ["pairx", *map(str, arguments)])
        capfd.readouterr()
        code = cli._run()
        out, err = capfd.readouterr()
        assert code in (0, 1, 2), (code, err)
        assert "Traceback" not in err
        steering = {c for c in out + err if not c.isprintable()} - set("\n\t\u00a0\u200c\u200d")
        assert not steering
        return code, out, err

    return run
