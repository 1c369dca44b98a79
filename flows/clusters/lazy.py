"""A cluster that starts with the first work, as small as that work, and grows with later work."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from types import TracebackType
from typing import Any, Self

from flows.clusters.kinds import Cluster

_ALL = 1 << 30
"""More shards than any cluster has workers."""


class LazyCluster:
    """Starts a cluster when it is first asked for it; closes it with the block.

    `start` gets the number of workers that the work at hand can use.
    """

    def __init__(self, start: Callable[[int], AbstractContextManager[Cluster]]) -> None:
        self._start = start
        self._open = ExitStack()
        self._running: Cluster | None = None
        self._most = 1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._open.__exit__(kind, error, traceback)

    def __reduce__(self) -> tuple[Any, ...]:
        # Prefect sends a flow's runner to workers with each task. Nothing there needs the cluster.
        return LazyCluster, (_not_here,)

    @property
    def is_running(self) -> bool:
        """Whether it has been started."""
        return self._running is not None

    def cluster(self) -> Cluster:
        """The cluster, started now unless it runs; raises what `dask_cluster` raises."""
        if self._running is None:
            self._running = self._open.enter_context(self._start(self._most))
        return self._running

    def foresee(self, shards: int | None) -> None:
        """Start now with workers for so many shards, or with all for None; with 0 wait until there is one."""
        if shards != 0:
            self.expect(_ALL if shards is None else shards)
            self.cluster()

    def expect(self, shards: int) -> None:
        """So many shards will come together; one that runs with fewer workers grows, if its kind can."""
        if shards <= self._most:
            return
        self._most = shards
        if self._running is not None and self._running.grow is not None:
            self._running.grow(shards)


def _not_here(workers: int) -> AbstractContextManager[Cluster]:
    raise RuntimeError("only the process of the run may start its cluster")
