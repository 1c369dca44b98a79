"""The evaluation flow: list labelled pairs → score → measure.

Two steps follow on request: sweep the settings, and test faithfulness. The flow shares photos, embeddings and
scores with the nightly run, so that what is stored costs nothing. Its lists, sweeps and measurements are
tables of their own, and no view of the nightly run changes.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from prefect import flow

from flows.api.reports import outcome_kept
from flows.clusters.choice import pairs_per_shard
from flows.night.stages import embed_photos, ingest_photos
from flows.night.values import RunOptions
from flows.work.on_cluster import run_on_cluster
from flows.work.progress import Reporter
from flows.work.stage_runner import StageRunner
from pairx_engine.evaluation.choice import Choice, ScoreSettings, choose
from pairx_engine.evaluation.separation import DEFAULT, Binning
from pairx_engine.explanations import usual
from pairx_engine.faithfulness import Protocol
from schemas.catalogue.reader import Catalogue
from schemas.errors import PairxError
from schemas.evaluate_options import EvaluateOptions
from schemas.failures import PASSING
from schemas.settings import EMBEDDED_NOTICE, PAIRS_PER_SHARD
from schemas.stored_settings import stored_settings
from tasks.evaluation.candidates import default_candidate, sweep_of
from tasks.evaluation.faithfulness import (
    FAITHFULNESS,
    choose_others,
    choose_pairs,
    faithfulness_fingerprint,
    pairs_of,
    plan_faithfulness,
)
from tasks.evaluation.gather import ListedPairs, scatter_of
from tasks.evaluation.learning import LEARN, Learned, learned_partition, plan_learning
from tasks.evaluation.listing import LIST, list_fingerprint, list_shard_name, listed_pairs, plan_list
from tasks.evaluation.ranking import rank
from tasks.evaluation.statistics import equal_cosine, rank_outliers, statistics_of
from tasks.evaluation.sweep import SWEEP, Sweep, plan_sweep, sweep_partition
from tasks.gallery import Gallery
from tasks.job import Job
from tasks.pages.evaluation_values import Evaluation, FaithfulnessRow
from tasks.pairs import Pair
from tasks.retrieval.found import Candidates
from tasks.retrieval.kept import keep_gallery
from tasks.runs.log import Balance, RunLog
from tasks.runs.remaining import RunViews
from tasks.shards import commit
from tasks.stages.draw import DRAW, plan_draw
from tasks.stages.score import SCORE, plan_score
from tasks.stages.signals import SIGNALS, plan_signals
from tasks.store.file_record import recording
from tasks.store.lease import Lease
from tasks.store.warehouse import Warehouse

Photos = Mapping[str, Mapping[str, Any]]
_LISTED_OUTLIERS = 1000
_RESAMPLES_OF_A_CHOICE = 200
"""The least number of resamples; with fewer, a real advantage cannot be told from chance."""
_LISTED = "no photo of this catalogue has both a name and a partner of the same or of another name"


@dataclass(frozen=True)
class EvaluationPlan:
    """What to evaluate, and how far: the options, and what they mean in the engine's terms.

    `matchers` are tried beside the default, by name, with their weights; `methods` are ways to explain whose
    faithfulness is measured as `protocol` says.
    """

    dataset: str
    options: EvaluateOptions = field(default_factory=EvaluateOptions)
    binning: Binning = DEFAULT
    matchers: Mapping[str, str | None] = field(default_factory=dict)
    methods: tuple[str, ...] = field(default_factory=usual)
    protocol: Protocol = field(default_factory=Protocol)
    retry_failed: bool = False


@dataclass(frozen=True)
class Evaluated:
    """The evaluation, its pair list with scores, and the balance of its counts."""

    evaluation: Evaluation
    pairs: pa.Table
    balance: Balance


_WORK: ContextVar[tuple[Catalogue | None, Job, Lease, EvaluationPlan, Sweep | None, Reporter]] = ContextVar(
    "evaluation"
)


def evaluate(
    catalogue: Catalogue | None,
    job: Job,
    lease: Lease,
    plan: EvaluationPlan,
    reporter: Reporter,
) -> Evaluated:
    """Evaluate the photos of a catalogue, after taking them in, or all those of the warehouse.

    Raises `PairxError` where there is nothing to evaluate, `EngineError` for a layer or matcher that
    cannot be tried.
    """
    if job.notice:
        reporter.notice(job.notice)
    # A layer or matcher that cannot be tried must show before hours of work, not after.
    sweep = sweep_of(job, plan.options.try_layer, plan.matchers) if plan.options.choose else None
    photos = ((catalogue.root, entry.path) for entry in catalogue.entries) if catalogue else ()
    return run_on_cluster(process, job, _WORK, (catalogue, job, lease, plan, sweep, reporter), photos)


@flow(name="pairx-evaluate")
def process() -> Evaluated:
    """All steps on the flow's task runner; `flows.nightly.process` says why it has no parameters."""
    return outcome_kept(_process_work)


def _process_work() -> Evaluated:
    return _process(*_WORK.get())


def _process(
    catalogue: Catalogue | None,
    job: Job,
    lease: Lease,
    plan: EvaluationPlan,
    sweep: Sweep | None,
    reporter: Reporter,
) -> Evaluated:
    log, stages = RunLog(job), StageRunner(job, reporter, lease.check)
    run = RunOptions(retry_failed=plan.retry_failed)
    with recording(job.warehouse, log.run_id), RunViews(job, plan.retry_failed) as views:
        if catalogue is not None:
            ingest_photos(catalogue, job, log, run, stages, views)
        gallery = embed_photos(job, log, stages, views)
        photos = views.look(log.columns())[1].photos()
        if catalogue is not None:
            # The warehouse may hold the photos of other catalogues, too.
            wanted = {entry.photo_id for entry in catalogue.entries}
            gallery = gallery.only(wanted)
        listed = _list(job, gallery, photos, plan, stages)
        _score(job, log, listed, plan, stages, views)
        evaluation, table, balance = _measure(job, log, gallery, photos, listed, plan, sweep, stages, views)
    return Evaluated(evaluation, table, balance)


def _list(job: Job, gallery: Gallery, photos: Photos, plan: EvaluationPlan, stages: StageRunner) -> pa.Table:
    """The pair list of this state of the catalogue; made once."""
    partition, shard = list_fingerprint(job, plan.options.per_photo), list_shard_name(gallery, photos)
    warehouse = job.warehouse
    known = warehouse.exists("evaluation_pairs", partition, shard)
    shards = [] if known or len(gallery.photo_ids) < 2 else plan_list(gallery, plan.options.per_photo)
    if shards:
        keep_gallery(job, gallery)

    def store(candidates: list[Candidates]) -> int:
        rows = listed_pairs(gallery, [photos[i] for i in gallery.photo_ids], candidates)
        return commit(job, LIST, shard, {"evaluation_pairs": rows}, partition=partition).rows

    stages.run(LIST, shards, "pairs of this catalogue are listed", finish=store)
    if not warehouse.exists("evaluation_pairs", partition, shard):
        raise PairxError(_LISTED, "evaluate a catalogue in which animals have names and several photos")
    listed = warehouse.read("evaluation_pairs", partition, [shard])
    classes = set(listed["correct"].to_pylist())
    if classes != {True, False}:
        raise PairxError(
            _LISTED
            if not classes
            else f"all {listed.num_rows} pairs are {'in' * (True not in classes)}correct",
            "evaluation compares pairs of one name with pairs of two; name more photos",
        )
    return listed


def _score(
    job: Job, log: RunLog, listed: pa.Table, plan: EvaluationPlan, stages: StageRunner, views: RunViews
) -> None:
    """Score the listed pairs without scores or signals under these settings, as a nightly run would."""
    connection, left = views.look(log.columns())
    pairs, keypoints_in = ListedPairs(connection, job, listed), left.keypoint_shards()
    unscored, signals = pairs.unscored(plan.retry_failed), pairs.without_signals(plan.retry_failed)
    shards = plan_score(unscored, left.photos_of(unscored), keypoints_in, pairs_per_shard(job.settings))
    stages.run(SCORE, shards, "all listed pairs have scores")
    stages.run(SIGNALS, plan_signals(signals, keypoints_in), "all listed pairs have signals")


def _measure(
    job: Job,
    log: RunLog,
    gallery: Gallery,
    photos: Photos,
    listed: pa.Table,
    plan: EvaluationPlan,
    sweep: Sweep | None,
    stages: StageRunner,
    views: RunViews,
) -> tuple[Evaluation, pa.Table, Balance]:
    """Statistics, outliers with figures, and the measures that were asked for besides."""
    found = ListedPairs(views.look(log.columns())[0], job, listed)
    scored, table, failed = found.scored(), found.table(), found.failed()
    ranked = rank_outliers(scored, _LISTED_OUTLIERS)
    wanted = ranked[: plan.options.figures]
    undrawn = plan_draw(found.undrawn(wanted, photos))
    stages.run(DRAW, undrawn, "figures of the outliers")
    figures = ListedPairs(views.look(log.columns())[0], job, listed).figures(wanted)
    choice = _choose(job, sweep, photos, listed, plan, stages) if sweep else None
    faithful: list[FaithfulnessRow] = []
    unmeasured: list[str] = []
    if plan.options.faithfulness:
        faithful, unmeasured = _faithfulness(job, gallery, photos, listed, plan, stages)
    with stages.alone("measure") as note:
        statistics = statistics_of(plan.dataset, scored, plan.binning, plan.options.resamples)
        note(f"{len(statistics)} statistics of {len(scored.pair_id)} pairs")
    names = [n for n in gallery.names if n is not None]
    evaluation = Evaluation(
        dataset=plan.dataset,
        created=datetime.now(UTC),
        settings=job.settings.model_dump(mode="json") | {"layers": list(job.layers)},
        layer=job.layers[0],
        n_photos=len(names),
        n_animals=len(set(names)),
        n_failed=failed,
        per_photo=plan.options.per_photo,
        default_variant=plan.binning.name,
        resamples=plan.options.resamples,
        statistics=statistics,
        scatter=scatter_of(scored),
        outliers=ranked,
        figures=figures,
        choice=choice,
        faithfulness=faithful,
        notes=[*_notes(job, len(gallery.names) - len(names)), *unmeasured],
    )
    return evaluation, table, Balance("pairs", listed.num_rows, len(scored.pair_id), "scored", failed)


def _notes(job: Job, unnamed: int) -> list[str]:
    notes = [job.notice] if job.notice else []
    if unnamed:
        notes.append(f"{unnamed} photos of unknown animals take no part.")
    if job.settings.model == "embedded":
        notes.append(EMBEDDED_NOTICE)
    return notes


def _choose(
    job: Job, sweep: Sweep, photos: Photos, listed: pa.Table, plan: EvaluationPlan, stages: StageRunner
) -> Choice:
    """Sweep the settings over a part of the pairs and choose among them."""
    rows = choose_pairs(listed.to_pylist(), plan.options.sweep_pairs)
    pairs = [Pair(row["pair_id"], row["photo_a"], row["photo_b"]) for row in rows]
    partition = sweep_partition(job, sweep)
    # Shards have the same size on every cluster: their names tell what is done of a sweep.
    shards = plan_sweep(pairs, photos, sweep, job.settings.pairs_per_shard or PAIRS_PER_SHARD)
    left = _left(job, "measurements", partition, shards, plan.retry_failed)
    stages.run(SWEEP, left, "all variants are measured")
    measured = job.warehouse.read("measurements", partition, [s.name for s in shards])
    lost = len(pairs) - len(set(measured["pair_id"].to_pylist()))
    if lost == len(pairs):
        raise PairxError(
            "not one pair could be measured in the sweep", "see the table all_failures for the reasons"
        )
    with stages.alone("choose") as note:
        choice = _best(job, rows, measured, plan)
        note(choice.reason + (f"; {lost} pairs could not be measured" if lost else ""))
    return choice


def _left(job: Job, table: str, partition: str, shards: Sequence[Any], retry_failed: bool) -> list[Any]:
    """Shards that are not stored yet, and those with failures to be tried again.

    A failure is tried again if its cause may have gone, and any failure if `retry_failed`. A shard is
    computed anew as a whole; its file takes the place of the old one.
    """
    warehouse = job.warehouse
    done, failing = warehouse.shards(table, partition), warehouse.shards("failures", partition)

    def again(name: str) -> bool:
        codes = warehouse.read("failures", partition, [name], ["code"])["code"].to_pylist()
        return any(retry_failed or code in PASSING for code in codes)

    return [s for s in shards if s.name not in done or (s.name in failing and again(s.name))]


def _best(job: Job, rows: Sequence[Mapping[str, Any]], measured: pa.Table, plan: EvaluationPlan) -> Choice:
    place = {row["pair_id"]: i for i, row in enumerate(rows)}
    coverage: dict[ScoreSettings, NDArray[np.float64]] = {}
    residual: dict[ScoreSettings, NDArray[np.float64]] = {}
    seconds: dict[ScoreSettings, list[float]] = defaultdict(list)
    for row in measured.to_pylist():
        of_coverage = row["score"] == "match_coverage"
        names = ("layer", "preset", "reduction") if of_coverage else ("homography", "layer", "matcher")
        key = tuple((name, row[name]) for name in names)
        values = (coverage if of_coverage else residual).setdefault(key, np.full(len(rows), np.nan))
        if row["value"] is not None:
            values[place[row["pair_id"]]] = row["value"]
        seconds[key].append(row["seconds"])
    codes = {
        name: i for i, name in enumerate(sorted({r[s] for r in rows for s in ("identity_a", "identity_b")}))
    }
    a, b = (np.array([codes[r[side]] for r in rows], dtype=np.int64) for side in ("identity_a", "identity_b"))
    return choose(
        np.array([r["cosine"] for r in rows], dtype=np.float64),
        a == b,
        a,
        b,
        coverage,
        residual,
        {key: float(np.mean(each)) for key, each in seconds.items()},
        default_candidate(job.settings, job.layers[0]),
        n_folds=plan.options.folds,
        n_resamples=max(plan.options.resamples, _RESAMPLES_OF_A_CHOICE),
        binning=plan.binning,
        equal_cosine=equal_cosine(len(rows)),
    )


def _faithfulness(
    job: Job,
    gallery: Gallery,
    photos: Photos,
    listed: pa.Table,
    plan: EvaluationPlan,
    stages: StageRunner,
) -> tuple[list[FaithfulnessRow], list[str]]:
    """Test ways to explain on a few pairs; methods that must learn do so first.

    Returns their rows, and a note on each method that could not be measured on all of its pairs.
    """
    rows = listed.to_pylist()
    pairs = choose_pairs(rows, plan.options.faithfulness)
    others = choose_others(pairs, rows)
    learned = _learn(job, [photos[i] for i in gallery.photo_ids], plan.methods, stages)
    left, parts = [], {}
    for method in plan.methods:
        own = choose_pairs(pairs, pairs_of(method, len(pairs)))
        shards = plan_faithfulness(own, others, photos, method, plan.protocol, learned)
        parts[method] = (
            faithfulness_fingerprint(job, method, plan.protocol, dict(learned).get(method)),
            shards,
        )
        left += _left(job, "faithfulness", *parts[method], plan.retry_failed)
    stages.run(FAITHFULNESS, left, "all pairs are measured")
    measured, notes = [], []
    for method, (partition, shards) in parts.items():
        names = [s.name for s in shards]
        measured.append(job.warehouse.read("faithfulness", partition, names))
        notes += _unmeasured(job, method, partition, names)
    return rank(pa.concat_tables(measured), pairs, plan.options.resamples), notes


def _unmeasured(job: Job, method: str, partition: str, shards: Sequence[str]) -> list[str]:
    failing = sorted({*shards} & {*job.warehouse.shards("failures", partition)})
    why = (
        job.warehouse.read("failures", partition, failing, ["message"])["message"].to_pylist()
        if failing
        else []
    )
    return [f"{method} was not measured on {len(why)} pairs: {why[0]}"] if why else []


def _learn(
    job: Job, photos: Sequence[Mapping[str, Any]], methods: Sequence[str], stages: StageRunner
) -> Learned:
    """Let methods learn that must, unless they have already learned from these photos."""
    shards = plan_learning(methods, photos)
    if shards:
        left = [
            s for s in shards if not job.warehouse.exists("learned", learned_partition(job, s.method), s.name)
        ]
        stages.run(LEARN, left, "what methods learn is known")
    return tuple((shard.method, shard.name) for shard in shards)


def settings_of_newest_run(warehouse: Warehouse) -> dict[str, Any]:
    """All settings of the newest finished run; empty where no run has finished."""
    rows = (
        warehouse.connect()
        .execute(
            "SELECT run_id, settings FROM all_runs WHERE status = 'finished' ORDER BY run_id DESC LIMIT 1"
        )
        .fetchall()
    )
    return stored_settings(*rows[0]) if rows else {}
