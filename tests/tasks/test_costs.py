"""Where a shard's time goes: parts inside parts, shares, and what a night says of it."""

from __future__ import annotations

import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from flows.work.shard_work import Work
from tasks import costs
from tasks.costs import counting, limit_in_words, shares, shares_in_words, spent_on
from tasks.photo_files import ViewCache
from tasks.runs.log import StageLog, limit_of_embedding
from tasks.shards import ShardResult
from tasks.stages import embed
from tasks.stages.embed import EMBED, embed_shard
from tasks.store.warehouse import Warehouse
from tests.small_catalogue import Stages, read_small


class Clock:
    now = 0.0

    def fail_at(self, now: float) -> None:
        self.now = now
        raise ZeroDivisionError

    def perf_counter(self) -> float:
        return self.now


def test_a_part_inside_another_counts_for_itself_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    monkeypatch.setattr(costs, "time", SimpleNamespace(perf_counter=clock.perf_counter))
    with counting() as found:
        clock.now = 5  # nobody's
        with spent_on("device"):
            clock.now = 7
            with spent_on("features"):
                clock.now = 8
            clock.now = 8.5
        with pytest.raises(ZeroDivisionError), spent_on("reading"):
            clock.fail_at(11)
        with spent_on("device"):
            clock.now = 12
    assert found.seconds == {"device": 3.5, "features": 1.0, "reading": 2.5}
    with spent_on("device"):  # nobody counts
        clock.now = 20
    assert found.seconds["device"] == 3.5


def test_shares_are_of_the_workers_time_and_what_is_left_is_other() -> None:
    parts = {"reading": 1.0, "decoding": 7.1, "writing": 0.01, "unknown": 50.0}
    assert shares(parts, 10.0) == pytest.approx(
        {"decoding": 0.71, "other": 0.189, "reading": 0.1, "writing": 0.001}
    )
    assert limit_in_words(parts, 10.0) == "decoding took 71 % of the workers' time"
    assert shares_in_words(parts, 10.0) == "decoding 71 %, other 19 %, reading 10 %"
    assert limit_in_words({"reading": 1.0}, 10.0) == "other work took 90 % of the workers' time"
    assert shares({"reading": 3.0}, 2.0) == {"reading": 1.0}  # clocks of two kinds may differ a little
    assert limit_in_words({}, 10.0) is limit_in_words({"reading": 1.0}, 0.0) is None


def test_a_stage_sums_what_its_workers_measured() -> None:
    one = ShardResult(
        "embed",
        "a",
        64,
        0,
        worker_seconds=4.0,
        processor_seconds=3.5,
        parts={"decoding": 3.0, "reading": 0.5},
    )
    two = ShardResult(
        "embed", "b", 60, 4, worker_seconds=6.0, processor_seconds=5.5, parts={"device": 1.0, "decoding": 4.1}
    )
    log = StageLog.of("embed", [one, two], 5.0, 128)
    assert (log.items, log.per_second, log.worker_seconds, log.processor_seconds) == (128, 25.6, 10.0, 9.0)
    assert log.parts == pytest.approx({"reading": 0.5, "decoding": 7.1, "device": 1.0})
    assert limit_of_embedding([StageLog("ingest"), log]) == "embed: decoding took 71 % of the workers' time"
    assert StageLog("embed").per_second is limit_of_embedding([StageLog("embed")]) is None


def test_a_worker_sends_sums_and_they_are_at_most_its_time(
    stages: Stages, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embed, "VIEWS", ViewCache())  # ingest and others have left theirs in this process
    begun = time.perf_counter()
    result = Work(EMBED, stages.job, stages.embed[0], 60.0).do()
    took = time.perf_counter() - begun
    assert set(result.parts) == {"loading", "reading", "decoding", "features", "device", "writing"}
    assert all(seconds > 0 for seconds in result.parts.values())
    assert sum(result.parts.values()) <= result.worker_seconds <= took
    assert result.processor_seconds > 0
    assert embed_shard(stages.job, stages.embed[0]).parts == {}  # nobody counted


@pytest.fixture(scope="module")
def stages(small: Path, tmp_path_factory: pytest.TempPathFactory) -> Stages:
    return Stages.run(read_small(small), Warehouse(str(tmp_path_factory.mktemp("w"))), until="embed")
