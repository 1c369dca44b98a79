"""Shards: cutting work into them, and committing one with its failures."""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

from schemas.failures import Failure
from tasks.job import Job

T = TypeVar("T")

FAILURE_PARTITION = {"ingest": "photos", "embed": "embeddings", "score": "scores", "draw": "explanations"}
"""The table whose fingerprint a stage's failures belong under."""


@dataclass(frozen=True)
class ShardResult:
    """What a shard task returns to the driver: counts and costs, never data."""

    stage: str
    shard: str
    rows: int
    failed: int
    seconds: float = 0.0
    engine_seconds: float = 0.0
    peak_bytes: int = 0


@dataclass
class Stopwatch:
    """Seconds spent in a shard, and the part of them inside the engine."""

    started: float = field(default_factory=time.perf_counter)
    engine: float = 0.0

    @contextmanager
    def in_engine(self) -> Iterator[None]:
        """Count the block as the engine's."""
        begun = time.perf_counter()
        try:
            yield
        finally:
            self.engine += time.perf_counter() - begun

    @property
    def seconds(self) -> float:
        """Seconds since the shard began."""
        return time.perf_counter() - self.started


def chunks(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    """Consecutive parts of `size` items, the last one shorter.

    Items come sorted and a shard is done as a whole or not at all, so after a killed run the items that are left fall into
    the very shards that are missing.
    """
    for start in range(0, len(items), size):
        yield items[start : start + size]


def commit(
    job: Job,
    shard: str,
    tables: Mapping[str, Any],
    stage: str,
    failures: Sequence[Failure] = (),
    watch: Stopwatch | None = None,
) -> ShardResult:
    """Write a shard's failures, then its tables in the order given; the last one is the commit."""
    if failures:
        partition = job.prints.of(FAILURE_PARTITION[stage])
        job.warehouse.write("failures", partition, shard, [f.row() for f in failures])
    rows = 0
    for table, content in tables.items():
        rows = job.warehouse.write(table, job.prints.of(table), shard, content)
    seconds, engine = (watch.seconds, watch.engine) if watch else (0.0, 0.0)
    return ShardResult(stage, shard, rows, len(failures), seconds, engine, peak_bytes())


def peak_bytes() -> int:
    """Largest resident size of this process so far, in bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(peak) if sys.platform == "darwin" else int(peak) * 1024
