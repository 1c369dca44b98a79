"""`pairx review` as a process that tests can ask and kill."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.error import URLError
from urllib.request import urlopen

from tasks.store.warehouse import Warehouse
from tests.flows.running import PAIRX, environment

_SECONDS = 120.0


def free_port() -> int:
    """A port that nobody listens at."""
    with socket.create_server(("127.0.0.1", 0)) as found:
        return int(found.getsockname()[1])


def start(warehouse: Warehouse, port: int) -> subprocess.Popen[str]:
    """A server that answers by now."""
    words = ("review", "--warehouse", warehouse.url, "--no-browser", "--port", str(port))
    process = subprocess.Popen(
        [sys.executable, *PAIRX, *words], env=environment(), stdout=subprocess.PIPE, text=True
    )
    end = time.monotonic() + _SECONDS
    while time.monotonic() < end and process.poll() is None:
        try:
            urlopen(f"http://127.0.0.1:{port}/static/icon.svg").close()
        except (URLError, ConnectionError):
            time.sleep(0.05)
        else:
            return process
    process.kill()
    raise AssertionError("the server does not answer")


@contextmanager
def served(warehouse: Warehouse) -> Iterator[str]:
    """The address of a server for the length of a block; it must end cleanly by Ctrl-C."""
    port = free_port()
    process = start(warehouse, port)
    try:
        yield f"http://127.0.0.1:{port}/"
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 130
    finally:
        process.kill()
        process.wait()
