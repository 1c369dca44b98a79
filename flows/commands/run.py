"""`pairx run` and `pairx validate`: a catalogue is checked, its plan printed, or the work done."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tasks  # noqa: F401  # settings learn from it what they may name
from flows.commands.start import OUT, at_work_on, look_up, note, read
from schemas.catalogue.table_files import columns_in_words
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
    found = read(catalogue, root, settings.bad_boxes)
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


def validate_catalogue(catalogue: str, root: str | None, bad_boxes: str = "refuse") -> None:
    """Say what the catalogue holds; `CatalogueError` lists its problems."""
    looked = look_up(catalogue, root, load_settings(overrides={"bad_boxes": bad_boxes}).bad_boxes)
    found, entries = looked.catalogue, looked.catalogue.entries
    if found.unused:
        note(f"not used: {columns_in_words(found.unused)}")
    there = "photos not looked up" if looked.found is None else f"{looked.found} photos found"
    names = {e.identity for e in entries if e.identity is not None}
    unknown = sum(e.identity is None for e in entries)
    with_boxes = sum(e.box is not None for e in entries)
    encounters = {e.encounter for e in entries if e.encounter is not None}
    OUT.print(
        f"valid: {len(entries)} photos, {len(names)} animals, {unknown} photos of unknown animals, {with_boxes} boxes, "
        f"{len(encounters)} encounters; read as {found.format}; photos lie below {found.root}: {there}"
    )
