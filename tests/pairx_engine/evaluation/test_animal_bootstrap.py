"""The bootstrap over animals: how often a pair counts, and what the interval means.

Also what the interval must not depend on.
"""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pairx_engine.evaluation.bootstrap import bootstrap_by_animal, mean_by_animal
from pairx_engine.evaluation.correlation import spearman
from pairx_engine.evaluation.pairs import LabelledPairs
from pairx_engine.evaluation.separation import VARIANTS, auc, auc_at_equal_cosine, separation
from tests.pairx_engine.evaluation.labelled import random_pairs

STATISTICS = {
    "rho": lambda pairs: spearman(pairs.scored().cosine, pairs.scored().score),
    "auc": lambda pairs: auc(pairs.scored().score, pairs.scored().correct),
    "equal": auc_at_equal_cosine,
    "delta": lambda pairs: separation(pairs).value,
    "histogram": lambda pairs: separation(pairs, VARIANTS[2]).value,
}


def complete(n_animals):
    """One correct pair of every animal and one incorrect pair of every two."""
    a, b = np.triu_indices(n_animals)
    codes = np.arange(n_animals) * 10 + 3
    return LabelledPairs(np.linspace(0, 1, len(a)), np.arange(len(a)) / 8, a == b, codes[a], codes[b])


def naive_mean(scores):
    return sum(scores) / len(scores) if len(scores) else math.nan


@given(st.integers(0, 10_000))
@settings(max_examples=20)
def test_a_pair_counts_as_often_as_its_animals_were_drawn(seed):
    pairs, seen = complete(6), []

    def count(resampled):
        seen.append({(int(a), int(b)): 0 for a, b in zip(pairs.animal_a, pairs.animal_b, strict=True)})
        for a, b in zip(resampled.animal_a, resampled.animal_b, strict=True):
            seen[-1][int(a), int(b)] += 1
        return 0.0

    bootstrap_by_animal(pairs, {"count": count}, n=10, seed=seed)
    assert len(seen) == 10
    for counts in seen:
        times = {a: count for (a, b), count in counts.items() if a == b}
        assert sum(times.values()) == 6
        assert all(count == times[a] * times[b] for (a, b), count in counts.items() if a != b)
    assert len({str(counts) for counts in seen}) > 1


@given(st.integers(0, 10_000))
@settings(max_examples=10, deadline=None)
def test_the_order_of_pairs_and_of_photos_changes_nothing_at_all(seed):
    pairs = random_pairs(seed, ties=seed % 2 == 0)
    order = np.random.default_rng(seed).permutation(len(pairs))
    # The last digit of a plain sum depends on the order of its terms.
    statistics = STATISTICS | {"sum": lambda pairs: sum(pairs.cosine.tolist())}
    turned = LabelledPairs(pairs.cosine, pairs.score, pairs.correct, pairs.animal_b, pairs.animal_a)
    first = bootstrap_by_animal(pairs, statistics, n=10, seed=3)
    assert repr(bootstrap_by_animal(turned.take(order), statistics, n=10, seed=3)) == repr(first)


def test_a_seed_determines_the_interval():
    pairs = random_pairs(4)
    first, again, other = (bootstrap_by_animal(pairs, STATISTICS, n=20, seed=seed) for seed in (0, 0, 1))
    assert first == again
    assert first["rho"] != other["rho"]
    alone = bootstrap_by_animal(pairs, {"auc": STATISTICS["auc"]}, n=20)
    assert alone["auc"] == first["auc"]


def test_the_interval_holds_the_given_share_of_the_resampled_values():
    values = []

    def mean(pairs):
        values.append(float(pairs.score.mean()))
        return values[-1]

    interval = bootstrap_by_animal(complete(8), {"mean": mean}, n=400, level=0.8)["mean"]
    inside = sum(interval.low <= value <= interval.high for value in values)
    assert (interval.n_resamples, interval.n_defined) == (400, 400)
    assert inside / 400 == pytest.approx(0.8, abs=0.02)


def test_intervals_cover_the_truth_although_pairs_of_an_animal_are_alike():
    truth, n_animals, each = 2.0, 30, 6
    rng = np.random.default_rng(12)
    animals = np.repeat(np.arange(n_animals), each)
    mean = {"mean": lambda pairs: float(pairs.score.mean())}
    covered, as_if_independent, widths = 0, 0, []
    for _ in range(40):
        score = truth + rng.normal(size=n_animals)[animals] + 0.3 * rng.normal(size=len(animals))
        pairs = LabelledPairs(score * 0, score, animals == animals, animals, animals)
        interval = bootstrap_by_animal(pairs, mean, n=100)["mean"]
        covered += interval.low <= truth <= interval.high
        widths.append(interval.high - interval.low)
        own = np.arange(len(animals))
        apart = bootstrap_by_animal(LabelledPairs(score * 0, score, own == own, own, own), mean, n=50)["mean"]
        as_if_independent += apart.low <= truth <= apart.high
    assert covered >= 34
    assert as_if_independent < covered
    expected = 2 * 1.96 * math.sqrt((1 + 0.3**2 / each) / n_animals)
    assert np.mean(widths) == pytest.approx(expected, rel=0.15)


def test_resamples_without_the_statistic_are_counted_out():
    a, b = np.array([0, 1, 2, 3, 0]), np.array([0, 1, 2, 3, 1])
    pairs = LabelledPairs(np.linspace(0, 1, 5), np.arange(5.0), a == b, a, b)
    only_pair = {"auc": lambda pairs: auc(pairs.score, pairs.correct), "none": lambda pairs: math.nan}
    found = bootstrap_by_animal(pairs, only_pair, n=200)
    # Four draws from four animals hold both animals of the one incorrect pair with 1 - 2 (3/4)^4 + (1/2)^4.
    assert found["auc"].n_defined / 200 == pytest.approx(1 - 2 * 0.75**4 + 0.5**4, abs=0.1)
    assert found["auc"].low <= found["auc"].high
    assert (found["none"].n_defined, math.isnan(found["none"].low)) == (0, True)


def test_one_animal_or_none_cannot_be_resampled():
    pairs = random_pairs(1)
    lone = pairs.take((pairs.animal_a == pairs.animal_a[pairs.correct][0]) & pairs.correct)
    for few in (lone, pairs.take(np.zeros(len(pairs), dtype=bool))):
        interval = bootstrap_by_animal(few, {"mean": lambda pairs: naive_mean(pairs.score)})["mean"]
        assert (interval.n_defined, math.isnan(interval.low), math.isnan(interval.high)) == (0, True, True)


@pytest.mark.parametrize("bad", [{"n": 0}, {"level": 1.0}, {"level": 0.0}])
def test_refuses_what_is_no_interval(bad):
    with pytest.raises(ValueError, match="no interval"):
        bootstrap_by_animal(random_pairs(1), STATISTICS, **bad)


@given(st.integers(0, 10_000), st.booleans())
@settings(max_examples=10, deadline=None)
def test_the_mean_has_an_interval_of_its_own_that_is_the_general_one(seed, alike):
    pairs = random_pairs(seed).scored()
    pairs = pairs.take(pairs.correct == alike)
    general = bootstrap_by_animal(pairs, {"mean": lambda p: naive_mean(p.score)}, n=30, seed=seed)["mean"]
    own = mean_by_animal(pairs, n=30, seed=seed)
    assert (own.n_resamples, own.n_defined) == (general.n_resamples, general.n_defined)
    assert (own.low, own.high) == pytest.approx((general.low, general.high), abs=1e-12, nan_ok=True)


def test_the_mean_of_one_animal_has_no_interval():
    pairs = complete(1)
    assert math.isnan(mean_by_animal(pairs).low)
    with pytest.raises(ValueError, match="no interval"):
        mean_by_animal(complete(3), n=0)
