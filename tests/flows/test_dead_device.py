"""A device that dies ends its worker's process and nothing else: the run goes on in a new one."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from flows.work import shard_work
from flows.work.shard_work import Work
from schemas.errors import AcceleratorFailure, WarehouseError
from schemas.stages import SCORE
from tasks.shards import ShardResult, Stage
from tests.finished_runs import Finished
from tests.flows.running import run_flow, shards_of
from tests.small_catalogue import assert_same_rows, rows_of

ILLEGAL = "CUDA error: an illegal memory access was encountered"


class Ended(BaseException):
    """Stands in for the end of the process."""


def work_that_raises(error: Exception) -> Work:
    def fail(job: Any, shard: Any) -> ShardResult:
        raise error

    return Work(Stage.of(SCORE, fail, len), None, SimpleNamespace(name="s"), 60.0)  # type: ignore[arg-type]


def on_a_worker(
    nanny: str | None, monkeypatch: pytest.MonkeyPatch, told: list[tuple[str, str]] | None = None
) -> list[int]:
    """Pretend to be a Dask worker; returns the exit statuses that it ends with.

    `told` collects what it tells the scheduler.
    """
    codes: list[int] = []
    heard = [] if told is None else told

    def end(code: int) -> None:
        codes.append(code)
        raise Ended

    worker = SimpleNamespace(
        nanny=nanny,
        log_event=lambda topic, message: heard.append((topic, message)),
        memory_manager=SimpleNamespace(memory_limit=None),
    )
    monkeypatch.setattr(shard_work, "get_worker", lambda: worker)
    monkeypatch.setattr(shard_work.os, "_exit", end)
    return codes


@pytest.mark.parametrize("error", [RuntimeError(ILLEGAL), AcceleratorFailure(f"score of p: {ILLEGAL}")])
def test_a_worker_with_a_nanny_ends(
    error: Exception, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    told: list[tuple[str, str]] = []
    codes = on_a_worker("tcp://127.0.0.1:1", monkeypatch, told)
    work = work_that_raises(error)
    with pytest.raises(Ended):
        work.do()
    assert codes == [70]
    assert [token for _, token in told] == [work.token]  # so that no photo of the shard is blamed
    said = capfd.readouterr().err
    assert "a shard of score is tried elsewhere" in said
    assert ILLEGAL in said


@pytest.mark.parametrize("place", ["worker without a nanny", "no worker"])
def test_elsewhere_the_error_is_raised(place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    codes = on_a_worker(None, monkeypatch) if place != "no worker" else []
    with pytest.raises(AcceleratorFailure, match="illegal memory access"):
        work_that_raises(RuntimeError(ILLEGAL)).do()
    assert codes == []


def test_other_errors_leave_the_process_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    codes = on_a_worker("tcp://127.0.0.1:1", monkeypatch)
    for error in (WarehouseError("full"), RuntimeError("shapes differ"), MemoryError()):
        with pytest.raises(type(error)):
            work_that_raises(error).do()
    assert codes == []


def die_in_the_third_pair(marker: str) -> int:
    """Runs in a worker: from now on the third pair that it scores finds the device dead.

    Returns the process id.
    """
    import os

    from tasks.stages import score

    evidence, pairs = score.evidence_between, iter(range(1_000_000))

    def dying(*given: Any) -> Any:
        if next(pairs) == 2:
            Path(marker).touch(exist_ok=False)
            raise RuntimeError(ILLEGAL)
        return evidence(*given)

    score.evidence_between = dying  # type: ignore[assignment]
    return os.getpid()


@pytest.mark.slow
def test_a_run_goes_on_after_a_device_died(
    small: Path, scheduler: str, undisturbed: Finished, tmp_path: Path
) -> None:
    from distributed import Client

    marker, warehouse = tmp_path / "died", undisturbed.unscored(tmp_path / "w")
    with Client(scheduler) as client:
        (before,) = client.run(die_in_the_third_pair, str(marker)).values()
        summary = run_flow(small, warehouse, scheduler)
        (after,) = client.run(shard_work.os.getpid).values()
    assert marker.exists()
    assert before != after
    again, first = shards_of(summary), shards_of(undisturbed.summary)
    assert (again["embed"], again["score"], again["draw"]) == (0, first["score"], first["draw"])
    assert_same_rows(warehouse, undisturbed.warehouse)
    assert not [f for f in rows_of(warehouse, "failures").values() if f["stage"] == "score"]
