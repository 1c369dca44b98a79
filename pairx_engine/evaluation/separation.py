"""What a plausibility score adds to the cosine.

It is measured by how well the score separates correct from incorrect pairs of like cosine.

Delta is the paper's measure (Table 1): the Bhattacharyya distance between the scores of correct and incorrect
pairs, averaged over bins of the cosine. The paper states neither the bins nor the weights nor the form of the
distance. Its negative values imply a sign, and its size with few pairs per bin implies a parametric form. So
all of these are parameters here (`Binning`), and `VARIANTS` are meant to be reported beside the default.

Two limits hold for all variants. The distance D_B of few pairs is too large on average. And in a wide bin the
cosine itself still varies, so that a score that only repeats the cosine separates a little. The area under
the ROC curve among pairs of like cosine has only the second limit, and no choices but the bins.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pairx_engine.evaluation.pairs import LabelledPairs

Scores = NDArray[np.float64]

VARIANCE_FLOOR = 0.01
"""Smallest variance of a class, as a share of the variance of an even mixture of both classes."""
MOST_BINS = 10_000
SAME_MEAN = 1e-12
"""Means that differ by less than this share of their size differ by rounding only."""


@dataclass(frozen=True)
class Binning:
    """How Delta is taken.

    The cosine is cut into `n_bins` bins with `edges` over all scored pairs. `form` is that of the distance.
    `weights` is what a bin weighs: its number of pairs, the size of its smaller class, or 1. A bin counts
    when it has at least `minimum` pairs of each class that differ in cosine or score: a resample repeats
    pairs, and two copies of one pair show no spread. A histogram has `n_levels` levels of equal width over
    the scores in the bin. Raises ValueError for numbers with which nothing can be estimated.
    """

    n_bins: int = 10
    edges: Literal["equal_width", "quantile"] = "equal_width"
    form: Literal["gaussian", "histogram"] = "gaussian"
    weights: Literal["pairs", "smaller_class", "equal"] = "pairs"
    minimum: int = 2
    n_levels: int = 10

    def __post_init__(self) -> None:
        if not 1 <= self.n_bins <= MOST_BINS:
            raise ValueError(f"between 1 and {MOST_BINS} bins, not {self.n_bins}")
        if self.minimum < 2 or self.n_levels < 2:
            raise ValueError("a spread needs at least two pairs, a histogram at least two levels")

    @property
    def name(self) -> str:
        """Everything that distinguishes one binning from another, for a table."""
        form = self.form if self.form == "gaussian" else f"{self.form} of {self.n_levels} levels"
        edges, weights = self.edges.replace("_", "-"), self.weights.replace("_", " ")
        return f"{form}, {self.n_bins} {edges} bins, weight {weights}, min {self.minimum}"


DEFAULT = Binning()
VARIANTS = (
    DEFAULT,
    replace(DEFAULT, edges="quantile"),
    replace(DEFAULT, form="histogram"),
    replace(DEFAULT, weights="smaller_class"),
    replace(DEFAULT, weights="equal"),
    replace(DEFAULT, minimum=5),
    replace(DEFAULT, n_bins=5),
    replace(DEFAULT, n_bins=20),
)
"""The default, and variants that each differ from it in one respect."""


@dataclass(frozen=True)
class Bin:
    """One bin of the cosine, [low, high); the last bin is closed.

    `distance` is NaN and `weight` 0 where the bin does not count. `sign` is that of the mean score of correct
    pairs less that of incorrect ones.
    """

    low: float
    high: float
    n_correct: int
    n_incorrect: int
    distance: float
    sign: int
    weight: float


@dataclass(frozen=True)
class Separation:
    """Delta and the bins that it is averaged over.

    `value` is Delta, NaN when no bin counts; `bins` are in order of cosine. `share` is the share of the
    scored pairs that lie in bins that count, NaN without any pair.
    """

    value: float
    bins: tuple[Bin, ...]
    share: float


def bhattacharyya_gaussian(x: ArrayLike, y: ArrayLike, variance_floor: float = VARIANCE_FLOOR) -> float:
    """Bhattacharyya distance between normal distributions fitted to x (n,) and y (m,), 0 or more.

    D_B = (mx - my)^2 / (4 (vx + vy)) + 1/2 ln((vx + vy) / (2 sqrt(vx vy))), with unbiased variances v. The
    floor is a share of the variance (vx + vy) / 2 + (mx - my)^2 / 4 of an even mixture of both; a variance
    below the floor counts as the floor. So a class that is constant by chance, such as a repeated pair in a
    resample, has a finite distance that does not depend on the score's unit. The floor of 0.01 does not
    affect classes of one spread whose means are up to 19 standard deviations apart, nor classes of one mean
    whose standard deviations differ up to 14 times. Two different constants have the distance 1 / (2 floor) =
    50, equal ones 0.

    Raises ValueError for fewer than two values in x or y, values that are not finite and a floor outside (0,
    1).
    """
    x, y = _finite(x), _finite(y)
    if min(len(x), len(y)) < 2:
        raise ValueError("a variance needs at least two values")
    if not 0 < variance_floor < 1:
        raise ValueError(f"the floor of the variance is a share in (0, 1), not {variance_floor}")
    (mean_x, spread_x), (mean_y, spread_y) = _moments(x), _moments(y)
    apart = 0.0 if _same(mean_x, mean_y) else (mean_x - mean_y) ** 2
    floor = variance_floor * ((spread_x + spread_y) / 2 + apart / 4)
    if floor == 0:
        return 0.0
    less, more = sorted((max(spread_x, floor), max(spread_y, floor)))
    ratio = less / more
    return apart / (4 * (less + more)) + math.log((1 + ratio) / (2 * math.sqrt(ratio))) / 2


def bhattacharyya_histogram(x: ArrayLike, y: ArrayLike, edges: ArrayLike) -> float:
    """D_B = -ln sum_i sqrt(p_i q_i) between the histograms of x (n,) and y (m,) over `edges`, 0 or more.

    Levels are [low, high), the last one closed. Histograms without a common level would be infinitely far
    apart. They get 1/2 ln(n m) instead: the distance at the smallest overlap that samples of these sizes can
    have, with one value of each in a common level.

    Raises ValueError for empty x or y, edges that descend, values outside them or not finite.
    """
    x, y, edges = _finite(x), _finite(y), _finite(edges)
    if not len(x) or not len(y):
        raise ValueError("a histogram needs at least one value")
    if len(edges) < 2 or (np.diff(edges) < 0).any():
        raise ValueError("edges ascend, and two of them make a level")
    if min(x.min(), y.min()) < edges[0] or max(x.max(), y.max()) > edges[-1]:
        raise ValueError("values lie outside the edges of the histogram")
    p, q = (np.bincount(_bin_of(values, edges), minlength=len(edges) - 1) for values in (x, y))
    smallest = 1 / math.sqrt(len(x) * len(y))
    overlap = float(np.sqrt(p * q).sum()) * smallest
    return max(0.0, -math.log(max(overlap, smallest)))


def separation(pairs: LabelledPairs, how: Binning = DEFAULT) -> Separation:
    """Delta = sum_b w_b sign_b D_B,b / sum_b w_b over the bins b of the cosine that count.

    sign_b is the sign of the mean score of correct pairs less that of incorrect pairs in the bin, 0 where the
    means are equal. Pairs without a score are left out. O(n log n), the same for any order of the pairs.
    """
    pairs = pairs.scored()
    bins = tuple(_measured(content, how) for content in _binned(pairs, how))
    counting = [each for each in bins if each.weight]
    if not counting:
        return Separation(math.nan, bins, 0.0 if len(pairs) else math.nan)
    weight = sum(each.weight for each in counting)
    value = sum(each.weight * each.sign * each.distance for each in counting) / weight
    return Separation(value, bins, sum(each.n_correct + each.n_incorrect for each in counting) / len(pairs))


def auc(score: ArrayLike, correct: ArrayLike) -> float:
    """P(correct > incorrect) + 1/2 P(correct = incorrect) over all such pairs of scores (n,), in [0, 1].

    NaN without a correct or without an incorrect score. O(n log n). Raises ValueError for NaN.
    """
    values, labels = np.asarray(score, dtype=np.float64), np.asarray(correct, dtype=np.bool_)
    if values.shape != labels.shape:
        raise ValueError(f"{values.shape} scores have {labels.shape} labels")
    if np.isnan(values).any():
        raise ValueError("NaN cannot be compared; take the pairs that are scored")
    higher, lower = np.sort(values[labels]), np.sort(values[~labels])
    return _wins(higher, lower) / (len(higher) * len(lower)) if len(higher) and len(lower) else math.nan


def auc_at_equal_cosine(pairs: LabelledPairs, how: Binning = DEFAULT) -> float:
    """`auc` with comparisons only inside a bin of the cosine: wins in all bins / comparisons in all bins.

    A stratified Mann-Whitney statistic. Each comparison counts once, so a bin weighs n_correct * n_incorrect.
    Edges and minimum are those of `how`. NaN when no bin counts. To see how much of the cosine the width of
    the bins leaves, give the cosine itself as the score: the narrower the bins, the nearer the result is to
    1/2.
    """
    wins, comparisons = 0.0, 0
    for content in _binned(pairs.scored(), how):
        if content.n_different >= how.minimum:
            wins += _wins(content.correct, content.incorrect)
            comparisons += len(content.correct) * len(content.incorrect)
    return wins / comparisons if comparisons else math.nan


class _Content(NamedTuple):
    """Ascending scores in a bin.

    `n_different` is the number of pairs in its smaller class, where repeats of one pair count once.
    """

    low: float
    high: float
    correct: Scores
    incorrect: Scores
    n_different: int


def _binned(pairs: LabelledPairs, how: Binning) -> Iterator[_Content]:
    """The content of every bin, in order of cosine; nothing if there are no pairs."""
    if not len(pairs):
        return
    edges = _edges(pairs.cosine, how)
    cells = (2 * _bin_of(pairs.cosine, edges) + pairs.correct).astype(np.int16)
    # Scores ascend inside a cell, so that sums over it do not depend on the order of the pairs.
    order = np.lexsort((pairs.cosine, pairs.score, cells))
    cells, scores, cosines = cells[order], pairs.score[order], pairs.cosine[order]
    again = (np.diff(cells) == 0) & (np.diff(scores) == 0) & (np.diff(cosines) == 0)
    different = np.bincount(cells[np.r_[True, ~again]], minlength=2 * how.n_bins)
    parts = np.split(scores, np.searchsorted(cells, np.arange(1, 2 * how.n_bins)))
    for b in range(how.n_bins):
        incorrect, correct = parts[2 * b : 2 * b + 2]
        fewest = int(different[2 * b : 2 * b + 2].min())
        yield _Content(float(edges[b]), float(edges[b + 1]), correct, incorrect, fewest)


def _measured(content: _Content, how: Binning) -> Bin:
    low, high, correct, incorrect, n_different = content
    sizes = len(correct), len(incorrect)
    if n_different < how.minimum:
        return Bin(low, high, *sizes, math.nan, 0, 0.0)
    if how.form == "gaussian":
        distance = bhattacharyya_gaussian(correct, incorrect)
    else:
        least, most = min(correct[0], incorrect[0]), max(correct[-1], incorrect[-1])
        distance = bhattacharyya_histogram(correct, incorrect, np.linspace(least, most, how.n_levels + 1))
    mean_correct, mean_incorrect = _moments(correct)[0], _moments(incorrect)[0]
    sign = 0 if _same(mean_correct, mean_incorrect) else 1 if mean_correct > mean_incorrect else -1
    weight = {"pairs": sum(sizes), "smaller_class": min(sizes), "equal": 1}[how.weights]
    return Bin(low, high, *sizes, distance, sign, float(weight))


def _edges(cosine: NDArray[np.float64], how: Binning) -> NDArray[np.float64]:
    if how.edges == "quantile":
        return np.quantile(cosine, np.arange(how.n_bins + 1) / how.n_bins)
    return np.linspace(cosine.min(), cosine.max(), how.n_bins + 1)


def _bin_of(values: NDArray[np.float64], edges: NDArray[np.float64]) -> NDArray[np.intp]:
    """Bins [low, high), the last one closed.

    If all edges are one value, everything is in the last bin.
    """
    return np.searchsorted(edges[1:-1], values, side="right")


def _wins(higher: Scores, lower: Scores) -> float:
    """Comparisons of two ascending lists that `higher` wins, ties counting one half; exact."""
    below = np.searchsorted(lower, higher, side="left").sum()
    return float(below + np.searchsorted(lower, higher, side="right").sum()) / 2


def _same(mean_x: float, mean_y: float) -> bool:
    """Whether two means differ by rounding only: a sign must not depend on that."""
    return abs(mean_x - mean_y) <= SAME_MEAN * max(abs(mean_x), abs(mean_y))


def _finite(values: ArrayLike) -> Scores:
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1 or not np.isfinite(array).all():
        raise ValueError("distances are between two lists of finite numbers")
    return array


def _moments(values: Scores) -> tuple[float, float]:
    """Mean and unbiased variance (0 for one value)."""
    # Counted from the first value, a constant has exactly its mean and no variance, despite rounding.
    beyond = values - values[0]
    mean = float(beyond.mean())
    deviations = beyond - mean
    return float(values[0]) + mean, float(deviations @ deviations) / max(1, len(values) - 1)
