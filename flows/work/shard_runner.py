"""Prefect's task runner on Dask for shards.

It asks for GPUs where workers declare them, and ends the run when the cluster is gone.
"""

from __future__ import annotations

from contextlib import nullcontext, suppress
from typing import Any

import dask
from prefect.context import FlowRunContext
from prefect_dask import DaskTaskRunner
from prefect_dask.client import PrefectDaskClient

from flows.clusters.kinds import GPU
from flows.clusters.lazy import LazyCluster
from flows.work.cluster_watch import ClusterWatch


class ShardRunner(DaskTaskRunner):
    """Gives shards to a cluster's workers; each takes one of the GPUs that its worker declares.

    The cluster starts with the first shard.
    """

    def __init__(self, on: LazyCluster) -> None:
        super().__init__()
        self._on = on
        self._watch = ClusterWatch(on.cluster, lambda: self.client)
        self.look = self._watch.look

    def duplicate(self) -> ShardRunner:
        """Another one on the same cluster; Prefect makes one for each run of a flow."""
        return type(self)(self._on)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ShardRunner) and self._on is other._on

    __hash__ = None  # type: ignore[assignment]  # as of Prefect's runners

    def __exit__(self, *error: Any) -> None:
        """Disconnect from the scheduler; a scheduler that does not answer undoes no work."""
        with suppress(OSError, TimeoutError):
            super().__exit__(*error)

    @property
    def client(self) -> PrefectDaskClient:
        """The client of the cluster, which is started where it is not there yet."""
        if self._client is None:
            cluster = self._on.cluster()
            self.address, self.client_kwargs["security"] = cluster.address, cluster.security
        return super().client

    def submit(
        self, task: Any, parameters: dict[str, Any], wait_for: Any = None, dependencies: Any = None
    ) -> Any:
        """Submit the task of one `Work`; raises `PairxError` when the scheduler is gone."""
        self._watch.require_scheduler()
        needs_gpu = self._on.cluster().device == "cuda" and parameters["work"].on_device
        with dask.annotate(resources={GPU: 1}) if needs_gpu else nullcontext():
            return super().submit(task, parameters, wait_for, dependencies)

    def expect(self, shards: int) -> None:
        """So many shards will be submitted together: the cluster should have workers for them."""
        self._on.expect(shards)


def running_on() -> ShardRunner:
    """The runner of the flow that asks."""
    context = FlowRunContext.get()
    runner = context.task_runner if context else None
    if not isinstance(runner, ShardRunner):
        raise RuntimeError("stages run inside a flow on a cluster: see flows.work.on_cluster")
    return runner
