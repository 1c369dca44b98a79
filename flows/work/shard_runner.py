"""Prefect's task runner on Dask for shards.

It asks for GPUs where workers declare them, and ends the run when the cluster is gone.
"""

from __future__ import annotations

import time
from contextlib import nullcontext, suppress
from typing import Any

import dask
from prefect.context import FlowRunContext
from prefect_dask import DaskTaskRunner

from flows.clusters.kinds import GPU, PATIENCE_KEY, Cluster, patience
from schemas.errors import PairxError

_KEPT = "what is done is kept; see why, then run again"
_BRIEFLY = 10.0
"""Seconds without workers that are no news."""


class ShardRunner(DaskTaskRunner):
    """Gives shards to a cluster's workers; each takes one of the GPUs that its worker declares."""

    def __init__(self, cluster: Cluster) -> None:
        super().__init__(address=cluster.address, client_kwargs={"security": cluster.security})
        self._on = cluster
        self._alone_since: float | None = None
        self._said = False

    def duplicate(self) -> ShardRunner:
        """Another one on the same cluster; Prefect makes one for each run of a flow."""
        return type(self)(self._on)

    def __exit__(self, *error: Any) -> None:
        """Disconnect from the scheduler; a scheduler that does not answer undoes no work."""
        with suppress(OSError, TimeoutError):
            super().__exit__(*error)

    def submit(
        self, task: Any, parameters: dict[str, Any], wait_for: Any = None, dependencies: Any = None
    ) -> Any:
        """Submit the task of one `Work`; raises `PairxError` when the scheduler is gone."""
        self._require_scheduler()
        needs_gpu = self._on.device == "cuda" and parameters["work"].on_device
        with dask.annotate(resources={GPU: 1}) if needs_gpu else nullcontext():
            return super().submit(task, parameters, wait_for, dependencies)

    def look(self) -> str | None:
        """Look after the cluster; returns words for the user when it has had no worker for a while.

        Call it every few seconds while waiting for work. Raises `PairxError` when the scheduler is
        gone, or when there has been no worker for longer than work may wait.
        """
        self._require_scheduler()
        workers = self.client.scheduler_info(n_workers=-1)["workers"].values()
        if any(self._on.device == "cpu" or GPU in worker["resources"] for worker in workers):
            self._alone_since = None
            return None
        # A scheduler that is dying, too, shows none for a moment, and workers that are replaced come back.
        self._require_scheduler()
        if self._alone_since is None:
            self._alone_since, self._said = time.monotonic(), False
        alone, most = time.monotonic() - self._alone_since, patience()
        if alone > most:
            raise PairxError(
                f"the cluster at {self._on.address} has had no worker for {most:.0f} s",
                f"{_KEPT}. To wait longer set {PATIENCE_KEY} in Dask's configuration",
            )
        if self._said or alone < _BRIEFLY:
            return None
        self._said = True
        return f"the cluster has no worker left; waiting for one, {most:.0f} s at most"

    def _require_scheduler(self) -> None:
        gone = PairxError(f"the Dask scheduler at {self._on.address} is gone", _KEPT)
        try:
            running = self.client.status == "running"  # the first time this connects
        except (OSError, TimeoutError) as error:
            raise gone from error
        if not running:
            raise gone


def running_on() -> ShardRunner:
    """The runner of the flow that asks."""
    context = FlowRunContext.get()
    runner = context.task_runner if context else None
    if not isinstance(runner, ShardRunner):
        raise RuntimeError("stages run inside a flow on a cluster: see flows.work.on_cluster")
    return runner
