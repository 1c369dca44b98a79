"""Pairs unlike their like, against a double loop, and a wrong label among clean ones."""

import statistics

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pairx_engine.evaluation import outliers as module
from pairx_engine.evaluation.outliers import outliers
from tests.pairx_engine.evaluation.labelled import pairs_of, random_pairs, swapped, with_values

seeds = st.integers(0, 10_000)


def naive_spread(values):
    median = statistics.median(values)
    deviations = [abs(value - median) for value in values]
    return 1.4826 * statistics.median(deviations) or 1.2533 * sum(deviations) / len(deviations)


def naive_outliers(pairs, neighbours):
    """By loops; cosines must be multiples of a power of two, so that distances are exact."""
    out = []
    floors = {}
    for label in (False, True):
        known = [s for s, c in zip(pairs.score, pairs.correct, strict=True) if c == label and not np.isnan(s)]
        floors[label] = 0.1 * naive_spread(known) if known else 0.0
    for k in range(len(pairs)):
        others = [
            j for j in range(len(pairs))
            if j != k and pairs.correct[j] == pairs.correct[k] and not np.isnan(pairs.score[j])
        ]  # fmt: skip
        if np.isnan(pairs.score[k]) or len(others) < min(neighbours, 10):
            out.append(np.nan)
            continue
        distances = sorted(abs(pairs.cosine[j] - pairs.cosine[k]) for j in others)
        radius = distances[min(neighbours, len(others)) - 1]
        like = [pairs.score[j] for j in others if abs(pairs.cosine[j] - pairs.cosine[k]) <= radius]
        median = statistics.median(like)
        scale = max(naive_spread(like), floors[bool(pairs.correct[k])])
        z = (pairs.score[k] - median) / scale if scale else np.nan
        out.append(-z if pairs.correct[k] else z)
    return np.array(out)


@given(seeds, st.integers(3, 30), st.booleans())
@settings(deadline=None)
def test_outliers_equal_the_double_loop(seed, neighbours, ties):
    pairs = random_pairs(seed, n=20 + seed % 40, ties=ties)
    pairs = with_values(pairs, cosine=np.round(pairs.cosine * 1024) / 1024)
    assert outliers(pairs, neighbours) == pytest.approx(
        naive_outliers(pairs, neighbours), abs=1e-9, nan_ok=True
    )


@given(seeds)
def test_equally_near_pairs_are_so_although_their_cosines_are_rounded(seed):
    pairs = random_pairs(seed)
    hundredths = np.round(pairs.cosine * 100)
    rounded, exact = (with_values(pairs, cosine=hundredths / unit) for unit in (100, 128))
    assert np.array_equal(outliers(rounded, 7), outliers(exact, 7), equal_nan=True)


def test_parts_of_the_pairs_give_the_same_as_all_at_once(monkeypatch):
    pairs = random_pairs(8, n=200)
    whole = outliers(pairs, 12)
    monkeypatch.setattr(module, "SCORES_AT_ONCE", 40)
    assert np.array_equal(outliers(pairs, 12), whole, equal_nan=True)


@given(seeds, st.booleans())
def test_the_order_of_pairs_changes_nothing(seed, ties):
    pairs = random_pairs(seed, ties=ties)
    order = np.random.default_rng(seed).permutation(len(pairs))
    assert outliers(pairs.take(order), 10) == pytest.approx(
        outliers(pairs, 10)[order], abs=1e-12, nan_ok=True
    )


@given(seeds)
def test_swapping_the_classes_turns_every_sign(seed):
    pairs = random_pairs(seed)
    assert outliers(swapped(pairs), 12) == pytest.approx(-outliers(pairs, 12), abs=0, nan_ok=True)


@given(seeds, st.floats(0.01, 100), st.floats(-10, 10))
def test_the_unit_of_the_score_does_not_matter(seed, scale, offset):
    pairs = random_pairs(seed)
    other = with_values(pairs, scale * pairs.score + offset)
    assert outliers(other, 12) == pytest.approx(outliers(pairs, 12), rel=1e-6, abs=1e-6, nan_ok=True)


def test_a_wrong_label_stands_out_at_its_cosine_only():
    rng = np.random.default_rng(6)
    correct = rng.random(2000) < 0.5
    cosine = rng.uniform(0.2, 0.9, 2000)
    score = 5 * cosine + 3 * correct + 0.2 * rng.normal(size=2000)
    flipped = np.array([17, 300, 1500])
    correct[flipped] = ~correct[flipped]
    z = outliers(pairs_of(cosine, score, correct))
    assert set(np.argsort(-z)[:3]) == set(flipped)
    assert z[flipped].min() > 5
    # What is left is normal, though the score itself spans many standard deviations along the cosine.
    rest = np.delete(z, flipped)
    assert np.median(rest) == pytest.approx(0, abs=0.1)
    assert np.quantile(np.abs(rest), 0.6827) == pytest.approx(1, abs=0.15)


def test_without_a_score_or_without_like_pairs_nothing_is_said():
    pairs = pairs_of(np.linspace(0, 1, 16), np.arange(16.0), np.arange(16) < 5)
    z = outliers(pairs)
    assert np.isnan(z[:5]).all()
    assert not np.isnan(z[5:]).any()
    assert not np.isnan(outliers(pairs, neighbours=4)).any()
    unknown = with_values(pairs, np.where(np.arange(16) == 9, np.nan, pairs.score))
    assert np.isnan(outliers(unknown)).all()
    assert len(outliers(pairs.take(np.zeros(16, dtype=bool)))) == 0


def test_like_pairs_of_mostly_one_score_are_measured_by_their_mean_deviation():
    score = np.zeros(21)
    score[[3, 8]] = 1.0, 2.0
    pairs = pairs_of(np.full(21, 0.5), score, np.zeros(21, dtype=bool))
    z = outliers(pairs)
    assert z[8] == pytest.approx(2 / (1.2533 * 1 / 20))
    assert z[0] == 0
    assert np.isnan(outliers(with_values(pairs, np.full(21, 3.0)))).all()
    rounded = np.where(np.arange(21) % 4 == 0, 0.1 + 0.2, 0.3)
    assert np.isnan(outliers(with_values(pairs, rounded))).all()


def test_a_score_that_saturates_does_not_make_outliers_of_the_last_digit():
    rng = np.random.default_rng(3)
    cosine = rng.uniform(0.3, 1, 1000)
    score = np.minimum(1.0, cosine + 0.15 + 0.05 * rng.normal(size=1000))
    score[score == 1] -= rng.uniform(0, 1e-4, (score == 1).sum())
    slip, low = np.flatnonzero(cosine > 0.95)[0], np.flatnonzero(cosine < 0.5)[0]
    score[slip], score[low] = 0.98, 0.3
    z = outliers(pairs_of(cosine, score, np.ones(1000, dtype=bool)))
    assert z[low] > 5 > 2 > z[slip] > 0


def test_refuses_too_few_neighbours():
    with pytest.raises(ValueError, match="no spread"):
        outliers(random_pairs(0), neighbours=2)
