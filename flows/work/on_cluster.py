"""Runs a flow on the cluster of its settings."""

from __future__ import annotations

from collections.abc import Iterable
from contextvars import ContextVar
from typing import TYPE_CHECKING, TypeVar

from flows.work.lazily import cluster_of

if TYPE_CHECKING:
    from prefect import Flow

    from tasks.job import Job

T = TypeVar("T")
W = TypeVar("W")


def run_on_cluster(
    flow: Flow[[], T],
    job: Job,
    slot: ContextVar[W],
    work: W,
    photos: Iterable[tuple[str, str]] = (),
    shards: int | None = None,
) -> T:
    """Run a flow without parameters on the cluster of the job's settings; `slot` gives it its work.

    With `shards` the cluster has workers for so many at first, and with 0 it starts when there is one. Workers that were not started here are checked first. Raises
    `PairxError` where they differ from this process, or cannot see the warehouse or a photo: the first of
    `photos`, by root and path, that this process can read. See `run_flow` for what is returned and raised.
    """
    from flows.api.reports import run_flow
    from flows.work.shard_runner import ShardRunner

    with cluster_of(job, photos) as cluster:
        cluster.foresee(shards)
        token = slot.set(work)
        try:
            return run_flow(flow.with_options(task_runner=ShardRunner(cluster)))
        finally:
            slot.reset(token)
