"""Simple ways of finding wrong names, from the same vectors and pairs.

Each gives a suspicion per photo (N,); more is more suspect. All take named photos and the names as they are,
wrong ones included. None is tuned.
"""

from __future__ import annotations

import numpy as np
from scipy import stats

from tests.benchmarks.suspects.photos import Bools, Floats, Ints, Pairs, Photos, equal, known

NEIGHBOURS = (5, 10, 20)
_SMOOTHING = 1e-4
_STEPS = 200
_WEAKEST = 1e-6


def suspicions(photos: Photos, pairs: Pairs) -> dict[str, Floats]:
    """Every simple method's suspicion of each photo (N,).

    Methods of pairs need the columns that they are named after.
    """
    found: dict[str, Floats] = {}
    sided = known(photos.viewpoints).any()
    for sides in (True, False) if sided else (True,):
        cosines, tail = photos.cosines(sides), "" if sides else ", sides mixed"
        found[f"cosine gap{tail}"] = cosine_gap(photos, cosines, 1)
        found[f"cosine gap, 3 nearest{tail}"] = cosine_gap(photos, cosines, 3)
        for k in NEIGHBOURS:
            odds, codes = neighbour_probabilities(photos, cosines, k)
            found[f"cleanlab self-confidence, k = {k}{tail}"] = 1 - self_confidence(odds, codes)
            found[f"cleanlab margin, k = {k}{tail}"] = 1 - normalised_margin(odds, codes)
        found[f"Beta mixture{tail}"] = beta_mixture(photos, cosines)
    for name in ("plausibility", "inverted residual", "coverage", "inliers", "evidence"):
        if name in pairs.columns:
            found[f"{name} gap"] = pair_gap(photos, pairs, pairs.columns[name])
    return found


def filled_gap(foreign: Floats, own: Floats) -> Floats:
    """`foreign` - `own` (N,): NaN of `own` counts as the median photo's, NaN of `foreign` as the lowest."""
    lowest = np.nanmin(foreign) if (~np.isnan(foreign)).any() else 0.0
    usual = np.nanmedian(own) if (~np.isnan(own)).any() else 0.0
    return np.where(np.isnan(foreign), lowest, foreign) - np.where(np.isnan(own), usual, own)


def cosine_gap(photos: Photos, cosines: Floats, top: int) -> Floats:
    """Mean cosine of the `top` nearest photos of other names minus that of the own name."""
    same = equal(photos.names)
    return filled_gap(
        _mean_of_nearest(np.where(same, -np.inf, cosines), top),
        _mean_of_nearest(np.where(same, cosines, -np.inf), top),
    )


def _mean_of_nearest(cosines: Floats, top: int) -> Floats:
    """Mean of the up to `top` largest finite values of each row, NaN where there is none."""
    nearest = -np.sort(-cosines, axis=1)[:, :top]
    there = np.isfinite(nearest)
    count = there.sum(axis=1)
    total = np.where(there, nearest, 0).sum(axis=1)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def pair_gap(photos: Photos, pairs: Pairs, value: Floats) -> Floats:
    """The best comparable pair under other names minus the best under the own name.

    A missing value counts as 0.
    """
    best = np.full((2, len(photos.ids)), np.nan)
    kind = pairs.same(photos.names).astype(int)
    filled = np.nan_to_num(value)
    for side in (pairs.a, pairs.b):
        able = pairs.comparable
        np.fmax.at(best, (kind[able], side[able]), filled[able])
    return filled_gap(best[0], best[1])


def neighbour_probabilities(photos: Photos, cosines: Floats, k: int) -> tuple[Floats, Ints]:
    """Probabilities of names by the votes of each photo's k nearest others (N, names).

    The second value is each photo's own name, as a column of the first.
    """
    names, codes = np.unique(photos.names.astype(str), return_inverse=True)
    votes = np.zeros((len(codes), len(names)))
    order = np.argsort(-cosines, axis=1, kind="stable")[:, :k]
    for i, row in enumerate(order):
        near = row[np.isfinite(cosines[i, row])]
        np.add.at(votes[i], codes[near], 1 / max(1, len(near)))
    votes += _SMOOTHING
    return votes / votes.sum(axis=1, keepdims=True), codes


def self_confidence(probabilities: Floats, codes: Ints) -> Floats:
    """cleanlab's label quality: the probability of the given name."""
    return np.asarray(probabilities[np.arange(len(codes)), codes], dtype=np.float64)


def normalised_margin(probabilities: Floats, codes: Ints) -> Floats:
    """cleanlab's label quality: (p of the given name - largest p of another + 1) / 2."""
    others = probabilities.copy()
    others[np.arange(len(codes)), codes] = -np.inf
    return (self_confidence(probabilities, codes) - others.max(axis=1) + 1) / 2


def beta_mixture(photos: Photos, cosines: Floats) -> Floats:
    """Beta-SOD: mean posterior that a photo's pairs of its own name are of the lower component.

    The mixture has two Beta components. A photo without such pairs has the median photo's value.
    """
    able = equal(photos.names) & np.isfinite(cosines)
    low, high = np.nonzero(np.triu(able))
    x = np.clip((1 + cosines[low, high]) / 2, _WEAKEST, 1 - _WEAKEST)
    posterior = lower_component(x)
    total, count = np.zeros(len(photos.ids)), np.zeros(len(photos.ids))
    for side in (low, high):
        np.add.at(total, side, posterior)
        np.add.at(count, side, 1)
    mean = np.where(count > 0, total / np.maximum(count, 1), np.nan)
    return np.where(np.isnan(mean), np.nanmedian(mean) if count.any() else 0.0, mean)


def lower_component(x: Floats) -> Floats:
    """Posterior (P,) of the component of lower mean of a two-component Beta mixture of x in (0, 1).

    Expectation maximisation, the maximisation by weighted moments: a = m (m (1 - m) / v - 1), b = (1 - m)
    (...).
    """
    if len(x) < 4 or x.std() < _WEAKEST:
        return np.zeros(len(x))
    split = x < np.quantile(x, 0.2)
    weight = np.where(split, 0.9, 0.1)
    for _ in range(_STEPS):
        parts = [_log_density(x, w) for w in (weight, 1 - weight)]
        new = 1 / (1 + np.exp(np.clip(parts[1] - parts[0], -50, 50)))
        if np.abs(new - weight).max() < _WEAKEST:
            break
        weight = new
    lower = np.average(x, weights=weight + _WEAKEST) <= np.average(x, weights=1 - weight + _WEAKEST)
    return weight if lower else 1 - weight


def _log_density(x: Floats, weight: Floats) -> Floats:
    """Log of a component's share and density at x, its Beta fitted to x by weighted moments."""
    weight = weight + _WEAKEST
    mean = np.average(x, weights=weight)
    variance = max(np.average((x - mean) ** 2, weights=weight), _WEAKEST)
    size = max(mean * (1 - mean) / variance - 1, 1e-2)
    return np.log(weight.mean()) + stats.beta.logpdf(x, mean * size, (1 - mean) * size)


def between_names(photos: Photos, sides: bool = True) -> tuple[list[str], Floats]:
    """The sorted names, and the mean cosine (M, M) of comparable photos across two names.

    NaN where there are no such photos. On the diagonal is the mean within the name: low for a name that holds
    two animals.
    """
    names, codes = np.unique(photos.names.astype(str), return_inverse=True)
    member = np.eye(len(names))[codes]
    able: Bools = photos.comparable(sides)
    cosines = photos.vectors @ photos.vectors.T
    count = member.T @ able @ member
    total = member.T @ np.where(able, cosines, 0) @ member
    return list(names), np.where(count > 0, total / np.maximum(count, 1), np.nan)
