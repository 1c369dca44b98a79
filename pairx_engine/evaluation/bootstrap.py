"""Intervals by resampling animals: pairs of one animal are not independent observations."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pairx_engine.evaluation.pairs import LabelledPairs

Statistic = Callable[[LabelledPairs], float]


@dataclass(frozen=True)
class Interval:
    """A percentile interval; NaN where no resample defines the statistic.

    Of `n_resamples`, `n_defined` define it. If that number is much smaller, the interval describes only a
    lucky part of the resamples.
    """

    low: float
    high: float
    n_resamples: int
    n_defined: int


def bootstrap_by_animal(
    pairs: LabelledPairs,
    statistics: Mapping[str, Statistic],
    n: int = 200,
    level: float = 0.95,
    seed: int = 0,
) -> dict[str, Interval]:
    """Percentile intervals of `statistics` over `n` resamples of the animals of `pairs`, with replacement.

    An animal that is drawn m times counts m times: a correct pair of animal i counts m_i times, an incorrect
    pair of i and j m_i m_j times (a resample of nodes, as for any statistic over pairs). All statistics see
    the same resamples, so a statistic that is a difference gives the interval of that difference. Statistics
    are given pairs with repeats, possibly no pairs at all or none with a score, and return NaN where they are
    undefined.

    A resample has fewer different pairs than the data. A statistic that is biased with few pairs, as any
    Bhattacharyya distance is, is therefore biased once more: its interval lies too far from 0 and may miss
    the value itself. Ranks and areas under the ROC curve have no such bias to speak of.

    Deterministic for a seed and the same for any order of the pairs. Coding the animals differently acts like
    another seed. Fewer than two animals cannot be resampled: NaN. Raises ValueError for n < 1 and a level
    outside (0, 1).
    """
    drawn = _drawn(pairs, n, level, seed)
    if drawn is None:
        return {name: Interval(math.nan, math.nan, n, 0) for name in statistics}
    pairs, counts = drawn
    rows, values = np.arange(len(pairs)), np.empty((len(statistics), n))
    for resample, count in enumerate(counts):
        resampled = pairs.take(np.repeat(rows, count))
        values[:, resample] = [statistic(resampled) for statistic in statistics.values()]
    return {name: _interval(row, level) for name, row in zip(statistics, values, strict=True)}


def mean_by_animal(pairs: LabelledPairs, n: int = 200, level: float = 0.95, seed: int = 0) -> Interval:
    """The interval of the mean score: what `bootstrap_by_animal` gives for it, without its loop.

    All pairs must be scored.
    """
    drawn = _drawn(pairs, n, level, seed)
    if drawn is None:
        return Interval(math.nan, math.nan, n, 0)
    pairs, counts = drawn
    means = [
        float(count @ pairs.score) / size if (size := int(count.sum())) else math.nan for count in counts
    ]
    return _interval(np.array(means), level)


def _drawn(
    pairs: LabelledPairs, n: int, level: float, seed: int
) -> tuple[LabelledPairs, Iterator[NDArray[np.int64]]] | None:
    """The pairs in an order of their own, and for each resample how often each of them counts (pairs,).

    None where there are fewer than two animals.
    """
    if n < 1 or not 0 < level < 1:
        raise ValueError(f"no interval of level {level} from {n} resamples")
    # The order must not depend on the rows' order; sorting by score saves the statistics their own sorting.
    first, second = np.minimum(pairs.animal_a, pairs.animal_b), np.maximum(pairs.animal_a, pairs.animal_b)
    pairs = pairs.take(np.lexsort((second, first, pairs.cosine, pairs.score)))
    animals, codes = np.unique(np.concatenate([pairs.animal_a, pairs.animal_b]), return_inverse=True)
    if len(animals) < 2:
        return None
    code_a, code_b = codes[: len(pairs)], codes[len(pairs) :]
    rng, correct = np.random.default_rng(seed), pairs.correct

    def counts() -> Iterator[NDArray[np.int64]]:
        for _ in range(n):
            times = np.bincount(rng.integers(0, len(animals), len(animals)), minlength=len(animals))
            yield np.where(correct, times[code_a], times[code_a] * times[code_b])

    return pairs, counts()


def _interval(values: np.ndarray, level: float) -> Interval:
    defined = values[~np.isnan(values)]
    if not len(defined):
        return Interval(math.nan, math.nan, len(values), 0)
    low, high = np.quantile(defined, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(low), float(high), len(values), len(defined))
