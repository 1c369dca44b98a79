from __future__ import annotations

import os
from typing import Any

import pytest

from flows import cluster
from flows.cluster import dask_cluster, resolve_kind, worker_count
from schemas.errors import PairxError, SettingsError
from schemas.settings import Settings


@pytest.mark.parametrize(
    ("gpus", "dask_cuda", "kind"), [(0, True, "local"), (2, False, "local"), (2, True, "cuda")]
)
def test_auto_takes_the_gpus_where_they_can_be_used(
    monkeypatch: pytest.MonkeyPatch, gpus: int, dask_cuda: bool, kind: str
) -> None:
    monkeypatch.setattr(cluster, "_gpus", lambda: gpus)
    monkeypatch.setattr(cluster, "_has_dask_cuda", lambda: dask_cuda)
    assert resolve_kind("auto") == kind
    assert resolve_kind("local") == "local"


def test_addresses_pass_and_other_words_are_refused() -> None:
    assert resolve_kind("tcp://10.0.0.1:8786") == "tcp://10.0.0.1:8786"
    with pytest.raises(SettingsError, match="slurm"):
        resolve_kind("slurm")


def test_a_silent_scheduler_is_an_error_with_a_cure(monkeypatch: pytest.MonkeyPatch) -> None:
    import distributed

    def refuse(*_: Any, **__: Any) -> None:
        raise OSError("timed out")

    monkeypatch.setattr(distributed, "Client", refuse)
    with (
        pytest.raises(PairxError, match="no Dask scheduler answers"),
        dask_cluster(Settings(cluster="tcp://127.0.0.1:1")),
    ):
        pass


def test_a_foreign_scheduler_is_used_and_left_running(scheduler: str) -> None:
    for _ in range(2):
        with dask_cluster(Settings(cluster=scheduler)) as found:
            assert (found.address, found.kind, found.workers) == (scheduler, "external", 1)


@pytest.mark.parametrize(("cores", "memory", "wanted"), [(8, 64 << 30, 8), (8, 7 << 30, 2), (2, 1 << 30, 1)])
def test_workers_are_one_per_core_as_memory_allows(
    monkeypatch: pytest.MonkeyPatch, cores: int, memory: int, wanted: int
) -> None:
    import distributed.system

    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(cores)))
    monkeypatch.setattr(distributed.system, "MEMORY_LIMIT", memory)
    assert worker_count(Settings()) == wanted
    assert worker_count(Settings(workers=5)) == 5


def test_the_cores_are_shared_among_the_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    import dask
    import distributed

    seen: dict[str, Any] = {}

    class Recorded:
        scheduler_address = "tcp://127.0.0.1:1"

        def __init__(self, **options: Any) -> None:
            seen.update(options, environment=dask.config.get("distributed.nanny.pre-spawn-environ"))
            self.workers = dict.fromkeys(range(options["n_workers"]))

        def __enter__(self) -> Recorded:
            return self

        def __exit__(self, *_: object) -> None:
            return None

    monkeypatch.setattr(distributed, "LocalCluster", Recorded)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    with dask_cluster(Settings(cluster="local", workers=3)) as found:
        assert found.workers == 3
    assert {seen["environment"][f"{name}_NUM_THREADS"] for name in ("OMP", "MKL", "OPENBLAS")} == {"2"}
    assert (seen["host"], seen["processes"], seen["threads_per_worker"]) == ("127.0.0.1", True, 1)
    assert seen["dashboard_address"].startswith("127.0.0.1:")


def test_workers_know_the_server_and_wait_without_spinning(scheduler: str, server: str) -> None:
    from distributed import Client

    names = ("PREFECT_API_URL", "OMP_WAIT_POLICY")
    with Client(scheduler) as client:
        ((_, seen),) = client.run(
            lambda names: {n: __import__("os").environ.get(n) for n in names}, names
        ).items()
    assert seen["PREFECT_API_URL"] == server
    assert seen["OMP_WAIT_POLICY"] == "PASSIVE"
