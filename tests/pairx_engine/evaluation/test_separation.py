"""Separation against loops, scipy and known distributions.

It covers Bhattacharyya distances, Delta and the areas under the ROC curve.
"""

import math
from dataclasses import replace

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from pairx_engine.evaluation.separation import (
    DEFAULT,
    VARIANTS,
    Binning,
    auc,
    auc_at_equal_cosine,
    bhattacharyya_gaussian,
    bhattacharyya_histogram,
    separation,
)
from tests.pairx_engine.evaluation.labelled import pairs_of, random_pairs, swapped, with_values

seeds = st.integers(0, 10_000)
binnings = st.sampled_from([*VARIANTS, replace(DEFAULT, form="histogram", edges="quantile", n_bins=3)])


def naive_gaussian(x, y):
    mx, my = sum(x) / len(x), sum(y) / len(y)
    vx = sum((v - mx) ** 2 for v in x) / (len(x) - 1)
    vy = sum((v - my) ** 2 for v in y) / (len(y) - 1)
    floor = 0.01 * ((vx + vy) / 2 + (mx - my) ** 2 / 4)
    if floor == 0:
        return 0.0
    vx, vy = max(vx, floor), max(vy, floor)
    return (mx - my) ** 2 / (4 * (vx + vy)) + 0.5 * math.log((vx + vy) / (2 * math.sqrt(vx * vy)))


def naive_level(value, edges):
    inner = [k for k in range(1, len(edges) - 1) if value >= edges[k]]
    return inner[-1] if inner else 0


def naive_histogram(x, y, edges):
    p, q = [0] * (len(edges) - 1), [0] * (len(edges) - 1)
    for v in x:
        p[naive_level(v, edges)] += 1 / len(x)
    for v in y:
        q[naive_level(v, edges)] += 1 / len(y)
    overlap = sum(math.sqrt(a * b) for a, b in zip(p, q, strict=True))
    return -math.log(overlap) if overlap else 0.5 * math.log(len(x) * len(y))


def naive_bins(pairs, how):
    """Scores of both classes in every bin of the cosine, and whether it counts, by loops."""
    rows = [k for k in range(len(pairs)) if not math.isnan(pairs.score[k])]
    cosines = [pairs.cosine[k] for k in rows]
    low, high = min(cosines), max(cosines)
    if how.edges == "quantile":
        edges = [float(np.quantile(cosines, k / how.n_bins)) for k in range(how.n_bins + 1)]
    else:
        edges = np.linspace(low, high, how.n_bins + 1).tolist()
    content = [([], []) for _ in range(how.n_bins)]
    for k in rows:
        content[naive_level(pairs.cosine[k], edges)][not pairs.correct[k]].append(
            (pairs.score[k], pairs.cosine[k])
        )
    for classes in content:
        counts = min(len(set(each)) for each in classes) >= how.minimum
        yield [score for score, _ in classes[0]], [score for score, _ in classes[1]], counts


def naive_delta(pairs, how):
    total = weights = 0.0
    for correct, incorrect, counts in naive_bins(pairs, how):
        if not counts:
            continue
        if how.form == "gaussian":
            distance = naive_gaussian(correct, incorrect)
        else:
            both = correct + incorrect
            distance = naive_histogram(
                correct, incorrect, np.linspace(min(both), max(both), how.n_levels + 1)
            )
        difference = sum(correct) / len(correct) - sum(incorrect) / len(incorrect)
        weight = {
            "pairs": len(correct) + len(incorrect), "smaller_class": min(len(correct), len(incorrect)), "equal": 1,
        }[how.weights]  # fmt: skip
        total += weight * distance * (0 if abs(difference) < 1e-12 else math.copysign(1, difference))
        weights += weight
    return total / weights if weights else math.nan


def naive_wins(correct, incorrect):
    return sum(1.0 if c > i else 0.5 if c == i else 0.0 for c in correct for i in incorrect)


@given(seeds, st.integers(2, 9), st.integers(2, 9), st.booleans())
def test_gaussian_distance_equals_the_loop(seed, n, m, ties):
    rng = np.random.default_rng(seed)
    x, y = rng.normal(size=n), 1 + 2 * rng.normal(size=m)
    if ties:
        x, y = np.round(x), np.round(y)
    assert bhattacharyya_gaussian(x, y) == pytest.approx(naive_gaussian(list(x), list(y)), abs=1e-10)


@pytest.mark.parametrize(("mean", "sd"), [(0.0, 1.0), (1.0, 2.0), (-3.0, 0.5)])
def test_gaussian_distance_is_the_integral_over_the_densities(mean, sd):
    grid = np.linspace(-40, 40, 200_001)
    overlap = np.sqrt(scipy.stats.norm.pdf(grid) * scipy.stats.norm.pdf(grid, mean, sd)).sum() * (
        grid[1] - grid[0]
    )
    # Quantiles have the moments of their distribution up to the tails that they cut.
    quantiles = scipy.stats.norm.ppf((np.arange(20_000) + 0.5) / 20_000)
    assert bhattacharyya_gaussian(quantiles, mean + sd * quantiles) == pytest.approx(
        -math.log(overlap), abs=2e-3
    )


@given(seeds)
def test_gaussian_distance_is_symmetric_and_not_negative(seed):
    rng = np.random.default_rng(seed)
    x, y = rng.normal(size=5), rng.normal(size=7)
    assert bhattacharyya_gaussian(x, y) == bhattacharyya_gaussian(y, x) >= 0
    assert bhattacharyya_gaussian(x, x) == 0


def test_a_constant_class_has_a_finite_distance():
    assert bhattacharyya_gaussian([2.0, 2.0], [2.0, 2.0, 2.0]) == 0
    assert bhattacharyya_gaussian([0.1] * 3, [0.1] * 2) == 0
    assert bhattacharyya_gaussian([1.0, 1.0], [3.0, 3.0]) == pytest.approx(50)
    assert bhattacharyya_gaussian([1.0, 1.0], [3.0, 3.0], variance_floor=0.1) == pytest.approx(5)
    one_constant = bhattacharyya_gaussian([1.0, 1.0], [0.0, 2.0])
    assert one_constant == pytest.approx(0.5 * math.log(2.01 / (2 * math.sqrt(2 * 0.01))))


def test_the_floor_leaves_ordinary_classes_alone():
    x = np.array([-1.0, 1.0])
    assert bhattacharyya_gaussian(x, x * 14) == pytest.approx(
        bhattacharyya_gaussian(x, x * 14, 1e-9), abs=1e-12
    )
    apart = 19 * math.sqrt(2)
    assert bhattacharyya_gaussian(x, x + apart) == pytest.approx(19**2 / 8, abs=1e-9)


@given(seeds, st.integers(1, 12), st.integers(1, 12))
def test_histogram_distance_equals_the_loop(seed, n, m):
    rng = np.random.default_rng(seed)
    x, y = rng.integers(0, 9, n), rng.integers(3, 13, m)
    edges = [0, 2, 3, 7.5, 12]
    assert bhattacharyya_histogram(x, y, edges) == pytest.approx(naive_histogram(x, y, edges), abs=1e-12)


def test_histograms_without_a_common_level_are_as_far_apart_as_samples_of_their_size_can_be():
    apart = bhattacharyya_histogram([0.0] * 5, [1.0] * 8, [0, 0.5, 1])
    barely = bhattacharyya_histogram([0.0] * 4 + [0.7], [0.2] + [1.0] * 7, [0, 0.5, 0.6, 0.8, 1])
    assert apart == pytest.approx(0.5 * math.log(40))
    assert barely < apart
    assert bhattacharyya_histogram([4.0], [4.0, 4.0], [4, 4, 4]) == 0


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: bhattacharyya_gaussian([1.0], [1.0, 2.0]), "two values"),
        (lambda: bhattacharyya_gaussian([1.0, 2.0], [1.0, 2.0], 0), "share"),
        (lambda: bhattacharyya_gaussian([1.0, np.nan], [1.0, 2.0]), "finite"),
        (lambda: bhattacharyya_histogram([np.nan], [0.5], [0, 1]), "finite"),
        (lambda: bhattacharyya_histogram([], [1.0], [0, 1]), "one value"),
        (lambda: bhattacharyya_histogram([1.0], [1.0], [1, 0]), "ascend"),
        (lambda: bhattacharyya_histogram([1.0], [2.0], [0, 1]), "outside"),
        (lambda: auc([1.0, np.nan], [True, False]), "NaN"),
        (lambda: auc([1.0, 2.0], [True]), "labels"),
        (lambda: Binning(n_bins=0), "bins"),
        (lambda: Binning(minimum=1), "at least two"),
    ],
)
def test_refuses_what_has_no_distance(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@given(seeds, binnings, st.booleans())
def test_delta_equals_the_loops(seed, how, ties):
    pairs = random_pairs(seed, ties=ties)
    assert separation(pairs, how).value == pytest.approx(naive_delta(pairs, how), abs=1e-9, nan_ok=True)


@given(seeds, binnings)
def test_bins_and_share_say_what_was_counted(seed, how):
    pairs = random_pairs(seed)
    found, expected = separation(pairs, how), list(naive_bins(pairs, how))
    assert [(b.n_correct, b.n_incorrect) for b in found.bins] == [(len(c), len(i)) for c, i, _ in expected]
    assert [b.weight > 0 for b in found.bins] == [counts for *_, counts in expected]
    assert [math.isnan(b.distance) for b in found.bins] == [not counts for *_, counts in expected]
    counted = sum(len(c) + len(i) for c, i, counts in expected if counts)
    assert found.share == counted / len(pairs.scored())
    assert found.bins[0].low == pairs.scored().cosine.min()
    assert found.bins[-1].high == pairs.scored().cosine.max()


@given(seeds, binnings, st.booleans())
def test_the_order_of_pairs_changes_nothing_at_all(seed, how, ties):
    pairs = random_pairs(seed, ties=ties)
    shuffled = pairs.take(np.random.default_rng(seed).permutation(len(pairs)))
    assert repr(separation(shuffled, how)) == repr(separation(pairs, how))
    assert auc_at_equal_cosine(shuffled, how) == pytest.approx(
        auc_at_equal_cosine(pairs, how), abs=0, nan_ok=True
    )
    first, second = pairs.scored(), shuffled.scored()
    assert auc(first.score, first.correct) == auc(second.score, second.correct)


@given(seeds, binnings)
def test_swapping_the_classes_turns_everything_round(seed, how):
    pairs = random_pairs(seed).scored()
    other = swapped(pairs)
    assert separation(other, how).value == pytest.approx(
        -separation(pairs, how).value, abs=1e-12, nan_ok=True
    )
    assert auc(other.score, other.correct) == pytest.approx(1 - auc(pairs.score, pairs.correct), abs=1e-12)
    expected = 1 - auc_at_equal_cosine(pairs, how)
    assert auc_at_equal_cosine(other, how) == pytest.approx(expected, abs=1e-12, nan_ok=True)


@given(seeds, st.floats(0.01, 100), st.floats(-10, 10))
def test_gaussian_delta_does_not_depend_on_the_unit_of_the_score(seed, scale, offset):
    pairs = random_pairs(seed)
    value = separation(pairs).value
    assert separation(with_values(pairs, scale * pairs.score + offset)).value == pytest.approx(
        value, rel=1e-7
    )
    assert separation(with_values(pairs, -scale * pairs.score)).value == pytest.approx(-value, rel=1e-7)


@given(seeds, st.booleans())
def test_auc_equals_the_double_loop_and_scipy(seed, ties):
    pairs = random_pairs(seed, ties=ties).scored()
    correct, incorrect = pairs.score[pairs.correct], pairs.score[~pairs.correct]
    comparisons = len(correct) * len(incorrect)
    value = auc(pairs.score, pairs.correct)
    assert value == naive_wins(correct, incorrect) / comparisons
    expected = scipy.stats.mannwhitneyu(correct, incorrect, method="asymptotic").statistic / comparisons
    assert value == pytest.approx(expected, abs=1e-12)


@given(seeds, binnings, st.booleans())
def test_auc_at_equal_cosine_equals_the_double_loop(seed, how, ties):
    pairs = random_pairs(seed, ties=ties)
    bins = [(correct, incorrect) for correct, incorrect, counts in naive_bins(pairs, how) if counts]
    wins = sum(naive_wins(*both) for both in bins)
    comparisons = sum(len(correct) * len(incorrect) for correct, incorrect in bins)
    expected = wins / comparisons if comparisons else math.nan
    assert auc_at_equal_cosine(pairs, how) == pytest.approx(expected, abs=1e-12, nan_ok=True)


@given(seeds, binnings)
def test_rising_transforms_leave_both_areas_exactly(seed, how):
    pairs = random_pairs(seed, missing=0)
    other = with_values(pairs, np.exp(pairs.score))
    assert auc(other.score, other.correct) == auc(pairs.score, pairs.correct)
    assert auc_at_equal_cosine(other, how) == pytest.approx(
        auc_at_equal_cosine(pairs, how), abs=0, nan_ok=True
    )


def test_delta_of_two_gaussians_at_every_cosine_is_their_distance():
    rng = np.random.default_rng(3)
    correct = rng.random(40_000) < 0.5
    cosine = rng.uniform(0, 1, 40_000)
    score = np.where(correct, 1 + 2 * rng.normal(size=40_000), rng.normal(size=40_000))
    pairs = pairs_of(cosine, score, correct)
    known = 1 / (4 * 5) + 0.5 * math.log(5 / 4)
    for how in VARIANTS:
        assert separation(pairs, how).value == pytest.approx(
            known, abs=0.03 if how.form == "histogram" else 0.01
        )
    area = scipy.stats.norm.cdf(1 / math.sqrt(5))
    assert auc(pairs.score, pairs.correct) == pytest.approx(area, abs=0.01)
    assert auc_at_equal_cosine(pairs) == pytest.approx(area, abs=0.01)


def test_a_score_that_copies_the_cosine_adds_nothing():
    rng = np.random.default_rng(5)
    correct = rng.random(40_000) < 0.5
    cosine = np.clip(0.4 + 0.2 * correct + 0.15 * rng.normal(size=40_000), -1, 1)
    pairs = pairs_of(cosine, cosine, correct)
    narrow = Binning(n_bins=100)
    assert auc(pairs.score, pairs.correct) > 0.8
    assert auc_at_equal_cosine(pairs, narrow) == pytest.approx(0.5, abs=0.02)
    assert separation(pairs, narrow).value == pytest.approx(0, abs=0.01)
    assert separation(pairs, Binning(n_bins=1)).value > 0.2


def test_pairs_of_one_cosine_are_one_bin():
    pairs = random_pairs(11, missing=0)
    equal = with_values(pairs, cosine=np.full(len(pairs), 0.75))
    for how in VARIANTS:
        assert auc_at_equal_cosine(equal, how) == auc(pairs.score, pairs.correct)
        assert separation(equal, how).value == pytest.approx(
            separation(pairs, replace(how, n_bins=1, edges="equal_width")).value
        )
        assert separation(equal, how).share == 1


def test_equal_means_have_no_sign():
    # 0.1 + 0.2 + 0.3 over 3 and 0.2 differ in the last digit only.
    pairs = pairs_of([0.5] * 5, [0.1, 0.2, 0.3, 0.2, 0.2], [True, True, True, False, False])
    pairs = with_values(pairs, cosine=np.array([0.5, 0.5, 0.5, 0.5, 0.51]))
    found = separation(pairs, Binning(n_bins=1))
    assert (found.value, found.bins[0].sign) == (0.0, 0)
    assert found.bins[0].distance > 0


def test_a_repeated_pair_shows_no_spread():
    rows = np.array([0, 0, 1, 2])
    pairs = pairs_of([0.5, 0.6, 0.7], [1.0, 2.0, 3.0], [True, False, False]).take(rows)
    one = Binning(n_bins=1)
    assert math.isnan(separation(pairs, one).value)
    assert separation(pairs, one).bins[0].n_correct == 2
    assert math.isnan(auc_at_equal_cosine(pairs, one))


def test_without_one_class_or_without_pairs_nothing_is_defined():
    pairs = random_pairs(2)
    for some in (pairs.take(pairs.correct), pairs.take(~pairs.correct)):
        assert math.isnan(auc(some.scored().score, some.scored().correct))
        assert math.isnan(auc_at_equal_cosine(some))
        found = separation(some)
        assert math.isnan(found.value)
        assert (found.share, len(found.bins)) == (0.0, 10)
    for none in (pairs.take(np.zeros(len(pairs), dtype=bool)), pairs.take(np.isnan(pairs.score))):
        assert math.isnan(separation(none).value)
        assert math.isnan(separation(none).share)
        assert math.isnan(auc_at_equal_cosine(none))
        assert separation(none).bins == ()


def test_variants_are_told_apart_by_their_names():
    assert VARIANTS[0] == DEFAULT == Binning()
    assert DEFAULT.name == "gaussian, 10 equal-width bins, weight pairs, min 2"
    assert Binning(form="histogram", weights="smaller_class", edges="quantile").name == (
        "histogram of 10 levels, 10 quantile bins, weight smaller class, min 2"
    )
    assert len({how.name for how in VARIANTS}) == len(VARIANTS)
