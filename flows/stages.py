"""Stages on Prefect: one task per shard, results folded in as they come, progress and artifacts on the way."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import Any, TypeVar
from uuid import UUID

from distributed import get_worker
from prefect import task
from prefect.artifacts import create_markdown_artifact, create_progress_artifact, update_progress_artifact
from prefect.cache_policies import NO_CACHE
from prefect.futures import as_completed

from flows.progress import Reporter
from pairx_engine.accelerator import device_failed
from schemas.errors import AcceleratorFailure, PairxError
from tasks.job import Job
from tasks.run_log import Balance, StageLog
from tasks.shards import ShardResult, Stage

S = TypeVar("S")
R = TypeVar("R", bound=ShardResult)
_DEVICE_FAILED = 70
"""Exit status of a worker process whose device died: an internal software error in sysexits.h."""
_ARTIFACT_EVERY = 5.0
_AHEAD = 64
"""Shards handed to the cluster at once: more than its workers, and never a whole catalogue's worth of them."""


class Work:
    """One shard and what to do with it, closed to view: Prefect and Dask search any collection they know for futures."""

    def __init__(self, stage: Stage[Any, Any], job: Job, shard: Any) -> None:
        self.stage, self.job, self.shard = stage.name, job, shard
        self.work: Callable[[Job, Any], ShardResult] = stage.work

    def do(self) -> ShardResult:
        """Process the shard; what comes back is small, its rows go to the warehouse.

        Where the device of a Dask worker died, the worker's process ends: its nanny starts another, and the scheduler gives
        the shard to any worker, a few times at most. Elsewhere `AcceleratorFailure` is raised.
        """
        try:
            return self.work(self.job, self.shard)
        except Exception as error:
            if isinstance(error, AcceleratorFailure) or device_failed(error):
                _end_worker(f"a shard of {self.stage} is tried elsewhere, since the device failed: {error}")
            if device_failed(error) and not isinstance(error, AcceleratorFailure):
                raise AcceleratorFailure(f"{self.stage}: {error}") from error
            raise


def _end_worker(why: str) -> None:
    """End this process at once if it is a worker that a nanny watches over; otherwise do nothing."""
    try:
        watched = get_worker().nanny is not None
    except ValueError:
        return
    if watched:
        print(f"pairx: worker process {os.getpid()} ends; {why}", file=sys.stderr, flush=True)
        # No clean-up: whatever still asks something of the device would hang or fail.
        os._exit(_DEVICE_FAILED)


@task(persist_result=False, cache_policy=NO_CACHE)
def process_shard(work: Work) -> ShardResult:
    """One shard of one stage as a Prefect task."""
    return work.do()


def _progress_artifact(stage: str) -> UUID:
    artifact = create_progress_artifact(0.0, key=f"pairx-{stage}")
    assert isinstance(artifact, UUID)  # a coroutine only where the flow is asynchronous
    return artifact


class StageRunner:
    """Runs stages one after another inside a flow and keeps their logs."""

    def __init__(self, job: Job, reporter: Reporter) -> None:
        self._job = job
        self._reporter = reporter
        self.logs: list[StageLog] = []

    def run(
        self,
        stage: Stage[S, R],
        shards: Sequence[S],
        context: str,
        finish: Callable[[list[R]], int] | None = None,
    ) -> list[R]:
        """Process the shards of a stage; `finish` folds all results in the driver.

        Shards are independent: when one fails for good, the others go on, and the error is raised at the end.
        """
        begun = time.perf_counter()
        items = sum(map(stage.size, shards))
        self._reporter.begin(stage.name, items, stage.unit)
        try:
            outcomes, errors = self._collect(stage, shards)
            folded = finish(outcomes) if finish and outcomes and not errors else None
        except BaseException:
            self._reporter.abort()
            raise
        log = StageLog.of(stage.name, outcomes, time.perf_counter() - begun)
        self.logs.append(log)
        self._reporter.end(self._note(log, f"{items} {stage.unit}", folded, context))
        if errors:
            raise PairxError(
                f"{stage.name}: {len(errors)} of {len(shards)} shards failed; the first: {type(errors[0]).__name__}: {errors[0]}",
                "what is done is kept; mend the cause and run again",
            ) from errors[0]
        return outcomes

    @contextmanager
    def alone(self, stage: str) -> Iterator[Callable[[str], None]]:
        """Time a stage that the driver does itself; the block gets a function that takes the stage's closing note."""
        begun = time.perf_counter()
        notes: list[str] = []
        self._reporter.begin(stage, 0, "")
        yield notes.append
        self.logs.append(StageLog(stage, seconds=time.perf_counter() - begun))
        self._reporter.end(" ".join(notes))

    def publish(self, report: str, sums: Sequence[Balance]) -> None:
        """Leave the run's summary as a Prefect artifact."""
        lines = ["| stage | shards | rows | failed | seconds |", "| --- | --- | --- | --- | --- |"]
        lines += [f"| {s.stage} | {s.shards} | {s.rows} | {s.failed} | {s.seconds:.1f} |" for s in self.logs]
        text = "\n".join([*(f"- {balance}" for balance in sums), f"- report: `{report}`", "", *lines])
        create_markdown_artifact(key="pairx-run", markdown=text, description="PAIR-X nightly run")

    def _collect(self, stage: Stage[S, R], shards: Sequence[S]) -> tuple[list[R], list[BaseException]]:
        """Submit all shards and take their results as they finish; results come back in the shards' order."""
        if not shards:
            return [], []
        attempt = process_shard.with_options(
            name=f"{stage.name}-shard",
            retries=self._job.settings.retries,
            retry_delay_seconds=1,
            retry_jitter_factor=1,
        )
        waiting = iter(enumerate(shards))
        artifact, said = _progress_artifact(stage.name), time.monotonic()
        outcomes: dict[int, Any] = {}
        errors: list[BaseException] = []
        under_way: dict[Any, int] = {}
        while True:
            for index, shard in islice(waiting, _AHEAD - len(under_way)):
                under_way[attempt.submit(Work(stage, self._job, shard))] = index
            if not under_way:
                break
            future = next(as_completed(list(under_way)))
            index = under_way.pop(future)
            try:
                outcomes[index] = future.result()
            except Exception as error:  # a dead worker, a bug, a lost disk: all end up in one message
                errors.append(error)
            self._reporter.advance(stage.size(shards[index]))
            done = len(outcomes) + len(errors)
            if time.monotonic() - said > _ARTIFACT_EVERY or done == len(shards):
                update_progress_artifact(artifact, 100.0 * done / len(shards))
                said = time.monotonic()
        return [outcomes[i] for i in sorted(outcomes)], errors

    @staticmethod
    def _note(log: StageLog, items: str, folded: int | None, context: str) -> str:
        if not log.shards:
            return f"nothing new; {context}"
        failed = f", {log.failed} failed" if log.failed else ""
        new = f", {folded} new pairs" if folded is not None else ""
        return f"{items} in {log.shards} shards{failed}{new}"
