"""The stages of a night: ingest → embed → retrieve → score → verify → judge → flag → draw → report.

The warehouse's files say what is done. Nothing is kept in memory between stages, so a run that is killed anywhere
can go on from there, and later runs do only what is new.
"""

from __future__ import annotations

from collections.abc import Sequence

from flows.clusters.choice import pairs_per_shard
from flows.night.unchanged import refuse_unbalanced
from flows.night.values import RunOptions, RunSummary
from flows.work.stage_runner import StageRunner
from schemas.catalogue.reader import Catalogue
from schemas.errors import PairxError
from tasks.gallery import Gallery
from tasks.job import Job
from tasks.runs.log import (
    Balance,
    RunLog,
    balances,
    balances_with_outside,
    refuse_all_failed,
    unchanged,
)
from tasks.runs.remaining import BEFORE_JUDGING, RunViews
from tasks.runs.report import write_report
from tasks.runs.standing import standing, tried_again
from tasks.runs.tonight import tonight_of
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
from tasks.store.lease import Lease
from tasks.store.snapshot import earlier_snapshots, remove_old_snapshots


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


def process_pairs(
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


def count(
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


def finish(
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
    refuse_unbalanced(sums)
    refuse_all_failed(sums, stages.logs)
    if tried_again(connection):
        log.left.append("failures that may pass")
    stands = None if log.left else standing(job, views.files())
    told = counts | tonight.counts()
    log.write("finished", gallery.state, stages.logs, told, snapshot=snapshot, basis=basis, standing=stands)
    remove_old_snapshots(job.warehouse, [snapshot, *earlier_snapshots(connection)])
    stages.publish(report, sums, tonight)
    return RunSummary(
        log.run_id, report, counts, tuple(sums), tuple(stages.logs), log.started, tonight, wrong_names
    )
