"""What an evaluation finds, as values: the rows of its tables and the content of its page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from pairx_engine.evaluation.choice import Choice
from tasks.pages.scatter import ReportScatter

SCORES = ("inverted_residual_mean", "match_coverage")
"""The paper's plausibility scores.

Statistics also have rows of `cosine`: the cosine measured as a score, for comparison.
"""
OWN_SCORES: Mapping[str, str] = {"weighted_matches": "Relevance-weighted local matches"}
"""Our own plausibility scores, columns of `signals`, with their headings.

Higher is more plausible; values are 0 or more. A score that is added here is measured and shown beside the
paper's.
"""
ALL_SCORES = (*SCORES, *OWN_SCORES)
"""Every score that statistics are taken of, in the order in which they are shown."""


@dataclass(frozen=True)
class Statistic:
    """One number of the evaluation: a row of ``table.csv``.

    `species` is None for all pairs of the dataset. `statistic` is one of

    * `spearman`: rank correlation with the cosine;
    * `delta`: signed Bhattacharyya distance of correct and incorrect pairs, averaged over bins of the cosine;
    * `auc`: P(correct > incorrect) over all pairs;
    * `auc_equal_cosine`: the same over pairs of like cosine only;
    * `auc_missing_lowest`: the same as `auc_equal_cosine`, with a missing score as the lowest.

    `variant` says how it was computed, empty where there is only one way. `value` is None where it is
    undefined, `low` and `high` are the ends of its bootstrap interval. `n_missing` pairs have no such
    score.
    """

    dataset: str
    species: str | None
    score: str
    statistic: str
    variant: str
    value: float | None
    low: float | None
    high: float | None
    n_correct: int
    n_incorrect: int
    n_missing: int


@dataclass(frozen=True)
class Outlier:
    """A pair with another plausibility than its class has at its cosine: a row of ``outliers.csv``.

    `z` is the larger of the two robust z scores, positive towards the other class; either may be None.
    """

    rank: int
    pair_id: str
    photo_a: str
    photo_b: str
    identity_a: str
    identity_b: str
    correct: bool
    cosine: float
    inverted_residual_mean: float | None
    match_coverage: float | None
    z: float
    z_inverted_residual_mean: float | None
    z_match_coverage: float | None
    n_inliers: int | None


@dataclass(frozen=True)
class FaithfulnessRow:
    """Mean of a measure of faithfulness over pairs of one class, by method.

    `low` and `high` are the ends of its interval by animal; None where there is none.
    """

    method: str
    measure: str
    similar: bool
    mean: float
    low: float | None
    high: float | None
    n_pairs: int


@dataclass(frozen=True)
class Evaluation:
    """Everything that the page shows.

    `figures` are WebP files by pair id; `beside` are statistics of other datasets, for the table across
    datasets.
    """

    dataset: str
    created: datetime
    settings: Mapping[str, Any]
    layer: str
    n_photos: int
    n_animals: int
    n_failed: int
    per_photo: int
    default_variant: str
    resamples: int
    statistics: Sequence[Statistic]
    scatter: ReportScatter
    outliers: Sequence[Outlier]
    figures: Mapping[str, bytes] = field(default_factory=dict)
    beside: Sequence[Statistic] = ()
    choice: Choice | None = None
    faithfulness: Sequence[FaithfulnessRow] = ()
    notes: Sequence[str] = ()
