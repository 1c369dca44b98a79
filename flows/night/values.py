"""What a night is told, and what it reports back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from flows.work.progress import Reporter
from schemas.catalogue.reader import Catalogue
from tasks.job import Job
from tasks.runs.log import Balance, StageLog, new_run_id
from tasks.runs.standing import Before
from tasks.runs.tonight import Tonight
from tasks.store.lease import Lease


@dataclass(frozen=True)
class RunOptions:
    """How to treat the catalogue: whether it is complete, and whether to try failures again.

    `run_id` is the id of the one run that has these options.
    """

    withdraw_missing: bool = False
    retry_failed: bool = False
    run_id: str = field(default_factory=new_run_id)


@dataclass(frozen=True)
class Night:
    """A catalogue to process under a lease on the job's warehouse."""

    catalogue: Catalogue
    job: Job
    lease: Lease
    options: RunOptions
    reporter: Reporter
    before: Before | None = None
    """The run that the warehouse still stands as; None where there is something to do."""


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
    unchanged_since: str | None = None
    """The run whose report shows what this one found, where nothing has changed since."""
