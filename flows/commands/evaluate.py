"""What `pairx evaluate` does, apart from parsing: it checks what was given, evaluates and writes the folder."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tasks  # noqa: F401  # settings learn from it what they may name
from flows.commands.start import OUT, at_work_on, read
from pairx_engine.local.registry import LOCAL_MATCHERS
from schemas.catalogue.reader import Catalogue
from schemas.errors import PairxError, SettingsError
from schemas.paths import local_path
from schemas.settings import Settings, load_settings

if TYPE_CHECKING:
    from flows.evaluation import Evaluated, EvaluateOptions
    from tasks.pages.evaluation_values import Statistic

_RUNS_CONCERN = ("figures", "cluster", "workers")
"""Settings of a stored run that say how it ran, not what it computed: an evaluation does not inherit them."""
_BELONG_TO = {"model": ("model_revision", "resize", "layers"), "matcher": ("matcher_weights",)}
"""Settings that say something of the stored run's model or matcher, and nothing of another one."""
_CHOICES = {
    "edges": ("equal_width", "quantile"),
    "form": ("gaussian", "histogram"),
    "weights": ("pairs", "smaller_class", "equal"),
}


@dataclass(frozen=True)
class Asked:
    """The options of an evaluation as they were given, before they are checked."""

    per_photo: int
    resamples: int
    figures: int
    choose: bool
    layers: tuple[str, ...]
    matchers: tuple[str, ...]
    sweep_pairs: int
    folds: int
    faithfulness: int
    methods: tuple[str, ...]
    continuity: bool
    retry_failed: bool
    binning: Mapping[str, Any]
    flipping: Mapping[str, Any]


def _matchers(given: Sequence[str]) -> dict[str, str | None]:
    """NAME[=FOLDER] each; the folder holds the matcher's weights."""
    found: dict[str, str | None] = {}
    for text in given:
        name, _, folder = text.partition("=")
        if name not in LOCAL_MATCHERS:
            raise SettingsError(f"matcher {name!r} is not known", f"use {', '.join(LOCAL_MATCHERS)}")
        found[name] = local_path(folder) if folder else None
    return found


def evaluate_catalogue(
    catalogue: str | None,
    warehouse: str,
    root: str | None,
    out: Path,
    name: str | None,
    beside: tuple[Path, ...],
    toml: Path | None,
    given: Mapping[str, Any],
    asked: Asked,
    dry_run: bool,
    wait: bool,
) -> None:
    """Check everything that was given, then print the plan, or evaluate and write the folder."""
    from tasks.evaluation.files import read_statistics

    others = [row for folder in beside for row in read_statistics(folder)]
    found = None if catalogue is None else read(catalogue, root)
    chosen = _settings(warehouse, toml, given, catalogue is None)
    options = _options(asked, name or _dataset(catalogue or warehouse))
    if dry_run:
        _print_plan(found, warehouse, chosen, options)
        return
    _write(_evaluate(found, warehouse, chosen, options, wait), others, out, chosen, options.matchers)


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
    dropped = {*_RUNS_CONCERN}
    for name, belonging in _BELONG_TO.items():
        if name in asked and asked[name] != inherited.get(name):
            dropped |= {*belonging}
    return load_settings(overrides={k: v for k, v in inherited.items() if k not in dropped} | asked)


def _options(asked: Asked, dataset: str) -> EvaluateOptions:
    from flows.evaluation import EvaluateOptions
    from pairx_engine.evaluation.separation import Binning
    from pairx_engine.explanations import explanations
    from pairx_engine.faithfulness import Flipping, Translation
    from tasks.evaluation.faithfulness import Protocol

    if not asked.choose and (asked.layers or asked.matchers):
        raise SettingsError("--try-layer and --try-matcher say what --choose tries", "add --choose")
    if not asked.faithfulness and (asked.methods or asked.continuity):
        raise SettingsError(
            "--method and --continuity say how faithfulness is tested",
            "add --faithfulness with a number of pairs",
        )
    for option, known in _CHOICES.items():
        if asked.binning[option] not in known:
            raise SettingsError(
                f"--{option} {asked.binning[option]!r} is not known", f"use {', '.join(known)}"
            )
    if unknown := sorted({*asked.methods} - {*explanations()}):
        raise SettingsError(f"method {unknown[0]!r} is not known", f"use {', '.join(explanations())}")
    try:
        binning, flipping = Binning(**asked.binning), Flipping(**asked.flipping)
    except ValueError as error:
        raise SettingsError(f"this cannot be measured: {error}", "see pairx evaluate --help") from error
    return EvaluateOptions(
        dataset=dataset,
        per_photo=asked.per_photo,
        binning=binning,
        resamples=asked.resamples,
        figures=asked.figures,
        choose=asked.choose,
        layers=asked.layers,
        matchers=_matchers(asked.matchers),
        sweep_pairs=asked.sweep_pairs,
        folds=asked.folds,
        faithfulness=asked.faithfulness,
        protocol=Protocol(
            asked.methods or tuple(explanations()), flipping, Translation() if asked.continuity else None
        ),
        retry_failed=asked.retry_failed,
    )


def _dataset(source: str) -> str:
    """The name of the folder that a catalogue's file lies in, or of the catalogue or warehouse itself."""
    *folders, last = [
        part for part in re.split(r"[/\\]", source.partition("?")[0]) if part not in ("", ".")
    ] or [source]
    is_file = "." in last
    return folders[-1] if is_file and folders and ":" not in folders[-1] else last.partition(".")[0] or last


def _print_plan(found: Catalogue | None, warehouse: str, chosen: Settings, options: EvaluateOptions) -> None:
    from flows.clusters.choice import worker_count
    from flows.commands.plan import duration, measure
    from tasks.job import prepare_job
    from tasks.runs.log import RunLog
    from tasks.runs.remaining import look
    from tasks.store.warehouse import Warehouse

    job = prepare_job(Warehouse(warehouse), chosen)
    with look(job, RunLog(job).columns()) as (_, left):
        present = {key for key, photo in left.photos().items() if photo["present"]}
        embedded = {photo for photo, _ in left.embedded()}
    listed = {entry.photo_id for entry in found.entries} if found else present
    costs = measure(job)
    new, pairs = len(listed - embedded), 2 * options.per_photo * len(listed)
    total = (new * costs.photo + pairs * costs.pair + options.figures * costs.figure) / worker_count(chosen)
    for line in (
        f"photos   {len(listed)}, {new} of them to embed",
        f"pairs    at most {pairs}: {options.per_photo} of the same and of other names per photo",
        f"model    {chosen.model}, layers {', '.join(job.layers)}, preset {chosen.preset}; matcher {chosen.matcher}",
        f"measure  {options.binning.name}; {options.resamples} resamples of animals; {options.figures} figures",
        f"choose   {'at most ' + str(min(options.sweep_pairs, pairs)) + ' pairs swept' if options.choose else 'no'}",
        f"faithful {options.faithfulness or 'no'} pairs",
        f"time     about {duration(total)}, and half a minute to start; a sweep and faithfulness come on top",
        "writes   nothing now",
    ):
        OUT.print(line)


def _evaluate(
    found: Catalogue | None, warehouse: str, chosen: Settings, options: EvaluateOptions, wait: bool
) -> Evaluated:
    with at_work_on(warehouse, chosen, "pairx evaluate", wait) as (job, lease):
        from flows.evaluation import evaluate as evaluate_photos
        from flows.work.progress import Terminal

        return evaluate_photos(found, job, lease, options, Terminal())


def _write(
    evaluated: Evaluated,
    others: Sequence[Statistic],
    out: Path,
    settings: Settings,
    matchers: Mapping[str, str | None],
) -> None:
    """Write the folder, print the headline numbers, and fail if pairs were lost."""
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
