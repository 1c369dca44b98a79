"""A night as a Prefect flow; each of its shards is a task."""

from __future__ import annotations

from contextvars import ContextVar

from prefect import flow

from flows.api.reports import outcome_kept
from flows.night.process import process_night
from flows.night.values import Night, RunSummary
from flows.work.on_cluster import run_on_cluster
from flows.work.shard_tasks import OfTheFlow

_NIGHT: ContextVar[Night] = ContextVar("night of the current process")


def run_on_prefect(night: Night, shards: int | None) -> RunSummary:
    """Run the flow on the cluster of the settings, with workers for so many shards at first; see `run_on_cluster`."""
    photos = ((night.catalogue.root, entry.path) for entry in night.catalogue.entries)
    return run_on_cluster(process, night.job, _NIGHT, night, photos, shards)


@flow(name="pairx-process")
def process() -> RunSummary:
    """All stages on the flow's task runner.

    It takes no parameters and refers to functions only. Prefect sends a flow's parameters to its server
    as JSON, and the flow itself, with all that its code refers to, to every worker.
    """
    return outcome_kept(_process_work)


def _process_work() -> RunSummary:
    return process_night(_NIGHT.get(), OfTheFlow())
