"""Reports the size and digest of every file written to a warehouse, for the run's record.

A worker collects what its shard writes and sends it back with the shard's result; the driver collects this
and what it writes itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

_DIGEST_BYTES = 20


@dataclass(frozen=True)
class Written:
    """A file as written: its path below the warehouse's root, its size, and its bytes' digest."""

    path: str
    bytes: int
    digest: str


_HEARD_BY: ContextVar[tuple[Callable[[Written], None], ...]] = ContextVar(
    "who hears of written files", default=()
)


def digest_of(data: Any) -> str:
    """BLAKE2b of a buffer, 40 hex digits."""
    return blake2b(data, digest_size=_DIGEST_BYTES).hexdigest()


def wrote(path: str, data: bytes) -> None:
    """Report that a file is in place; costs nothing where nobody listens."""
    if all_ears := _HEARD_BY.get():
        file = Written(path, len(data), digest_of(data))
        for hear in all_ears:
            hear(file)


def pass_on(written: Iterable[Written]) -> None:
    """Report what another process has written."""
    for file in written:
        for hear in _HEARD_BY.get():
            hear(file)


@contextmanager
def hearing() -> Iterator[list[Written]]:
    """Collect what is written in the block, by this thread."""
    heard: list[Written] = []
    with heard_by(heard.append):
        yield heard


@contextmanager
def heard_by(hear: Callable[[Written], None]) -> Iterator[None]:
    """Tell `hear` of every file that this thread writes in the block, besides earlier listeners."""
    token = _HEARD_BY.set((*_HEARD_BY.get(), hear))
    try:
        yield
    finally:
        _HEARD_BY.reset(token)
