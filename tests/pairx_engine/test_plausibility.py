"""Eq. 4 and Eq. 5 against naive loops, their bounds, and the cases where they have no value."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pairx_engine.pair.plausibility import (
    RESIDUAL_FLOOR,
    Plausibility,
    inverted_residual_mean,
    match_coverage,
    plausibility,
    residuals,
    top_residual_mean,
)

WARP = np.array([[0.9, 0.1, 12.0], [-0.08, 1.05, -6.0], [2e-4, -1e-4, 1.0]])


def random_pair(seed, h=6, w=9, n=None, signed=False):
    """Cells, points and relevances of a pair of grids with n mutual matches."""
    rng = np.random.default_rng(seed)
    n = int(rng.integers(0, h * w + 1)) if n is None else n
    flat = [rng.permutation(h * w)[:n] for _ in range(2)]
    cells = [np.stack([f % w, f // w], axis=1) for f in flat]
    points = [(c + 0.5) * [160 / w, 120 / h] for c in cells]
    relevance = [
        rng.gamma(0.5, size=(h, w)) * (rng.choice([-1, 1], size=(h, w)) if signed else 1) for _ in range(2)
    ]
    return *cells, *points, *relevance


def naive_residuals(matrix, points_a, points_b):
    out = []
    for (x, y), (u, v) in zip(points_a, points_b, strict=True):
        a, b, c = (row[0] * x + row[1] * y + row[2] for row in matrix)
        out.append(math.sqrt((a / c - u) ** 2 + (b / c - v) ** 2))
    return out


def naive_coverage(cells_a, cells_b, relevance_a, relevance_b):
    matched = total = 0.0
    for cells, relevance in ((cells_a, relevance_a), (cells_b, relevance_b)):
        used = {(int(column), int(row)) for column, row in cells}
        for row in range(relevance.shape[0]):
            for column in range(relevance.shape[1]):
                total += abs(relevance[row, column])
                matched += abs(relevance[row, column]) if (column, row) in used else 0.0
    return matched / total


seeds = st.integers(0, 10_000)


@given(seeds)
def test_residuals_and_eq4_equal_the_naive_loops(seed):
    pair = random_pair(seed, n=1 + seed % 20)
    score = plausibility(*pair, WARP)
    expected = naive_residuals(WARP, pair[2], pair[3])
    assert score.residuals == pytest.approx(expected, rel=1e-9)
    assert score.residual_mean == pytest.approx(sum(expected) / len(expected), rel=1e-9)
    assert score.inverted_residual_mean == pytest.approx(len(expected) / sum(expected), rel=1e-9)


@given(seeds, st.booleans())
def test_eq5_equals_the_naive_loops_and_is_a_share(seed, signed):
    cells_a, cells_b, _, _, relevance_a, relevance_b = random_pair(seed, signed=signed)
    coverage = match_coverage(cells_a, cells_b, relevance_a, relevance_b)
    assert coverage == pytest.approx(naive_coverage(cells_a, cells_b, relevance_a, relevance_b), abs=1e-12)
    assert 0 <= coverage <= 1


@given(seeds)
def test_covering_every_cell_covers_all_relevance(seed):
    cells_a, cells_b, _, _, relevance_a, relevance_b = random_pair(seed, n=54)
    assert match_coverage(cells_a, cells_b, relevance_a, relevance_b) == pytest.approx(1, abs=1e-12)


@given(seeds)
def test_top_mean_is_over_the_most_relevant_twentieth_of_the_cells(seed):
    pair = random_pair(seed, h=12, w=15, n=40)
    cells_a, cells_b, points_a, points_b, relevance_a, relevance_b = pair
    strength = [
        relevance_a[j0, i0] * relevance_b[j1, i1] for (i0, j0), (i1, j1) in zip(cells_a, cells_b, strict=True)
    ]
    best = sorted(range(40), key=lambda k: -strength[k])[:9]
    values = naive_residuals(WARP, points_a, points_b)
    assert plausibility(*pair, WARP).top_residual_mean == pytest.approx(np.mean([values[k] for k in best]))


def test_top_mean_takes_at_least_one_match():
    assert top_residual_mean(np.array([3.0, 5.0]), np.array([1.0, 2.0]), n_cells=10) == 5.0


@given(seeds, st.booleans())
def test_scores_do_not_depend_on_the_order_of_matches(seed, signed):
    pair = random_pair(seed, n=30, signed=signed)
    # Equal relevances make ties, which must not fall back on the order either.
    pair[4][:], pair[5][:] = np.round(pair[4]), np.round(pair[5])
    order = np.random.default_rng(seed).permutation(30)
    shuffled = (*(side[order] for side in pair[:4]), *pair[4:])
    first, second = plausibility(*pair, WARP), plausibility(*shuffled, WARP)
    assert first.match_coverage == pytest.approx(second.match_coverage, rel=1e-12)
    assert first.residual_mean == pytest.approx(second.residual_mean, rel=1e-12)
    assert first.top_residual_mean == pytest.approx(second.top_residual_mean, rel=1e-12)
    assert np.array_equal(first.residuals[order], second.residuals)


@given(seeds)
def test_residual_is_zero_under_the_exact_homography(seed):
    points = np.random.default_rng(seed).uniform(0, 160, (12, 2))
    moved = [[sum(r * v for r, v in zip(row, (x, y, 1), strict=True)) for row in WARP] for x, y in points]
    target = np.array([[a / c, b / c] for a, b, c in moved])
    assert residuals(WARP, points, target) == pytest.approx(np.zeros(12), abs=1e-10)


def test_a_point_on_the_horizon_is_infinitely_wrong():
    horizon = np.array([[1.0, 0, 0], [0, 1, 0], [-0.01, 0, 1]])
    values = residuals(horizon, [[100.0, 5.0], [0.0, 5.0]], [[0.0, 0.0], [0.0, 5.0]])
    assert values.tolist() == [math.inf, 0.0]
    assert inverted_residual_mean(values) == 0.0


def test_a_photo_and_its_copy_get_the_largest_finite_s1():
    pair = random_pair(3, n=10)
    pair = (*pair[:3], pair[2], *pair[4:])
    score = plausibility(*pair, np.eye(3))
    assert score.residual_mean == 0.0
    assert score.inverted_residual_mean == 1 / RESIDUAL_FLOOR


def test_without_a_homography_coverage_stays_and_residuals_are_unknown():
    score = plausibility(*random_pair(1, n=7), None)
    assert score.match_coverage is not None
    assert (score.residual_mean, score.inverted_residual_mean, score.top_residual_mean) == (None, None, None)
    assert score.residuals is None


def test_without_matches_nothing_is_covered_and_means_are_unknown():
    score = plausibility(*random_pair(1, n=0), WARP)
    assert (score.n_matches, score.match_fraction, score.match_coverage) == (0, 0.0, 0.0)
    assert score.inverted_residual_mean is None
    assert score.residuals.shape == (0,)


def test_without_relevance_coverage_is_unknown():
    *places, relevance_a, relevance_b = random_pair(2, n=5)
    assert plausibility(*places, relevance_a * 0, relevance_b * 0, WARP).match_coverage is None


def test_fraction_is_of_the_most_matches_there_can_be():
    pair = random_pair(4, n=27)
    assert plausibility(*pair, None).match_fraction == 0.5


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda p: (np.repeat(p[0][:1], 5, axis=0), *p[1:]), "matched twice"),
        (lambda p: (p[0] + 100, *p[1:]), "outside the grid"),
        (lambda p: (p[0].astype(float), *p[1:]), "integer"),
        (lambda p: (*p[:2], p[2][:3], *p[3:]), "same matches"),
        (lambda p: (*p[:4], p[4] * np.nan, p[5]), "finite grid"),
    ],
)
def test_refuses_what_is_no_set_of_mutual_matches(change, message):
    with pytest.raises(ValueError, match=message):
        plausibility(*change(random_pair(5, n=5)), WARP)


@pytest.mark.parametrize(
    "bad",
    [{"match_fraction": 1.5}, {"match_coverage": -0.1}, {"residual_mean": None}, {"residual_mean": math.nan}],
)
def test_the_value_refuses_impossible_scores(bad):
    good = {
        "n_matches": 2, "match_fraction": 0.1, "match_coverage": 0.5, "residual_mean": 2.0,
        "inverted_residual_mean": 0.5, "top_residual_mean": 1.0, "residuals": np.array([1.0, 3.0]),
    }  # fmt: skip
    Plausibility(**good)
    with pytest.raises(ValueError, match=r"."):
        Plausibility(**(good | bad))
