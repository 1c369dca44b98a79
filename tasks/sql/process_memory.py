"""A bound on the memory of the whole process, for what DuckDB's own limit does not see.

DuckDB counts the blocks that it manages. One huge value, as of ``repeat('x', 4000000000)``, is none of them.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_UNITS = {"": 1, "k": 1000, "m": 1000**2, "g": 1000**3, "t": 1000**4}
_BINARY = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}
_HEADROOM = 1 << 30
"""For Arrow's copies of results, and the stacks of threads."""


@contextmanager
def bounded(memory_limit: str) -> Iterator[None]:
    """A block in which the process may take twice `memory_limit` and a GiB more than it has.

    What asks for more fails alone, as where no memory is left. Only Linux counts in a way that serves; an
    amount that is none is left to DuckDB to refuse.
    """
    limit, data = _bytes(memory_limit), _data()
    if limit is None or data is None:
        yield
        return
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    wanted = data + 2 * limit + _HEADROOM
    if soft != resource.RLIM_INFINITY and soft <= wanted:
        yield
        return
    resource.setrlimit(resource.RLIMIT_DATA, (wanted, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))


def _bytes(amount: str) -> int | None:
    """Bytes in an amount as DuckDB writes it, such as 500MB or 1.5GiB; None for anything else."""
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([kmgt]?)(i?)b\s*", amount.lower())
    return None if found is None else int(float(found[1]) * (_BINARY if found[3] else _UNITS)[found[2]])


def _data() -> int | None:
    """Bytes of the process that count, where Linux tells them."""
    status = Path("/proc/self/status")
    if sys.platform != "linux" or not status.is_file():
        return None
    found = re.search(
        r"^VmData:\s+(\d+) kB", status.read_text(encoding="ascii", errors="replace"), re.MULTILINE
    )
    return None if found is None else int(found[1]) * 1024
