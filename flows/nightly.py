"""The nightly flow: ingest → embed → retrieve → score → verify → judge → flag → draw → report.

Prefect sees one task per shard, Dask runs them, and the warehouse's files say what is done. Nothing is kept
in memory between stages, so a run that is killed anywhere can go on from there, and later runs do only what
is new.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from prefect import flow

from flows.api.reports import outcome_kept
from flows.clusters.choice import pairs_per_shard, require_cluster
from flows.work.on_cluster import run_on_cluster
from flows.work.progress import Reporter, Silent
from flows.work.stage_runner import StageRunner
from schemas.catalogue.reader import Catalogue, read_catalogue
from schemas.catalogue.reading import Reading
from schemas.catalogue.summary import oddities_of, said_of
from schemas.catalogue.whereabouts import look_for_photos
from schemas.errors import PairxError
from schemas.settings import load_settings
from tasks.gallery import Gallery
from tasks.job import Job, prepare_job
from tasks.reviews.merging import merge_reviews
from tasks.runs.log import (
    Balance,
    RunLog,
    StageLog,
    balances,
    balances_with_outside,
    new_run_id,
    refuse_all_failed,
    unchanged,
)
from tasks.runs.remaining import BEFORE_JUDGING, RunViews
from tasks.runs.report import write_report
from tasks.runs.tonight import Tonight, tonight_of
from tasks.stages.draw import DRAW, plan_draw
from tasks.stages.embed import EMBED, plan_embed
from tasks.stages.flag import flag, judged_basis
from tasks.stages.ingest import INGEST, plan_ingest, withdraw, withdrawn_rows
from tasks.stages.judge import KEPT, READ, judge
from tasks.stages.retrieve import (
    RETRIEVE,
    Retrieved,
    commit_neighbours,
    commit_pairs,
    keep_gallery,
    new_neighbours,
    new_pairs,
    plan_retrieve,
)
from tasks.stages.score import SCORE, plan_score
from tasks.stages.signals import SIGNALS, plan_signals
from tasks.stages.verify import VERIFY, plan_verify
from tasks.store.file_record import recording
from tasks.store.lease import Lease, at_work
from tasks.store.snapshot import earlier_snapshots, remove_old_snapshots
from tasks.store.warehouse import Warehouse


@dataclass(frozen=True)
class RunOptions:
    """How to treat the catalogue: whether it is complete, and whether to try failures again.

    `run_id` is the id of the one run that has these options.
    """

    withdraw_missing: bool = False
    retry_failed: bool = False
    run_id: str = field(default_factory=new_run_id)


_WORK: ContextVar[tuple[Catalogue, Job, Lease, RunOptions, Reporter]] = ContextVar(
    "work of the current process"
)


@dataclass(frozen=True)
class RunSummary:
    """What a finished run reports back."""

    run_id: str
    report: str
    counts: Mapping[str, int]
    balances: tuple[Balance, ...]
    stages: tuple[StageLog, ...]
    finished: datetime
    tonight: Tonight
    wrong_names: tuple[float, float, float] | None
    """Expected number of wrong names in all, with the ends of its interval; None where nothing was judged."""


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
    job = prepare_job(place, chosen)
    with at_work(place, "pairx-nightly", wait, Silent().notice) as lease:
        return run(read, job, lease, RunOptions(withdraw_missing, retry_failed)).report


def run(
    catalogue: Catalogue,
    job: Job,
    lease: Lease,
    options: RunOptions,
    reporter: Reporter | None = None,
) -> RunSummary:
    """Process a catalogue on the cluster of the settings, under a lease on the job's warehouse.

    See `nightly`.
    """
    reporter = reporter or Silent()
    if job.notice:
        reporter.notice(job.notice)
    photos = ((catalogue.root, entry.path) for entry in catalogue.entries)
    return run_on_cluster(process, job, _WORK, (catalogue, job, lease, options, reporter), photos)


@flow(name="pairx-process")
def process() -> RunSummary:
    """All stages on the flow's task runner.

    It takes no parameters and refers to functions only. Prefect sends a flow's parameters to its server
    as JSON, and the flow itself, with all that its code refers to, to every worker.
    """
    return outcome_kept(_process_work)


def _process_work() -> RunSummary:
    return _process(*_WORK.get())


def _process(
    catalogue: Catalogue, job: Job, lease: Lease, options: RunOptions, reporter: Reporter
) -> RunSummary:
    """All stages, with a row of the run log before and after them, and a record of the files."""
    log = RunLog(job, options.run_id, remarks=said_of(catalogue), oddities=oddities_of(catalogue))
    merge_reviews(job.warehouse)  # before the record begins: files of verdicts come and go between runs
    with recording(job.warehouse, log.run_id) as record:
        return _process_logged(catalogue, job, lease, log, options, reporter, record)


def _process_logged(
    catalogue: Catalogue,
    job: Job,
    lease: Lease,
    log: RunLog,
    options: RunOptions,
    reporter: Reporter,
    record: Callable[[], None],
) -> RunSummary:
    log.write("started")
    stages = StageRunner(job, reporter, lease.check)
    try:
        with RunViews(job, options.retry_failed) as views:
            if ingest_photos(catalogue, job, log, options, stages, views):
                record()  # whose files new entries are says since when photos are known, also if this run is killed
            gallery = embed_photos(job, log, stages, views)
            retrieved, snapshot = _process_pairs(job, log, gallery, stages, views)
            sums = _count(catalogue, log, gallery, retrieved, views, lease)
            return _finish(job, log, gallery, snapshot, sums, stages, views)
    except BaseException as error:
        if lost := lease.lost():
            raise lost from error
        with suppress(Exception):  # what ends the run may be the warehouse; that error counts
            log.write("failed", stages=stages.logs, message=f"{type(error).__name__}: {error}")
        raise


def ingest_photos(
    catalogue: Catalogue, job: Job, log: RunLog, options: RunOptions, stages: StageRunner, views: RunViews
) -> bool:
    """Take in what is new or changed in the catalogue; returns whether there was anything."""
    size = job.settings.photos_per_shard
    known = views.look(log.columns(), wanted=BEFORE_JUDGING)[1].photos()
    withdrawn = withdraw(job, list(withdrawn_rows(known, catalogue))) if options.withdraw_missing else 0
    shards = plan_ingest(catalogue, known, size, options.retry_failed)
    note = f"; {withdrawn} withdrawn" if withdrawn else ""
    stages.run(INGEST, shards, f"{len(catalogue.entries)} photos listed{note}")
    return bool(shards or withdrawn)


def embed_photos(job: Job, log: RunLog, stages: StageRunner, views: RunViews) -> Gallery:
    """Embed the photos of the catalogue that need it; returns those that can be paired."""
    size = job.settings.photos_per_shard
    _, left = views.look(log.columns(), wanted=BEFORE_JUDGING)
    present = left.present()
    to_embed = plan_embed(
        present,
        left.embedded() | left.given_up("embeddings"),
        left.detected() | left.given_up("keypoints"),
        size,
    )
    stages.run(EMBED, to_embed, f"{len(present)} photos in the catalogue")
    return views.look(log.columns(), wanted=BEFORE_JUDGING)[1].gallery()


def _process_pairs(
    job: Job, log: RunLog, gallery: Gallery, stages: StageRunner, views: RunViews
) -> tuple[int, str]:
    """Retrieve, score, verify, judge, flag and draw.

    Returns the number of pairs ever retrieved, and the name of the snapshot of what is current then.
    """
    connection, left = views.look(log.columns(), wanted=BEFORE_JUDGING)
    stored = left.stored_pairs()
    done = unchanged(connection, job.prints.pairs, gallery.state, job.settings.neighbours)
    shards = [] if done or len(gallery.photo_ids) < 2 else plan_retrieve(gallery)
    if shards:
        keep_gallery(job, gallery)
    retrieved = len(stored)

    def store(found: Sequence[Retrieved]) -> int:
        nonlocal retrieved
        commit_neighbours(job, gallery, new_neighbours(gallery, found, left.stored_neighbours(gallery)))
        new = commit_pairs(job, new_pairs(job, gallery, found, stored))
        retrieved += new
        return new

    stages.run(RETRIEVE, shards, f"{len(gallery.photo_ids)} photos to compare", finish=store)

    _, left = views.look(log.columns(gallery.state), ("photos", "pairs"), BEFORE_JUDGING)
    unscored = left.unscored()
    keypoints_in = left.keypoint_shards()
    to_score = plan_score(unscored, left.photos_of(unscored), keypoints_in, pairs_per_shard(job.settings))
    # Scoring a pair also gives its signals. These pairs were scored before signals were known.
    without_signals = plan_signals(left.without_signals(), keypoints_in)
    stages.run(SCORE, to_score, "all pairs have scores")
    stages.run(SIGNALS, without_signals, "all scored pairs have signals")

    _, left = views.look(log.columns(gallery.state), ("photos", "pairs"), BEFORE_JUDGING)
    unverified = left.unverified()
    to_verify = plan_verify(unverified, left.photos_of(unverified), pairs_per_shard(job.settings))
    stages.run(VERIFY, to_verify, "pairs that may be one picture")

    connection, _ = views.look(log.columns(gallery.state), KEPT, READ)
    with stages.alone("judge") as note:
        note(f"names of {judge(job, connection, gallery.state)} photos")
    connection, left = views.look(log.columns(gallery.state), keep=True)
    with stages.alone("flag") as note:
        note(f"{flag(job, connection, gallery.state)} suspects;")
        snapshot = views.keep_snapshot()
        note(str(snapshot))
    to_draw = plan_draw(left.undrawn(job.settings.figures))
    stages.run(DRAW, to_draw, "figures of the first suspects")
    return retrieved, snapshot.name


def _count(
    catalogue: Catalogue, log: RunLog, gallery: Gallery, retrieved: int, views: RunViews, lease: Lease
) -> tuple[Balance, ...]:
    """Look at the whole warehouse once more, and count.

    Raises `PairxError` where it is not what this run left.
    """
    lease.confirm()
    connection, _ = views.look(log.columns(gallery.state), keep=True)
    if gone := views.vanished():
        raise PairxError(
            f"{len(gone)} files of the warehouse vanished while the run was at work; the first: {gone[0]}",
            "find out who removes them, then run again: what is missing is computed anew",
        )
    taken_in, kept = balances_with_outside(connection, [e.photo_id for e in catalogue.entries], retrieved)
    return (taken_in, *balances(connection), kept)


def _finish(
    job: Job,
    log: RunLog,
    gallery: Gallery,
    snapshot: str,
    sums: Sequence[Balance],
    stages: StageRunner,
    views: RunViews,
) -> RunSummary:
    """Write the report and close the run; raises `PairxError` where the counts do not balance."""
    connection, _ = views.look(log.columns(gallery.state), keep=True)
    with stages.alone("report") as note:
        tonight = tonight_of(connection)
        report, counts = write_report(job, log, connection, sums, stages.logs, tonight)
        note(report)
    basis = judged_basis(connection)
    wrong_names = connection.execute(
        "SELECT wrong_names, wrong_names_low, wrong_names_high FROM judged_catalogues"
    ).fetchone()
    if not all(s.ok for s in sums):
        raise PairxError(
            "the counts do not balance: " + "; ".join(map(str, sums)),
            "run again: only what is missing is computed; a failure that repeats is in the log above",
        )
    refuse_all_failed(sums, stages.logs)
    log.write("finished", gallery.state, stages.logs, counts, snapshot=snapshot, basis=basis)
    remove_old_snapshots(job.warehouse, [snapshot, *earlier_snapshots(connection)])
    stages.publish(report, sums, tonight)
    return RunSummary(
        log.run_id, report, counts, tuple(sums), tuple(stages.logs), log.started, tonight, wrong_names
    )
