"""What `pairx evaluate` does, apart from parsing: check, evaluate, and write the folder."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tasks  # noqa: F401  # settings learn from it what they may name
from flows.commands.start import OUT, at_work_on, read
from flows.inherited import with_inherited
from pairx_engine.local.registry import LOCAL_MATCHERS
from schemas.catalogue.reader import Catalogue
from schemas.errors import PairxError, SettingsError, did_you_mean
from schemas.evaluate_options import EvaluateOptions, load_evaluate_options
from schemas.paths import local_path
from schemas.settings import Settings, load_settings

if TYPE_CHECKING:
    from flows.evaluation import Evaluated, EvaluationPlan
    from tasks.job import Job
    from tasks.pages.evaluation_values import Statistic


def evaluate_catalogue(
    places: tuple[str | None, str, str | None],
    out: Path,
    name: str | None,
    beside: tuple[Path, ...],
    toml: Path | None,
    given: Mapping[str, Any],
    retry_failed: bool,
    dry_run: bool,
    wait: bool,
    quiet: bool = False,
) -> None:
    """Check everything that was given, then print the plan, or evaluate and write the folder.

    `places` are the catalogue, the warehouse and the root; `given` holds settings and options of the
    evaluation by name.
    """
    from tasks.evaluation.files import read_statistics

    catalogue, warehouse, root = places
    others = [row for folder in beside for row in read_statistics(folder)]
    own = {key: value for key, value in given.items() if key in EvaluateOptions.model_fields}
    settings = {key: value for key, value in given.items() if key not in own}
    options = load_evaluate_options(toml, own)
    chosen = _settings(warehouse, toml, settings, catalogue is None)
    found = None if catalogue is None else read(catalogue, root, chosen)
    plan = plan_of(options, name or _dataset(catalogue or warehouse), retry_failed)
    if dry_run:
        _print_plan(found, warehouse, chosen, plan)
        return
    with at_work_on(warehouse, chosen, "pairx evaluate", wait) as (job, lease):
        plan = _for_network(plan, job)
        from flows.evaluation import evaluate as evaluate_photos
        from flows.work.progress import reporter

        evaluated = evaluate_photos(found, job, lease, plan, reporter(quiet))
    _write(evaluated, others, out, chosen, plan.matchers)


def _settings(warehouse: str, toml: Path | None, given: Mapping[str, Any], stored_photos: bool) -> Settings:
    from flows.evaluation import settings_of_newest_run
    from tasks.store.warehouse import Warehouse

    place = Warehouse(warehouse)
    if stored_photos:
        place.require()
    if stored_photos and not place.files("photos"):
        raise PairxError(
            f"{warehouse} holds no photos to evaluate",
            "name a catalogue, or run it first: pairx run CATALOGUE --warehouse URL",
        )
    inherited = settings_of_newest_run(place)
    file = load_settings(toml) if toml is not None else None
    asked = {name: getattr(file, name) for name in file.model_fields_set} if file is not None else {}
    asked |= {name: value for name, value in given.items() if value is not None}
    if stored_photos and not inherited and "model" not in asked:
        raise PairxError(
            f"no run has finished in {warehouse}, so that its settings are not known",
            "say with --model (and other options, or --settings) how its photos are to be seen",
        )
    return with_inherited(inherited, asked)


def plan_of(options: EvaluateOptions, dataset: str, retry_failed: bool = False) -> EvaluationPlan:
    """What options ask for, in the engine's terms.

    Raises `SettingsError` for an unknown method or matcher, and for numbers that cannot be used.
    """
    from flows.evaluation import EvaluationPlan
    from pairx_engine.errors import EngineError
    from pairx_engine.evaluation.separation import Binning
    from pairx_engine.explanations import explanation_named
    from pairx_engine.faithfulness import CHECKS, Flipping, Protocol, Translation

    for name in options.method:
        try:
            explanation_named(name)
        except EngineError as error:
            raise SettingsError(f"method {name!r}: {error}") from error
    try:
        binning = Binning(options.bins, options.edges, options.form, options.weights, options.minimum)
        flippings = tuple(
            Flipping(side, options.steps, options.share, fill)
            for fill in dict.fromkeys(options.fill)
            for side in dict.fromkeys(options.superpixel)
        )
        translation = Translation() if options.continuity else None
        protocol = Protocol(flippings, translation, options.checks or tuple(CHECKS))
    except ValueError as error:
        raise SettingsError(f"this cannot be measured: {error}", "see `pairx settings`") from error
    return EvaluationPlan(
        dataset,
        options,
        binning,
        _matchers(options.try_matcher),
        options.method,
        protocol,
        retry_failed,
    )


def _for_network(plan: EvaluationPlan, job: Job) -> EvaluationPlan:
    """The plan with the methods that suit the network, where none is named."""
    from pairx_engine.explanations import usual
    from tasks.job import engine_of

    return plan if plan.methods else replace(plan, methods=usual(engine_of(job).presets))


def _matchers(given: Sequence[str]) -> dict[str, str | None]:
    """Matchers from texts NAME[=FOLDER]; the folder holds the matcher's weights."""
    found: dict[str, str | None] = {}
    for text in given:
        name, _, folder = text.partition("=")
        if name not in LOCAL_MATCHERS:
            raise SettingsError(
                f"matcher {name!r} is not known{did_you_mean(name, LOCAL_MATCHERS)}",
                f"use {', '.join(LOCAL_MATCHERS)}",
            )
        found[name] = local_path(folder) if folder else None
    return found


def _dataset(source: str) -> str:
    """The name of the folder that a catalogue's file lies in, or of the catalogue or warehouse itself."""
    *folders, last = [
        part for part in re.split(r"[/\\]", source.partition("?")[0]) if part not in ("", ".")
    ] or [source]
    is_file = "." in last
    return folders[-1] if is_file and folders and ":" not in folders[-1] else last.partition(".")[0] or last


def _print_plan(found: Catalogue | None, warehouse: str, chosen: Settings, plan: EvaluationPlan) -> None:
    from flows.clusters.choice import require_cluster, worker_count
    from flows.commands.plan import duration, startup_of, unit_costs
    from tasks.evaluation.faithfulness import forward_passes, pairs_of
    from tasks.job import prepare_job
    from tasks.runs.log import RunLog
    from tasks.runs.remaining import look
    from tasks.store.warehouse import Warehouse

    require_cluster(chosen)
    options = plan.options
    job = prepare_job(Warehouse(warehouse), chosen)
    chosen, plan = job.settings, _for_network(plan, job)
    with look(job, RunLog(job).columns()) as (_, left):
        present = {key for key, photo in left.photos().items() if photo["present"]}
        embedded = {photo for photo, _ in left.embedded()}
    listed = {entry.photo_id for entry in found.entries} if found else present
    start, costs = startup_of(job), unit_costs(job)
    new, pairs = len(listed - embedded), 2 * options.per_photo * len(listed)
    total = new * costs.photo + pairs * costs.pair + options.figures * costs.figure
    faithful = "no pairs"
    if options.faithfulness:
        faithful = f"{options.faithfulness} pairs, {len(plan.methods)} ways to explain"
        total += costs.photo * sum(
            pairs_of(method, options.faithfulness) * forward_passes(method, plan.protocol)
            for method in plan.methods
        )
    total /= worker_count(chosen)
    for line in (
        f"photos   {len(listed)}, {new} of them to embed",
        f"pairs    at most {pairs}: {options.per_photo} of the same and of other names per photo",
        f"model    {chosen.model}, layers {', '.join(job.layers)}, preset {chosen.preset}; matcher {chosen.matcher}",
        f"measure  {plan.binning.name}; {options.resamples} resamples of animals; {options.figures} figures",
        f"choose   {'at most ' + str(min(options.sweep_pairs, pairs)) + ' pairs swept' if options.choose else 'no'}",
        f"faithful {faithful}",
        f"time     about {duration(start + total)}, {duration(start)} of it to start{'; the sweep comes on top' * options.choose}",
        "writes   nothing now",
    ):
        OUT.print(line)


def _write(
    evaluated: Evaluated,
    others: Sequence[Statistic],
    out: Path,
    settings: Settings,
    matchers: Mapping[str, str | None],
) -> None:
    """Write the folder and print the headline numbers; raises `PairxError` if pairs were lost."""
    from tasks.evaluation.files import settings_toml, write_evaluation

    evaluation = replace(evaluated.evaluation, beside=others)
    toml = None
    if evaluation.choice is not None:
        matcher = evaluation.choice.chosen.settings["matcher"]
        if matcher != settings.matcher:
            tried = {"matcher": matcher, "matcher_weights": matchers.get(matcher)}
            settings = settings.model_copy(update=tried)
        toml = settings_toml(evaluation.choice, settings)
    written = write_evaluation(evaluation, out, evaluated.pairs, toml)
    OUT.print(str(evaluated.balance))
    for line in headlines(evaluated):
        OUT.print(line)
    OUT.print(f"report: {out / 'report.html'}  ({len(written)} files in {out})")
    if not evaluated.balance.ok:
        raise PairxError(f"the counts do not balance: {evaluated.balance}", "run again")


def headlines(evaluated: Evaluated) -> list[str]:
    """The numbers of Table 1 for the whole dataset, a line per score."""
    lines = []
    rows = [row for row in evaluated.evaluation.statistics if row.species is None]
    for score in dict.fromkeys(row.score for row in rows):
        parts = []
        for row in rows:
            wanted = {
                "spearman": "ρ",
                "delta": "Δ" if row.variant == evaluated.evaluation.default_variant else "",
                "auc_equal_cosine": "area at equal cosine",
            }.get(row.statistic)
            if row.score == score and wanted:
                value = "undefined" if row.value is None else f"{row.value:.2f}"
                interval = "" if row.low is None or row.high is None else f" [{row.low:.2f}, {row.high:.2f}]"
                parts.append(f"{wanted} {value}{interval}")
        lines.append(f"{score:<23} {', '.join(parts)}")
    return lines
