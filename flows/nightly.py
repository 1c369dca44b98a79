"""The nightly flow as a deployment runs it: ingest → embed → retrieve → score → verify → judge → flag → draw → report.

Prefect sees one task per shard, Dask runs them, and the warehouse's files say what is done: `flows.night`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from prefect import flow

from flows.clusters.choice import require_cluster
from flows.night.run import run
from flows.night.values import RunOptions
from flows.work.progress import Silent
from schemas.catalogue.reader import read_catalogue
from schemas.catalogue.reading import Reading
from schemas.catalogue.summary import said_of
from schemas.catalogue.whereabouts import look_for_photos
from schemas.settings import load_settings
from tasks.runs.remembered import known_job
from tasks.store.lease import at_work
from tasks.store.warehouse import Warehouse


@flow(name="pairx-nightly", validate_parameters=False)
def nightly(
    catalogue: str,
    warehouse: str,
    root: str | None = None,
    settings: Mapping[str, Any] | None = None,
    withdraw_missing: bool = False,
    retry_failed: bool = False,
    wait: bool = False,
) -> str:
    """Process a catalogue into a warehouse; the deployable entry point. Returns the report's address.

    `settings` holds any of `schemas.settings.Settings`; with `wait` it waits for another run on the
    warehouse. Raises `PairxError` before any work when the catalogue, the settings or the model cannot be
    used or the warehouse is busy, and after it when the counts do not balance.
    """
    chosen = load_settings(overrides=settings)
    found = look_for_photos(read_catalogue(catalogue, root, Reading.of(chosen)), root is not None)
    read, place = found.required(catalogue), Warehouse(warehouse)
    for said in said_of(read):
        Silent().notice(said)
    require_cluster(chosen)
    place.prepare()
    job = known_job(place, chosen)
    with at_work(place, "pairx-nightly", wait, Silent().notice) as lease:
        return run(read, job, lease, RunOptions(withdraw_missing, retry_failed)).report
