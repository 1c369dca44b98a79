"""The search for what ends workers, without any worker.

A shard that holds a guilty item ends whoever is given it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest
from distributed.scheduler import KilledWorker
from hypothesis import given, settings
from hypothesis import strategies as st

from flows.work.hands import Unreported
from flows.work.progress import Silent
from flows.work.shard_work import Work, blames_no_device
from flows.work.stage_runner import StageRunner
from schemas.errors import PairxError
from schemas.settings import Settings
from schemas.stages import StageFacts
from tasks.shards import ShardResult, Stage


@dataclass(frozen=True)
class Shard:
    items: tuple[int, ...]

    @property
    def name(self) -> str:
        return "-".join(map(str, self.items))

    def part(self, items: slice) -> Shard:
        return Shard(self.items[items])


@dataclass(frozen=True)
class Whole:
    """A shard that cannot be cut."""

    items: tuple[int, ...]
    name: str = "whole"


@dataclass
class Job:
    settings: Settings


def done(job: Any, shard: Any) -> ShardResult:
    return ShardResult("toy", shard.name, len(shard.items), 0)


TOY = Stage.of(StageFacts("toy", "items", ()), done, lambda shard: len(shard.items))


class Future:
    def __init__(self, act: Callable[[], Any]) -> None:
        self.act = act

    def add_done_callback(self, heard: Callable[[Future], None]) -> None:
        heard(self)

    def result(self) -> Any:
        return self.act()


class Cluster:
    """Stands in for the workers of a cluster where some items are deadly and others fail.

    It keeps account of all that was tried.
    """

    def __init__(self, deadly: set[int], broken: set[int] = frozenset(), immortal: bool = False) -> None:  # type: ignore[assignment]
        self.deadly, self.broken, self.immortal = deadly, broken, immortal
        self.deaths: list[tuple[int, ...]] = []
        self.given_up: list[int] = []
        self.progress = Unreported()

    def expect(self, shards: int) -> None: ...

    def submit(self, stage: str, work: Work, retries: int) -> Future:
        return Future(lambda: self.do(work))

    def look(self) -> None: ...

    def ended_its_workers(self, error: BaseException, work: Work) -> bool:
        heard = SimpleNamespace(get_events=lambda topic: ())
        return blames_no_device(error, work, lambda: heard)  # type: ignore[arg-type, return-value]

    def do(self, work: Work) -> ShardResult:
        items = work.shard.items
        if work.refused and not self.immortal:
            self.given_up += items
            return ShardResult("toy", work.shard.name, len(items), len(items))
        if self.deadly & set(items):
            self.deaths.append(items)
            raise KilledWorker(work.shard.name, SimpleNamespace(address="tcp://gone"), 1)  # type: ignore[arg-type]
        if self.broken & set(items):
            raise RuntimeError(f"broken {work.shard.name}")
        return work.work(work.job, work.shard)


def on(cluster: Cluster) -> StageRunner:
    return StageRunner(Job(Settings()), Silent(), hands=cluster)  # type: ignore[arg-type]


@given(st.lists(st.integers(1, 9), min_size=1, max_size=6), st.sets(st.integers(0, 53)))
@settings(max_examples=60)
def test_exactly_the_guilty_are_given_up_and_results_keep_their_order(
    sizes: list[int], deadly: set[int]
) -> None:
    shards, first = [], 0
    for size in sizes:
        shards.append(Shard(tuple(range(first, first + size))))
        first += size
    cluster = Cluster(deadly)
    outcomes = on(cluster).run(TOY, shards, "")
    assert sorted(cluster.given_up) == sorted(deadly & set(range(first)))
    assert sum(o.rows for o in outcomes) == first
    assert sum(o.failed for o in outcomes) == len(cluster.given_up)
    order = [int(i) for o in outcomes for i in o.shard.split("-")]
    assert order == list(range(first))
    # A single item is given up only after it ended its workers with nothing else beside it.
    assert all(cluster.deaths.count((item,)) >= 1 for item in cluster.given_up)
    for shard in shards:
        guilty = len(deadly & set(shard.items))
        died = [items for items in cluster.deaths if set(items) <= set(shard.items)]
        assert len(died) <= guilty * (2 + len(shard.items).bit_length())


def test_a_single_item_that_died_in_company_is_tried_alone_before_it_is_given_up() -> None:
    cluster = Cluster({0})
    on(cluster).run(TOY, [Shard((0,)), Shard((1,))], "")
    assert cluster.deaths == [(0,), (0,)]
    assert cluster.given_up == [0]


def test_what_cannot_be_cut_and_other_errors_end_the_stage_with_all_else_done() -> None:
    shards = [Whole((0, 1)), Shard((2, 3)), Shard((4, 5, 6)), Shard((7,))]
    cluster = Cluster({0, 5}, {3})
    with pytest.raises(
        PairxError, match="4 of 8 items were not processed, for 2 of 4 shards broke off"
    ) as caught:
        on(cluster).run(TOY, shards, "")  # type: ignore[arg-type]
    assert "KilledWorker" in str(caught.value)
    assert cluster.given_up == [5]


def test_only_what_can_be_cut_has_a_time_limit() -> None:
    job: Any = Job(Settings())
    assert Work(TOY, job, Shard((0, 1)), 9.0).seconds == 9.0
    assert Work(TOY, job, Whole((0, 1)), 9.0).seconds is None


def test_an_item_that_ends_its_workers_unread_is_an_error() -> None:
    with pytest.raises(PairxError, match="1 of 1 shards broke off; the first: KilledWorker"):
        on(Cluster({1}, immortal=True)).run(TOY, [Shard((0, 1))], "")
