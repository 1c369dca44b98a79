"""Stages bound to their work, and shards: cutting work into them, and committing them.

On devices of one kind, with one number of threads per worker, a row is the same bit for bit, whatever else is
in its shard, how many workers there are and in which order they finish. `runs.devices` tells the kinds.
Between kinds (a CPU and a GPU, or two models of GPU) the rows agree to 1e-3 of the largest value of their
list, and embeddings to a step of half precision; matches that are tied to that precision may change places. A
group that was halved for want of memory may differ in its last digits.
"""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeVar, runtime_checkable

from pairx_engine.errors import PairxError, PhotoError
from schemas.errors import AcceleratorFailure
from schemas.failures import Failure, FailureCode
from schemas.stages import ALWAYS, StageFacts
from schemas.tables.registry import TABLES
from tasks.costs import spent_on
from tasks.job import Job, device_kind
from tasks.store.shard_files import Rows
from tasks.store.written import Written

T = TypeVar("T")
S = TypeVar("S")
R = TypeVar("R", bound="ShardResult")


@dataclass(frozen=True)
class ShardResult:
    """What a shard task returns to the driver: counts and costs.

    Subclasses add a little data, which the driver folds.
    """

    stage: str
    shard: str
    rows: int
    failed: int
    seconds: float = 0.0
    engine_seconds: float = 0.0
    peak_bytes: int = 0
    device: str | None = None
    """Kind of the device that the engine computed on; None where the engine was not used."""
    written: tuple[Written, ...] = ()
    """The files that the shard was committed by, for the run's record."""
    worker_seconds: float = 0.0
    """How long the shard kept its worker; `parts` are where that time went, by `tasks.costs.PARTS`."""
    processor_seconds: float = 0.0
    """What all processors of the worker's process worked meanwhile."""
    parts: Mapping[str, float] = field(default_factory=dict)


@runtime_checkable
class Divisible(Protocol):
    """A shard that can be cut: its items can be processed in parts as well as together.

    Items are what `Stage.size` counts.
    """

    def part(self, items: slice) -> Any:
        """The shard of only some of the items, without photos that they do not need."""


@dataclass(frozen=True, kw_only=True)
class Stage(StageFacts, Generic[S, R]):
    """A stage with its work: what a worker does with one shard, and how many items a shard holds.

    `work` is a function of a module, so that a worker finds it there. `on_device` is whether it computes
    on the run's device: on GPUs its shards go to workers that declare one.
    """

    work: Callable[[Job, S], R]
    size: Callable[[S], int]
    on_device: bool = True

    @classmethod
    def of(
        cls, facts: StageFacts, work: Callable[[Job, S], R], size: Callable[[S], int], on_device: bool = True
    ) -> Stage[S, R]:
        """Bind the facts of a stage to its work."""
        return Stage(**vars(facts), work=work, size=size, on_device=on_device)


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
            with spent_on("device"):
                yield
        finally:
            self.engine += time.perf_counter() - begun

    def result(self, stage: str, shard: str, rows: int, failed: int) -> ShardResult:
        """The shard's costs for the driver; the device only where the engine was used."""
        device = device_kind() if self.engine else None
        return ShardResult(stage, shard, rows, failed, self.seconds, self.engine, peak_bytes(), device)

    @property
    def seconds(self) -> float:
        """Seconds since the shard began."""
        return time.perf_counter() - self.started


def chunks(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    """Consecutive parts of `size` items, the last one shorter.

    Items come sorted and a shard is done as a whole or not at all. So after a killed run the items that
    are left form exactly the shards that are missing.
    """
    for start in range(0, len(items), size):
        yield items[start : start + size]


@contextmanager
def or_failure(failures: list[Failure], stage: str, item: str, **where: Any) -> Iterator[None]:
    """Turn whatever one item raises into its row of `failures`, so that the rest of the shard goes on.

    Errors that end the run (model, settings, warehouse) are not the item's and pass. Raises
    `AcceleratorFailure` where the process's device failed: it would fail every later item too, and no
    item is to blame.
    """
    try:
        yield
    except PhotoError as error:
        failures.append(Failure(stage, item, FailureCode(error.code), str(error), **where))
    except Exception as error:  # one strange photo must not stop a night
        from pairx_engine.device.accelerator import device_failed, out_of_memory

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
    stage: StageFacts,
    shard: str,
    tables: Mapping[str, Rows],
    failures: Mapping[str, Sequence[Failure]] | None = None,
    watch: Stopwatch | None = None,
    partition: str | None = None,
) -> ShardResult:
    """Write a shard's failures, then its tables in the stage's order; the last one is the commit.

    `failures` are given by the table in which their rows are missing, and lie under its fingerprint. They
    replace a file of failures from an earlier attempt at the shard, with an empty file if all went well.
    `partition` is that of tables which no fingerprint of a run covers. The result counts the rows of the
    last table and the items that failed. Raises `ValueError` for a table or a failure that does not
    belong to the stage.
    """
    failures = failures or {}
    _refuse_strangers(stage, tables, failures)

    def under(table: str) -> str:
        return partition if partition and TABLES[table].fingerprint is None else job.prints.of(table)

    rows = 0
    with spent_on("writing"):
        for table in stage.failing.tables if stage.failing else ():
            failed = [f.row() for f in failures.get(table, ())]
            if failed or job.warehouse.exists("failures", under(table), shard):
                job.warehouse.write("failures", under(table), shard, failed)
        for table in stage.tables:
            if table in tables:
                rows = job.warehouse.write(table, under(table), shard, tables[table])
    failed_items = {f.item for failed in failures.values() for f in failed}
    if watch is None:
        return ShardResult(stage.name, shard, rows, len(failed_items), peak_bytes=peak_bytes())
    return watch.result(stage.name, shard, rows, len(failed_items))


def _refuse_strangers(
    stage: StageFacts, tables: Mapping[str, Rows], failures: Mapping[str, Sequence[Failure]]
) -> None:
    places, codes = (stage.failing.tables, stage.failing.codes) if stage.failing else ((), ())
    strange = sorted({*tables} - {*stage.tables} | {*failures} - {*places})
    given = [(f.stage, f.code) for failed in failures.values() for f in failed]
    strange += sorted(
        {f"{name} {code}" for name, code in given if name != stage.name or code not in (*codes, *ALWAYS)}
    )
    if strange:
        raise ValueError(f"stage {stage.name} knows nothing of {', '.join(strange)}")


def peak_bytes() -> int:
    """Largest resident size of this process so far, in bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(peak) if sys.platform == "darwin" else int(peak) * 1024
