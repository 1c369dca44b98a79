"""`pairx run` and `pairx validate`: a catalogue is checked, its plan printed, or the work done."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tasks  # noqa: F401  # settings learn from it what they may name
from flows.commands.start import OUT, at_work_on, look_up, note, read
from schemas.catalogue.reading import Reading
from schemas.catalogue.summary import said_of
from schemas.errors import PairxError, SettingsError
from schemas.settings import EMBEDDED_NOTICE, load_settings

FAIL_ON = ("failures",)
"""What else may let a run end with 1."""


def run_catalogue(
    catalogue: str,
    warehouse: str,
    root: str | None,
    toml: Path | None,
    given: Mapping[str, Any],
    dry_run: bool,
    withdraw_missing: bool,
    retry_failed: bool,
    wait: bool,
    fail_on: str | None = None,
) -> None:
    """Check the catalogue and the settings, then print the plan or do the work.

    With `fail_on` "failures", photos or pairs that failed in this run are a `PairxError` at its end.
    """
    if fail_on not in (None, *FAIL_ON):
        raise SettingsError(f"--fail-on {fail_on!r} is not known", f"use {' or '.join(FAIL_ON)}")
    settings = load_settings(toml, given)
    found = read(catalogue, root, settings)
    if settings.model == "embedded":
        note(f"{EMBEDDED_NOTICE}\n")
    if dry_run:
        from flows.commands.plan import print_plan

        print_plan(found, warehouse, settings, retry_failed, OUT)
        return
    with at_work_on(warehouse, settings, "pairx run", wait) as (job, lease):
        from flows.nightly import RunOptions, run
        from flows.work.progress import Terminal

        summary = run(found, job, lease, RunOptions(withdraw_missing, retry_failed), Terminal())
    for balance in summary.balances:
        OUT.print(str(balance))
    OUT.print(f"report: {summary.report}")
    OUT.print(f"next:   pairx suspects --warehouse {warehouse}   or   pairx sql --warehouse {warehouse}")
    failed = {log.stage: log.failed for log in summary.stages if log.failed}
    if fail_on and failed:
        raise PairxError(
            f"this run recorded failures: {', '.join(f'{stage} {count}' for stage, count in failed.items())}",
            '`pairx sql "SELECT * FROM failures"` and the report tell why; without --fail-on the run ends with 0',
        )


def validate_catalogue(catalogue: str, root: str | None, toml: Path | None, given: Mapping[str, Any]) -> None:
    """Say what the catalogue holds and is taken for; `CatalogueError` lists its problems."""
    found = look_up(catalogue, root, Reading.of(load_settings(toml, given))).catalogue
    *said, counts = said_of(found)
    for text in said:
        note(text)
    OUT.print(f"valid: {counts}")
