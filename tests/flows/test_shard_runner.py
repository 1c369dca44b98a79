"""A run looks after its cluster: workers that are gone for a while are news, a scheduler that is gone ends it."""

from __future__ import annotations

import time
from contextlib import nullcontext
from types import SimpleNamespace

import pytest

from flows.clusters.kinds import Cluster
from flows.clusters.lazy import LazyCluster
from flows.work import cluster_watch
from flows.work.shard_runner import ShardRunner
from schemas.errors import PairxError


class Clock:
    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 100.0
        monkeypatch.setattr(time, "monotonic", lambda: self.now)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    monkeypatch.setattr(cluster_watch, "patience", lambda: 60.0)
    return Clock(monkeypatch)


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    found = SimpleNamespace(status="running", workers={})
    found.scheduler_info = lambda n_workers: {"workers": found.workers}
    monkeypatch.setattr(ShardRunner, "client", found, raising=False)
    return found


def runner(device: str = "cpu") -> ShardRunner:
    cluster = Cluster("tcp://127.0.0.1:1", "external", 1, device)  # type: ignore[arg-type]
    return ShardRunner(LazyCluster(lambda workers: nullcontext(cluster)))


def test_only_a_lasting_lack_of_workers_is_news_and_said_once(client: SimpleNamespace, clock: Clock) -> None:
    one = runner()
    assert one.look() is None
    clock.now += 5
    assert one.look() is None
    clock.now += 6
    assert "no worker left; waiting for one, 60 s at most" in str(one.look())
    clock.now += 6
    assert one.look() is None
    client.workers = {"a": {"resources": {}}}
    assert one.look() is None
    client.workers = {}
    assert one.look() is None
    clock.now += 11
    assert "no worker left" in str(one.look())
    clock.now += 61
    with pytest.raises(PairxError, match="has had no worker for 60 s"):
        one.look()


def test_for_work_on_gpus_a_worker_without_one_is_none(client: SimpleNamespace, clock: Clock) -> None:
    client.workers = {"a": {"resources": {}}}
    one = runner("cuda")
    one.look()
    clock.now += 11
    assert "no worker left" in str(one.look())
    client.workers = {"a": {"resources": {"GPU": 1}}}
    assert one.look() is None


def test_a_scheduler_that_goes_while_it_is_asked_is_gone(client: SimpleNamespace, clock: Clock) -> None:
    def dying(n_workers: int) -> dict[str, dict[str, object]]:
        client.status = "connecting"
        return {"workers": {}}

    client.scheduler_info = dying
    with pytest.raises(PairxError, match="the Dask scheduler at tcp://127.0.0.1:1 is gone"):
        runner().look()


def test_a_scheduler_that_is_gone_before_the_first_shard_is_no_lost_storage(
    monkeypatch: pytest.MonkeyPatch, clock: Clock
) -> None:
    def connect(self: ShardRunner) -> None:
        raise OSError("Timed out trying to connect to tcp://127.0.0.1:1 after 30 s")

    monkeypatch.setattr(ShardRunner, "client", property(connect), raising=False)
    with pytest.raises(PairxError, match="the Dask scheduler at tcp://127.0.0.1:1 is gone"):
        runner().look()
