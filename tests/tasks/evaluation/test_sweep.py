"""The sweep: its values against the score stage's, one row per variant, and what a failure costs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pairx_engine.errors import EngineError
from pairx_engine.relevance.explainer import LayerExplainer
from tasks.evaluation import sweep as module
from tasks.evaluation.sweep import Sweep, SweepShard, plan_sweep, sweep_partition, sweep_shard
from tasks.job import Job
from tasks.memory import within_memory
from tasks.pairs import Pair
from tasks.photo_files import ViewCache
from tasks.stages.score import ScoreShard, plan_score, score_shard
from tasks.store.warehouse import Warehouse
from tests.small_catalogue import Stages, views_of

LAYERS = ("backbone.blocks.2", "backbone.blocks.3")
SWEEP = Sweep(
    layers=LAYERS,
    presets=("published", "paper", "conserving"),
    reductions=("abs_of_sum", "signed_sum", "sum_of_abs", "positive_sum"),
    matchers=(("sift", None),),
    homographies=("magsac", "least_squares"),
)
SMALL = replace(SWEEP, layers=LAYERS[1:], presets=("published", "conserving"), reductions=("abs_of_sum",))
AS_SCORED: tuple[dict[str, Any], ...] = (
    {"preset": "published", "homography": "magsac"},
    {"preset": "paper", "reduction": "positive_sum", "homography": "least_squares"},
    {"preset": "conserving", "reduction": "sum_of_abs", "homography": "magsac"},
)
"""Settings whose scores the sweep must repeat.

Together they hold every preset, estimator, and kind of reduction.
"""


@pytest.fixture(scope="module")
def scored(done: Stages) -> ScoreShard:
    """A few pairs with and without a homography, that share photos, as the score stage gets them."""
    rows = views_of(done.warehouse, ("scores",), done.columns())["scores"]
    keys = sorted(rows, key=lambda key: (rows[key]["photo_a"], rows[key]["photo_b"]))
    with_h = [k for k in keys if rows[k]["homography"] is not None][:3]
    without = [k for k in keys if rows[k]["homography"] is None][:1]
    assert with_h
    assert without
    chosen = {key[0] for key in with_h + without}
    whole = [pair for shard in done.score for pair in shard.pairs if pair.pair_id in chosen]
    photos = {p["photo_id"]: p for shard in done.score for p in shard.photos}
    every = done.warehouse.shards("keypoints", done.job.prints.keypoints)
    shard = plan_score(whole, photos, {}, len(whole))[0]
    return replace(shard, keypoint_shards=tuple(sorted(every)))


@pytest.fixture
def shard(scored: ScoreShard) -> SweepShard:
    return SweepShard(scored.pairs, scored.photos, SMALL)


@pytest.fixture
def place(done: Stages, tmp_path: Path) -> Callable[..., Job]:
    """Makes the finished job with other settings and a warehouse of its own that holds the keypoints."""

    def make(name: str = "w", **changed: Any) -> Job:
        settings = done.job.settings.model_copy(update=changed)
        job = replace(done.job, warehouse=Warehouse(str(tmp_path / name)), settings=settings, layers=LAYERS)
        for stored in done.warehouse.shards("keypoints", job.prints.keypoints):
            rows = done.warehouse.read("keypoints", job.prints.keypoints, [stored])
            job.warehouse.write("keypoints", job.prints.keypoints, stored, rows)
        return job

    return make


def measured(job: Job, sweep: Sweep) -> list[dict[str, Any]]:
    return job.warehouse.read("measurements", sweep_partition(job, sweep)).to_pylist()


def failed(job: Job, sweep: Sweep) -> list[dict[str, Any]]:
    return job.warehouse.read("failures", sweep_partition(job, sweep)).to_pylist()


def test_values_are_those_that_the_score_stage_stores(scored: ScoreShard, place: Callable[..., Job]) -> None:
    job = place()
    result = sweep_shard(job, SweepShard(scored.pairs, scored.photos, SWEEP))
    rows = measured(job, SWEEP)
    assert (result.stage, result.rows, result.failed) == ("sweep", len(rows), 0)
    for i, settings in enumerate(AS_SCORED):
        alone = place(f"scored{i}", **settings)
        score_shard(alone, scored)
        wanted = alone.warehouse.read("scores", alone.prints.scores).to_pylist()
        assert len(wanted) == len(scored.pairs) * len(LAYERS)
        assert any(row["inverted_residual_mean"] for row in wanted)
        reduction = settings.get("reduction", "abs_of_sum")
        coverage = {
            (r["pair_id"], r["layer"]): r["value"]
            for r in rows
            if (r["preset"], r["reduction"]) == (settings["preset"], reduction)
        }
        residual = {
            (r["pair_id"], r["layer"]): r["value"] for r in rows if r["homography"] == settings["homography"]
        }
        for row in wanted:
            key = row["pair_id"], row["layer"]
            assert coverage[key] == pytest.approx(row["match_coverage"], rel=1e-6)
            assert residual[key] == (
                row["inverted_residual_mean"] and pytest.approx(row["inverted_residual_mean"], rel=1e-6)
            )


def test_every_variant_has_one_row_per_pair(scored: ScoreShard, place: Callable[..., Job]) -> None:
    job = place()
    sweep = replace(SWEEP, presets=("published", "paper"))
    pairs = scored.pairs[:2]
    sweep_shard(job, SweepShard(pairs, scored.photos, sweep))
    rows = measured(job, sweep)
    variants = {
        (layer, "match_coverage", preset, reduction, None, None)
        for layer in LAYERS for preset in sweep.presets for reduction in sweep.reductions
    } | {
        (layer, "inverted_residual_mean", None, None, "sift", method)
        for layer in LAYERS for method in sweep.homographies
    }  # fmt: skip
    names = ("layer", "score", "preset", "reduction", "matcher", "homography")
    found = [(r["pair_id"], *(r[name] for name in names)) for r in rows]
    assert len(found) == len(set(found))
    assert set(found) == {(p.pair_id, *variant) for p in pairs for variant in variants}
    seconds = {
        variant: {r["seconds"] for r in rows if tuple(r[n] for n in names) == variant} for variant in variants
    }
    assert all(len(each) == 1 and min(each) > 0 for each in seconds.values())
    value = {key: r["value"] for key, r in zip(found, rows, strict=True)}
    for p in pairs:
        for layer in LAYERS:
            same = {
                value[p.pair_id, layer, "match_coverage", preset, reduction, None, None]
                for preset in sweep.presets for reduction in ("abs_of_sum", "signed_sum")
            }  # fmt: skip
            assert len(same) == 1, "both presets share their rules, and coverage takes magnitudes"


def test_a_shard_swept_in_parts_for_want_of_memory_has_the_same_values(
    shard: SweepShard, place: Callable[..., Job]
) -> None:
    whole, parts = place("whole"), place("parts")
    sweep_shard(whole, shard)
    with within_memory(1):
        sweep_shard(parts, shard)

    def values(job: Job) -> list[str]:
        return sorted(repr({**row, "seconds": None}) for row in measured(job, SMALL))

    assert values(parts) == values(whole)


def test_a_photo_that_changed_fails_its_pairs_and_no_other(
    shard: SweepShard, place: Callable[..., Job], monkeypatch: pytest.MonkeyPatch
) -> None:
    job, lost = place(), shard.pairs[-1].photo_b
    photos = tuple({**p, "sha256": "0" * 64} if p["photo_id"] == lost else p for p in shard.photos)
    touched = {p.pair_id for p in shard.pairs if lost in (p.photo_a, p.photo_b)}
    assert 0 < len(touched) < len(shard.pairs)
    monkeypatch.setattr(module, "VIEWS", ViewCache())
    result = sweep_shard(job, replace(shard, photos=photos))
    assert {(f["stage"], f["item"], f["code"]) for f in failed(job, SMALL)} == {
        ("sweep", i, "changed_file") for i in touched
    }
    rows = measured(job, SMALL)
    assert {r["pair_id"] for r in rows} == {p.pair_id for p in shard.pairs} - touched
    assert (result.rows, result.failed) == (len(rows), len(touched))


def test_a_variant_that_fails_has_no_value_and_leaves_the_others(
    shard: SweepShard, place: Callable[..., Job], monkeypatch: pytest.MonkeyPatch
) -> None:
    estimate, calls = module.estimate_homography, []

    def fragile(*given: Any) -> Any:
        calls.append(given[2])
        if given[2] == "least_squares" and calls.count("least_squares") == 1:
            raise RuntimeError("no such luck")
        return estimate(*given)

    whole, broken = place("whole"), place("broken")
    sweep_shard(whole, shard)
    monkeypatch.setattr(module, "estimate_homography", fragile)
    sweep_shard(broken, shard)
    sick = shard.pairs[0].pair_id
    assert [(f["item"], f["layer"], f["code"]) for f in failed(broken, SMALL)] == [
        (sick, None, "internal_error")
    ]
    for row, wanted in zip(measured(broken, SMALL), measured(whole, SMALL), strict=True):
        of_sick = row["pair_id"] == sick and row["homography"] == "least_squares"
        assert row["value"] == (None if of_sick else wanted["value"])


def test_a_preset_that_the_network_does_not_allow_has_no_values_and_is_no_failure(
    shard: SweepShard, place: Callable[..., Job], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Choosy(LayerExplainer):
        def __init__(
            self, network: Any, layers: Any, preset: str = "published", *rest: Any, **more: Any
        ) -> None:
            if preset == "conserving":
                raise EngineError("preset conserving needs the fast path")
            super().__init__(network, layers, preset, *rest, **more)

    monkeypatch.setattr(module, "LayerExplainer", Choosy)
    job = place()
    assert sweep_shard(job, shard).failed == 0
    for row in measured(job, SMALL):
        if row["score"] == "match_coverage":
            assert (row["value"] is None) == (row["preset"] == "conserving")


def test_relevance_that_is_not_finite_is_a_failure_of_its_pair(
    shard: SweepShard, place: Callable[..., Job], monkeypatch: pytest.MonkeyPatch
) -> None:
    sick = shard.pairs[-1]
    relevances = module._Work._relevances

    def spoilt(self: Any, layer: str, preset: str, seen: Any) -> Any:
        found = relevances(self, layer, preset, seen)
        if preset == "published":
            found[sick.pair_id]["abs_of_sum"][1][0, 0] = np.nan
        return found

    monkeypatch.setattr(module._Work, "_relevances", spoilt)
    job = place()
    sweep_shard(job, shard)
    assert [(f["item"], f["layer"], f["code"]) for f in failed(job, SMALL)] == [
        (sick.pair_id, LAYERS[1], "score_not_finite")
    ]
    missing = {
        (r["pair_id"], r["preset"]) for r in measured(job, SMALL) if r["preset"] and r["value"] is None
    }
    assert missing == {(sick.pair_id, "published")}


def test_plan_follows_the_score_stage() -> None:
    pairs = [Pair("3", "b", "c"), Pair("1", "a", "b"), Pair("2", "a", "d")]
    columns = ("chip_id", "root", "path", "sha256", "box", "theta")
    photos = {i: dict.fromkeys(columns) | {"photo_id": i, "identity": "x"} for i in "abcd"}
    shards = plan_sweep(pairs, photos, SWEEP, 2)
    assert [[p.pair_id for p in s.pairs] for s in shards] == [["1", "2"], ["3"]]
    assert [[p["photo_id"] for p in s.photos] for s in shards] == [["a", "b", "d"], ["b", "c"]]
    assert set(shards[0].photos[0]) == {"photo_id", *columns}
    assert len({s.name for s in shards}) == 2
    assert [s.name for s in plan_sweep(pairs, photos, SMALL, 2)] == [s.name for s in shards]
    assert plan_sweep([], photos, SWEEP, 2) == []


def test_the_partition_tells_what_is_tried_from_where_weights_lie(job: Job) -> None:
    first = sweep_partition(job, SWEEP)
    assert sweep_partition(job, replace(SWEEP, layers=LAYERS[::-1])) == first
    assert sweep_partition(job, replace(SWEEP, matchers=(("sift", "elsewhere"),))) == first
    others = [
        sweep_partition(job, SMALL),
        sweep_partition(job, replace(SWEEP, homographies=("magsac",))),
        sweep_partition(replace(job, settings=job.settings.model_copy(update={"max_keypoints": 300})), SWEEP),
    ]
    assert len({first, *others}) == 4
