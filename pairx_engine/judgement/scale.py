"""What evidence between two sets of photos is worth, learned from the catalogue's own names.

Some cases are known to be of one kind (halves of a name show one animal); the others are what is to be judged, nearly all of
them of the other kind. From both a logistic regression gives a log-likelihood ratio, and how many of the unknown cases are
of the known kind is estimated with it, by expectation and maximisation under a stated Beta prior. So ten pairs of photos
that always agree weigh as one, because they do so in the halves, too.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]

RIDGE = 0.1
UNEQUAL = 1.0
"""Penalties on the mean of the standardised weights and on what they differ by, in cases."""
FALSE_KNOWN = 0.05
"""Known cases that are expected not to be what they are called: names are not all right."""
PRIOR_CASES = 0.25
"""What is believed before weighs as much as this share of the judged cases."""
FIRST_SHARE = 0.1
"""Where the estimate of the share starts: high, since errors that count as the other kind at first could hide for good."""
ROUNDS = 30
STEPS = 50


@dataclass(frozen=True)
class Prior:
    """How many of the judged cases are expected to be of the known kind: Beta(expected, others)."""

    expected: float
    others: float

    @classmethod
    def of(cls, share: float, cases: int) -> Prior:
        """A prior of mean `share` that counts like `PRIOR_CASES` of the judged cases."""
        strength = max(PRIOR_CASES * cases, 1.0)
        return cls(min(max(share, 1e-6), 0.5) * strength, (1 - min(max(share, 1e-6), 0.5)) * strength)

    def after(self, found: float, cases: int) -> tuple[float, float]:
        """Parameters of the Beta distribution of the share, when `found` of `cases` are of the known kind."""
        return self.expected + found, self.others + cases - found

    def share(self, found: float, cases: int) -> float:
        """Mean of that distribution."""
        one, other = self.after(found, cases)
        return one / (one + other)


@dataclass(frozen=True, eq=False)
class Scale:
    """`weights` (f + 1,), intercept first, of features less `middle` (f,) over `spread` (f,); `share` of the known kind.

    `posterior`: the two parameters of the Beta distribution of that share.
    """

    weights: Values
    middle: Values
    spread: Values
    share: float
    posterior: tuple[float, float]

    def ratio(self, features: Values) -> Values:
        """Log-likelihood ratio (n,) of features (n, f): of the known kind against the other. An unknown one is average."""
        unit = np.nan_to_num((features - self.middle) / self.spread, nan=0.0)
        return self.weights[0] + unit @ self.weights[1:]

    def log_odds(self, features: Values) -> Values:
        """Log-odds (n,) of cases like those that were judged."""
        return self.ratio(features) + logit(self.share)


def logit(share: float) -> float:
    """Log-odds of a probability."""
    return float(np.log(share / (1 - share)))


def logistic(values: Values) -> Values:
    """Probabilities of log-odds."""
    return 1 / (1 + np.exp(-np.clip(values, -700, 700)))


def learn(known: Values, judged: Values, prior: Prior) -> Scale:
    """A scale from features (k, f) of the known kind and (n, f) of cases to be judged; more of a feature speaks for the kind.

    Neither label is quite right: a judged case counts for the other kind as far as it is not found to be of the known one,
    and a known case as far as it is found to be what it is called (`FALSE_KNOWN` of them are expected not to be). Classes
    count alike in the regression, hence its log-odds are a likelihood ratio. A feature whose weight is against its sense
    gets none. Without cases of either kind the ratio is 0 everywhere.
    """
    width = judged.shape[1]
    if not len(known) or not len(judged):
        return Scale(
            np.zeros(width + 1), np.zeros(width), np.ones(width), prior.share(0, 0), prior.after(0, 0)
        )
    both = np.concatenate([known, judged])
    middle, spread = np.nanmean(both, axis=0), np.nanstd(both, axis=0)
    spread = np.where(spread > 1e-9, spread, 1.0)
    unit = np.nan_to_num((both - middle) / spread, nan=0.0)
    used = np.ones(width, dtype=bool)
    while True:
        weights = np.zeros(width + 1)
        weights[np.r_[True, used]], found = _fit(unit[:, used], len(known), prior)
        against = used & (weights[1:] < 0)
        if not against.any():
            return Scale(
                weights, middle, spread, prior.share(found, len(judged)), prior.after(found, len(judged))
            )
        used &= ~against


def _fit(unit: Values, count: int, prior: Prior) -> tuple[Values, float]:
    """Weights and how many of the judged are found to be of the known kind; the first `count` rows are the known cases."""
    truth = np.arange(len(unit)) < count
    cases = len(unit) - count
    chance, share = np.where(truth, 1.0, 0.0), max(prior.share(0, cases), FIRST_SHARE)
    weights = np.zeros(unit.shape[1] + 1)
    for _ in range(ROUNDS):
        sure = np.where(truth, chance, 1 - chance)
        total = (sure[truth].sum(), sure[~truth].sum())
        case = sure * np.where(truth, len(unit) / total[0], len(unit) / total[1]) / 2
        weights = regression(unit, truth.astype(float), case, weights)
        ratio = weights[0] + unit @ weights[1:]
        before = share
        chance = logistic(ratio + np.where(truth, -logit(FALSE_KNOWN), logit(share)))
        share = prior.share(float(chance[~truth].sum()), cases)
        if abs(share - before) < 1e-9:
            break
    return weights, float(chance[~truth].sum())


def regression(x: Values, y: Values, case: Values, start: Values) -> Values:
    """Logistic regression (intercept first) of y (n,) on x (n, f), weighted by case (n,): Newton's steps.

    The penalty is RIDGE / 2 times the square of the mean weight and UNEQUAL / 2 times the squares of what each differs by
    from it: features that say one thing in several ways share their say unless the cases speak against that.
    """
    f = x.shape[1]
    x = np.column_stack([np.ones(len(x)), x])
    mean_part = np.full((f, f), 1 / max(f, 1))
    penalty = np.zeros((f + 1, f + 1))
    penalty[0, 0] = 1e-6
    penalty[1:, 1:] = RIDGE * mean_part + UNEQUAL * (np.eye(f) - mean_part)
    weights = start.copy()
    for _ in range(STEPS):
        mean = logistic(x @ weights)
        slope = x.T @ (case * (y - mean)) - penalty @ weights
        step = np.linalg.solve((x * (case * mean * (1 - mean) + 1e-12)[:, None]).T @ x + penalty, slope)
        # Far from the optimum a full step can overshoot.
        weights += step * min(1.0, 5.0 / max(np.abs(step).max(), 1e-12))
        if np.abs(step).max() < 1e-9:
            break
    return weights
