from __future__ import annotations

import os
import sys
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest

from flows.clusters import gpus as cluster_gpus
from flows.clusters.choice import dask_cluster, pairs_per_shard, resolve_kind, worker_count
from schemas.errors import PairxError, SettingsError
from schemas.settings import Settings


@pytest.mark.parametrize(
    ("gpus", "dask_cuda", "kind"), [([], True, "local"), (["0", "1"], False, "cuda"), (["0"], True, "cuda")]
)
def test_auto_takes_the_gpus_where_there_are_any(
    monkeypatch: pytest.MonkeyPatch, gpus: list[str], dask_cuda: bool, kind: str
) -> None:
    monkeypatch.setattr(cluster_gpus, "_gpus", lambda: gpus)
    monkeypatch.setattr(cluster_gpus, "_has_dask_cuda", lambda: dask_cuda)
    assert resolve_kind(Settings()) == kind
    assert resolve_kind(Settings(cluster="local")) == "local"
    assert resolve_kind(Settings(device="cpu")) == "local"
    assert resolve_kind(Settings(device="cuda")) == "cuda"


@pytest.mark.parametrize(
    ("gpus", "kind", "given", "size"),
    [
        ([], "auto", None, 96),
        (["0"], "auto", None, 2000),
        (["0"], "local", None, 96),
        (["0"], "tcp://10.0.0.1:8786", None, 96),
        (["0"], "auto", 500, 500),
    ],
)
def test_shards_are_larger_on_gpus(
    monkeypatch: pytest.MonkeyPatch, gpus: list[str], kind: str, given: int | None, size: int
) -> None:
    monkeypatch.setattr(cluster_gpus, "_gpus", lambda: gpus)
    assert pairs_per_shard(Settings(cluster=kind, pairs_per_shard=given)) == size


def test_addresses_pass_and_other_words_are_refused() -> None:
    for word in ("tcp://", "tls://host", "tcp://:8786", "tcp://a b:1", "tcp://host:port"):
        with pytest.raises(SettingsError, match="names no host and port"):
            resolve_kind(Settings(cluster=word))
    for place in ("tcp://10.0.0.1:8786", "slurm", "kubernetes"):
        assert resolve_kind(Settings(cluster=place)) == place
    known = "auto, local, cuda, slurm, kubernetes or tcp://HOST:PORT"
    for word in ("pbs", "ftp://10.0.0.1:21", "tcp"):
        with pytest.raises(SettingsError, match=rf"'{word}'[\s\S]*use {known}"):
            resolve_kind(Settings(cluster=word))


@pytest.mark.parametrize(("cluster", "device"), [("local", "cuda"), ("cuda", "cpu")])
def test_a_cluster_that_has_no_such_device_is_refused(cluster: str, device: str) -> None:
    with pytest.raises(SettingsError, match=rf"cluster '{cluster}' computes on .*, not on '{device}'"):
        resolve_kind(Settings(cluster=cluster, device=device))


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
    for place in ("local", "tcp://10.0.0.1:8786"):
        assert worker_count(Settings(cluster=place)) == wanted
        assert worker_count(Settings(cluster=place, workers=5)) == 5
    monkeypatch.setattr(cluster_gpus, "_gpus", lambda: ["0", "1", "2"])
    assert worker_count(Settings(cluster="cuda")) == 3
    assert worker_count(Settings(cluster="cuda", workers=5)) == 5


class Recorded:
    """Takes the place of a Dask cluster and remembers what it was asked for, and in which environment."""

    scheduler_address = "tcp://127.0.0.1:1"
    seen: ClassVar[dict[str, Any]] = {}

    def __init__(self, **options: Any) -> None:
        import dask

        environment = dask.config.get("distributed.nanny.pre-spawn-environ")
        Recorded.seen = {**options, "environment": environment}
        self.workers = options.get("workers") or dict.fromkeys(range(options["n_workers"]))

    def __enter__(self) -> Recorded:
        return self

    def __exit__(self, *_: object) -> None:
        return None


def threads(environment: dict[str, str]) -> set[str]:
    return {environment[f"{name}_NUM_THREADS"] for name in ("OMP", "MKL", "OPENBLAS")}


def test_the_cores_and_the_memory_are_shared_among_the_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    import distributed
    import distributed.system

    monkeypatch.setattr(distributed, "LocalCluster", Recorded)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    monkeypatch.setattr(distributed.system, "MEMORY_LIMIT", 30 << 30)
    with dask_cluster(Settings(cluster="local", workers=3)) as found:
        assert found.workers == 3
    seen = Recorded.seen
    assert threads(seen["environment"]) == {"2"}
    assert (seen["host"], seen["processes"], seen["threads_per_worker"]) == ("127.0.0.1", True, 1)
    assert seen["dashboard_address"].startswith("127.0.0.1:")
    assert seen["memory_limit"] == 10 << 30
    assert seen["env"] == {"CUDA_VISIBLE_DEVICES": ""}


class Slow(Recorded):
    """A cluster whose workers do not end in time."""

    def __exit__(self, *_: object) -> None:
        raise TimeoutError


def test_workers_that_are_slow_to_end_do_not_fail_a_finished_run(monkeypatch: pytest.MonkeyPatch) -> None:
    import distributed

    monkeypatch.setattr(distributed, "LocalCluster", Slow)
    with dask_cluster(Settings(cluster="local", workers=1)) as found:
        assert found.workers == 1
    monkeypatch.setattr(distributed, "LocalCluster", Recorded)
    with pytest.raises(TimeoutError, match="of the work"), dask_cluster(Settings(cluster="local", workers=1)):
        raise TimeoutError("of the work")


def on_gpus(
    monkeypatch: pytest.MonkeyPatch, names: list[str], gigabytes: int = 80, dask_cuda: bool = False
) -> None:
    """Pretend that torch sees these GPUs."""
    monkeypatch.setattr(cluster_gpus, "_gpus", lambda: names)
    monkeypatch.setattr(cluster_gpus, "_gpu_memory", lambda index: gigabytes << 30)
    monkeypatch.setattr(cluster_gpus, "_has_dask_cuda", lambda: dask_cuda)


@pytest.mark.parametrize(
    ("workers", "shown"),
    [(None, ["GPU-a", "GPU-b"]), (1, ["GPU-a"]), (5, ["GPU-a", "GPU-b", "GPU-a", "GPU-b", "GPU-a"])],
)
def test_plain_workers_take_turns_on_the_gpus(
    monkeypatch: pytest.MonkeyPatch, workers: int | None, shown: list[str]
) -> None:
    import distributed

    on_gpus(monkeypatch, ["GPU-a", "GPU-b"])
    monkeypatch.setattr(distributed, "SpecCluster", Recorded)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(16)))
    with dask_cluster(Settings(cluster="auto", workers=workers)) as found:
        assert (found.kind, found.workers) == ("cuda", len(shown))
    specs = [spec["options"] for _, spec in sorted(Recorded.seen["workers"].items())]
    assert [options["env"]["CUDA_VISIBLE_DEVICES"] for options in specs] == shown
    assert threads(Recorded.seen["environment"]) == {str(16 // len(shown))}
    assert {(o["host"], o["nthreads"]) for o in specs} == {("127.0.0.1", 1)}


@pytest.mark.parametrize(("workers", "by_dask_cuda"), [(None, True), (1, True), (2, True), (3, False)])
def test_dask_cuda_is_used_while_every_worker_has_a_gpu_of_its_own(
    monkeypatch: pytest.MonkeyPatch, workers: int | None, by_dask_cuda: bool
) -> None:
    import distributed

    on_gpus(monkeypatch, ["0", "1"], dask_cuda=True)
    monkeypatch.setattr(distributed, "SpecCluster", Recorded)
    monkeypatch.setitem(sys.modules, "dask_cuda", SimpleNamespace(LocalCUDACluster=Recorded))
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(16)))
    with dask_cluster(Settings(cluster="cuda", workers=workers)) as found:
        assert found.workers == (workers or 2)
    assert ("n_workers" in Recorded.seen) == by_dask_cuda
    assert threads(Recorded.seen["environment"]) == {str(16 // (workers or 2))}


def test_more_workers_than_fit_into_a_gpu_are_refused_with_the_numbers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    on_gpus(monkeypatch, ["0", "1"], gigabytes=16)
    with (
        pytest.raises(
            SettingsError,
            match=r"5 workers on 2 GPUs make 3 on one.* 6 GB .* 16 GB[\s\S]*--workers 4 at most",
        ),
        dask_cluster(Settings(cluster="cuda", workers=5)),
    ):
        pass
    on_gpus(monkeypatch, ["0"], gigabytes=4)
    with (
        pytest.raises(SettingsError, match=r"2 workers on 1 GPU [\s\S]*--workers 1 at most"),
        dask_cluster(Settings(cluster="cuda", workers=2)),
    ):
        pass


def test_cuda_without_a_gpu_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    on_gpus(monkeypatch, [])
    with (
        pytest.raises(SettingsError, match=r"torch sees none[\s\S]*--cluster local"),
        dask_cluster(Settings(cluster="cuda")),
    ):
        pass


@pytest.mark.parametrize(
    ("given", "count", "names"),
    [
        (None, 2, ["0", "1"]),
        ("3,1", 2, ["3", "1"]),
        ("GPU-aa, MIG-bb", 2, ["GPU-aa", "MIG-bb"]),
        # CUDA stops at the first name that it does not know.
        ("0,9,1", 1, ["0"]),
        ("", 0, []),
    ],
)
def test_gpus_are_named_as_they_were_given(
    monkeypatch: pytest.MonkeyPatch, given: str | None, count: int, names: list[str]
) -> None:
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    if given is None:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    else:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", given)
    assert cluster_gpus._gpus() == names


def environment_of_a_worker() -> tuple[str | None, str | None]:
    """Runs in a worker."""
    return os.environ.get("CUDA_VISIBLE_DEVICES"), os.environ.get("OMP_NUM_THREADS")


def test_two_workers_share_a_gpu_and_two_others_see_none(monkeypatch: pytest.MonkeyPatch) -> None:
    from distributed import Client

    before = os.environ.get("CUDA_VISIBLE_DEVICES")
    on_gpus(monkeypatch, ["0"])
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "OMP_WAIT_POLICY"):
        monkeypatch.setenv(name, os.environ.get(name, ""))  # nannies change this process's environment
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1})
    for kind, shown in (("cuda", "0"), ("local", "")):
        with dask_cluster(Settings(cluster=kind, workers=2)) as found, Client(found.address) as client:
            assert list(client.run(environment_of_a_worker).values()) == [(shown, "1")] * 2
            pids = client.run(os.getpid)
            assert len({os.getpid(), *pids.values()}) == 3
    assert os.environ.get("CUDA_VISIBLE_DEVICES") == before, "the driver's own view has changed"


def test_workers_know_the_server_and_wait_without_spinning(scheduler: str, server: str) -> None:
    from distributed import Client

    names = ("PREFECT_API_URL", "OMP_WAIT_POLICY")
    with Client(scheduler) as client:
        ((_, seen),) = client.run(
            lambda names: {n: __import__("os").environ.get(n) for n in names}, names
        ).items()
    assert seen["PREFECT_API_URL"] == server
    assert seen["OMP_WAIT_POLICY"] == "PASSIVE"
