"""Kinds of clusters: what each must say of itself, processes on the CPU of this machine, and schedulers elsewhere."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

from schemas.errors import PairxError
from schemas.settings import PAIRS_PER_SHARD, Settings

LOOPBACK = "127.0.0.1"
VISIBLE = "CUDA_VISIBLE_DEVICES"
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


class ClusterKind(Protocol):
    """A way to have workers, chosen by one of its `words`: a name, or the scheme of an address such as ``tcp://``."""

    words: tuple[str, ...]
    usage: str
    """What the help says: the word, and behind it what it means."""
    pairs_per_shard: int
    """Pairs in one task where the settings do not say."""

    def fits(self) -> bool:
        """Whether `auto` may take it on this machine."""

    def workers(self) -> int:
        """Workers where the settings do not say."""

    def start(self, wanted: str, settings: Settings) -> AbstractContextManager[Cluster]:
        """A cluster for the length of a block; `wanted` is the name or the address.

        Raises `SettingsError` where this machine cannot have it, `PairxError` where a scheduler does not answer.
        """


class Processes:
    """Workers on the CPU, whatever GPUs there are: one process per core would fill a GPU's memory with models."""

    words: tuple[str, ...] = ("local",)
    usage = "local (CPU)"
    pairs_per_shard = PAIRS_PER_SHARD

    def fits(self) -> bool:
        """Every machine has a CPU."""
        return True

    def workers(self) -> int:
        """One per core, as far as memory allows 3 GB each."""
        from distributed.system import MEMORY_LIMIT

        return max(1, min(cores(), int(MEMORY_LIMIT // _BYTES_PER_WORKER)))

    def start(self, wanted: str, settings: Settings) -> AbstractContextManager[Cluster]:
        """One-threaded processes that see no GPU."""
        from distributed import LocalCluster

        count = settings.workers or self.workers()
        with sharing_the_cores(count):
            cluster = LocalCluster(
                n_workers=count,
                threads_per_worker=1,
                processes=True,
                host=LOOPBACK,
                dashboard_address=f"{LOOPBACK}:0",
                silence_logs=logging.ERROR,
                memory_limit=memory_limit(count),
                env={VISIBLE: ""},
            )
        return stopped_in_the_end(cluster, wanted)


class Elsewhere:
    """Any scheduler by its address: Kubernetes, dask-jobqueue, Coiled; it is used and left running."""

    words: tuple[str, ...] = ("tcp://", "tls://", "ws://", "wss://")
    usage = "tcp://HOST:PORT of a Dask scheduler"
    pairs_per_shard = PAIRS_PER_SHARD

    def fits(self) -> bool:
        """Never: only an address says where."""
        return False

    def workers(self) -> int:
        """A guess for the plan, without asking the scheduler: as many as this machine would have."""
        return Processes().workers()

    @contextmanager
    def start(self, wanted: str, settings: Settings) -> Iterator[Cluster]:
        """The cluster at the address, with the workers that it has."""
        from distributed import Client

        try:
            with Client(wanted, timeout="20s") as client:
                count = len(client.scheduler_info(n_workers=-1)["workers"])
        except (OSError, TimeoutError) as error:
            raise PairxError(
                f"no Dask scheduler answers at {wanted}: {error}", "check the address and the network"
            ) from error
        if not count:
            raise PairxError(f"the scheduler at {wanted} has no workers", "start workers, then run again")
        yield Cluster(wanted, "external", count)


@contextmanager
def stopped_in_the_end(cluster: Any, kind: str) -> Iterator[Cluster]:
    """A Dask cluster, stopped after the block; workers that are slow to die do not make a finished run a failed one."""
    finished = False
    nanny = logging.getLogger("distributed.nanny")
    level = nanny.level
    try:
        with cluster:
            yield Cluster(cluster.scheduler_address, kind, len(cluster.workers))
            finished = True
            # On a busy machine a worker takes seconds to end; that it is ended for good is no news.
            nanny.setLevel(logging.ERROR)
    except TimeoutError:
        if not finished:
            raise
        # They have been sent SIGKILL by then: on a busy machine it takes a while to tear down gigabytes.
        logging.getLogger(__name__).warning("some worker processes took long to end")
    finally:
        nanny.setLevel(level)


def sharing_the_cores(workers: int) -> AbstractContextManager[Any]:
    """A block in which so many workers can be spawned; each gets its share of the cores as threads."""
    import dask

    each = str(max(1, cores() // workers))
    threads = {f"{name}_NUM_THREADS": each for name in ("OMP", "MKL", "OPENBLAS")}
    # Only what is set before a worker is spawned reaches its C library.
    return dask.config.set({"distributed.nanny.pre-spawn-environ": threads | _WORKER_ENVIRONMENT})


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def memory_limit(workers: int) -> int:
    """Bytes at which a nanny ends its worker; Dask's own default counts cores, and there may be fewer workers."""
    from distributed.system import MEMORY_LIMIT

    return int(MEMORY_LIMIT // workers)
