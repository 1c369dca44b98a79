"""Who works off shards for a stage: what a stage asks of them, and workers without Prefect."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Protocol
from uuid import UUID

from flows.clusters.kinds import GPU
from flows.clusters.lazy import LazyCluster
from flows.work.cluster_watch import ClusterWatch
from flows.work.shard_work import Work, blames_no_device
from tasks.job import Job, engine_of, matcher_of, model_of
from tasks.shards import ShardResult

if TYPE_CHECKING:
    from distributed import Client

_RETRY_DELAY = 1.0
"""Seconds before a failed shard is tried again, and as many more at random, as Prefect's tasks wait."""


class Future(Protocol):
    """A shard that is being worked off."""

    def add_done_callback(self, heard: Callable[[Any], None]) -> Any:
        """Call `heard` with this future when it has ended."""

    def result(self) -> Any:
        """What came of it; raises what it raised."""


class Progress(Protocol):
    """Is told how far a run is, and what came of it."""

    def begin(self, key: str) -> UUID | None:
        """A new progress bar."""

    def progress(self, artifact: UUID | None, percent: float) -> None:
        """Move it on."""

    def summary(self, key: str, markdown: str, description: str) -> None:
        """A text."""


class Hands(Protocol):
    """Those who work off a run's shards."""

    @property
    def progress(self) -> Progress:
        """Who is told of it."""

    def expect(self, shards: int) -> None:
        """So many shards will come together."""

    def submit(self, stage: str, work: Work, retries: int) -> Future:
        """Begin a shard; it is tried again `retries` times after an error."""

    def look(self) -> str | None:
        """See that workers are there; words for the user where none is. `PairxError` where they are gone."""

    def ended_its_workers(self, error: BaseException, work: Work) -> bool:
        """Whether work failed because every worker that had it died, with no device to blame."""


class Unreported:
    """Nobody is told."""

    def begin(self, key: str) -> UUID | None:
        """Nothing."""
        return None

    def progress(self, artifact: UUID | None, percent: float) -> None:
        """Nothing."""

    def summary(self, key: str, markdown: str, description: str) -> None:
        """Nothing."""


class Workers:
    """Workers of a Dask cluster, without Prefect: for work that is too little to start a server for.

    The cluster starts with the first shard.
    """

    progress: Progress = Unreported()

    def __init__(self, on: LazyCluster) -> None:
        self._on = on
        self._client: Client | None = None
        self._warming: Any = None
        self._watch = ClusterWatch(on.cluster, self._connected)

    def expect(self, shards: int) -> None:
        """So many shards will come together."""
        self._on.expect(shards)

    def submit(self, stage: str, work: Work, retries: int) -> Future:
        """Begin a shard on the cluster; see `Hands`."""
        self._watch.require_scheduler()
        future: Future = self._connected().submit(
            do_with_retries,
            work,
            retries,
            key=f"{stage}-shard-{work.token}",
            pure=False,
            resources=self._needed(work.on_device),
        )
        return future

    def look(self) -> str | None:
        """See that workers are there; see `Hands`."""
        return self._watch.look()

    def ended_its_workers(self, error: BaseException, work: Work) -> bool:
        """Whether work failed because every worker that had it died, with no device to blame."""
        return blames_no_device(error, work, self._connected)

    def warm(self, job: Job) -> None:
        """Let a worker import what computes and load the model, while this process does the same.

        What comes of it is told by the first shard.
        """
        with suppress(OSError, TimeoutError):
            self._warming = self._connected().submit(warm, job, pure=False, resources=self._needed(True))

    def close(self) -> None:
        """Disconnect; a scheduler that does not answer undoes no work."""
        if self._client is not None:
            with suppress(OSError, TimeoutError):
                self._client.close()

    def _needed(self, on_device: bool) -> dict[str, float] | None:
        return {GPU: 1} if on_device and self._on.cluster().device == "cuda" else None

    def _connected(self) -> Client:
        if self._client is None:
            from distributed import Client

            on = self._on.cluster()
            self._client = Client(on.address, timeout="20s", security=on.security, set_as_default=False)
        return self._client


def warm(job: Job) -> None:
    """Load on a worker what most shards need."""
    with suppress(Exception):
        engine_of(job)
        model_of(job), matcher_of(job)


def do_with_retries(work: Work, retries: int) -> ShardResult:
    """Do work on a worker, again after an error, as a Prefect task does."""
    for _ in range(retries):
        try:
            return work.do()
        except Exception:  # whatever it was, it may pass; the last error counts
            time.sleep(_RETRY_DELAY * (1 + random.random()))  # no secret
    return work.do()
