"""The stages of a night: ingest → embed → retrieve → score → verify → judge → flag → draw → report.

The warehouse's files say what is done. Nothing is kept in memory between stages, so a run that is killed anywhere
can go on from there, and later runs do only what is new.
"""

from __future__ import annotations

from collections.abc import Sequence

import duckdb
import pyarrow as pa

from flows.clusters.choice import pairs_per_shard
from flows.night.unchanged import refuse_unbalanced
from flows.night.values import RunOptions, RunSummary
from flows.work.stage_runner import StageRunner
from schemas.catalogue.reader import Catalogue
from schemas.errors import PairxError
from tasks.gallery import Gallery
from tasks.job import Job
from tasks.retrieval.found import Retrieved
from tasks.retrieval.kept import keep_found, keep_gallery
from tasks.retrieval.plan import Asked, ask_what_is_new
from tasks.runs.log import (
    Balance,
    RunLog,
    balances,
    balances_with_outside,
    refuse_all_failed,
)
from tasks.runs.remaining import BEFORE_JUDGING, RunViews
from tasks.runs.report import write_report
from tasks.runs.retrieved import remove_old_states, retrieved_state, unchanged
from tasks.runs.standing import standing, tried_again
from tasks.runs.tonight import tonight_of
from tasks.stages.draw import DRAW, plan_draw
from tasks.stages.embed import EMBED, plan_embed
from tasks.stages.flag import flag, judged_basis
from tasks.stages.ingest import INGEST, plan_ingest, withdraw, withdrawn_rows
from tasks.stages.judge import KEPT, READ, judge
from tasks.stages.retrieve import RETRIEVE
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
    _, left = views.look(log.columns(), wanted=BEFORE_JUDGING)
    withdrawn = 0
    if options.withdraw_missing:
        gone = left.not_listed(pa.array([e.photo_id for e in catalogue.entries], pa.string()))
        withdrawn = withdraw(job, list(withdrawn_rows(gone, catalogue)))
    shards = plan_ingest(catalogue, left.photos_in_order(), size, options.retry_failed)
    note = f"; {withdrawn} withdrawn" if withdrawn else ""
    stages.run(INGEST, shards, f"{len(catalogue.entries)} photos listed{note}")
    return bool(shards or withdrawn)


def embed_photos(job: Job, log: RunLog, stages: StageRunner, views: RunViews) -> Gallery:
    """Embed the photos of the catalogue that need it; returns those that can be paired."""
    size = job.settings.photos_per_shard
    connection, left = views.look(log.columns(), wanted=BEFORE_JUDGING)
    to_embed = plan_embed(*left.to_embed(), size)
    [(present,)] = connection.execute("SELECT count(*) FROM photos").fetchall()
    stages.run(EMBED, to_embed, f"{present} photos in the catalogue")
    return views.look(log.columns(), wanted=BEFORE_JUDGING)[1].gallery()


def process_pairs(
    job: Job, log: RunLog, gallery: Gallery, stages: StageRunner, views: RunViews
) -> tuple[int, str]:
    """Retrieve, score, verify, judge, flag and draw.

    Returns the number of pairs ever retrieved, and the name of the snapshot of what is current then.
    """
    connection, left = views.look(log.columns(), wanted=BEFORE_JUDGING)
    retrieved = left.stored_pairs()
    asked = _ask(job, connection, gallery)
    if asked:
        keep_gallery(job, gallery)

    def store(found: Sequence[Retrieved]) -> int:
        nonlocal retrieved
        assert asked
        new = keep_found(job, connection, asked, found)
        retrieved += new
        return new

    shards = asked.shards() if asked else []
    if asked and not shards:  # nobody has to look, but lists may have lost an entry
        store([])
    stages.run(RETRIEVE, shards, f"{len(gallery)} photos to compare", finish=store)

    _, left = views.look(log.columns(gallery.state), ("photos", "pairs"), BEFORE_JUDGING)
    unscored = left.unscored()
    photos = left.photos_of(unscored)
    to_score = plan_score(unscored, photos, left.keypoint_shards(photos), pairs_per_shard(job.settings))
    # Scoring a pair also gives its signals. These pairs were scored before signals were known.
    bare = left.without_signals()
    seen = {photo for pair in bare for photo in (pair.photo_a, pair.photo_b)}
    without_signals = plan_signals(bare, left.keypoint_shards(seen))
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


def _ask(job: Job, connection: duckdb.DuckDBPyConnection, gallery: Gallery) -> Asked | None:
    """What is to be searched for; None where nothing is."""
    done = unchanged(connection, job.prints.pairs, gallery.state, job.settings.neighbours)
    if done or len(gallery) < 2:
        return None
    return ask_what_is_new(job, connection, gallery, retrieved_state(connection, job))


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
    remove_old_states(connection, job.warehouse)
    stages.publish(report, sums, tonight)
    return RunSummary(
        log.run_id, report, counts, tuple(sums), tuple(stages.logs), log.started, tonight, wrong_names
    )
