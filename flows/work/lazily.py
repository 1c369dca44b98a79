"""The cluster of a job's settings, started with the first work; workers elsewhere are checked then."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING

from flows.clusters.choice import dask_cluster, is_foreign
from flows.clusters.kinds import Cluster
from flows.clusters.lazy import LazyCluster

if TYPE_CHECKING:
    from tasks.job import Job


def cluster_of(job: Job, photos: Iterable[tuple[str, str]] = ()) -> LazyCluster:
    """The cluster of the settings; `photos`, by root and path, are those of which workers must read one."""

    @contextmanager
    def start(workers: int) -> Iterator[Cluster]:
        with dask_cluster(job.settings, workers) as cluster, _equal(cluster, job, photos):
            yield cluster

    return LazyCluster(start)


def _equal(cluster: Cluster, job: Job, photos: Iterable[tuple[str, str]]) -> AbstractContextManager[None]:
    """Check the workers on other machines; processes started from this one share all with it."""
    if not is_foreign(job.settings):
        return nullcontext()
    from flows.work.preflight import equal_workers
    from tasks.runs.surroundings import readable_photo

    return equal_workers(cluster, job, readable_photo(photos))
