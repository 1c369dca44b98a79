"""Pairs whose score is unlike that of similar pairs: suspects for a wrong label.

Similar pairs are of the same class and have nearly the same cosine.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pairx_engine.device.tuning import SCORES_AT_ONCE
from pairx_engine.evaluation.pairs import LabelledPairs

FEWEST_LIKE_PAIRS = 10
"""With fewer like pairs, a spread says too little."""
SAME_DISTANCE = 1e-12
"""Distances between cosines that differ by less differ by rounding only."""
SAME_SCORE = 1e-12
"""A spread that is a smaller share of the median is rounding."""
SIGMA_OF_MEDIAN_DEVIATION = 1.4826
SIGMA_OF_MEAN_DEVIATION = 1.2533
"""Standard deviation of a normal distribution over its median and its mean absolute deviation."""
SPREAD_FLOOR = 0.1
"""Smallest spread of like pairs, as a share of that of the whole class.

Where a score saturates, as coverage does among copies, like pairs agree very closely. Any other value would
then be hundreds of spreads away, although the difference is too small to see.
"""

Values = NDArray[np.float64]


def outliers(pairs: LabelledPairs, neighbours: int = 50) -> Values:
    """How far each score lies from like pairs, towards the other class: robust z (n,).

    Like pairs are the `neighbours` scored pairs of the same class that are nearest in cosine, without the
    pair itself. All others as near as the last of them belong to them too, so that the order of pairs does
    not matter. z = (score - median) / (1.4826 median |score - median|) for incorrect pairs, its negative for
    correct ones. A positive z is unexpected: an incorrect pair more plausible, or a correct one less
    plausible, than its like. Where at least half of the like pairs have one score, the mean absolute
    deviation times 1.2533 is taken instead. A spread is at least a tenth of that of all pairs of the class,
    taken in the same way about their median.

    z is NaN for a pair without a score, where the whole class has one score, and with fewer than 10 like
    pairs (or `neighbours`, if that is less). At either end of the cosines all neighbours lie on one side. The
    scale of the score is the caller's choice: a residual is better given as its negative logarithm, because z
    assumes symmetry. Takes O(n log n + n * neighbours), more where many cosines are equal. Raises ValueError
    for fewer than 3 neighbours.
    """
    if neighbours < 3:
        raise ValueError(f"{neighbours} neighbours have no spread")
    found = np.full(len(pairs), np.nan)
    for correct in (False, True):
        rows = np.flatnonzero((pairs.correct == correct) & ~np.isnan(pairs.score))
        if len(rows) > min(neighbours, FEWEST_LIKE_PAIRS):
            rows = rows[np.argsort(pairs.cosine[rows], kind="stable")]
            z = _robust_z(pairs.cosine[rows], pairs.score[rows], neighbours)
            found[rows] = -z if correct else z
    return found


def _robust_z(cosine: Values, score: Values, neighbours: int) -> Values:
    """z (n,) of scores in ascending order of cosine (n,)."""
    low, high = _windows(cosine, min(neighbours, len(cosine) - 1))
    rows = max(1, SCORES_AT_ONCE // int((high - low).max()))
    parts = [slice(start, start + rows) for start in range(0, len(cosine), rows)]
    floor = SPREAD_FLOOR * _spread_of_all(score)
    return np.concatenate([_z_in_windows(score, part, low[part], high[part], floor) for part in parts])


def _spread_of_all(score: Values) -> float:
    deviations = np.abs(score - np.median(score))
    spread = SIGMA_OF_MEDIAN_DEVIATION * float(np.median(deviations))
    return spread or SIGMA_OF_MEAN_DEVIATION * float(deviations.mean())


def _windows(cosine: Values, k: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """For each of the ascending values, the range [low, high) no farther than its k-th nearest.

    Returns `low` and `high`, (n,) each.
    """
    n = len(cosine)
    place, radius = np.arange(n), np.full(n, np.inf)
    # The k nearest and the value itself are k + 1 in a row: the shortest reach of any such row is the radius.
    for before in range(k + 1):
        start = place - before
        inside = (start >= 0) & (start + k < n)
        at, start = place[inside], start[inside]
        reach = np.maximum(cosine[at] - cosine[start], cosine[start + k] - cosine[at])
        radius[at] = np.minimum(radius[at], reach)
    radius += SAME_DISTANCE
    low = np.searchsorted(cosine, cosine - radius, side="left")
    return low, np.searchsorted(cosine, cosine + radius, side="right")


def _z_in_windows(
    score: Values, part: slice, low: NDArray[np.intp], high: NDArray[np.intp], floor: float
) -> Values:
    own = score[part]
    places = low[:, None] + np.arange((high - low).max())
    like = np.where(places < high[:, None], score[places.clip(max=len(score) - 1)], np.inf)
    like[np.arange(len(own)), np.arange(part.start, part.start + len(own)) - low] = np.inf
    sizes = high - low - 1
    middle = _median(like, sizes)
    deviations = np.abs(like - middle[:, None])
    spread = SIGMA_OF_MEDIAN_DEVIATION * _median(deviations, sizes)
    rounding = SAME_SCORE * np.abs(middle)
    flat = spread <= rounding
    deviations = np.sort(deviations[flat], axis=1)
    spread[flat] = (
        SIGMA_OF_MEAN_DEVIATION * np.where(np.isinf(deviations), 0, deviations).sum(axis=1) / sizes[flat]
    )
    spread = np.maximum(spread, floor)
    z: Values = np.divide(own - middle, spread, out=np.full(len(own), np.nan), where=spread > rounding)
    return z


def _median(rows: Values, sizes: NDArray[np.intp]) -> Values:
    """Medians (n,) of the first `sizes` (n,) values of each sorted row; the values behind them are inf."""
    ordered, at = np.sort(rows, axis=1), np.arange(len(rows))
    medians: Values = (ordered[at, (sizes - 1) // 2] + ordered[at, sizes // 2]) / 2
    return medians
