"""A night that finds the warehouse as the last run left it: it is counted and recorded, and nothing starts."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from typing import Any

from flows.night.values import Night, RunSummary
from schemas.errors import PairxError
from tasks.runs.log import Balance, RunLog, StageLog, balances, balances_with_outside
from tasks.runs.remaining import RunViews
from tasks.runs.standing import Before
from tasks.runs.tonight import Tonight
from tasks.store.reports import report_path

_READ = ("photos", "pairs", "failures", "judged_catalogues")


def finish_unchanged(night: Night, log: RunLog, before: Before) -> RunSummary:
    """Count what is there, write the run's last row, and return the summary, whose report is that of an earlier run.

    Raises `PairxError` where the counts do not balance, and `LeaseLost` where the warehouse is another's by now.
    """
    begun, worked = time.perf_counter(), time.process_time()
    night.reporter.begin("ingest", 0, "photos")
    sums, wrong_names = _counted(night, log, before)
    night.lease.confirm()
    refuse_unbalanced(sums)
    spent = StageLog(
        "ingest", seconds=time.perf_counter() - begun, processor_seconds=time.process_time() - worked
    )
    night.reporter.end(
        f"nothing new; {len(night.catalogue.entries)} photos listed, and all stands as run {before.run_id} left it",
        spent,
    )
    counts = _counts(before.row["counts"])
    log.write(
        "finished",
        before.row["state"],
        (spent,),
        counts | Tonight().counts(),
        snapshot=before.row["snapshot"],
        basis=before.row["basis"],
        standing=before.row["standing"],
        report_run=before.report,
    )
    storage = night.job.warehouse.storage
    report = storage.address(f"{night.job.warehouse.root}/{report_path(before.report)}")
    return RunSummary(
        log.run_id,
        report,
        counts,
        sums,
        (spent,),
        log.started,
        Tonight(),
        wrong_names,
        unchanged_since=before.report,
    )


def _counted(
    night: Night, log: RunLog, before: Before
) -> tuple[tuple[Balance, ...], tuple[float, float, float] | None]:
    """The sums over the tables, and the expected number of wrong names."""
    columns = log.columns(before.row["state"]) | {"snapshot": before.row["snapshot"]}
    listed = [entry.photo_id for entry in night.catalogue.entries]
    with RunViews(night.job) as views:
        connection, left = views.look(columns, (), _READ)
        taken_in, kept = balances_with_outside(connection, listed, left.stored_pairs())
        sums = (taken_in, *balances(connection), kept)
        wrong_names = connection.execute(
            "SELECT wrong_names, wrong_names_low, wrong_names_high FROM judged_catalogues"
        ).fetchone()
    return sums, wrong_names


def refuse_unbalanced(sums: Sequence[Balance]) -> None:
    """Raise `PairxError` where a sum does not add up."""
    if not all(balance.ok for balance in sums):
        raise PairxError(
            "the counts do not balance: " + "; ".join(map(str, sums)),
            "run again: only what is missing is computed; a failure that repeats is in the log above",
        )


def _counts(text: Any) -> dict[str, int]:
    found = {str(name): int(count) for name, count in json.loads(text or "{}").items()}
    return {name: count for name, count in found.items() if name not in Tonight().counts()}
