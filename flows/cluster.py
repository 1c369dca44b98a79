"""Dask clusters by one setting: `local` (processes on the CPU), `cuda` (on the GPUs), or any scheduler by its address."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from schemas.errors import PairxError, SettingsError
from schemas.settings import PAIRS_PER_SHARD, PAIRS_PER_SHARD_ON_GPU, Settings

if TYPE_CHECKING:
    from prefect import Flow

T = TypeVar("T")
W = TypeVar("W")
_BYTES_PER_WORKER = 3 << 30
"""Memory that a worker may want: torch, a model, and one shard's photos and keypoints."""
_GPU_BYTES_PER_WORKER = 6 << 30
"""Memory of a GPU that a worker may want: a CUDA context (0.5 GB), a model with the operands of its rules (0.8 GB), what a pair
with its pixel maps, or four photos with ten partners each, hold at once (2.4 GB), and work space of cuDNN. Counted for MiewID's
shape at 440 px by `tests.benchmarks.launches`; not measured on a GPU."""
_VISIBLE = "CUDA_VISIBLE_DEVICES"
_LOOPBACK = "127.0.0.1"

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
    with _stopped_in_the_end(make(settings)) as cluster:
        yield Cluster(cluster.scheduler_address, kind, len(cluster.workers))


@contextmanager
def _stopped_in_the_end(cluster: Any) -> Iterator[Any]:
    """The cluster, stopped after the block; workers that are slow to die do not make a finished run a failed one."""
    finished = False
    try:
        with cluster:
            yield cluster
            finished = True
    except TimeoutError:
        if not finished:
            raise
        # They have been sent SIGKILL by then: on a busy machine it takes a while to tear down gigabytes.
        logging.getLogger(__name__).warning("some worker processes took long to end")


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
    """`auto` becomes `cuda` where torch sees a GPU, else `local`; other values are checked."""
    if wanted == "auto":
        return "cuda" if _gpus() else "local"
    if wanted in ("local", "cuda") or wanted.startswith(("tcp://", "tls://", "ws://", "wss://")):
        return wanted
    raise SettingsError(f"cluster {wanted!r} is not known", "use auto, local, cuda or tcp://HOST:PORT")


def worker_count(settings: Settings, kind: str = "local") -> int:
    """Worker processes of a cluster on this machine: one per GPU, or one per core, as far as memory allows 3 GB each."""
    if settings.workers:
        return settings.workers
    if kind == "cuda":
        return max(1, len(_gpus()))
    from distributed.system import MEMORY_LIMIT

    return max(1, min(_cores(), int(MEMORY_LIMIT // _BYTES_PER_WORKER)))


def pairs_per_shard(settings: Settings) -> int:
    """Pairs scored in one task: as set, or else by the kind of cluster. What is done is told by rows, so any size goes on."""
    on_gpu = settings.pairs_per_shard is None and resolve_kind(settings.cluster) == "cuda"
    return settings.pairs_per_shard or (PAIRS_PER_SHARD_ON_GPU if on_gpu else PAIRS_PER_SHARD)


def _local(settings: Settings) -> Any:
    """Workers on the CPU, whatever GPUs there are: one process per core would fill a GPU's memory with models."""
    import dask
    from distributed import LocalCluster

    count = worker_count(settings)
    # Only what is set before a worker is spawned reaches its C library.
    with dask.config.set({"distributed.nanny.pre-spawn-environ": _threads(count)}):
        return LocalCluster(
            n_workers=count,
            threads_per_worker=1,
            processes=True,
            host=_LOOPBACK,
            dashboard_address=f"{_LOOPBACK}:0",
            silence_logs=logging.ERROR,
            memory_limit=_memory_limit(count),
            env={_VISIBLE: ""},
        )


def _cuda(settings: Settings) -> Any:
    names, count = _gpus(), worker_count(settings, "cuda")
    if not names:
        raise SettingsError("cluster 'cuda' needs a CUDA device and torch sees none", "use --cluster local")
    if count > len(names) or not _has_dask_cuda():
        return _sharing_gpus(names, count)
    import dask
    from dask_cuda import LocalCUDACluster

    with dask.config.set({"distributed.nanny.pre-spawn-environ": _threads(count)}):
        return LocalCUDACluster(
            n_workers=count, threads_per_worker=1, host=_LOOPBACK, dashboard_address=f"{_LOOPBACK}:0"
        )


def _sharing_gpus(names: Sequence[str], count: int) -> Any:
    """Plain workers, each of which sees one GPU; several may see the same one, as far as its memory allows 6 GB each."""
    import dask
    from distributed import Nanny, Scheduler, SpecCluster

    _check_memory(names, count)
    options = {
        "nthreads": 1,
        "host": _LOOPBACK,
        "silence_logs": logging.ERROR,
        "memory_limit": _memory_limit(count),
    }
    # Nannies live in this process and start side by side, so what differs between workers is set in the worker itself,
    # which happens before anything there asks for a device.
    workers = {
        i: {"cls": Nanny, "options": options | {"env": {_VISIBLE: names[i % len(names)]}}}
        for i in range(count)
    }
    scheduler = {
        "cls": Scheduler,
        "options": {"host": _LOOPBACK, "port": 0, "dashboard": True, "dashboard_address": f"{_LOOPBACK}:0"},
    }
    with dask.config.set({"distributed.nanny.pre-spawn-environ": _threads(count)}):
        return SpecCluster(workers=workers, scheduler=scheduler, silence_logs=logging.ERROR)


def _check_memory(names: Sequence[str], count: int) -> None:
    """Refuse more workers on a GPU than fit into its memory; one alone may try its luck."""
    most = -(-count // len(names))
    if most == 1:
        return
    memory = min(_gpu_memory(i) for i in range(len(names)))
    fit = max(1, memory // _GPU_BYTES_PER_WORKER)
    if most > fit:
        gpus = "1 GPU" if len(names) == 1 else f"{len(names)} GPUs"
        raise SettingsError(
            f"{count} workers on {gpus} make {most} on one, and each may want {_GPU_BYTES_PER_WORKER >> 30} GB of "
            f"its {memory / (1 << 30):.0f} GB",
            f"use --workers {fit * len(names)} at most",
        )


def _threads(workers: int) -> dict[str, str]:
    """The environment in which so many workers share the cores."""
    each = str(max(1, _cores() // workers))
    return {f"{name}_NUM_THREADS": each for name in ("OMP", "MKL", "OPENBLAS")} | _WORKER_ENVIRONMENT


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _memory_limit(workers: int) -> int:
    """Bytes at which a nanny ends its worker; Dask's own default counts cores, and there may be fewer workers."""
    from distributed.system import MEMORY_LIMIT

    return int(MEMORY_LIMIT // workers)


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


def _gpus() -> list[str]:
    """The GPUs that torch sees, each as CUDA_VISIBLE_DEVICES names it: an index, or the UUID by which it was given to us."""
    import torch

    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    given = [name.strip() for name in os.environ.get(_VISIBLE, "").split(",") if name.strip()]
    return (given or [str(i) for i in range(count)])[:count]


def _gpu_memory(index: int) -> int:
    """Bytes of memory of the GPU that torch counts as `index`."""
    import torch

    return int(torch.cuda.get_device_properties(index).total_memory)


def _has_dask_cuda() -> bool:
    from importlib.util import find_spec

    return find_spec("dask_cuda") is not None
