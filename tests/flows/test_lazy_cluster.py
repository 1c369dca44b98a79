"""A cluster starts with the first work, is as small as that, and grows."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from distributed import Client

from flows.clusters.choice import dask_cluster
from flows.clusters.kinds import Cluster
from flows.clusters.lazy import LazyCluster
from schemas.settings import Settings


class Started:
    """Keeps account of a stand-in for a cluster."""

    def __init__(self) -> None:
        self.events: list[object] = []

    @contextmanager
    def start(self, workers: int) -> Iterator[Cluster]:
        self.events.append(("start", workers))
        yield Cluster("tcp://127.0.0.1:1", "toy", 1, grow=lambda shards: self.events.append(("grow", shards)))
        self.events.append("closed")


def test_it_starts_when_it_is_needed_and_grows_with_the_work() -> None:
    toy = Started()
    with LazyCluster(toy.start) as lazy:
        lazy.foresee(0)
        assert not lazy.is_running
        lazy.expect(1)
        lazy.expect(3)
        assert toy.events == []
        assert lazy.cluster() is lazy.cluster()
        lazy.expect(2)
        lazy.expect(9)
    assert toy.events == [("start", 3), ("grow", 9), "closed"]


def test_one_that_is_never_needed_never_starts() -> None:
    toy = Started()
    with LazyCluster(toy.start) as lazy:
        lazy.foresee(0)
    assert toy.events == []


def test_all_workers_start_at_once_where_much_is_foreseen() -> None:
    toy = Started()
    with LazyCluster(toy.start) as lazy:
        lazy.foresee(None)
        lazy.expect(1000)
    assert toy.events == [("start", 1 << 30), "closed"]


def setting(dask_worker: Any) -> tuple[str | None, int]:
    return os.environ.get("OMP_NUM_THREADS"), dask_worker.memory_manager.memory_limit


def test_a_worker_is_the_same_however_many_there_are() -> None:
    with dask_cluster(Settings(cluster="local", workers=2), at_first=1) as found:
        assert found.workers == 1
        assert found.grow is not None
        with Client(found.address, set_as_default=False) as client:
            (first,) = client.run(setting).values()
            found.grow(5)
            client.wait_for_workers(2, timeout=120)
            assert set(client.run(setting).values()) == {first}
