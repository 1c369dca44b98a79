"""How much memory a task may take, and what a process needs: the one place that says so.

Photos are decoded one at a time. For a photo with P pixels a process was measured to hold at most:

* 8 P bytes while the photo is decoded and its cut becomes a chip, a view and hashes (4 P in the decoder or
  the resizer, 3 P as an array, the rest in a band that changes format);
* 12 P where EXIF turns the photo or the JPEG is progressive;
* 17 P for a WEBP.

Then the cut is dropped. What is left has the size of the model's input and of the matcher's view, however
large the photo was. So a process takes about

    1 GB (interpreter, torch, a small model) + the model and its passes + 8 to 17 bytes x P + the file
    + 1/16 of the limit (views kept) + 1/4 of the limit (photos held at once) + rows that wait to be written

where P is that of the largest photo. Only the last term grows with a shard: 0.3 MB of keypoints for each of
its photos. The number of chips in one pass of the network does not follow from the limit, since the rounding
of sums may depend on it.
"""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

_GIVEN: ContextVar[int | None] = ContextVar("bytes that this task may take", default=None)
_CGROUPS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")
_HELD = 1 / 4


@contextmanager
def within_memory(limit: int | None) -> Iterator[None]:
    """A block in a process that its worker's nanny ends beyond `limit` bytes; None if not known."""
    token = _GIVEN.set(limit)
    try:
        yield
    finally:
        _GIVEN.reset(token)


def memory_limit() -> int:
    """Bytes that a task may take: the least limit of its worker, its process and its machine."""
    given = _GIVEN.get()
    return _of_process() if given is None else min(given, _of_process())


def share(part: float) -> int:
    """Bytes of a share (0-1) of the limit."""
    return int(part * memory_limit())


def photos_at_once(bytes_of_one: int) -> int:
    """How many photos of `bytes_of_one` bytes may be held in memory together; two at least, for a pair."""
    return max(2, share(_HELD) // max(1, bytes_of_one))


def _of_process() -> int:
    limits = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    soft, _ = resource.getrlimit(resource.RLIMIT_AS)
    if soft != resource.RLIM_INFINITY:
        limits.append(soft)
    told = [path.read_text(encoding="ascii").strip() for path in map(Path, _CGROUPS) if path.is_file()]
    return min([*limits, *(int(text) for text in told if text.isdigit())])
