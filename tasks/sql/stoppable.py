"""Work on a DuckDB connection that Ctrl-C, SIGTERM and a time limit stop at once."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future
from threading import Thread
from typing import TypeVar

import duckdb

from schemas.errors import PairxError

T = TypeVar("T")
_GRACE = 2.0
"""Seconds in which stopped work should end.

Work that waits for a dead disk or network only ends with the process.
"""
_AGAIN = 0.02


class LimitReached(PairxError):
    """A query needed more time or memory than it was allowed."""


class TimeLimit:
    """A moment by which work must be done: `seconds` from now, or never where they are None."""

    def __init__(self, seconds: float | None = None) -> None:
        self.seconds = seconds
        self._end = None if seconds is None else time.monotonic() + seconds

    def left(self) -> float | None:
        """Seconds that are left, 0 at least."""
        return None if self._end is None else max(0.0, self._end - time.monotonic())


def stoppable(connection: duckdb.DuckDBPyConnection, work: Callable[[], T], limit: TimeLimit) -> T:
    """What `work` returns; it runs in a thread, and whatever this thread raises while it waits stops it.

    Python hears signals only between two of its steps, and DuckDB or a file system may be inside one step
    for an hour. Raises `LimitReached` when the time is over.
    """
    outcome: Future[T] = Future()

    def do() -> None:
        try:
            outcome.set_result(work())
        except BaseException as error:
            outcome.set_exception(error)

    thread = Thread(target=do, daemon=True)
    thread.start()
    try:
        return outcome.result(limit.left())
    except BaseException as error:
        if outcome.done():
            raise
        _stop(connection, thread)
        if isinstance(error, TimeoutError):
            raise LimitReached(
                f"there was no answer within {limit.seconds:g} s",
                "ask for less, or allow more with --timeout",
            ) from None
        raise


def _stop(connection: duckdb.DuckDBPyConnection, thread: Thread) -> None:
    end = time.monotonic() + _GRACE
    while thread.is_alive() and time.monotonic() < end:
        # The work may be between two statements, where an interrupt stops nothing, so it is sent again.
        connection.interrupt()
        thread.join(_AGAIN)


def close(connection: duckdb.DuckDBPyConnection) -> None:
    """Close a connection, which removes what it spilled to disk; does not wait for work that hangs."""
    thread = Thread(target=connection.close, daemon=True)
    thread.start()
    thread.join(_GRACE)
