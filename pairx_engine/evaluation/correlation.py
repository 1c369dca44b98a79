"""Spearman's rank correlation: how far a plausibility score repeats what the cosine says already."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

FEWEST_PAIRS = 3
"""With two pairs rho is +1 or -1, whatever their values are."""


def average_ranks(values: ArrayLike) -> NDArray[np.float64]:
    """Ranks (n,) from 1 of values (n,); equal values share the mean of their ranks. O(n log n).

    Raises ValueError for NaN, which has no rank.
    """
    values = np.asarray(values, dtype=np.float64).reshape(-1)
    if np.isnan(values).any():
        raise ValueError("NaN has no rank; take the pairs that are scored")
    # Stable sorting is linear on values that are sorted already, as the bootstrap hands them over.
    order = np.argsort(values, kind="stable")
    ordered = values[order]
    starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]][: len(values)])
    ends = np.r_[starts[1:], len(values)][: len(starts)]
    ranks = np.empty(len(values))
    ranks[order] = np.repeat((starts + 1 + ends) / 2, ends - starts)
    return ranks


def spearman(x: ArrayLike, y: ArrayLike) -> float:
    """Spearman's rho in [-1, 1] of x (n,) and y (n,): Pearson's correlation of their average ranks.

    NaN for fewer than three pairs or where x or y is constant. Infinite values are ranked like any other.
    Raises ValueError for lengths that differ and for NaN.
    """
    ranks_x, ranks_y = average_ranks(x), average_ranks(y)
    if len(ranks_x) != len(ranks_y):
        raise ValueError(f"{len(ranks_x)} values cannot be correlated with {len(ranks_y)}")
    if len(ranks_x) < FEWEST_PAIRS:
        return math.nan
    # Ranks are whole or half, so that up to some 100 000 pairs these sums are exact in any order.
    deviations_x, deviations_y = ranks_x - (len(ranks_x) + 1) / 2, ranks_y - (len(ranks_y) + 1) / 2
    spread = math.sqrt(float(deviations_x @ deviations_x) * float(deviations_y @ deviations_y))
    return max(-1.0, min(1.0, float(deviations_x @ deviations_y) / spread)) if spread else math.nan
