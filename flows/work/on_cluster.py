"""Runs a flow on the cluster of its settings."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from contextvars import ContextVar
from typing import TYPE_CHECKING, TypeVar

from flows.clusters.choice import dask_cluster, is_foreign
from flows.clusters.kinds import Cluster

if TYPE_CHECKING:
    from prefect import Flow

    from tasks.job import Job

T = TypeVar("T")
W = TypeVar("W")


def run_on_cluster(
    flow: Flow[[], T], job: Job, slot: ContextVar[W], work: W, photos: Iterable[tuple[str, str]] = ()
) -> T:
    """Run a flow without parameters on the cluster of the job's settings; `slot` gives it its work.

    Workers that were not started here are checked first. Raises `PairxError` where they differ from this
    process, or cannot see the warehouse or a photo: the first of `photos`, by root and path, that this
    process can read. See `run_flow` for what is returned and raised.
    """
    from flows.api.reports import run_flow
    from flows.work.shard_runner import ShardRunner

    with dask_cluster(job.settings) as cluster, _equal(cluster, job, photos):
        token = slot.set(work)
        try:
            return run_flow(flow.with_options(task_runner=ShardRunner(cluster)))
        finally:
            slot.reset(token)


def _equal(cluster: Cluster, job: Job, photos: Iterable[tuple[str, str]]) -> AbstractContextManager[None]:
    """Check the workers on other machines; processes started from this one share all with it."""
    if not is_foreign(job.settings):
        return nullcontext()
    from flows.work.preflight import equal_workers
    from tasks.runs.surroundings import readable_photo

    return equal_workers(cluster, job, readable_photo(photos))
