"""`pairx sql` and signals: a real child process, on a terminal of its own where it prompts."""

from __future__ import annotations

import os
import pty
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from tasks.store.warehouse import Warehouse
from tests.flows.running import environment
from tests.toy_warehouse import Photo, Toy

ENDLESS = "SELECT count(*) FROM range(200000000) AS a, range(100000) AS b WHERE a.range * b.range % 7 = 3"
AT_ONCE, SECONDS = 10, 60


@pytest.fixture(scope="module")
def command(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    url = Toy([Photo("a0", "A", "e")], []).write(Warehouse(str(tmp_path_factory.mktemp("sql") / "w"))).url
    return [sys.executable, "-m", "flows.cli.main", "sql", "--warehouse", url]


@dataclass
class Terminal:
    """The user's side of a terminal that a child process is on."""

    process: subprocess.Popen[bytes]
    end: int
    said: bytes = b""

    def say(self, text: str) -> None:
        os.write(self.end, text.encode())

    def hear(self, words: str) -> None:
        """Wait until the words are on the screen; what stands before them is done with."""
        deadline = time.monotonic() + SECONDS
        while words.encode() not in self.said:
            assert time.monotonic() < deadline, self.said
            if select.select([self.end], [], [], 1)[0]:
                self.said += os.read(self.end, 1 << 16)
        self.said = self.said.partition(words.encode())[2]


@pytest.fixture
def prompt(command: list[str]) -> Iterator[Terminal]:
    users, childs = pty.openpty()
    # The terminal's own session: Ctrl-C on it reaches the child as it would a user's.
    script = "import fcntl, os, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); os.execv(sys.argv[1], sys.argv[1:])"
    process = subprocess.Popen(
        [sys.executable, "-c", script, *command],
        env=environment(TERM="dumb"),
        stdin=childs,
        stdout=childs,
        stderr=childs,
        start_new_session=True,
    )
    os.close(childs)
    yield Terminal(process, users)
    process.kill()
    process.wait(30)
    os.close(users)


def test_ctrl_c_drops_what_the_prompt_computes_and_sigterm_ends_it(prompt: Terminal) -> None:
    prompt.hear("pairx> ")
    prompt.say(f"{ENDLESS};\n")
    time.sleep(0.5)
    begun = time.monotonic()
    prompt.say("\x03")
    prompt.hear("dropped")
    prompt.hear("pairx> ")
    assert time.monotonic() - begun < AT_ONCE
    prompt.say("SELECT 6 * 7 AS answer;\n")
    prompt.hear("    42\r\n(1 row)")
    prompt.say(f".timeout 0.5\n{ENDLESS};\n")
    prompt.hear("there was no answer within 0.5 s")
    prompt.say(f".timeout none\n{ENDLESS};\n")
    time.sleep(0.5)
    prompt.process.send_signal(signal.SIGTERM)
    assert prompt.process.wait(AT_ONCE) == 143


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_stops_one_query_in_the_midst_of_its_rows(
    command: list[str], number: signal.Signals, code: int
) -> None:
    query = "SELECT range AS n FROM range(1000000000000)"
    with subprocess.Popen(
        [*command, "--format", "csv", query],
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.read(4) == b"n\n0\n"
        process.send_signal(number)
        while process.stdout.read(1 << 20):
            pass
        assert process.wait(AT_ONCE) == code
        assert process.stderr.read().startswith(b"pairx: stopped")


def test_a_query_that_takes_too_long_or_too_much_says_so(command: list[str]) -> None:
    limits = ["--timeout", "60", "--memory-limit", "20MB"]
    greedy = "SELECT len(list(range)) FROM range(100000000)"
    ended = subprocess.run([*command, *limits, greedy], env=environment(), capture_output=True, text=True)
    assert ended.returncode == 1
    assert ended.stderr.startswith("pairx: the memory allowed is not enough: Out of Memory Error")
    assert "--memory-limit" in ended.stderr
    assert "Traceback" not in ended.stderr
