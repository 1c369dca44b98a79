"""The statistics of an evaluation: per species and score, with intervals by resampling animals."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from pairx_engine.evaluation.bootstrap import bootstrap_by_animal
from pairx_engine.evaluation.correlation import spearman
from pairx_engine.evaluation.outliers import outliers
from pairx_engine.evaluation.pairs import LabelledPairs
from pairx_engine.evaluation.separation import (
    DEFAULT,
    VARIANTS,
    Binning,
    auc,
    auc_at_equal_cosine,
    separation,
)
from tasks.pages.evaluation_values import SCORES, Outlier, Statistic

Values = NDArray[np.float64]
MOST_COSINES, PAIRS_PER_COSINE = 40, 20
BASELINE = "cosine"
"""The cosine, measured as a score.

What remains of its Delta and its area at equal cosine comes from the width of the bins.
"""
FEWEST_PAIRS = 20
"""A species with fewer pairs of either class gets no rows of its own."""


@dataclass(frozen=True)
class ScoredList:
    """The listed pairs that have scores, as equally long columns; NaN where a pair lacks a score."""

    pair_id: tuple[str, ...]
    photo_a: tuple[str, ...]
    photo_b: tuple[str, ...]
    identity_a: tuple[str, ...]
    identity_b: tuple[str, ...]
    species: tuple[str | None, ...]
    """Species of both photos; None where they differ or it is not known."""
    cosine: Values
    scores: Mapping[str, Values]
    n_inliers: tuple[int | None, ...]

    def labelled(self, score: Values, rows: NDArray[np.bool_] | None = None) -> LabelledPairs:
        """All pairs, or those of a mask, under one score."""
        codes = {name: i for i, name in enumerate(sorted({*self.identity_a, *self.identity_b}))}
        a, b = (
            np.array([codes[name] for name in names], dtype=np.int64)
            for names in (self.identity_a, self.identity_b)
        )
        pairs = LabelledPairs(self.cosine, score, a == b, a, b)
        return pairs if rows is None else pairs.take(rows)


def statistics_of(
    dataset: str, found: ScoredList, how: Binning = DEFAULT, resamples: int = 200
) -> list[Statistic]:
    """All statistics of all pairs, then of every species with enough pairs if there are several.

    `how` is the binning that comes first; `VARIANTS` stand beside it. Intervals hold 95 % of `resamples`
    resamples of animals; 0 leaves them out. The cosine itself is measured as a third score, which any
    score has to beat.
    """
    return [
        row
        for species, rows in _groups(found)
        for score, values in ({**found.scores, BASELINE: found.cosine}).items()
        for row in _of_score(dataset, species, score, found.labelled(values, rows), how, resamples)
    ]


def _groups(found: ScoredList) -> Iterator[tuple[str | None, NDArray[np.bool_]]]:
    yield None, np.ones(len(found.cosine), dtype=np.bool_)
    known = sorted({name for name in found.species if name is not None})
    correct = np.array(
        [a == b for a, b in zip(found.identity_a, found.identity_b, strict=True)], dtype=np.bool_
    )
    for name in known if len(known) > 1 else ():
        rows = np.array([species == name for species in found.species])
        if min((rows & correct).sum(), (rows & ~correct).sum()) >= FEWEST_PAIRS:
            yield name, rows


def _of_score(
    dataset: str, species: str | None, score: str, pairs: LabelledPairs, how: Binning, resamples: int
) -> Iterator[Statistic]:
    wanted = _functions(how, len(pairs))
    values = {key: statistic(pairs) for key, statistic in wanted.items()}
    named = {"\0".join(key): statistic for key, statistic in wanted.items()}
    intervals = bootstrap_by_animal(pairs, named, resamples) if resamples else {}
    missing = int(np.isnan(pairs.score).sum())
    n_correct = int(pairs.correct.sum())
    for (statistic, variant), value in values.items():
        interval = intervals.get(f"{statistic}\0{variant}")
        yield Statistic(
            dataset,
            species,
            score,
            statistic,
            variant,
            _number(value),
            _number(interval.low) if interval else None,
            _number(interval.high) if interval else None,
            n_correct,
            len(pairs) - n_correct,
            missing,
        )


def equal_cosine(n_pairs: int) -> Binning:
    """Bins inside which cosines count as equal: about twenty pairs each, at most forty bins.

    In wide bins a score that only repeats the cosine seems to separate the classes.
    """
    n_bins = max(1, min(MOST_COSINES, n_pairs // PAIRS_PER_COSINE))
    return Binning(n_bins=n_bins, edges="quantile")


def _functions(how: Binning, n_pairs: int) -> dict[tuple[str, str], Callable[[LabelledPairs], float]]:
    """(statistic, variant) -> function; the first `delta` is that of `how`."""
    found: dict[tuple[str, str], Callable[[LabelledPairs], float]] = {("spearman", ""): _rho}
    for variant in dict.fromkeys((how, *VARIANTS)):
        found["delta", variant.name] = partial(_delta, how=variant)
    found["delta", f"{how.name}, logarithm of the score"] = partial(_delta_of_logarithm, how=how)
    found["auc", ""] = _auc
    found["auc_equal_cosine", ""] = partial(auc_at_equal_cosine, how=equal_cosine(n_pairs))
    found["auc_missing_lowest", ""] = partial(_auc_missing_lowest, how=equal_cosine(n_pairs))
    return found


def _rho(pairs: LabelledPairs) -> float:
    known = pairs.scored()
    return spearman(known.cosine, known.score)


def _delta(pairs: LabelledPairs, how: Binning) -> float:
    return separation(pairs, how).value


def _delta_of_logarithm(pairs: LabelledPairs, how: Binning) -> float:
    known = pairs.scored()
    positive = known.take(known.score > 0)
    return separation(replace(positive, score=np.log(positive.score)), how).value


def _auc(pairs: LabelledPairs) -> float:
    known = pairs.scored()
    return auc(known.score, known.correct)


def _auc_missing_lowest(pairs: LabelledPairs, how: Binning) -> float:
    """The area at equal cosine over all pairs, with missing scores as the lowest.

    A pair without a homography has no score, and that, too, says something about it. Scores are 0 or
    more.
    """
    return auc_at_equal_cosine(replace(pairs, score=np.nan_to_num(pairs.score, nan=-1.0)), how)


def rank_outliers(found: ScoredList, limit: int) -> list[Outlier]:
    """The pairs least like their class at their cosine, at most `limit`.

    They are ordered by the larger robust z of both scores.
    """
    logarithm = np.log(np.where(found.scores[SCORES[0]] > 0, found.scores[SCORES[0]], np.nan))
    z = {
        SCORES[0]: outliers(found.labelled(logarithm)),
        SCORES[1]: outliers(found.labelled(found.scores[SCORES[1]])),
    }
    both = np.stack([z[name] for name in SCORES])
    largest = np.where(
        np.isnan(both).all(axis=0), -np.inf, np.nanmax(np.nan_to_num(both, nan=-np.inf), axis=0)
    )
    order = [i for i in np.lexsort((np.array(found.pair_id), -largest)) if largest[i] > 0][:limit]
    return [
        Outlier(
            rank=rank,
            pair_id=found.pair_id[i],
            photo_a=found.photo_a[i],
            photo_b=found.photo_b[i],
            identity_a=found.identity_a[i],
            identity_b=found.identity_b[i],
            correct=found.identity_a[i] == found.identity_b[i],
            cosine=float(found.cosine[i]),
            inverted_residual_mean=_number(found.scores[SCORES[0]][i]),
            match_coverage=_number(found.scores[SCORES[1]][i]),
            z=float(largest[i]),
            z_inverted_residual_mean=_number(z[SCORES[0]][i]),
            z_match_coverage=_number(z[SCORES[1]][i]),
            n_inliers=found.n_inliers[i],
        )
        for rank, i in enumerate(order, start=1)
    ]


def _number(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
