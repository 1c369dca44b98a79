"""Where the time of a shard goes, as a few sums that its worker keeps while it works.

A part that is begun inside another counts for itself alone, so that all parts together are at most the shard's
time. Nothing is kept of single photos or pairs. Only the thread that works the shard off is measured: what it
hands to threads of its own counts where it waits for them.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Literal, get_args

Part = Literal["loading", "reading", "decoding", "features", "device", "writing"]
PARTS: tuple[Part, ...] = get_args(Part)
ABOUT: Mapping[Part, str] = {
    "loading": "model and matcher, once per worker",
    "reading": "bytes of photos and stored rows",
    "decoding": "from bytes to the pictures that are needed",
    "features": "local features: finding them, and matching those of two photos",
    "device": "the model, relevance, and what else computes on the worker's device",
    "writing": "rows into the warehouse",
}
"""What each part is, in words."""


@dataclass
class Costs:
    """Seconds by part so far, and the parts that are open now, the innermost last."""

    seconds: dict[str, float] = field(default_factory=dict)
    _open: list[str] = field(default_factory=list)
    _since: float = 0.0

    def begin(self, part: Part) -> None:
        """The time from now on is the part's."""
        self._settle()
        self._open.append(part)

    def end(self) -> None:
        """The time from now on is that of the part around."""
        self._settle()
        self._open.pop()

    def _settle(self) -> None:
        now = time.perf_counter()
        if self._open:
            part = self._open[-1]
            self.seconds[part] = self.seconds.get(part, 0.0) + now - self._since
        self._since = now


_COUNTED: ContextVar[Costs | None] = ContextVar("where this thread's time goes", default=None)


@contextmanager
def counting() -> Iterator[Costs]:
    """A block whose parts are measured."""
    costs = Costs()
    token = _COUNTED.set(costs)
    try:
        yield costs
    finally:
        _COUNTED.reset(token)


@contextmanager
def spent_on(part: Part) -> Iterator[None]:
    """A block that is of one part; costs nothing where nobody counts."""
    costs = _COUNTED.get()
    if costs is None:
        yield
        return
    costs.begin(part)
    try:
        yield
    finally:
        costs.end()


def shares(parts: Mapping[str, float], seconds: float) -> dict[str, float]:
    """The share (0-1) of `seconds` that each known part took, the largest first, and of what is left as ``other``.

    Empty where nothing was measured.
    """
    known = {name: parts[name] for name in PARTS if parts.get(name)}
    if not known or seconds <= 0:
        return {}
    whole = max(seconds, sum(known.values()))
    found: dict[str, float] = {name: value / whole for name, value in known.items()}
    left = 1.0 - sum(found.values())
    if left > 0:
        found["other"] = left
    return dict(sorted(found.items(), key=lambda one: -one[1]))


def limit_in_words(parts: Mapping[str, float], seconds: float) -> str | None:
    """What took most of the workers' time, such as "decoding took 71 % of the workers' time"; None if unknown."""
    for name, share in shares(parts, seconds).items():
        what = "other work" if name == "other" else name
        return f"{what} took {100 * share:.0f} % of the workers' time"
    return None


def shares_in_words(parts: Mapping[str, float], seconds: float) -> str:
    """All shares of at least one in a hundred, such as "decoding 71 %, device 20 %"; empty if unknown."""
    return ", ".join(
        f"{name} {100 * share:.0f} %" for name, share in shares(parts, seconds).items() if share >= 0.005
    )
