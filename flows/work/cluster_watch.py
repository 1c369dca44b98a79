"""Looks after a cluster while a run waits for work, and says when it is gone."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from flows.clusters.kinds import GPU, PATIENCE_KEY, Cluster, patience
from schemas.errors import PairxError

if TYPE_CHECKING:
    from distributed import Client

_KEPT = "what is done is kept; see why, then run again"
_BRIEFLY = 10.0
"""Seconds without workers that are no news."""


class ClusterWatch:
    """Asks a cluster's scheduler for its workers, by a client that is made when it is first asked for."""

    def __init__(self, cluster: Callable[[], Cluster], client: Callable[[], Client]) -> None:
        self._cluster, self._client = cluster, client
        self._alone_since: float | None = None
        self._said = False

    def look(self) -> str | None:
        """Look after the cluster; returns words for the user when it has had no worker for a while.

        Call it every few seconds while waiting for work. Raises `PairxError` when the scheduler is
        gone, or when there has been no worker for longer than work may wait.
        """
        self.require_scheduler()
        on = self._cluster()
        workers = self._client().scheduler_info(n_workers=-1)["workers"].values()
        if any(on.device == "cpu" or GPU in worker["resources"] for worker in workers):
            self._alone_since = None
            return None
        # A scheduler that is dying, too, shows none for a moment, and workers that are replaced come back.
        self.require_scheduler()
        if self._alone_since is None:
            self._alone_since, self._said = time.monotonic(), False
        alone, most = time.monotonic() - self._alone_since, patience()
        if alone > most:
            raise PairxError(
                f"the cluster at {on.address} has had no worker for {most:.0f} s",
                f"{_KEPT}. To wait longer set {PATIENCE_KEY} in Dask's configuration",
            )
        if self._said or alone < _BRIEFLY:
            return None
        self._said = True
        return f"the cluster has no worker left; waiting for one, {most:.0f} s at most"

    def require_scheduler(self) -> None:
        """Raise `PairxError` when the scheduler is gone."""
        gone = PairxError(f"the Dask scheduler at {self._cluster().address} is gone", _KEPT)
        try:
            running = self._client().status == "running"  # the first time this connects
        except (OSError, TimeoutError) as error:
            raise gone from error
        if not running:
            raise gone
