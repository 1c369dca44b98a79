"""Runs a night: with Prefect where somebody can see it or there is much to do, else with workers alone.

A Prefect server that a run starts for itself shows nobody anything, and takes longer to start than a small night's
work. Where no API is configured and the night is small, shards therefore go to Dask directly, with the same retries
and the same care for photos that end their workers.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Mapping
from dataclasses import replace
from functools import partial

from flows.api.server import configured_api, prefect_server, silence_prefect
from flows.clusters.choice import pairs_per_shard
from flows.night.process import process_night, record_failure
from flows.night.values import Night, RunOptions, RunSummary
from flows.work.lazily import cluster_of
from flows.work.progress import Reporter, Silent
from schemas.catalogue.reader import Catalogue
from tasks.job import Job
from tasks.pairs import Photo
from tasks.runs.log import RunLog
from tasks.runs.remaining import BEFORE_JUDGING, RunViews
from tasks.runs.standing import unchanged_since
from tasks.stages.ingest import plan_ingest, withdrawn_rows
from tasks.store.lease import Lease


def run(
    catalogue: Catalogue,
    job: Job,
    lease: Lease,
    options: RunOptions,
    reporter: Reporter | None = None,
) -> RunSummary:
    """Process a catalogue on the cluster of the settings, under a lease on the job's warehouse.

    See `flows.nightly.nightly`.
    """
    reporter = reporter or Silent()
    if job.notice:
        reporter.notice(job.notice)
    night = Night(catalogue, job, lease, options, reporter)
    try:
        before = None if options.retry_failed else unchanged_since(job, partial(_is_known, night))
        night = replace(night, before=before)
        shards = 0 if before else shards_foreseen(night)
    except Exception as error:  # a damaged warehouse, a store that is out: a run that failed, before any work
        record_failure(night, error)
        raise
    if _is_seen():
        return _with_prefect(night, shards)
    if before:
        return process_night(night, None)
    if shards is not None:
        return _with_workers_alone(night, shards)
    with prefect_server():
        silence_prefect()
        return _with_prefect(night, shards)


def _is_known(night: Night, known: Mapping[str, Photo]) -> bool:
    """Whether the catalogue adds nothing to the rows of photos, and takes none away."""
    if plan_ingest(night.catalogue, known, night.job.settings.photos_per_shard):
        return False
    return not (night.options.withdraw_missing and any(withdrawn_rows(known, night.catalogue)))


def _is_seen() -> bool:
    """Whether there is a Prefect API that somebody looks at, or a flow that called us."""
    if configured_api() is not None:
        return True
    if "prefect" not in sys.modules:
        return False
    from prefect.context import FlowRunContext

    return FlowRunContext.get() is not None


def _with_prefect(night: Night, shards: int | None) -> RunSummary:
    from flows.night.on_prefect import run_on_prefect

    return run_on_prefect(night, shards)


def _with_workers_alone(night: Night, shards: int) -> RunSummary:
    from flows.work.hands import Workers

    photos = ((night.catalogue.root, entry.path) for entry in night.catalogue.entries)
    with cluster_of(night.job, photos) as cluster:
        cluster.foresee(shards)
        hands = Workers(cluster)
        try:
            if shards:
                hands.warm(night.job)
                _import_beside_it()
            return process_night(night, hands)
        finally:
            hands.close()


def _import_beside_it() -> None:
    """Import here what the driver needs, the report last, while the worker loads what it needs."""
    for module in ("flows.night.stages", "matplotlib.figure", "matplotlib.backends.backend_agg"):
        importlib.import_module(module)


def shards_foreseen(night: Night) -> int | None:
    """How many tasks each stage of a night has at first: 0, one, or None for more.

    New photos bring pairs that are not known yet: those of one task of photos are a handful of tasks.
    """
    job, settings, again = night.job, night.job.settings, night.options.retry_failed
    with RunViews(job, again) as views:
        left = views.look(RunLog(job).columns(), ("photos",), BEFORE_JUDGING)[1]
        to_read = plan_ingest(night.catalogue, left.photos_in_order(), settings.photos_per_shard, again)
        new = {entry.photo_id for shard in to_read for entry in shard.entries}
        new |= {photo["photo_id"] for photo in left.to_embed()[0]}
        pairs = max(len(left.unscored()), len(left.without_signals()), len(left.unverified()))
    if len(new) > settings.photos_per_shard or pairs > pairs_per_shard(settings):
        return None
    return int(bool(new or pairs))
