"""`pairx run` and `pairx validate`: a catalogue is checked, its plan printed, or the work done."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import tasks  # noqa: F401  # settings learn from it what they may name
from flows.commands.notify import Hook
from flows.commands.start import OUT, look_up, note, read, warehouse_for
from flows.log_format import is_json, line
from schemas.catalogue.reading import Reading
from schemas.catalogue.summary import said_of
from schemas.errors import PairxError, SettingsError, did_you_mean
from schemas.settings import EMBEDDED_NOTICE, Settings, load_settings
from schemas.storage_errors import masked

if TYPE_CHECKING:
    from flows.night.values import RunSummary

FAIL_ON = ("failures", "new-suspects")
"""What else may let a run end with another exit code than 0."""


class NewSuspects(PairxError):
    """The run is done and found new suspects, and its user asked to hear of it by the exit code."""

    exit_code: ClassVar[int] = 4


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
    fail_on: Collection[str] = (),
    notify: str | None = None,
    quiet: bool = False,
) -> None:
    """Check the catalogue and the settings, then print the plan or do the work.

    With "failures" in `fail_on`, photos or pairs that failed in this run are a `PairxError` at its end; with
    "new-suspects", new suspects are `NewSuspects`. The command `notify` is told how a run ended.
    """
    for one in fail_on:
        if one not in FAIL_ON:
            near = did_you_mean(one, FAIL_ON)
            raise SettingsError(f"--fail-on {one!r} is not known{near}", f"use {' or '.join(FAIL_ON)}")
    hook = Hook.of(notify) if notify is not None else None
    if dry_run:
        _print_plan(catalogue, warehouse, root, load_settings(toml, given), retry_failed)
        return
    facts: dict[str, Any] = {
        "run": None,
        "warehouse": masked(warehouse),
        "catalogue": masked(catalogue),
        "started": datetime.now(UTC).isoformat(),
    }
    options = (withdraw_missing, retry_failed)
    try:
        settings = load_settings(toml, given)
        summary = _work(catalogue, warehouse, root, settings, options, wait, quiet, facts)
    except Exception as error:
        if hook:
            hook.tell(facts | _of_failure(error))
        raise
    wrong = _wrong(summary, fail_on)
    told = facts | _of_success(summary, wrong)
    if hook:
        hook.tell(told)
    if is_json():
        numbers = {name: value for name, value in told.items() if name != "message"}
        print(line("summary", str(summary.tonight), **numbers, stages=_stages(summary)), flush=True)
    if wrong:
        raise wrong


def _print_plan(
    catalogue: str, warehouse: str, root: str | None, settings: Settings, retry_failed: bool
) -> None:
    from flows.commands.plan import print_plan

    found = read(catalogue, root, settings)
    _say_model(settings)
    print_plan(found, warehouse, settings, retry_failed, OUT)


def _say_model(settings: Settings) -> None:
    if settings.model == "embedded":
        note(f"{EMBEDDED_NOTICE}\n")


def _work(
    catalogue: str,
    warehouse: str,
    root: str | None,
    settings: Settings,
    options: tuple[bool, bool],
    wait: bool,
    quiet: bool,
    facts: dict[str, Any],
) -> RunSummary:
    """Do the work and print what came of it, what is new last; `facts` get the run's id when it begins."""
    found = read(catalogue, root, settings)
    _say_model(settings)
    with warehouse_for(warehouse, settings, "pairx run", wait) as (job, lease):
        from flows.night.run import run
        from flows.night.values import RunOptions
        from flows.work.progress import reporter

        asked = RunOptions(*options)
        facts["run"] = asked.run_id
        summary = run(found, job, lease, asked, reporter(quiet))
    if not is_json():
        _print_summary(summary, warehouse)
    return summary


def _print_summary(summary: RunSummary, warehouse: str) -> None:
    for balance in summary.balances:
        OUT.print(str(balance))
    for log in summary.stages:
        if log.per_second is not None and log.where:
            OUT.print(
                f"{log.stage}: {log.items} items, {log.per_second:.1f}/s; of the workers' time {log.where}"
            )
    same = "" if summary.unchanged_since is None else f"  (unchanged since run {summary.unchanged_since})"
    OUT.print(f"report: {summary.report}{same}")
    OUT.print(f"next:   pairx suspects --warehouse {warehouse}   or   pairx sql --warehouse {warehouse}")
    OUT.print(str(summary.tonight))


def _wrong(summary: RunSummary, fail_on: Collection[str]) -> PairxError | None:
    """What the user wants to hear of a finished run by its exit code."""
    failed = _failed(summary)
    if "failures" in fail_on and failed:
        return PairxError(
            f"this run recorded failures: {', '.join(f'{stage} {count}' for stage, count in failed.items())}",
            '`pairx sql "SELECT * FROM failures"` and the report tell why; without --fail-on the run ends with 0',
        )
    if "new-suspects" in fail_on and (count := summary.tonight.new_suspects):
        return NewSuspects(
            f"the run is done and found {count} new suspect{'' if count == 1 else 's'}",
            "`pairx suspects --new` lists them; without --fail-on the run ends with 0",
        )
    return None


def _failed(summary: RunSummary) -> dict[str, int]:
    return {log.stage: log.failed for log in summary.stages if log.failed}


def _of_success(summary: RunSummary, wrong: PairxError | None) -> dict[str, Any]:
    """What the hook is told of a finished run; flows/README.md documents the keys."""
    names = ("expected", "low", "high")
    return {
        "status": "finished",
        "exit_code": wrong.exit_code if wrong else 0,
        "ended": datetime.now(UTC).isoformat(),
        "message": wrong.message if wrong else None,
        "report": masked(summary.report),
        "tonight": summary.tonight.counts(),
        "counts": dict(summary.counts),
        "balances": [{"text": str(balance), "ok": balance.ok} for balance in summary.balances],
        "failed": _failed(summary),
        "expected_errors": summary.wrong_names and dict(zip(names, summary.wrong_names, strict=True)),
    }


def _stages(summary: RunSummary) -> dict[str, Any]:
    from flows.work.json_progress import numbers_of

    return {log.stage: numbers_of(log) for log in summary.stages}


def _of_failure(error: Exception) -> dict[str, Any]:
    """The same keys for a run that failed, or that never began; `message` is what the command says."""
    from flows.messages import message_of

    message, code = message_of(error)
    unknown = ("report", "tonight", "counts", "balances", "failed", "expected_errors")
    return {
        "status": "failed",
        "exit_code": code,
        "ended": datetime.now(UTC).isoformat(),
        "message": masked(message),
        **dict.fromkeys(unknown),
    }


def validate_catalogue(catalogue: str, root: str | None, toml: Path | None, given: Mapping[str, Any]) -> None:
    """Say what the catalogue holds and is taken for; `CatalogueError` lists its problems."""
    found = look_up(catalogue, root, Reading.of(load_settings(toml, given))).catalogue
    *said, counts = said_of(found)
    for text in said:
        note(text)
    OUT.print(f"valid: {counts}")
