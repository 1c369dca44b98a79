"""Choosing settings: the criterion against loops, what is better is found, and noise is left alone."""

import math
from collections import defaultdict
from itertools import product

import numpy as np
import pytest

from pairx_engine.evaluation import choice
from pairx_engine.evaluation.choice import choose
from pairx_engine.evaluation.separation import Binning

LAYERS = ("blocks.2", "blocks.3")
COVERAGES = [
    (("layer", layer), ("preset", preset), ("reduction", reduction))
    for layer in LAYERS for preset in ("published", "conserving") for reduction in ("abs_of_sum", "positive_sum")
]  # fmt: skip
RESIDUALS = [
    (("homography", method), ("layer", layer), ("matcher", matcher))
    for layer in LAYERS for matcher in ("sift", "disk+lightglue") for method in ("magsac", "least_squares")
]  # fmt: skip
DEFAULT = {
    "layer": "blocks.3", "preset": "published", "reduction": "abs_of_sum", "matcher": "sift", "homography": "magsac",
}  # fmt: skip
OF_DEFAULT = (
    (("layer", "blocks.3"), ("preset", "published"), ("reduction", "abs_of_sum")),
    (("homography", "magsac"), ("layer", "blocks.3"), ("matcher", "sift")),
)


class World:
    """Pairs of animals whose scores are noise.

    In some variants the scores of correct pairs also carry a signal.
    """

    def __init__(
        self, seed, n_animals=24, signal=None, missing=0.2, coverages=COVERAGES, residuals=RESIDUALS
    ):
        rng = np.random.default_rng(seed)
        a, b = np.triu_indices(n_animals)
        kept = (a == b) | (rng.random(len(a)) < 6 / n_animals)
        self.a, self.b = np.repeat(a[kept], 3), np.repeat(b[kept], 3)
        self.correct = self.a == self.b
        n = len(self.a)
        self.cosine = np.clip(0.6 + 0.1 * self.correct + 0.1 * rng.normal(size=n), -1, 1)
        signal = signal or {}
        self.coverage = {k: self.score(rng, signal.get(k, 0)) for k in coverages}
        self.residual = {k: self.score(rng, signal.get(k, 0)) for k in residuals}
        for values in self.residual.values():
            values[rng.random(n) < missing] = np.nan
        self.seconds = dict.fromkeys([*coverages, *residuals], 1.0)

    def score(self, rng, signal):
        return np.exp(signal * self.correct + rng.normal(size=len(self.correct)))

    def choose(self, default=DEFAULT, **options):
        given = self.cosine, self.correct, self.a, self.b, self.coverage, self.residual, self.seconds, default
        return choose(*given, **{"n_resamples": 60, **options})


def naive_area(cosine, score, correct, n_bins=10):
    """P(correct > incorrect) within bins of the cosine, by loops.

    Bins with two different pairs of each class count.
    """
    low, high = min(cosine), max(cosine)
    bins = defaultdict(list)
    for c, s, k in zip(cosine, score, correct, strict=True):
        bins[min(int(n_bins * (c - low) / (high - low)), n_bins - 1)].append(
            (c, 0.0 if math.isnan(s) else s, k)
        )
    wins = comparisons = 0
    for content in bins.values():
        right, wrong = ([(c, s) for c, s, k in content if k == label] for label in (True, False))
        if min(len(set(right)), len(set(wrong))) < 2:
            continue
        wins += sum((s > t) + (s == t) / 2 for _, s in right for _, t in wrong)
        comparisons += len(right) * len(wrong)
    return wins / comparisons


@pytest.mark.parametrize("seed", range(3))
def test_the_criterion_equals_loops_over_all_comparisons(seed):
    world = World(seed, n_animals=10, signal={OF_DEFAULT[0]: 1.0})
    found = world.choose(n_resamples=1)
    assert len(found.candidates) == 32
    seen = set()
    for candidate in found.candidates:
        s = candidate.settings
        coverage = tuple((n, s[n]) for n in ("layer", "preset", "reduction"))
        residual = tuple((n, s[n]) for n in ("homography", "layer", "matcher"))
        areas = [
            naive_area(world.cosine, scores[key], world.correct)
            for scores, key in ((world.coverage, coverage), (world.residual, residual))
        ]
        assert [candidate.auc["match_coverage"], candidate.auc["inverted_residual_mean"]] == pytest.approx(
            areas
        )
        assert candidate.criterion == pytest.approx(sum(areas) / 2)
        assert all(map(math.isfinite, candidate.delta.values()))
        seen.add((coverage, residual))
    assert seen == {(c, r) for c, r in product(COVERAGES, RESIDUALS) if dict(c)["layer"] == dict(r)["layer"]}
    assert found.default.settings == DEFAULT
    criteria = [c.criterion for c in found.candidates]
    assert criteria == sorted(criteria, reverse=True)
    assert criteria[0] - found.best.criterion <= 0.002


@pytest.mark.parametrize("seed", range(3))
def test_what_is_truly_better_is_chosen(seed):
    good = COVERAGES[1], RESIDUALS[3]
    found = World(seed, signal={good[0]: 1.5, good[1]: 1.5}).choose()
    assert found.best.settings == dict(good[0]) | dict(good[1])
    assert found.chosen is found.best
    assert found.difference.low > 0
    assert found.held_out_best > found.held_out_default + 0.1
    assert found.reason.startswith("changed")


@pytest.mark.parametrize("seed", range(3))
def test_a_default_that_is_best_is_kept(seed):
    found = World(seed, signal=dict.fromkeys(OF_DEFAULT, 1.5)).choose()
    assert found.chosen is found.best is found.default
    assert (found.difference.low, found.difference.high) == (0, 0)
    assert found.held_out_best == found.held_out_default
    assert "none of 32" in found.reason


def test_noise_is_mostly_left_alone_and_held_out_animals_are_honest_about_it():
    kept, in_sample, held_out, default = [], [], [], []
    for seed in range(20):
        found = World(seed).choose(n_resamples=40, seed=seed)
        kept.append(found.chosen is found.default)
        in_sample.append(found.best.criterion)
        held_out.append(found.held_out_best)
        default.append(found.held_out_default)
    assert sum(kept) >= 14
    assert np.mean(in_sample) > 0.54
    assert np.mean(held_out) == pytest.approx(0.5, abs=0.03)
    assert np.mean(default) == pytest.approx(0.5, abs=0.03)


def test_of_equally_good_candidates_the_cheapest_is_best():
    world = World(0, signal={OF_DEFAULT[0]: 1.0})
    dear, cheap = OF_DEFAULT[0], COVERAGES[-1]
    world.coverage[cheap] = world.coverage[dear].copy()
    world.seconds[dear] = 2.0
    found = world.choose()
    assert found.best.settings["preset"] == dict(cheap)["preset"]
    assert found.best.settings["reduction"] == dict(cheap)["reduction"]
    assert found.best.seconds == 2.0
    assert found.chosen is found.default, "cheaper alone is no reason to change"
    world.seconds[cheap] = 2.0
    assert world.choose().best.settings["preset"] == dict(dear)["preset"]


def test_verdict_and_words_follow_from_the_interval_and_the_held_out_animals():
    for seed in range(8):
        found = World(seed).choose()
        agreed = found.best is not found.default and found.difference.low > 0
        agreed = agreed and found.held_out_best > found.held_out_default
        assert (found.chosen is found.best and found.best is not found.default) == agreed
        assert found.reason.startswith("changed") == agreed


@pytest.mark.parametrize(
    ("held_out", "words"), [((0.6, 0.6), "do not confirm"), ((math.nan, math.nan), "too few animals")]
)
def test_what_held_out_animals_do_not_confirm_is_not_chosen(monkeypatch, held_out, words):
    world = World(0, signal={COVERAGES[1]: 1.5, RESIDUALS[3]: 1.5})
    assert world.choose().chosen is not world.choose().default
    monkeypatch.setattr(choice, "_held_out", lambda *given: held_out)
    found = world.choose()
    assert found.difference.low > 0
    assert found.chosen is found.default
    assert words in found.reason


def test_a_missing_score_counts_as_the_lowest():
    world = World(1, missing=0)
    key = OF_DEFAULT[1]
    world.residual[key][~world.correct] = np.nan
    assert world.choose().default.auc["inverted_residual_mean"] == 1
    world.residual[key][:] = 1.0
    world.residual[key][world.correct] = np.nan
    assert world.choose().default.auc["inverted_residual_mean"] == 0


def test_scores_that_no_pair_has_make_no_candidate_but_the_default():
    world = World(2, signal={COVERAGES[0]: 3.0})
    world.coverage[COVERAGES[0]][:] = np.nan
    found = world.choose()
    assert len(found.candidates) == 28
    assert dict(COVERAGES[0]).items() not in [c.settings.items() for c in found.candidates]
    world.residual[OF_DEFAULT[1]][:] = np.nan
    found = world.choose()
    assert len(found.candidates) == 28 - 3
    assert found.default.auc["inverted_residual_mean"] == 0.5


def test_the_order_of_pairs_and_sides_changes_nothing():
    world = World(3, signal={COVERAGES[1]: 0.8})
    first = world.choose()
    order = np.random.default_rng(0).permutation(len(world.a))
    world.a, world.b = world.b[order], world.a[order]
    world.cosine, world.correct = world.cosine[order], world.correct[order]
    for scores in (world.coverage, world.residual):
        scores.update({key: values[order] for key, values in scores.items()})
    again = world.choose()
    assert again.reason == first.reason
    assert again.difference == first.difference
    assert [c.criterion for c in again.candidates] == [c.criterion for c in first.candidates]
    assert (again.held_out_best, again.held_out_default) == (first.held_out_best, first.held_out_default)


@pytest.mark.parametrize("kept", ["correct", "incorrect", "none", "one animal"])
def test_where_nothing_can_be_compared_the_default_is_kept(kept):
    world = World(4)
    rows = {
        "correct": world.correct,
        "incorrect": ~world.correct,
        "none": world.a < 0,
        "one animal": (world.a == 0) & (world.b == 0),
    }[kept]
    world.a, world.b, world.cosine, world.correct = (
        values[rows] for values in (world.a, world.b, world.cosine, world.correct)
    )
    for scores in (world.coverage, world.residual):
        scores.update({key: values[rows] for key, values in scores.items()})
    found = world.choose()
    assert found.chosen is found.default
    assert math.isnan(found.default.criterion)
    assert math.isnan(found.held_out_best)
    assert math.isnan(found.difference.low)
    assert "too few" in found.reason


def test_folds_without_incorrect_pairs_do_not_count():
    """Few animals: most folds hold no two different animals, or no incorrect pair of them."""
    world = World(5, n_animals=4, signal={COVERAGES[1]: 2.0, RESIDUALS[0]: 2.0})
    found = world.choose(n_folds=3)
    assert found.n_folds == 3
    alone = world.choose(n_folds=10)
    assert alone.n_folds == 4
    assert math.isnan(alone.held_out_best), "a fold of one animal has no incorrect pair"
    assert alone.chosen is alone.default
    assert "too few animals" in alone.reason or "chance" in alone.reason


def test_what_does_not_fit_is_refused():
    world = World(6, n_animals=6)
    with pytest.raises(ValueError, match="default"):
        world.choose(default={**DEFAULT, "matcher": "none"})
    with pytest.raises(ValueError, match="default"):
        world.choose(default={k: v for k, v in DEFAULT.items() if k != "layer"})
    with pytest.raises(ValueError, match="folds"):
        world.choose(n_folds=1)
    lost = world.seconds.pop(COVERAGES[0])
    with pytest.raises(ValueError, match="costs"):
        world.choose()
    world.seconds[COVERAGES[0]] = lost
    for values, words in ((np.ones(3), "values"), (-world.coverage[COVERAGES[0]], "negative")):
        broken = World(6, n_animals=6)
        broken.coverage[COVERAGES[0]] = values
        with pytest.raises(ValueError, match=words):
            broken.choose()
    world.coverage[(("layer", "blocks.3"),)] = world.coverage[COVERAGES[0]]
    with pytest.raises(ValueError, match="depends on layer, preset, reduction"):
        world.choose()


def test_the_bins_of_equal_cosine_are_those_given():
    world = World(7, n_animals=8, signal={OF_DEFAULT[0]: 1.0})
    found = world.choose(equal_cosine=Binning(n_bins=3)).default.auc["match_coverage"]
    wanted = naive_area(world.cosine, world.coverage[OF_DEFAULT[0]], world.correct, 3)
    assert found == pytest.approx(wanted)
