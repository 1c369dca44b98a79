"""Dask clusters by one setting: `local` processes, `cuda` (one worker per GPU), or any scheduler by its address."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from schemas.errors import PairxError, SettingsError
from schemas.settings import Settings

if TYPE_CHECKING:
    from prefect import Flow

T = TypeVar("T")
W = TypeVar("W")
_BYTES_PER_WORKER = 3 << 30
"""Memory that a worker may want: torch, a model, and one shard's photos and keypoints."""

_WORKER_ENVIRONMENT = {
    # Spinning OpenMP threads of two processes on two cores slow each other down ten times and more.
    "OMP_WAIT_POLICY": "PASSIVE",
}


@dataclass(frozen=True)
class Cluster:
    """A running cluster: the scheduler's address, what kind it is and how many workers it has."""

    address: str
    kind: str
    workers: int


@contextmanager
def dask_cluster(settings: Settings) -> Iterator[Cluster]:
    """A cluster for the length of the block; a foreign scheduler is used and left running.

    Raises `SettingsError` when the wanted kind is not available here, `PairxError` when a scheduler does not answer.
    """
    kind = resolve_kind(settings.cluster)
    logging.getLogger("distributed").setLevel(logging.WARNING)
    if "://" in kind:
        yield _foreign(kind)
        return
    make = _cuda if kind == "cuda" else _local
    with make(settings) as cluster:
        yield Cluster(cluster.scheduler_address, kind, len(cluster.workers))


def run_on_cluster(flow: Flow[[], T], settings: Settings, slot: ContextVar[W], work: W) -> T:
    """Run a flow that takes no parameters on the cluster of the settings; it finds its work in `slot`."""
    from prefect_dask import DaskTaskRunner

    with dask_cluster(settings) as cluster:
        token = slot.set(work)
        try:
            return flow.with_options(task_runner=DaskTaskRunner(address=cluster.address))()
        finally:
            slot.reset(token)


def resolve_kind(wanted: str) -> str:
    """`auto` becomes `cuda` where a GPU and dask-cuda are present, else `local`; other values are checked."""
    if wanted == "auto":
        return "cuda" if _gpus() and _has_dask_cuda() else "local"
    if wanted in ("local", "cuda") or wanted.startswith(("tcp://", "tls://", "ws://", "wss://")):
        return wanted
    raise SettingsError(f"cluster {wanted!r} is not known", "use auto, local, cuda or tcp://HOST:PORT")


def worker_count(settings: Settings) -> int:
    """Worker processes of a local cluster: one per core, as far as memory allows 3 GB each."""
    if settings.workers:
        return settings.workers
    from distributed.system import MEMORY_LIMIT

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(cores, int(MEMORY_LIMIT // _BYTES_PER_WORKER)))


def _local(settings: Settings) -> Any:
    import dask
    from distributed import LocalCluster

    count = worker_count(settings)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    threads = str(max(1, cores // count))
    environment = {
        f"{name}_NUM_THREADS": threads for name in ("OMP", "MKL", "OPENBLAS")
    } | _WORKER_ENVIRONMENT
    # Only what is set before a worker is spawned reaches its C library.
    with dask.config.set({"distributed.nanny.pre-spawn-environ": environment}):
        return LocalCluster(
            n_workers=count,
            threads_per_worker=1,
            processes=True,
            host="127.0.0.1",
            dashboard_address="127.0.0.1:0",
            silence_logs=logging.ERROR,
        )


def _cuda(settings: Settings) -> Any:
    if not _has_dask_cuda():
        raise SettingsError(
            "cluster 'cuda' needs dask-cuda", "install it: pip install 'pairx-pipeline[cuda]'"
        )
    if not _gpus():
        raise SettingsError("cluster 'cuda' needs a CUDA device and torch sees none", "use --cluster local")
    from dask_cuda import LocalCUDACluster

    return LocalCUDACluster(
        n_workers=settings.workers, threads_per_worker=1, host="127.0.0.1", dashboard_address="127.0.0.1:0"
    )


def _foreign(address: str) -> Cluster:
    from distributed import Client

    try:
        with Client(address, timeout="20s") as client:
            workers = len(client.scheduler_info(n_workers=-1)["workers"])
    except (OSError, TimeoutError) as error:
        raise PairxError(
            f"no Dask scheduler answers at {address}: {error}", "check the address and the network"
        ) from error
    if not workers:
        raise PairxError(f"the scheduler at {address} has no workers", "start workers, then run again")
    return Cluster(address, "external", workers)


def _gpus() -> int:
    import torch

    return torch.cuda.device_count() if torch.cuda.is_available() else 0


def _has_dask_cuda() -> bool:
    from importlib.util import find_spec

    return find_spec("dask_cuda") is not None
