"""What evidence between two sets of photos is worth, learned from the catalogue's own names.

Some cases are known to be of one kind: halves of a name show one animal. The others are to be judged, and
nearly all of them are of the other kind. From both a logistic regression gives a log-likelihood ratio. With
it, expectation and maximisation under a stated Beta prior estimate how many of the judged cases are of the
known kind. So ten pairs of photos that always agree weigh as one pair, because they always agree in the
halves, too.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, logit

from pairx_engine.judgement.logistic import Answers, fit_logistic

Values = NDArray[np.float64]

RIDGE = 0.1
UNEQUAL = 1.0
"""Penalties on the mean of the standardised weights and on their differences from it, in cases."""
FALSE_KNOWN = 0.05
"""Share of known cases expected not to be what they are called, since some names are wrong."""
FIRST_SHARE = 0.1
"""Where the estimate of the share starts.

It starts high, since errors that first count as the other kind could stay hidden.
"""
FOLDS = 5
ROUNDS = 30


@dataclass(frozen=True)
class Prior:
    """How many of the judged cases are expected to be of the known kind: Beta(expected, others)."""

    expected: float
    others: float

    @classmethod
    def of(cls, share: float, cases: int, weight: float) -> Prior:
        """A prior of mean `share` that weighs as much as `weight` times the judged cases."""
        strength = max(weight * cases, 1.0)
        return cls(min(max(share, 1e-6), 0.5) * strength, (1 - min(max(share, 1e-6), 0.5)) * strength)

    def after(self, found: float, cases: int) -> tuple[float, float]:
        """Parameters of the Beta distribution of the share, when `found` of `cases` are of the known kind."""
        return self.expected + found, self.others + cases - found

    def share(self, found: float, cases: int) -> float:
        """Mean of that Beta distribution."""
        one, other = self.after(found, cases)
        return one / (one + other)


@dataclass(frozen=True, eq=False)
class Scale:
    """What was learned, and what it says of the judged cases.

    `weights` (FOLDS, f + 1) have the intercept first and are those of (features - `middle` (f,)) / `spread`
    (f,). `log_odds` (n,) are of the judged cases, each by the weights of its fold, which were learned without
    that fold. `share` is that of the known kind among the judged cases, and `posterior` the two parameters of
    that share's Beta distribution.
    """

    weights: Values
    middle: Values
    spread: Values
    log_odds: Values
    share: float
    posterior: tuple[float, float]


def learn(
    known: Values, judged: Values, prior: Prior, fold: tuple[NDArray[np.integer], NDArray[np.integer]]
) -> Scale:
    """A scale from features (k, f) of the known kind and (n, f) of the cases to be judged.

    A larger feature speaks for the known kind. `fold` holds numbers (k,) and (n,) that deal the cases into
    folds. A case is judged only by the other folds: otherwise a single case of the known kind would seem to
    prove that the other kind looks so. Neither label is fully right. A judged case counts for the other kind
    as far as it is not found to be of the known kind. A known case counts as far as it is found to be what it
    is called (`FALSE_KNOWN` of them are expected not to be). Both classes have equal weight in the
    regression, hence its log-odds are a likelihood ratio. No weight is negative: a feature that points the
    wrong way gets zero. A missing feature counts as average. Without cases of either kind the ratio is 0.
    """
    width, cases = judged.shape[1], len(judged)
    truth = np.arange(len(known) + cases) < len(known)
    both = np.concatenate([known, judged])
    there = ~np.isnan(both)
    number = there.sum(0).clip(1)
    middle = np.where(there, both, 0).sum(0) / number
    spread = np.sqrt((np.where(there, both - middle, 0) ** 2).sum(0) / number)
    spread = np.where(spread > 1e-9, spread, 1.0)
    unit = np.where(there, (both - middle) / spread, 0.0)
    folds = np.concatenate(fold).astype(np.uint64) % np.uint64(FOLDS)
    weights = np.zeros((FOLDS, width + 1))
    chance, share, found = np.where(truth, 1.0, 0.0), max(prior.share(0, cases), FIRST_SHARE), 0.0
    ratio = np.zeros(len(unit))
    for _ in range(ROUNDS):
        sure = np.where(truth, chance, 1 - chance)
        for k in range(FOLDS):
            own = folds == k
            weights[k] = _fit(unit[~own], truth[~own], sure[~own])
            ratio[own] = weights[k, 0] + unit[own] @ weights[k, 1:]
        chance = expit(ratio + np.where(truth, -logit(FALSE_KNOWN), logit(share)))
        found = float(chance[~truth].sum())
        before, share = share, prior.share(found, cases)
        if abs(share - before) < 1e-4 * share:
            break
    log_odds = ratio[~truth] + logit(share)
    return Scale(weights, middle, spread, log_odds, share, prior.after(found, cases))


def _fit(unit: Values, truth: NDArray[np.bool_], sure: Values) -> Values:
    """Weights (f + 1,), intercept first, of a regression with equal classes; no weight is negative.

    The penalty is RIDGE / 2 times the square of the mean weight and UNEQUAL / 2 times the squares of each
    weight's difference from it. So features that say the same thing share its weight, unless the cases speak
    against that.
    """
    f = unit.shape[1]
    total = sure[truth].sum(), sure[~truth].sum()
    if min(total) <= 0:
        return np.zeros(f + 1)
    case = sure * np.where(truth, len(unit) / total[0], len(unit) / total[1]) / 2
    mean_part = np.full((f, f), 1 / max(f, 1))
    penalty = np.zeros((f + 1, f + 1))
    penalty[0, 0] = 1e-6
    penalty[1:, 1:] = RIDGE * mean_part + UNEQUAL * (np.eye(f) - mean_part)
    rising = np.arange(f + 1) > 0
    x = np.column_stack([np.ones(len(unit)), unit])
    return fit_logistic(x, Answers.plain(truth.astype(float), case), np.zeros(f + 1), penalty, rising)
