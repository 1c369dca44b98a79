"""Stages: one task per shard; results are collected as they come."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import islice
from queue import Empty, SimpleQueue
from typing import Any, Generic, TypeVar

from flows.work.hands import Future, Hands
from flows.work.progress import Reporter
from flows.work.shard_work import Work
from schemas.errors import PairxError
from tasks.job import Job
from tasks.runs.log import Balance, StageLog, limit_of_embedding
from tasks.runs.tonight import Tonight
from tasks.shards import Divisible, ShardResult, Stage
from tasks.store.written import pass_on

S = TypeVar("S")
R = TypeVar("R", bound=ShardResult)
_ARTIFACT_EVERY = 5.0
_AHEAD = 64
"""Shards handed to the cluster at once: more than its workers, but not a whole catalogue's."""
_LEAST_SECONDS = 60.0
_LOOK_EVERY = 5.0
"""Seconds after which a run that waits for work asks whether its cluster is still there."""
_GIVEN_UP = (
    "every worker process that was given this alone died, or ran past `shard_minutes`; the log of the workers may say why. "
    "--retry-failed tries it again"
)
Key = tuple[int, ...]


@dataclass(frozen=True)
class Broken:
    """A shard, or a part of one, that could not be processed, and why."""

    items: int
    error: BaseException


@dataclass(frozen=True)
class Try(Generic[S]):
    """A shard, or a part of one, that ended its workers.

    `key` is its place among all results, `seconds` the time that it may take.
    """

    key: Key
    shard: S
    seconds: float
    refused: str | None = None
    """Why none of its photos may be read any more."""

    def parts(self, size: int) -> list[Try[S]]:
        """Both halves of `size` items; a single item is returned as it is, to be tried alone."""
        if size == 1 or not isinstance(self.shard, Divisible):
            return [self]
        halves = [(0, size // 2), (size // 2, size)]
        return [
            Try(
                (*self.key, place),
                self.shard.part(slice(*half)),
                max(_LEAST_SECONDS, self.seconds * (half[1] - half[0]) / size),
            )
            for place, half in enumerate(halves)
        ]


def _of_the_flow() -> Hands:
    from flows.work.shard_tasks import OfTheFlow

    return OfTheFlow()


class StageRunner:
    """Runs stages one after another and keeps their logs.

    It calls `check` before each; that raises to end the run. Shards go to the `hands`, by default to the workers
    of the flow that asks.
    """

    def __init__(
        self,
        job: Job,
        reporter: Reporter,
        check: Callable[[], None] = lambda: None,
        hands: Hands | None = None,
    ) -> None:
        self._job = job
        self._reporter = reporter
        self._hands = hands or _of_the_flow()
        self._check = check
        self._seconds = 60 * job.settings.shard_minutes
        self.logs: list[StageLog] = []

    def run(
        self,
        stage: Stage[S, R],
        shards: Sequence[S],
        context: str,
        finish: Callable[[list[R]], int] | None = None,
    ) -> list[R]:
        """Process the shards of a stage; `finish` folds all results in the driver.

        Shards are independent: when one fails for good, the others go on, and `PairxError` is raised
        at the end.
        """
        self._check()
        begun = time.perf_counter()
        items = sum(map(stage.size, shards))
        self._reporter.begin(stage.name, items, stage.unit)
        try:
            outcomes, broken = self._collect(stage, shards)
            folded = finish(outcomes) if finish and outcomes and not broken else None
        except BaseException:
            self._reporter.abort()
            raise
        lost = sum(b.items for b in broken)
        log = StageLog.of(stage.name, outcomes, time.perf_counter() - begun, items, lost)
        self.logs.append(log)
        self._reporter.end(self._note(log, stage.unit, folded, context), log)
        if broken:
            error = broken[0].error
            raise PairxError(
                f"{stage.name}: {lost} of {items} {stage.unit} were not processed, for {len(broken)} of {len(shards)} shards broke off; "
                f"the first: {type(error).__name__}: {error}",
                "what is done is kept; mend the cause and run again",
            ) from error
        return outcomes

    @contextmanager
    def alone(self, stage: str) -> Iterator[Callable[[str], None]]:
        """Time a stage that the driver does itself; the block gets a function for its closing note."""
        self._check()
        begun, worked = time.perf_counter(), time.process_time()
        notes: list[str] = []
        self._reporter.begin(stage, 0, "")
        yield notes.append
        spent = time.process_time() - worked
        self.logs.append(StageLog(stage, seconds=time.perf_counter() - begun, processor_seconds=spent))
        self._reporter.end(" ".join(notes), self.logs[-1])

    def publish(self, report: str, sums: Sequence[Balance], tonight: Tonight) -> None:
        """Leave the run's summary as a Prefect artifact, what is new first."""
        columns = (
            "stage",
            "shards",
            "items",
            "a second",
            "failed",
            "seconds",
            "where the workers' time went",
        )
        lines = [f"| {' | '.join(columns)} |", f"| {' | '.join('---' for _ in columns)} |"]
        for s in self.logs:
            rate = "" if s.per_second is None else f"{s.per_second:.1f}"
            cells = (s.stage, s.shards, s.items, rate, s.failed, f"{s.seconds:.1f}", s.where)
            lines.append(f"| {' | '.join(map(str, cells))} |")
        said = [f"**{tonight}**", "", *(f"- {balance}" for balance in sums), f"- report: `{report}`"]
        said += [f"- {limit}" for limit in [limit_of_embedding(self.logs)] if limit]
        said.append("")
        text = "\n".join([*said, *lines])
        self._hands.progress.summary("pairx-run", text, "PAIR-X nightly run")

    def _collect(self, stage: Stage[S, R], shards: Sequence[S]) -> tuple[list[R], list[Broken]]:
        """Submit all shards and take results as they finish; returns them in the shards' order."""
        if not shards:
            return [], []
        self._hands.expect(len(shards))
        waiting = iter(enumerate(shards))
        artifact, said = self._hands.progress.begin(f"pairx-{stage.name}"), time.monotonic()
        outcomes: dict[Key, R] = {}
        broken: list[Broken] = []
        deadly: list[Try[S]] = []
        under_way: dict[Any, tuple[int, Work]] = {}
        finished: SimpleQueue[Any] = SimpleQueue()
        while True:
            for index, shard in islice(waiting, _AHEAD - len(under_way)):
                work = Work(stage, self._job, shard, self._seconds)
                future = self._submit(stage, work)
                future.add_done_callback(finished.put)
                under_way[future] = index, work
            if not under_way:
                break
            future = self._next(finished)
            index, work = under_way.pop(future)
            shard = shards[index]
            try:
                outcomes[(index,)] = result = future.result()
                pass_on(result.written)
            except Exception as error:  # a dead worker, a bug, a lost disk: all end up in one message
                self._hands.look()
                if isinstance(shard, Divisible) and self._hands.ended_its_workers(error, work):
                    deadly.append(Try((index,), shard, self._seconds))
                    continue
                broken.append(Broken(stage.size(shard), error))
            self._reporter.advance(stage.size(shard))
            done = len(outcomes) + len(broken)
            if time.monotonic() - said > _ARTIFACT_EVERY or done == len(shards):
                self._hands.progress.progress(artifact, 100.0 * done / len(shards))
                said = time.monotonic()
        if deadly:
            self._isolate(stage, deadly, outcomes, broken)
            self._hands.progress.progress(artifact, 100.0)
        return [outcomes[key] for key in sorted(outcomes)], broken

    def _submit(self, stage: Stage[S, R], work: Work) -> Future:
        return self._hands.submit(stage.name, work, self._job.settings.retries)

    def _next(self, finished: SimpleQueue[Any]) -> Any:
        """The next finished future; raises `PairxError` when the cluster has gone meanwhile."""
        while True:
            try:
                return finished.get(timeout=_LOOK_EVERY)
            except Empty:
                if said := self._hands.look():
                    self._reporter.notice(said)

    def _isolate(
        self,
        stage: Stage[S, R],
        deadly: Sequence[Try[S]],
        outcomes: dict[Key, R],
        broken: list[Broken],
    ) -> None:
        """Find the items that end workers: cut each shard in halves, down to single items.

        An item that ends its workers alone is given up. This comes last and tries one part after
        another: a worker that dies takes with it whatever else it was given, and no innocent item may
        be blamed.
        """
        self._reporter.notice(
            f"{stage.name}: {len(deadly)} of the shards ended their workers and are tried in parts, to find the {stage.unit} that do"
        )
        left = [part for one in reversed(deadly) for part in reversed(one.parts(stage.size(one.shard)))]
        while left:
            one = left.pop()
            size = stage.size(one.shard)
            work = Work(stage, self._job, one.shard, one.seconds, one.refused)
            try:
                finished: SimpleQueue[Any] = SimpleQueue()
                self._submit(stage, work).add_done_callback(finished.put)
                outcomes[one.key] = result = self._next(finished).result()
                pass_on(result.written)
            except Exception as error:
                self._hands.look()
                if one.refused is None and self._hands.ended_its_workers(error, work):
                    left += reversed(one.parts(size)) if size > 1 else [replace(one, refused=_GIVEN_UP)]
                    continue
                broken.append(Broken(size, error))
            self._reporter.advance(size)

    @staticmethod
    def _note(log: StageLog, unit: str, folded: int | None, context: str) -> str:
        if not log.items:
            return f"nothing new; {context}"
        failed = f", {log.failed} failed" if log.failed else ""
        lost = f", {log.lost} not processed" if log.lost else ""
        new = f", {folded} new pairs" if folded is not None else ""
        return f"{log.done} of {log.items} {unit} in {log.shards} shards{failed}{lost}{new}"
