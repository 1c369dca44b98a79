"""Spearman's rho against a double loop, scipy, and distributions whose rho is known."""

import math

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from pairx_engine.evaluation.correlation import average_ranks, spearman

seeds = st.integers(0, 10_000)
lists = st.lists(st.integers(-5, 5), min_size=3, max_size=40)


def naive_ranks(values):
    return [1 + sum(w < v for w in values) + (sum(w == v for w in values) - 1) / 2 for v in values]


@given(lists)
def test_ranks_equal_the_double_loop(values):
    assert average_ranks(values).tolist() == naive_ranks(values)


@given(seeds, st.booleans())
def test_rho_equals_the_correlation_of_naive_ranks_and_scipy(seed, ties):
    rng = np.random.default_rng(seed)
    x, y = rng.normal(size=(2, 3 + seed % 40))
    if ties:
        x, y = np.round(x), np.round(y)
    rho = spearman(x, y)
    if len(set(x)) == 1 or len(set(y)) == 1:
        assert math.isnan(rho)
        return
    a, b = naive_ranks(x), naive_ranks(y)
    ma, mb = sum(a) / len(a), sum(b) / len(b)
    products = sum((v - ma) * (w - mb) for v, w in zip(a, b, strict=True))
    spread = math.sqrt(sum((v - ma) ** 2 for v in a)) * math.sqrt(sum((w - mb) ** 2 for w in b))
    assert rho == pytest.approx(products / spread, abs=1e-12)
    assert rho == pytest.approx(scipy.stats.spearmanr(x, y).statistic, abs=1e-12)


def test_rho_of_correlated_gaussians_is_known():
    rng = np.random.default_rng(7)
    x, noise = rng.normal(size=(2, 40_000))
    rho = spearman(x, 0.6 * x + 0.8 * noise)
    assert rho == pytest.approx(6 / math.pi * math.asin(0.6 / 2), abs=0.015)


@given(seeds)
def test_rising_transforms_and_the_order_of_rows_leave_rho_exactly(seed):
    rng = np.random.default_rng(seed)
    x, y = np.round(rng.normal(size=(2, 30)), 1)
    order = rng.permutation(30)
    rho = spearman(x, y)
    assert spearman(np.exp(x), y**3) == rho
    assert spearman(x[order], y[order]) == rho
    assert spearman(y, x) == rho
    assert spearman(-x, y) == -rho


def test_one_order_is_exactly_one():
    x = np.random.default_rng(0).normal(size=977)
    assert (spearman(x, np.exp(x)), spearman(x, -x)) == (1.0, -1.0)


@pytest.mark.parametrize(
    ("x", "y"), [([], []), ([1, 2], [1, 2]), ([1, 1, 1], [1, 2, 3]), ([3, 1, 2], [5, 5, 5])]
)
def test_too_few_pairs_or_a_constant_have_no_rho(x, y):
    assert math.isnan(spearman(x, y))


def test_infinities_are_ranked_and_nan_is_refused():
    assert spearman([1, 2, np.inf], [1, 2, 3]) == 1.0
    with pytest.raises(ValueError, match="NaN"):
        spearman([1, 2, np.nan], [1, 2, 3])
    with pytest.raises(ValueError, match="cannot be correlated"):
        spearman([1, 2, 3], [1, 2])
