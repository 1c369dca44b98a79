"""The weakest cuts of many small sets of photos at once: every cut of every set is tried.

Most names have few photos, and a large catalogue has very many of them. A cut, its strength and its
description are those of `cuts`, where larger sets are cut along a tree.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, logit

from pairx_engine.judgement.cuts import FEWEST_IN_A_SIDE, Cut
from pairx_engine.judgement.sets import Values, divided

FEW = 8
"""Most photos of a set that is cut here; 8 photos have 119 cuts."""
OUT = -1


def exact_cuts(odds: NDArray[np.floating], cosines: NDArray[np.floating]) -> list[Cut | None]:
    """The weakest cut of each of m sets of n <= FEW photos.

    `odds` and `cosines` (m, n, n) are symmetric log-odds and cosines, NaN where two photos are not
    comparable. As in `cuts.weakest_cut`, a photo that hangs on alone may be passed by; it then joins the side
    that it resembles more. Here that is the photo with the lowest mean log-odds, then the next lowest. None
    where there are no two sides of two photos each with a comparable pair across.
    """
    m, n = odds.shape[:2]
    known = ~np.isnan(odds)
    mean = divided(np.where(known, odds, 0.0).astype(np.float64).sum((1, 2)), known.sum((1, 2)))
    filled = np.where(known, odds, mean[:, None, None])
    best, side = np.full(m, -np.inf), np.full((m, n), OUT, dtype=np.int8)
    part = np.broadcast_to(np.arange(n), (m, n))
    rows = np.arange(m)[:, None]
    while part.shape[1] >= 2 * FEWEST_IN_A_SIDE:
        inner = rows[:, :, None], part[:, :, None], part[:, None, :]
        found, sides = _strongest(odds[inner])
        better = found > best
        best[better] = found[better]
        side[better] = OUT
        side[rows[better], part[better]] = sides[better]
        liking = filled[inner].sum(2) - np.diagonal(filled[inner], axis1=1, axis2=2)
        alone = np.where(np.isnan(liking), 0.0, liking).argmin(1)
        kept = np.arange(part.shape[1]) != alone[:, None]
        part = part[kept].reshape(m, -1)
    return _described(odds, cosines, filled, side, np.isfinite(best))


@lru_cache(maxsize=FEW)
def _sides(n: int) -> NDArray[np.bool_]:
    """Every cut of n photos into two sides of at least FEWEST_IN_A_SIDE, each once: (cuts, n).

    The first photo is on the side of `False`.
    """
    all_cuts = (np.arange(1 << (n - 1))[:, None] >> np.arange(n) & 1).astype(bool)[:, ::-1]
    other = all_cuts.sum(1)
    return all_cuts[(other >= FEWEST_IN_A_SIDE) & (n - other >= FEWEST_IN_A_SIDE)]


def _strongest(odds: NDArray[np.floating]) -> tuple[Values, NDArray[np.int8]]:
    """Strength (m,) and sides (m, n), 0 and 1, of the strongest cut of each set (m, n, n).

    The strength is -inf where there is none.
    """
    m, n = odds.shape[:2]
    sides = _sides(n)
    b = sides.astype(np.float64)
    within_a, within_b = (np.einsum("pi,pj->pij", s, s).reshape(len(b), -1) for s in (1 - b, b))
    across = 2 * np.einsum("pi,pj->pij", 1 - b, b).reshape(len(b), -1)
    known = ~np.isnan(odds)
    total, count = (np.where(known, values, 0.0).reshape(m, -1).astype(np.float64) for values in (odds, 1.0))
    with np.errstate(invalid="ignore", divide="ignore"):
        a, b, apart = ((total @ mask.T) / (count @ mask.T) for mask in (within_a, within_b, across))
    value = np.fmin(a, b) - apart
    value = np.where(np.isnan(value), -np.inf, value)
    best = value.argmax(1)
    return value[np.arange(m), best], sides[best].astype(np.int8)


def _described(
    odds: NDArray[np.floating],
    cosines: NDArray[np.floating],
    filled: NDArray[np.floating],
    side: NDArray[np.int8],
    able: NDArray[np.bool_],
) -> list[Cut | None]:
    """The cuts with their features; photos passed by have joined a side, and the larger side is first."""
    core = np.stack([side == 0, side == 1], axis=1).astype(np.float64)
    means = [_means(values, core) for values in (_chances(odds), cosines.astype(np.float64), odds)]
    share, cosine, across = (logit(means[0].clip(1e-9, 1 - 1e-9)), means[1], means[2][:, 0, 1])
    features = np.stack([f for v in (share, cosine) for f in (-v[:, 0, 1], _inner(v) - v[:, 0, 1])], axis=1)
    # How near each photo is to either core.
    to = np.einsum("mij,msj->mis", filled, core) / core.sum(2).clip(1)[:, None]
    b = np.where(side == OUT, to[:, :, 1] > to[:, :, 0], side == 1)
    found: list[Cut | None] = [None] * len(odds)
    for i in np.flatnonzero(able):
        sides = np.flatnonzero(~b[i]), np.flatnonzero(b[i])
        size = [(len(s), float(filled[i][s].mean())) for s in sides]
        larger, smaller = sides if size[0] >= size[1] else sides[::-1]
        found[i] = Cut(
            tuple(larger.tolist()), tuple(smaller.tolist()), tuple(features[i].tolist()), float(across[i])
        )
    return found


def _chances(odds: NDArray[np.floating]) -> Values:
    return np.asarray(expit(odds.astype(np.float64)), dtype=np.float64)


def _means(values: Values | NDArray[np.floating], core: Values) -> Values:
    """Means (m, 2, 2) of known values within and between two sides (m, 2, n)."""
    known = ~np.isnan(values)
    total = np.einsum("msi,mij,mtj->mst", core, np.where(known, values, 0.0), core, optimize=True)
    count = np.einsum("msi,mij,mtj->mst", core, known.astype(np.float64), core, optimize=True)
    return np.divide(total, count, out=np.full(total.shape, np.nan), where=count > 0)


def _inner(values: Values) -> Values:
    return np.fmin(values[:, 0, 0], values[:, 1, 1])
