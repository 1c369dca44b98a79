"""The weakest cut of a set of photos, which may show two animals.

The two sides of the weakest cut agree within themselves far more than with each other. The cut is sought in
the tree of average linkage over the log-odds of the set's pairs. On the way down the tree, a photo that hangs
on alone is passed by: a single photo that is cut off means a photo with a wrong name, not a second animal. Of
the cuts on the way the one with the largest `strength` is taken. Then photos change sides as long as that
raises the strength.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from pairx_engine.judgement.sets import Index, Values

FEWEST_IN_A_SIDE = 2
MOVES = 20
"""How many photos may change sides, at most."""


@dataclass(frozen=True)
class Cut:
    """Two sides of a set of photos, as positions in the set.

    `features` describe the log-odds and the cosines across and within the sides. `across` is the mean
    log-odds across.
    """

    side_a: tuple[int, ...]
    side_b: tuple[int, ...]
    features: tuple[float, ...]
    across: float


def linkage(weights: NDArray[np.floating]) -> list[tuple[list[int], list[int]]]:
    """The merges of average linkage over symmetric weights (n, n), the last merge first.

    The diagonal is ignored.
    """
    n = len(weights)
    mean = weights.astype(np.float64).copy()
    np.fill_diagonal(mean, -np.inf)
    groups: list[list[int]] = [[i] for i in range(n)]
    merges = []
    for _ in range(n - 1):
        i, j = divmod(int(mean.argmax()), n)
        a, b = len(groups[i]), len(groups[j])
        merges.append((groups[i], groups[j]))
        mean[i] = mean[:, i] = (a * mean[i] + b * mean[j]) / (a + b)
        mean[j] = mean[:, j] = -np.inf
        mean[i, i] = -np.inf
        groups[i] = groups[i] + groups[j]
    return merges[::-1]


def weakest_cut(odds: NDArray[np.floating], cosines: NDArray[np.floating]) -> Cut | None:
    """The weakest cut of n photos by symmetric log-odds and cosines (n, n).

    NaN stands where two photos may not be compared. The strength of a cut is the lesser of the mean log-odds
    within the two sides, less the mean across. None where there are no two sides of two photos each with a
    comparable pair across.
    """
    known = ~np.isnan(odds)
    if not known.any():
        return None
    # Pairs that may not be compared get the mean of the others: nothing speaks for a cut there.
    filled = np.where(known, odds, np.nanmean(odds))
    best: tuple[float, NDArray[np.bool_], list[int]] | None = None
    part = list(range(len(odds)))
    for one, two in linkage(filled):
        if sorted(one + two) != sorted(part):
            continue
        if min(len(one), len(two)) >= FEWEST_IN_A_SIDE:
            side = np.isin(part, two)
            inner = np.ix_(part, part)
            side, strength = moved(odds[inner], side)
            if np.isfinite(strength) and (best is None or strength > best[0]):
                best = strength, side, part
        part = one if len(one) >= len(two) else two
        if len(part) < 2 * FEWEST_IN_A_SIDE:
            break
    if best is None:
        return None
    _, side, part = best
    photos = np.array(part)
    a, b = photos[~side], photos[side]
    # Each photo that was passed by joins the side that it resembles more.
    for photo in sorted(set(range(len(odds))) - set(part)):
        to_a, to_b = _mean(filled[photo, photos[~side]]), _mean(filled[photo, photos[side]])
        a, b = (np.append(a, photo), b) if to_a >= to_b else (a, np.append(b, photo))
    core = photos[~side], photos[side]
    features = _features(odds, cosines, *core)
    larger, smaller = (a, b) if (len(a), _mean(filled[a])) >= (len(b), _mean(filled[b])) else (b, a)
    return Cut(
        tuple(sorted(map(int, larger))),
        tuple(sorted(map(int, smaller))),
        features,
        _mean(odds[np.ix_(*core)]),
    )


def strength(odds: NDArray[np.floating], side: NDArray[np.bool_]) -> float:
    """How far two sides agree within themselves above what they have in common.

    -inf where that cannot be said.
    """
    return float(_Flips.of(odds, side).strength(np.zeros(len(side), dtype=bool))[0])


def moved(odds: NDArray[np.floating], side: NDArray[np.bool_]) -> tuple[NDArray[np.bool_], float]:
    """The sides after photos changed over one at a time, and the strength of the cut then.

    The best change comes first. It ends where no change makes the cut stronger.
    """
    now = strength(odds, side)
    for _ in range(MOVES):
        values = _Flips.of(odds, side).strength(np.ones(len(side), dtype=bool))
        best = int(np.argmax(values))
        if not values[best] > now + 1e-9:
            break
        side = side.copy()
        side[best] = ~side[best]
        now = float(values[best])
    return side, now


@dataclass(frozen=True, eq=False)
class _Flips:
    """Sums and counts of the pairs of each photo with either side, (n,) each."""

    side: NDArray[np.bool_]
    total: tuple[Values, Values]
    count: tuple[Values, Values]

    @classmethod
    def of(cls, odds: NDArray[np.floating], side: NDArray[np.bool_]) -> _Flips:
        known = ~np.isnan(odds)
        filled, counted = np.where(known, odds, 0.0).astype(np.float64), known.astype(np.float64)
        sides = np.stack([~side, side], axis=1).astype(np.float64)
        total, count = filled @ sides, counted @ sides
        return cls(side, (total[:, 0], total[:, 1]), (count[:, 0], count[:, 1]))

    def strength(self, flipped: NDArray[np.bool_]) -> Values:
        """The strength (n,) after each photo alone has changed over, where `flipped`, otherwise as it is."""
        number = self.side.sum() + np.where(flipped, np.where(self.side, -1, 1), 0)
        found = []
        for kind in (self.total, self.count):
            within = kind[0][~self.side].sum() / 2, kind[1][self.side].sum() / 2
            across = kind[1][~self.side].sum()
            leave = np.where(flipped, np.where(self.side, -1.0, 1.0), 0.0)
            # A photo that changes over takes its pairs along: those within its old side now go across.
            inner = within[0] - leave * kind[0], within[1] + leave * kind[1]
            found.append((*inner, across + leave * (kind[0] - kind[1])))
        with np.errstate(invalid="ignore", divide="ignore"):
            a, b, across = (np.where(c > 0.5, t / c, np.nan) for t, c in zip(*found, strict=True))
        value = np.fmin(a, b) - across
        able = (np.minimum(number, len(self.side) - number) >= FEWEST_IN_A_SIDE) & ~np.isnan(value)
        return np.where(able, value, -np.inf)


def _mean(values: NDArray[np.floating]) -> float:
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else np.nan


def _share(values: NDArray[np.floating]) -> float:
    known = values[~np.isnan(values)].astype(np.float64)
    if not len(known):
        return np.nan
    mean = float(expit(known).mean().clip(1e-9, 1 - 1e-9))
    return float(np.log(mean / (1 - mean)))


def _features(
    odds: NDArray[np.floating], cosines: NDArray[np.floating], a: Index, b: Index
) -> tuple[float, ...]:
    """The features that speak for two animals: little across, much within the weaker side.

    Of the probabilities and of the cosines.
    """
    found: list[float] = []
    for values, mean in ((odds, _share), (cosines, _mean)):
        across = mean(values[np.ix_(a, b)])
        within = [w for w in (mean(values[np.ix_(s, s)]) for s in (a, b)) if np.isfinite(w)]
        found += [-across, (min(within) if within else np.nan) - across]
    return tuple(found)
