"""What a task may take of memory, and that many large photos take no more than a few of them do."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tasks.memory import memory_limit, photos_at_once, share, within_memory
from tests.flows.running import environment
from tests.large_photos import write_large_photos

_GIB = 1 << 30
_PIXELS = 6_000_000


def test_a_task_may_take_what_its_worker_was_given() -> None:
    whole = memory_limit()
    assert whole > _GIB
    with within_memory(_GIB):
        assert (memory_limit(), share(1 / 4)) == (_GIB, _GIB // 4)
        with within_memory(1 << 60):
            assert memory_limit() == whole, "a worker's limit is no more memory than there is"
    with within_memory(None):
        assert memory_limit() == whole


def test_the_limit_of_a_process_is_the_least_of_its_limits() -> None:
    code = (
        "import resource; from tasks.memory import memory_limit;"
        "resource.setrlimit(resource.RLIMIT_AS, (1 << 29, resource.RLIM_INFINITY)); print(memory_limit())"
    )
    found = subprocess.run(
        [sys.executable, "-c", code], env=environment(), capture_output=True, text=True, check=True
    )
    assert int(found.stdout) == 1 << 29


def test_photos_at_once_follow_from_the_limit() -> None:
    with within_memory(_GIB):
        assert photos_at_once(1 << 20) == 256
        assert photos_at_once(_GIB) == 2, "a pair has two photos"
    with within_memory(2 * _GIB):
        assert photos_at_once(1 << 20) == 512


@pytest.mark.slow
@pytest.mark.parametrize("stages", [(), ("all",)])
def test_a_shard_of_many_large_photos_takes_what_one_of_a_few_takes(
    stages: tuple[str, ...], tmp_path: Path
) -> None:
    """The peak of sixteen photos of 6 megapixels exceeds that of six by less than four photos, 72 MB.

    If all were kept, they would take 180 MB more. Of six photos figures are drawn, too: what drawing takes the
    first time is no growth.
    """
    catalogues = [str(write_large_photos(tmp_path / f"{count}", count, _PIXELS)) for count in (6, 16)]
    command = [sys.executable, "-m", "tests.large_photos", str(tmp_path), *catalogues, *stages]
    found = subprocess.run(
        command, env=environment(), capture_output=True, text=True, check=False, timeout=600
    )
    assert found.returncode == 0, found.stderr[-4000:]
    growth = json.loads(found.stdout)
    assert growth.keys() >= {"ingest", "embed", "score", "verify"}
    assert {stage: more for stage, more in growth.items() if more > 4 * 3 * _PIXELS} == {}


@pytest.mark.slow
def test_64_photos_of_24_megapixels_fit_into_a_worker_of_4_gib(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A night and its evaluation on one worker, whose nanny ends it at 95 % of the limit.

    No shard is cut, and no photo fails.
    """
    from flows.clusters import kinds as cluster_kinds
    from flows.evaluation import EvaluationPlan, evaluate
    from flows.work.progress import Silent
    from schemas.evaluate_options import EvaluateOptions
    from schemas.settings import Settings
    from tasks.job import prepare_job
    from tasks.store.lease import at_work
    from tasks.store.warehouse import Warehouse
    from tests.flows.running import run_flow, shards_of
    from tests.small_catalogue import TINY, read_small

    monkeypatch.setattr(cluster_kinds, "memory_limit", lambda workers: 4 * _GIB)
    metadata = write_large_photos(tmp_path / "catalogue", 64, 24_000_000)
    warehouse, many = Warehouse(str(tmp_path / "w")), {"photos_per_shard": 64, "pairs_per_shard": 1000}
    summary = run_flow(metadata, warehouse, "local", **many)
    stages = ("ingest", "embed", "score", "verify")
    assert {stage: shards_of(summary)[stage] for stage in stages} == dict.fromkeys(stages, 1)
    assert sum(log.failed for log in summary.stages) == 0
    options = EvaluateOptions(choose=True, sweep_pairs=64, faithfulness=2, figures=2)
    plan = EvaluationPlan("large", options, methods=("gradient",))
    job = prepare_job(warehouse, Settings(**{**TINY, **many}))
    with at_work(warehouse, "test") as lease:
        found = evaluate(read_small(metadata), job, lease, plan, Silent())
    assert found.balance.ok
    assert found.evaluation.n_photos == 64
