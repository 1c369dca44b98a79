"""How a night begins: its job, then the warehouse, beside a Prefect API where one is configured."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from flows.api.server import configured_api, prefect_server, require_api, silence_prefect
from flows.clusters.choice import require_cluster
from schemas.settings import Settings
from tasks.job import Job
from tasks.runs.remembered import known_job
from tasks.store.lease import Lease, at_work
from tasks.store.warehouse import Warehouse


@contextmanager
def warehouse_for(
    warehouse: str,
    settings: Settings,
    who: str,
    wait: bool = False,
    say: Callable[[str], None] = lambda text: None,
) -> Iterator[tuple[Job, Lease]]:
    """A job and the lease of a warehouse for the length of a block, where a configured Prefect API answers.

    The job is as the last run remembers it, where that still holds. No Prefect server is started. All refusals come
    before the warehouse is taken. Raises `PairxError` for a cluster, a model or an API that cannot be had, and
    `WarehouseBusy` where another run is at work and `wait` is false; `say` is told who it is.
    """
    require_cluster(settings)
    place = Warehouse(warehouse)
    place.prepare()
    job = known_job(place, settings)
    require_api()
    with at_work(place, who, wait, say) as lease:
        if configured_api() is None:
            yield job, lease
            return
        with prefect_server():
            silence_prefect()
            yield job, lease
