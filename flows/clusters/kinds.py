"""Kinds of clusters: what each must offer, processes on this machine's CPU, schedulers elsewhere."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, Protocol

from schemas.errors import PairxError, SettingsError
from schemas.settings import PAIRS_PER_SHARD, Settings

if TYPE_CHECKING:
    from distributed import Client

LOOPBACK = "127.0.0.1"
Device = Literal["cpu", "cuda"]
GPU = "GPU"
"""The resource that a worker declares for each GPU that it may use.

The command is ``dask worker ADDRESS --nthreads 1 --resources GPU=1``.
"""
VISIBLE = "CUDA_VISIBLE_DEVICES"
PATIENCE_KEY, _PATIENCE = "distributed.scheduler.no-workers-timeout", "1 hour"
"""The key of Dask's configuration for how long work may lack workers, and what null means here."""
_TO_CLOSE = 60.0
"""Seconds within which a cluster must have closed; nannies kill their workers long before."""
_BYTES_PER_WORKER = 3 << 30
"""Memory that a worker may want, in bytes: torch, a model, and one shard's photos and keypoints."""
_WORKER_ENVIRONMENT = {
    # OpenMP threads that spin in two processes on two cores make each other ten or more times slower.
    "OMP_WAIT_POLICY": "PASSIVE",
}


@dataclass(frozen=True)
class Cluster:
    """A running cluster: its scheduler's address, its kind, its number of workers and their device."""

    address: str
    kind: str
    workers: int
    device: Device = "cpu"
    security: Any = None
    """Certificates with which a client connects; None where Dask's configuration holds all it needs."""
    grow: Callable[[int], None] | None = None
    """Starts more workers, until there are enough for so many shards, or all; None where all are there."""


class ClusterKind(Protocol):
    """A way to have workers, chosen by one of its `words`.

    A word is a name, or the scheme of an address such as ``tcp://``.
    """

    words: tuple[str, ...]
    pairs_per_shard: int
    """Pairs in one task where the settings do not say."""
    devices: tuple[Device, ...]
    """What its workers can compute on."""
    foreign: bool
    """Whether workers may be other installations on other machines, to be checked before any work."""

    @property
    def usage(self) -> str:
        """The help's text: the word, followed by what it means."""

    def fits(self) -> bool:
        """Whether `auto` may choose this kind on this machine."""

    def workers(self) -> int:
        """Workers where the settings do not say."""

    def require(self, settings: Settings) -> None:
        """Raise `SettingsError` where this machine cannot have such workers; starts nothing to find out."""

    def start(self, wanted: str, settings: Settings) -> AbstractContextManager[Cluster]:
        """A cluster for the length of a block, after a call of `require`.

        `wanted` is the name or the address. Raises `PairxError` where a scheduler does not answer,
        `SettingsError` where its workers are not those that are wanted.
        """


class Processes:
    """Workers on the CPU, whatever GPUs there are.

    One process per core would fill a GPU's memory with models.
    """

    words: tuple[str, ...] = ("local",)
    usage = "local (CPU)"
    pairs_per_shard = PAIRS_PER_SHARD
    devices: tuple[Device, ...] = ("cpu",)
    foreign = False

    def fits(self) -> bool:
        """Every machine has a CPU."""
        return True

    def workers(self) -> int:
        """One per core, as far as memory allows 3 GB each."""
        from distributed.system import MEMORY_LIMIT

        return max(1, min(cores(), int(MEMORY_LIMIT // _BYTES_PER_WORKER)))

    def require(self, settings: Settings) -> None:
        """Every machine can have processes."""

    @contextmanager
    def start(self, wanted: str, settings: Settings, at_first: int | None = None) -> Iterator[Cluster]:
        """Processes with one thread each that see no GPU.

        With `at_first` no more than so many, until the cluster grows. Threads and memory of each are those that it
        has among all: a row must not depend on how many there are.
        """
        from distributed import LocalCluster

        count = settings.workers or self.workers()
        with sharing_the_cores(count):
            cluster = LocalCluster(
                n_workers=count if at_first is None else min(count, at_first),
                threads_per_worker=1,
                processes=True,
                host=LOOPBACK,
                dashboard_address=f"{LOOPBACK}:0",
                silence_logs=logging.ERROR,
                memory_limit=memory_limit(count),
                env={VISIBLE: ""},
            )
            with stopped_in_the_end(cluster, wanted) as found:
                yield replace(found, grow=lambda shards: cluster.scale(min(count, shards)))


class Elsewhere:
    """A scheduler given by its address, whoever started it and its workers; it is left running."""

    words: tuple[str, ...] = ("tcp://", "tls://", "ws://", "wss://")
    usage = "tcp://HOST:PORT of a Dask scheduler"
    pairs_per_shard = PAIRS_PER_SHARD
    devices: tuple[Device, ...] = ("cpu", "cuda")
    foreign = True

    def fits(self) -> bool:
        """Never: such a cluster is known only by its address."""
        return False

    def workers(self) -> int:
        """A guess for the plan, as many as this machine would have; the scheduler is not asked."""
        return Processes().workers()

    def require(self, settings: Settings) -> None:
        """Nothing is required here: only the scheduler can say what it has."""

    @contextmanager
    def start(self, wanted: str, settings: Settings) -> Iterator[Cluster]:
        """The cluster at the address, with the workers that it has; on GPUs if these declare any."""
        try:
            with client_of(Cluster(wanted, "external", 0)) as client:
                workers = client.scheduler_info(n_workers=-1)["workers"]
        except (OSError, TimeoutError) as error:
            raise PairxError(
                f"no Dask scheduler answers at {wanted}: {error}", "check the address and the network"
            ) from error
        if not workers:
            raise PairxError(f"the scheduler at {wanted} has no workers", "start workers, then run again")
        with_gpu = sum(GPU in worker["resources"] for worker in workers.values())
        if settings.device == "cuda" and not with_gpu:
            raise SettingsError(
                f"device 'cuda' needs workers that declare the resource {GPU}, and none of the {len(workers)} workers of "
                f"{wanted} does",
                f"start them with `dask worker {wanted} --nthreads 1 --resources {GPU}=1`, or use --device cpu",
            )
        device: Device = "cuda" if with_gpu and settings.device != "cpu" else "cpu"
        yield Cluster(wanted, "external", len(workers), device)


@contextmanager
def client_of(cluster: Cluster) -> Iterator[Client]:
    """A client of the cluster, not set as Dask's default; no error where it fails to close."""
    from distributed import Client

    client = Client(cluster.address, timeout="20s", security=cluster.security, set_as_default=False)
    try:
        yield client
    finally:
        with suppress(OSError, TimeoutError):
            client.close()


@contextmanager
def stopped_in_the_end(cluster: Any, kind: str, device: Device = "cpu") -> Iterator[Cluster]:
    """A Dask cluster, stopped after the block.

    If it does not close in time, a warning is logged: a finished run does not fail for that.
    """
    workers = len(getattr(cluster, "workers", ()))
    try:
        yield Cluster(cluster.scheduler_address, kind, workers, device, getattr(cluster, "security", None))
    finally:
        with _without_news_of_the_end():
            why = _not_closed(cluster)
        if why and (left := _left_of(cluster)):
            logging.getLogger("pairx").warning(
                "the cluster did not close: %s. These may be left: %s", why, left
            )


@contextmanager
def _without_news_of_the_end() -> Iterator[None]:
    """A block in which Dask does not log errors of closing a cluster, nor that a worker was ended.

    Errors of closing are raised here anyway.
    """
    loggers = [logging.getLogger(name) for name in ("distributed.nanny", "tornado.application")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _not_closed(cluster: Any) -> str | None:
    """Close a cluster within its time; return what went wrong, if anything."""
    failed: list[str] = []

    def close() -> None:
        try:
            cluster.__exit__(None, None, None)
        except (
            BaseException
        ) as error:  # of nannies, of a site's commands, of an API: no work depends on it any more
            failed.append(f"{type(error).__name__} {error}".strip())

    closing = threading.Thread(target=close, name="close the cluster", daemon=True)
    closing.start()
    closing.join(_TO_CLOSE)
    return f"it takes longer than {_TO_CLOSE:.0f} s" if closing.is_alive() else next(iter(failed), None)


def _left_of(cluster: Any) -> str:
    """What may be left of a cluster: processes, jobs, or the whole of a cluster elsewhere."""
    if not hasattr(cluster, "workers"):
        return f"cluster {cluster.name}"
    found = []
    for worker in cluster.workers.values():
        if pid := getattr(worker, "pid", None):
            found.append(f"process {pid}")
        elif job := getattr(worker, "job_id", None):
            found.append(f"job {job}")
    return ", ".join(found)


def sharing_the_cores(workers: int) -> AbstractContextManager[Any]:
    """A block that can spawn `workers` processes; each gets its share of the cores as threads."""
    import dask

    environment = thread_environment(max(1, cores() // workers))
    # Only variables that are set before a worker is spawned reach its C library.
    return dask.config.set({"distributed.nanny.pre-spawn-environ": environment})


def thread_environment(threads: int) -> dict[str, str]:
    """Environment of a worker process whose libraries may use `threads` threads."""
    return {f"{name}_NUM_THREADS": str(threads) for name in ("OMP", "MKL", "OPENBLAS")} | _WORKER_ENVIRONMENT


def patience() -> float:
    """Seconds that work may wait for workers: as Dask's configuration says, or else an hour."""
    import dask
    from dask.utils import parse_timedelta

    return float(parse_timedelta(dask.config.get(PATIENCE_KEY) or _PATIENCE))


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def memory_limit(workers: int) -> int:
    """Bytes of memory at which a nanny ends its worker: the machine's, shared among the workers.

    Dask's own default divides by cores, and there may be fewer workers than cores.
    """
    from distributed.system import MEMORY_LIMIT

    return int(MEMORY_LIMIT // workers)
