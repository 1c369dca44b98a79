"""Whether a warehouse stands as the last finished run left it, so that another run would find nothing to do.

That run noted what the tables held at its end. Where they hold the same files, the catalogue lists the same, what
computes is the same, and nothing was left to try again, every stage would find its work done. Neither the model nor
torch is needed to see that.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

import duckdb

from schemas.failures import PASSING
from schemas.fingerprints import fingerprint
from schemas.stages import INGEST
from schemas.tables.evaluation import EVALUATION_TABLES
from schemas.views.snapshots import whole_snapshot
from tasks.job import Job
from tasks.pairs import Photo
from tasks.runs.log import RunLog
from tasks.runs.newest import newest_finished
from tasks.runs.remaining import RunViews
from tasks.runs.surroundings import source
from tasks.store.reports import report_path
from tasks.store.warehouse import Warehouse

_OF_OTHERS = {"runs", "files", "galleries", "horizons", *(table.name for table in EVALUATION_TABLES)}
"""Tables that say nothing of what a night has to do; old states are removed after a run has noted how it stands."""


@dataclass(frozen=True)
class Before:
    """The finished run that a warehouse still stands as; `row` is its row of `runs`."""

    row: Mapping[str, Any]

    @property
    def run_id(self) -> str:
        """Its id."""
        return str(self.row["run_id"])

    @property
    def report(self) -> str:
        """The run whose report shows what it found: itself, or one that it found unchanged."""
        return str(self.row["report_run"] or self.run_id)


def standing(job: Job, files: Mapping[str, Iterable[str]]) -> str:
    """A hash of what decides whether a run has anything to do, but for its catalogue; 16 hex digits.

    `files` are those of each table that a run has seen: what others wrote meanwhile, such as a verdict, is news
    for the next one.
    """
    listed = {
        name: sorted(map(_name, found)) for name, found in files.items() if found and name not in _OF_OTHERS
    }
    chosen = [job.settings.figures, job.settings.neighbours, *job.layers]
    return fingerprint(files=listed, prints=vars(job.prints), chosen=chosen, source=source())


def _name(path: str) -> str:
    return "/".join(PurePosixPath(path).parts[-2:])


def tried_again(connection: duckdb.DuckDBPyConnection) -> bool:
    """Whether current failures may pass, so that every run tries their items again."""
    # A photo that could not be taken in is tried again when its file changes, which its stamp tells.
    found = connection.execute(
        "SELECT count(*) FROM failures WHERE stage <> $ingest AND list_contains($passing, code)",
        {"ingest": INGEST.name, "passing": list(PASSING)},
    )
    return bool(found.fetchall()[0][0])


def unchanged_since(job: Job, is_known: Callable[[Mapping[str, Photo]], bool]) -> Before | None:
    """The run that left the warehouse as a run would leave it now; None where there is work.

    `is_known` says whether the catalogue has nothing to add to rows of photos, by id. Reads the listing of the
    tables and those rows.
    """
    row = newest_finished(job.warehouse)
    if row is None or not row["standing"] or not _is_whole(job.warehouse, row):
        return None
    with RunViews(job) as views:
        left = views.look(RunLog(job).columns(), (), ())[1]
        if row["standing"] != standing(job, views.files()):
            return None
        return Before(row) if is_known(left.photos()) else None


def _is_whole(warehouse: Warehouse, row: Mapping[str, Any]) -> bool:
    """Whether the run's snapshot and the report that shows what it found are there."""
    report = report_path(str(row["report_run"] or row["run_id"]))
    return bool(
        row["snapshot"]
        and whole_snapshot(warehouse.snapshot(str(row["snapshot"])))
        and warehouse.filesystem.exists(f"{warehouse.root}/{report}")
    )
