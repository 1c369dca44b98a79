"""Signals against naive loops; what changes no bit of them; and where they have no value."""

import math
from dataclasses import asdict, replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pairx_engine.local.evidence import LocalEvidence
from pairx_engine.pair.corroboration import agreeing, cells_of, correlation, corroboration, relative_relevance
from pairx_engine.pair.finding import Finding, Side
from pairx_engine.pair.matching import cell_points

CHIP = (120, 160)
WARP = np.array([[0.9, 0.1, 12.0], [-0.08, 1.05, -6.0], [2e-4, -1e-4, 1.0]])
seeds = st.integers(0, 10_000)


def random_case(seed, h=6, w=9, n_deep=None, n_local=None, homography=True):
    """A finding and local evidence, some of whose matches follow deep ones."""
    rng = np.random.default_rng(seed)
    n_deep = int(rng.integers(0, h * w + 1)) if n_deep is None else n_deep
    n_local = int(rng.integers(0, 40)) if n_local is None else n_local
    flat = [rng.permutation(h * w)[:n_deep] for _ in range(2)]
    cells = [np.stack([f % w, f // w], axis=1) for f in flat]
    grids = [rng.gamma(0.5, size=(h, w)) * rng.choice([-1.0, 1.0], size=(h, w)) for _ in range(2)]
    sides = [Side(g, c, cell_points(c, (h, w), CHIP)) for g, c in zip(grids, cells, strict=True)]
    finding = Finding("layer", (sides[0], sides[1]), rng.random(n_deep).astype(np.float32))
    points = [rng.random((n_local, 2)) * [CHIP[1], CHIP[0]] for _ in range(2)]
    followed = rng.integers(0, n_deep, n_local // 2) if n_deep else []
    for i, d in enumerate(followed):
        for side in range(2):
            points[side][i] = np.clip(sides[side].points[d] + rng.normal(0, 20, 2), 0, [CHIP[1], CHIP[0]])
    inliers = rng.random(n_local) < 0.5 if homography else None
    matrix = WARP if homography else None
    count = int(inliers.sum()) if homography else None
    reason = None if homography else "too_few_inliers"
    return finding, LocalEvidence(n_local, count, matrix, reason, (points[0], points[1]), inliers)


def pearson(x, y):
    n = len(x)
    if n < 3 or len(set(x)) == 1 or len(set(y)) == 1:
        return None
    mx, my = sum(x) / n, sum(y) / n
    cov = sum((a - mx) * (b - my) for a, b in zip(x, y, strict=True))
    return cov / math.sqrt(sum((a - mx) ** 2 for a in x) * sum((b - my) ** 2 for b in y))


def naive(finding, local):
    """Every signal by loops over matches, as the docstring states it."""
    grids = [side.grid.tolist() for side in finding.sides]
    h, w = len(grids[0]), len(grids[0][0])
    total = [sum(abs(v) for row in grid for v in row) for grid in grids]

    def rho(side, column, row):
        return h * w * abs(grids[side][row][column]) / total[side]

    def cell(x, y):
        return min(w - 1, int(x * w / CHIP[1])), min(h - 1, int(y * h / CHIP[0]))

    deep = [(tuple(a), tuple(b)) for a, b in zip(*(s.cells.tolist() for s in finding.sides), strict=True)]
    ends = [(cell(*p), cell(*q)) for p, q in zip(*(p.tolist() for p in local.points), strict=True)]
    out = dict.fromkeys(("weighted", "product", "agreeing", "weighted_agreeing", "inliers"), 0.0)
    for i, (a, b) in enumerate(ends):
        weight = math.sqrt(rho(0, *a) * rho(1, *b))
        agrees = any(
            max(abs(a[0] - c[0]), abs(a[1] - c[1]), abs(b[0] - d[0]), abs(b[1] - d[1])) <= 1 for c, d in deep
        )
        out["weighted"] += weight
        out["product"] += weight**2
        out["agreeing"] += agrees
        out["weighted_agreeing"] += weight * agrees
        out["inliers"] += weight * (local.inliers is not None and local.inliers[i])
    above = below = 0.0
    if local.matrix is not None:
        for c, d in deep:
            x, y = (c[0] + 0.5) * CHIP[1] / w, (c[1] + 0.5) * CHIP[0] / h
            u, v, z = (row[0] * x + row[1] * y + row[2] for row in local.matrix)
            p, q = (d[0] + 0.5) * CHIP[1] / w, (d[1] + 0.5) * CHIP[0] / h
            weight = math.sqrt(rho(0, *c) * rho(1, *d))
            above += weight * math.hypot(u / z - p, v / z - q)
            below += weight
    return {
        "weighted_matches": out["weighted"],
        "product_weighted_matches": out["product"],
        "agreeing_matches": out["agreeing"],
        "weighted_agreeing_matches": out["weighted_agreeing"],
        "weighted_inliers": None if local.inliers is None else out["inliers"],
        "weighted_inverted_residual_mean": below / above if above else None,
        "match_symmetry": pearson([rho(0, *a) for a, _ in deep], [rho(1, *b) for _, b in deep]),
        "local_symmetry": pearson([rho(0, *a) for a, _ in ends], [rho(1, *b) for _, b in ends]),
    }


def exchanged(finding, local):
    back = None if local.matrix is None else np.linalg.inv(local.matrix)
    return replace(finding, sides=finding.sides[::-1]), replace(
        local, points=local.points[::-1], matrix=None if back is None else back / back[2, 2]
    )


def shuffled(finding, local, seed):
    rng = np.random.default_rng(seed)
    deep, near = rng.permutation(len(finding.distance)), rng.permutation(local.n_matches)
    sides = tuple(replace(s, cells=s.cells[deep], points=s.points[deep]) for s in finding.sides)
    return Finding(finding.layer, sides, finding.distance[deep]), replace(
        local,
        points=(local.points[0][near], local.points[1][near]),
        inliers=None if local.inliers is None else local.inliers[near],
    )


@given(seeds, st.booleans())
def test_signals_equal_the_naive_loops(seed, homography):
    case = random_case(seed, homography=homography)
    found, wanted = asdict(corroboration(*case, CHIP)), naive(*case)
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        assert found[name] == (None if value is None else pytest.approx(value, rel=1e-9, abs=1e-9)), name


@given(seeds)
def test_order_of_matches_changes_no_bit(seed):
    case = random_case(seed)
    assert corroboration(*shuffled(*case, seed + 1), CHIP) == corroboration(*case, CHIP)


@given(seeds)
def test_exchanged_photos_change_no_bit_but_of_the_residual(seed):
    case = random_case(seed)
    one, other = asdict(corroboration(*case, CHIP)), asdict(corroboration(*exchanged(*case), CHIP))
    for signals in (one, other):
        signals.pop("weighted_inverted_residual_mean")
    assert one == other


@given(seeds, st.floats(1e-6, 1e6), st.booleans())
def test_scale_and_sign_of_relevance_do_not_matter(seed, factor, negative):
    finding, local = random_case(seed)
    first = replace(finding.sides[0], grid=finding.sides[0].grid * (-factor if negative else factor))
    scaled = replace(finding, sides=(first, finding.sides[1]))
    one, other = asdict(corroboration(finding, local, CHIP)), asdict(corroboration(scaled, local, CHIP))
    for name, value in one.items():
        assert other[name] == (None if value is None else pytest.approx(value, rel=1e-9, abs=1e-12)), name


def test_even_relevance_counts_matches():
    finding, local = random_case(3, n_deep=20, n_local=30)
    even = tuple(replace(side, grid=np.full((6, 9), 2.5)) for side in finding.sides)
    found = corroboration(replace(finding, sides=even), local, CHIP)
    assert found.weighted_matches == pytest.approx(30)
    assert found.product_weighted_matches == pytest.approx(30)
    assert found.weighted_agreeing_matches == pytest.approx(found.agreeing_matches)
    assert found.weighted_inliers == pytest.approx(local.n_inliers)
    assert (found.match_symmetry, found.local_symmetry) == (None, None)


def test_without_relevance_nothing_is_weighted():
    finding, local = random_case(3, n_deep=20, n_local=30)
    blind = replace(finding, sides=(replace(finding.sides[0], grid=np.zeros((6, 9))), finding.sides[1]))
    found = asdict(corroboration(blind, local, CHIP))
    assert found.pop("agreeing_matches") == corroboration(finding, local, CHIP).agreeing_matches > 0
    assert set(found.values()) == {None}


def test_what_was_not_matched_for_want_of_features_is_missing():
    finding, local = random_case(5, n_deep=20)
    found = asdict(corroboration(finding, LocalEvidence(0, None, None, "no_keypoints"), CHIP))
    assert found.pop("match_symmetry") == corroboration(finding, local, CHIP).match_symmetry
    assert set(found.values()) == {None}


def test_without_matches_sums_are_zero_and_means_are_none():
    finding, _ = random_case(5, n_deep=0)
    nothing = (np.empty((0, 2)), np.empty((0, 2)))
    found = corroboration(finding, LocalEvidence(0, None, None, "too_few_matches", nothing), CHIP)
    assert asdict(found) == {
        "weighted_matches": 0.0,
        "product_weighted_matches": 0.0,
        "agreeing_matches": 0,
        "weighted_agreeing_matches": 0.0,
        "weighted_inliers": None,
        "weighted_inverted_residual_mean": None,
        "match_symmetry": None,
        "local_symmetry": None,
    }


def test_a_match_on_the_horizon_makes_the_inverse_zero():
    finding, local = random_case(7, n_deep=10, n_local=4)
    x = finding.sides[0].points[0, 0]
    horizon = np.array([[x, 0, 0], [0, x, 0], [-1, 0, x]])
    assert corroboration(finding, replace(local, matrix=horizon), CHIP).weighted_inverted_residual_mean == 0.0


def test_a_match_without_weight_has_no_say_in_the_residual():
    finding, local = random_case(7, n_deep=10, n_local=4)
    x, column = finding.sides[0].points[0, 0], finding.sides[0].cells[0, 0]
    horizon = np.array([[x, 0, 0], [0, x, 0], [-1, 0, x]])
    grid = finding.sides[0].grid.copy()
    grid[:, column] = 0.0
    side = replace(finding.sides[0], grid=grid)
    found = corroboration(
        replace(finding, sides=(side, finding.sides[1])), replace(local, matrix=horizon), CHIP
    )
    assert found.weighted_inverted_residual_mean > 0.0


def test_points_on_the_far_edge_lie_in_the_last_cells():
    points = np.array([[0.0, 0.0], [160.0, 120.0], [159.999, 60.0], [17.777, 20.0]])
    assert cells_of(points, (6, 9), CHIP).tolist() == [[0, 0], [8, 5], [8, 3], [0, 1]]
    assert cells_of(np.empty((0, 2)), (6, 9), CHIP).shape == (0, 2)


def test_centres_of_cells_lie_in_them():
    cells = np.stack(np.meshgrid(np.arange(9), np.arange(6)), axis=-1).reshape(-1, 2)
    np.testing.assert_array_equal(cells_of(cell_points(cells, (6, 9), CHIP), (6, 9), CHIP), cells)


def test_agreement_reaches_one_cell_and_no_further():
    deep = np.array([[4, 3]]), np.array([[0, 0]])
    near = (
        np.array([[4, 3], [5, 4], [6, 3], [3, 2], [4, 3]]),
        np.array([[0, 0], [1, 1], [0, 0], [2, 0], [0, 1]]),
    )
    assert agreeing(near, deep, (6, 9)).tolist() == [True, True, False, False, True]


def test_relative_relevance_has_mean_one():
    grid = np.array([[1.0, -3.0], [0.0, 4.0]])
    np.testing.assert_allclose(relative_relevance(grid), [[0.5, 1.5], [0.0, 2.0]])
    assert relative_relevance(np.zeros((2, 2))) is None


def test_correlation_stays_within_its_bounds():
    x = np.array([0.1, 0.2, 0.3])
    assert correlation(x, 3 * x) == pytest.approx(1.0)
    assert correlation(x, -x) == pytest.approx(-1.0)
    assert correlation(x, np.ones(3)) is None
    assert correlation(x[:2], x[:2]) is None
