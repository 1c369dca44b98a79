"""A night from its first row in the log of runs to its last, whoever works its shards off."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from flows.night.unchanged import finish_unchanged
from flows.night.values import Night, RunSummary
from schemas.catalogue.summary import oddities_of, said_of
from tasks.reviews.merging import merge_reviews
from tasks.runs.log import RunLog, StageLog
from tasks.store.file_record import recording

if TYPE_CHECKING:
    from flows.work.hands import Hands


def process_night(night: Night, hands: Hands | None) -> RunSummary:
    """All that is to do, with a row of the log of runs before and after it, and a record of the files.

    Where nothing changed since the last run, that run's report stays, and no hands are needed.
    """
    job = night.job
    log = _log_of(night)
    merge_reviews(job.warehouse)  # before the record begins: files of verdicts come and go between runs
    with recording(job.warehouse, log.run_id) as record:
        return _logged(night, hands, log, record)


def _log_of(night: Night) -> RunLog:
    catalogue = night.catalogue
    return RunLog(
        night.job, night.options.run_id, remarks=said_of(catalogue), oddities=oddities_of(catalogue)
    )


def record_failure(night: Night, error: BaseException) -> None:
    """Write the rows of a run that failed before any work."""
    log = _log_of(night)
    with suppress(Exception):  # what ends the run may be the warehouse; that error counts
        log.write("started")
        log.write("failed", message=f"{type(error).__name__}: {error}")


def _logged(night: Night, hands: Hands | None, log: RunLog, record: Callable[[], None]) -> RunSummary:
    log.write("started")
    if night.before is not None:
        try:
            return finish_unchanged(night, log, night.before)
        except BaseException as error:
            _failed(night, log, error)
            raise
    return _worked(night, hands, log, record)


def _worked(night: Night, hands: Hands | None, log: RunLog, record: Callable[[], None]) -> RunSummary:
    """The stages, which import what computes."""
    from flows.night.stages import count, embed_photos, finish, ingest_photos, process_pairs
    from flows.work.stage_runner import StageRunner
    from tasks.runs.remaining import RunViews

    catalogue, job, lease = night.catalogue, night.job, night.lease
    stages = StageRunner(job, night.reporter, lease.check, hands)
    try:
        with RunViews(job, night.options.retry_failed) as views:
            if ingest_photos(catalogue, job, log, night.options, stages, views):
                record()  # whose files new entries are says since when photos are known, also if this run is killed
            gallery = embed_photos(job, log, stages, views)
            retrieved, snapshot = process_pairs(job, log, gallery, stages, views)
            sums = count(catalogue, log, gallery, retrieved, views, lease)
            return finish(job, log, gallery, snapshot, sums, stages, views)
    except BaseException as error:
        _failed(night, log, error, stages.logs)
        raise


def _failed(night: Night, log: RunLog, error: BaseException, stages: Sequence[StageLog] = ()) -> None:
    """Write that the run failed; raises `LeaseLost` where the warehouse is another's by now."""
    if lost := night.lease.lost():
        raise lost from error
    with suppress(Exception):  # what ends the run may be the warehouse; that error counts
        log.write("failed", stages=stages, message=f"{type(error).__name__}: {error}")
