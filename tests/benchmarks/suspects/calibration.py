"""How far probabilities of pairs can be believed, beside isotonic calibration of the cosine on the same folds."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations_with_replacement

import numpy as np
from sklearn.isotonic import IsotonicRegression

from tests.benchmarks.suspects.photos import Bools, Floats, Ints, Pairs, folds

_BINS = 10


def calibration_error(probability: Floats, truth: Bools, bins: int = _BINS) -> float:
    """Mean over bins of equal count of |mean probability - share that is true|, weighted by count."""
    parts = np.array_split(np.argsort(probability, kind="stable"), bins)
    gaps = [len(part) * abs(probability[part].mean() - truth[part].mean()) for part in parts if len(part)]
    return float(sum(gaps) / len(probability)) if len(probability) else float("nan")


def brier(probability: Floats, truth: Bools) -> float:
    """Mean of (p - truth)^2."""
    return float(((probability - truth) ** 2).mean()) if len(probability) else float("nan")


def held_out(a: Ints, b: Ints, fold: Ints) -> Iterator[tuple[Bools, Bools]]:
    """Pairs to judge, and pairs to learn from that share no animal with them: masks (P,) for each two folds."""
    first, second = np.minimum(fold[a], fold[b]), np.maximum(fold[a], fold[b])
    for i, j in combinations_with_replacement(range(int(fold.max()) + 1), 2):
        asked = (first == i) & (second == j)
        if asked.any():
            yield asked, ~np.isin(first, (i, j)) & ~np.isin(second, (i, j))


def isotonic_of_cosine(pairs: Pairs, names: np.ndarray) -> Floats:
    """Probability of one animal (P,) by the cosine alone, cross-fitted by animal on the names as they are.

    NaN where there is nothing to learn from.
    """
    same = pairs.same(names).astype(float)
    out = np.full(len(same), np.nan)
    for asked, learned in held_out(pairs.a, pairs.b, folds(names)):
        if learned.any():
            model = IsotonicRegression(y_min=0, y_max=1, out_of_bounds="clip")
            model.fit(pairs.cosine[learned], same[learned])
            out[asked] = model.predict(pairs.cosine[asked])
    return out


def by_pair(probability: Floats, truth: Bools) -> dict[str, float]:
    """Calibration error and Brier score of the pairs that have a probability."""
    there = ~np.isnan(probability)
    return {
        "calibration error": calibration_error(probability[there], truth[there]),
        "Brier": brier(probability[there], truth[there]),
        "pairs": float(there.sum()),
    }
