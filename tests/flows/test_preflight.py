"""Workers that differ are refused at the start.

Differences that would take another installation are simulated inside a worker.
"""

from __future__ import annotations

import inspect
import logging
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import fsspec
import pytest
from distributed import Client, Worker

from flows.clusters.choice import dask_cluster
from flows.clusters.kinds import Cluster
from flows.work import preflight
from flows.work.preflight import equal_workers
from schemas.errors import PairxError, SettingsError
from schemas.settings import Settings
from tasks.job import Job, prepare_job
from tasks.store.warehouse import Warehouse
from tests.small_catalogue import TINY


@pytest.fixture
def job(tmp_path: Path) -> Job:
    return prepare_job(Warehouse(str(tmp_path / "w")), Settings(**TINY))


@pytest.fixture
def cluster(scheduler: str) -> Cluster:
    return Cluster(scheduler, "external", 1)


@contextmanager
def in_worker(cluster: Cluster, change: Callable[[], Any], undo: Callable[[], Any]) -> Iterator[None]:
    """A block in which the worker's process is another than ours."""
    with Client(cluster.address, set_as_default=False) as client:
        client.run(change)
        try:
            yield
        finally:
            client.run(undo)


def refused(cluster: Cluster, job: Job, photo: tuple[str, str] | None = None) -> str:
    """What the refusal says."""
    with pytest.raises(PairxError) as error, equal_workers(cluster, job, photo):
        pytest.fail("the block was entered")
    assert not Path(job.warehouse.root).exists()
    assert "1 of 1 workers" in str(error.value)
    return str(error.value)


def test_a_worker_like_this_process_passes_and_every_later_one_is_looked_at(
    cluster: Cluster, job: Job, tmp_path: Path
) -> None:
    (tmp_path / "a.jpg").write_bytes(b"photo")

    def gates(dask_worker: Any) -> list[str]:
        return [name for name in dask_worker.plugins if name.startswith("pairx-")]

    with Client(cluster.address, set_as_default=False) as client:
        with equal_workers(cluster, job, (str(tmp_path), "a.jpg")):
            assert [len(found) for found in client.run(gates).values()] == [1]
        assert list(client.run(gates).values()) == [[]]


def test_a_worker_with_other_versions_is_refused_with_both(cluster: Cluster, job: Job) -> None:
    def change() -> None:
        from tasks.runs import surroundings

        surroundings._kept = surroundings._version, surroundings.source  # type: ignore[attr-defined]
        surroundings._version = lambda package: "0.1" if package == "timm" else surroundings._kept[0](package)  # type: ignore[attr-defined]
        surroundings.source = lambda: "cafe"  # type: ignore[assignment]

    def undo() -> None:
        from tasks.runs import surroundings

        surroundings._version, surroundings.source = surroundings._kept  # type: ignore[attr-defined]

    with in_worker(cluster, change, undo):
        said = refused(cluster, job)
    assert "timm is 0.1, not " in said
    assert "this package is cafe, not " in said
    assert "torch" not in said
    assert "constraints.txt" in said


def test_a_worker_without_this_package_is_refused(cluster: Cluster, job: Job) -> None:
    def change() -> None:
        import sys

        sys.modules["kept"], sys.modules["tasks.runs.surroundings"] = (
            sys.modules["tasks.runs.surroundings"],
            None,
        )  # type: ignore[assignment]

    def undo() -> None:
        import sys

        sys.modules["tasks.runs.surroundings"] = sys.modules.pop("kept")

    with (
        in_worker(cluster, lambda: __import__("tasks.runs.surroundings"), lambda: None),
        in_worker(cluster, change, undo),
    ):
        assert "this package is not there" in refused(cluster, job)


def test_a_worker_that_sees_no_warehouse_or_no_photos_is_refused(cluster: Cluster, job: Job) -> None:
    memory = fsspec.filesystem("memory")
    memory.pipe_file("/photos/a.jpg", b"photo")
    try:
        said = refused(cluster, job, ("memory://photos", "a.jpg"))
        assert "the photo a.jpg below memory://photos is no file at a.jpg, not " in said
        assert "the warehouse" not in said
        elsewhere = prepare_job(Warehouse("memory://nowhere/w"), Settings(**TINY))
        assert "the warehouse memory://nowhere/w is another place, or none" in refused(cluster, elsewhere)
    finally:
        memory.rm("/photos", recursive=True)


def test_a_worker_that_loads_another_model_is_refused(cluster: Cluster, job: Job) -> None:
    def change() -> None:
        from tasks import job
        from tasks.runs import surroundings

        job._kept = job.engine_on  # type: ignore[attr-defined]

        class Other:
            model = type("", (), {"identity": lambda self: {"weights": "others"}})()

        def other(asked: Any, on: str) -> Any:
            return type("Engine", (), {"model": Other.model, "matcher": job._kept(asked, on).matcher})()  # type: ignore[attr-defined]

        surroundings.engine_on = other

    def undo() -> None:
        from tasks import job
        from tasks.runs import surroundings

        surroundings.engine_on = job._kept  # type: ignore[attr-defined]

    with in_worker(cluster, change, undo):
        said = refused(cluster, job)
    assert "the model embedded is " in said
    assert "the matcher" not in said


def test_a_worker_that_cannot_answer_is_named(
    cluster: Cluster, job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(preflight, "_TO_ANSWER", 1.0)
    with Client(cluster.address, set_as_default=False) as client:
        ((address, pid),) = client.run(os.getpid).items()
    os.kill(pid, signal.SIGSTOP)
    try:
        with (
            pytest.raises(PairxError, match=rf"do not answer within 1 s: {address}"),
            equal_workers(cluster, job, None),
        ):
            pytest.fail("the block was entered")
    finally:
        os.kill(pid, signal.SIGCONT)


def test_a_gpu_that_nobody_declares_is_refused_at_once(scheduler: str) -> None:
    with (
        pytest.raises(
            SettingsError, match=r"none of the 1 workers .* does[\s\S]*dask worker tcp://.* --resources GPU=1"
        ),
        dask_cluster(Settings(cluster=scheduler, device="cuda")),
    ):
        pass


def test_what_is_declared_must_be_there(job: Job) -> None:
    from distributed import LocalCluster

    resources = {"resources": {"GPU": 1}}
    with LocalCluster(
        n_workers=1, processes=False, protocol="tcp", host="127.0.0.1", dashboard_address=None, **resources
    ) as local:
        with dask_cluster(Settings(cluster=local.scheduler_address)) as found:
            assert found.device == "cuda"
        with pytest.raises(PairxError, match=r"the device is cpu, not cuda"), equal_workers(found, job, None):
            pytest.fail("the block was entered")
        with dask_cluster(Settings(cluster=local.scheduler_address, device="cpu")) as found:
            assert found.device == "cpu"


def test_a_worker_without_its_scheduler_says_so_by_its_end_alone() -> None:
    """The words that are left out are those that Dask has for it, and no others."""
    said = "Failed to communicate with scheduler during heartbeat."
    assert said in inspect.getsource(Worker.heartbeat)
    for text, kept in ((said, False), ("Unexpected exception during heartbeat. Closing worker.", True)):
        record = logging.LogRecord("distributed.worker", logging.ERROR, "", 1, text, (), None)
        assert preflight._heartbeat_arrived(record) is kept


def test_our_own_workers_leave_these_words_out(cluster: Cluster, job: Job) -> None:
    def heard() -> tuple[list[str], bool]:
        filters = [f.__name__ for f in logging.getLogger("distributed.worker").filters]
        return filters, logging.getLogger("EventsWorker").isEnabledFor(logging.ERROR)

    with equal_workers(cluster, job, None), Client(cluster.address, set_as_default=False) as client:
        assert list(client.run(heard).values()) == [(["_heartbeat_arrived"], False)]
