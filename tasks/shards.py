"""Shards: cutting work into them, and committing one with its failures.

Promised is: on devices of one kind, with one number of threads per worker, a row is the same bit for bit whatever else is in its
shard, how many workers there are and in which order they finish. `runs.devices` tells the kinds. Between kinds, a CPU and a GPU
or two models of GPU, the rows agree to 1e-3 of the largest value of their list, embeddings to a step of half precision, and
matches that are tied to that precision may change places. A group that was halved for want of memory may differ in its last digits.
"""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

from pairx_engine.accelerator import device_failed, out_of_memory
from pairx_engine.errors import PairxError, PhotoError
from schemas.errors import AcceleratorFailure
from schemas.failures import Failure, FailureCode
from tasks.job import Job, device_kind

T = TypeVar("T")


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
    device: str | None = None
    """Kind of the device that the engine computed on; none where it was not asked."""


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

    def result(self, stage: str, shard: str, rows: int, failed: int) -> ShardResult:
        """What the shard cost, as the driver is told; the device only where the engine was used."""
        device = device_kind() if self.engine else None
        return ShardResult(stage, shard, rows, failed, self.seconds, self.engine, peak_bytes(), device)

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


@contextmanager
def or_failure(failures: list[Failure], stage: str, item: str, **where: Any) -> Iterator[None]:
    """Turn whatever one item raises into its row of `failures`, so that the rest of the shard goes on.

    Errors that end the run (model, settings, warehouse) are not the item's and pass. Raises `AcceleratorFailure` where the
    process's device failed: it would fail every later item too, and none of them is to blame.
    """
    try:
        yield
    except PhotoError as error:
        failures.append(Failure(stage, item, FailureCode(error.code), str(error), **where))
    except Exception as error:  # one strange photo must not stop a night
        if isinstance(error, PairxError) and error.ends_the_run:
            raise
        if device_failed(error):
            raise AcceleratorFailure(f"{stage} of {item}: {error}") from error
        if out_of_memory(error):
            code, text = FailureCode.OUT_OF_MEMORY, str(error) or "out of memory"
        else:
            code, text = FailureCode.INTERNAL_ERROR, f"{type(error).__name__}: {error}"
        failures.append(Failure(stage, item, code, text, **where))


def commit(
    job: Job,
    shard: str,
    tables: Mapping[str, Any],
    stage: str,
    failures: Mapping[str, Sequence[Failure]] | None = None,
    watch: Stopwatch | None = None,
) -> ShardResult:
    """Write a shard's failures, then its tables in the order given; the last one is the commit.

    `failures` are given by the table whose rows they stand in for: they belong under its fingerprint.
    """
    failures = failures or {}
    for table, failed in failures.items():
        if failed:
            job.warehouse.write("failures", job.prints.of(table), shard, [f.row() for f in failed])
    rows = 0
    for table, content in tables.items():
        rows = job.warehouse.write(table, job.prints.of(table), shard, content)
    failed_items = {f.item for failed in failures.values() for f in failed}
    if watch is None:
        return ShardResult(stage, shard, rows, len(failed_items), peak_bytes=peak_bytes())
    return watch.result(stage, shard, rows, len(failed_items))


def peak_bytes() -> int:
    """Largest resident size of this process so far, in bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(peak) if sys.platform == "darwin" else int(peak) * 1024
