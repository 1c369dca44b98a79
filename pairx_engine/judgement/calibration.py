"""How far stated probabilities can be believed.

Bins of equal count, the calibration error, the Brier score, and that of an isotonic calibration of the
cosine.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from sklearn.isotonic import IsotonicRegression

from pairx_engine.judgement.inputs import FOLDS, UNKNOWN, Flags, Floats, Pairs, Photos

BINS = 10


@dataclass(frozen=True)
class Bin:
    """Pairs of nearly equal probability.

    `pairs` is their number, `stated` their mean probability, `found` the share of them that have one name.
    """

    pairs: int
    stated: float
    found: float


@dataclass(frozen=True)
class Reliability:
    """How reliable the judgement is on the retrieved pairs whose names are both known.

    `error` is the calibration error, `brier` the Brier score. `brier_cosine` is the Brier score of an
    isotonic calibration of the cosine, fitted likewise without either animal of a pair. The names are taken
    as they are, so wrong names count against all of these alike. Numbers are NaN where there are no such
    pairs.
    """

    bins: tuple[Bin, ...]
    error: float
    brier: float
    brier_cosine: float


def reliability(photos: Photos, pairs: Pairs, probability: Floats) -> Reliability:
    """Reliability of the probabilities (P,) over the pairs that were retrieved whatever their names."""
    asked = pairs.retrieved & ~pairs.same_picture & photos.known[pairs.first] & photos.known[pairs.second]
    same = (photos.names[pairs.first] == photos.names[pairs.second]).astype(np.float64)
    stated, found = probability[asked], same[asked]
    if not len(stated):
        return Reliability((), np.nan, np.nan, np.nan)
    bins = equal_bins(stated, found)
    return Reliability(
        bins,
        calibration_error(bins),
        float(((stated - found) ** 2).mean()),
        float(((_isotonic(photos, pairs, same, asked)[asked] - found) ** 2).mean()),
    )


def equal_bins(stated: Floats, found: Floats, bins: int = BINS) -> tuple[Bin, ...]:
    """At most `bins` bins of equal count, by rising stated probability."""
    order = np.argsort(stated, kind="stable")
    parts = [part for part in np.array_split(order, bins) if len(part)]
    return tuple(Bin(len(part), float(stated[part].mean()), float(found[part].mean())) for part in parts)


def calibration_error(bins: tuple[Bin, ...]) -> float:
    """Mean over the pairs of |stated - found| of their bin (expected calibration error)."""
    total = sum(b.pairs for b in bins)
    return sum(b.pairs * abs(b.stated - b.found) for b in bins) / total


def _isotonic(photos: Photos, pairs: Pairs, same: Floats, asked: Flags) -> Floats:
    """Isotonic calibration of the cosine, cross-fitted by animal (P,)."""
    a, b = photos.folds[pairs.first], photos.folds[pairs.second]
    low, high = np.minimum(a, b), np.maximum(a, b)
    usual = same[asked].mean()
    out = np.full(len(pairs), usual)
    for f in range(FOLDS):
        for g in range(f, FOLDS):
            here = asked & (low == f) & (high == g)
            train = asked & (low != UNKNOWN) & ~(np.isin(a, (f, g)) | np.isin(b, (f, g)))
            if here.any() and train.any():
                fitted = IsotonicRegression(y_min=0, y_max=1, out_of_bounds="clip")
                fitted.fit(pairs.cosine[train], same[train], sample_weight=_fair(same[train], usual))
                out[here] = fitted.predict(pairs.cosine[here])
    return out


def _fair(same: Floats, usual: float) -> Floats:
    """Weights (n,) that bring the share of pairs of one name back to `usual`.

    Leaving animals out removes more of the pairs of two animals than of the pairs of one.
    """
    share = same.mean()
    if not 0 < share < 1:
        return np.ones(len(same))
    return np.where(same > 0, usual / share, (1 - usual) / (1 - share))
