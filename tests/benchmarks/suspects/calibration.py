"""How far pair probabilities can be believed, beside isotonic calibration of the cosine.

Both use the same folds.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations_with_replacement

import numpy as np
from sklearn.isotonic import IsotonicRegression

from tests.benchmarks.suspects.photos import Bools, Floats, Ints, Pairs, Words, folds

_BINS = 10
_DIGITS = 6


def calibration_error(probability: Floats, truth: Bools, bins: int = _BINS) -> float:
    """Mean over bins of equal count of |mean probability - share that is true|, weighted by count.

    Equal probabilities stand in no order: each counts with the share that is true among all of them.
    """
    values, group = np.unique(probability, return_inverse=True)
    count = np.bincount(group, minlength=len(values))
    mean_truth = (np.bincount(group, weights=truth, minlength=len(values)) / count)[group]
    parts = np.array_split(np.argsort(probability, kind="stable"), bins)
    gaps = [
        len(part) * abs(probability[part].mean() - mean_truth[part].mean()) for part in parts if len(part)
    ]
    return float(sum(gaps) / len(probability)) if len(probability) else float("nan")


def brier(probability: Floats, truth: Bools) -> float:
    """Mean of (p - truth)^2."""
    return float(((probability - truth) ** 2).mean()) if len(probability) else float("nan")


def held_out(a: Ints, b: Ints, fold: Ints) -> Iterator[tuple[Bools, Bools]]:
    """Pairs to judge, and pairs to learn from that share no animal: masks (P,) for each two folds."""
    first, second = np.minimum(fold[a], fold[b]), np.maximum(fold[a], fold[b])
    for i, j in combinations_with_replacement(range(int(fold.max()) + 1), 2):
        asked = (first == i) & (second == j)
        if asked.any():
            yield asked, ~np.isin(first, (i, j)) & ~np.isin(second, (i, j))


def isotonic_of_cosine(pairs: Pairs, names: Words) -> Floats:
    """Probability of one animal (P,) by the cosine alone, cross-fitted by animal on the names as they are.

    Leaving animals out removes more pairs of two names than pairs of one name, the more so the more folds are
    left out. Weights give both kinds their share of all pairs again. NaN where there is nothing to learn
    from.
    """
    same = pairs.same(names)
    out = np.full(len(same), np.nan)
    for asked, learned in held_out(pairs.a, pairs.b, folds(names)):
        y = same[learned]
        if y.any() and not y.all():
            weight = np.where(y, same.sum() / y.sum(), (~same).sum() / (~y).sum())
            model = IsotonicRegression(y_min=0, y_max=1, out_of_bounds="clip")
            model.fit(pairs.cosine[learned], y.astype(float), sample_weight=weight)
            # Rounding errors would tell the folds apart.
            out[asked] = model.predict(pairs.cosine[asked]).round(_DIGITS)
    return out


def by_pair(probability: Floats, truth: Bools) -> dict[str, float]:
    """Calibration error and Brier score of the pairs that have a probability."""
    there = ~np.isnan(probability)
    return {
        "calibration error": calibration_error(probability[there], truth[there]),
        "Brier": brier(probability[there], truth[there]),
        "pairs": float(there.sum()),
    }
