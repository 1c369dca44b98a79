"""Ridge logistic regression that leans on given weights instead of zero; signs can be fixed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize
from scipy.special import expit

from pairx_engine.judgement.inputs import Flags, Floats, Ints

_TINY = 1e-300


@dataclass(frozen=True, eq=False)
class Answers:
    """Answers to n cases, which may be mistakes.

    `yes` (n,) in [0, 1] is the given answer (a share counts as both answers), `weight` (n,) that of the case.

    If the truth is yes, the given answer is yes with probability `sure` (n,). If the truth is no, the given
    answer is yes by mistake with probability `chance` times 1 - sure. Names are given in this way: one
    mistake surely separates two photos of one animal, but hardly ever joins photos of two animals. The weight
    of evidence against a sure answer has no bound; against an answer that can be a mistake it has one.
    """

    yes: Floats
    weight: Floats
    sure: Floats
    chance: float = 0.0

    @classmethod
    def plain(cls, yes: Floats, weight: Floats) -> Answers:
        """Answers that are no mistakes."""
        return cls(yes, weight, np.ones(len(yes)))

    def at(self, rows: Ints, weight: Floats | None = None) -> Answers:
        """The answers to some cases, with other weights if given."""
        return Answers(
            self.yes[rows], self.weight[rows] if weight is None else weight, self.sure[rows], self.chance
        )

    def loss(self, margin: Floats) -> tuple[float, Floats]:
        """-sum_i weight_i log P(given answer_i), and its derivatives (n,) by `margin`.

        `margin` (n,) are the log-odds of the true answers. P(yes is given) = sure sigma(margin) + chance (1 -
        sure) sigma(-margin).
        """
        true, false = expit(margin), expit(-margin)
        least = self.chance * (1 - self.sure)
        given = self.sure * true + least * false
        # 1 - given, without the loss of digits of a subtraction from 1.
        other = (1 - self.sure) * true + (1 - least) * false
        loss = -(
            self.weight * (self.yes * np.log(given + _TINY) + (1 - self.yes) * np.log(other + _TINY))
        ).sum()
        pull = (1 - self.yes) / (other + _TINY) - self.yes / (given + _TINY)
        return float(loss), self.weight * pull * (self.sure - least) * true * false


def fit_logistic(x: Floats, answers: Answers, centre: Floats, strength: Floats, rising: Flags) -> Floats:
    """Weights w (D,) that minimise the loss of the answers at log-odds x w, and a ridge penalty.

    The penalty is (w - centre)' S (w - centre) / 2. S is the matrix `strength` (D, D), or has the `strength`
    (D,) on its diagonal. `x` is (n, D). The weights marked in `rising` (D,) are held at or above zero.
    Without any rows the result is `centre`, so a prior serves where nothing can be learned. If all answers
    are sure, the objective is convex; otherwise the result is the optimum that is reached from the prior.
    """

    def objective(w: Floats) -> tuple[float, Floats]:
        loss, slope = answers.loss(x @ w)
        away = w - centre
        pull = strength * away if strength.ndim == 1 else strength @ away
        return float(loss + away @ pull / 2), x.T @ slope + pull

    bounds = [(0.0 if up else None, None) for up in rising]
    start = np.where(rising, np.maximum(centre, 0), centre)
    found = minimize(
        objective, start, jac=True, method="L-BFGS-B", bounds=bounds, options={"maxiter": 200, "ftol": 1e-12}
    )
    weights: Floats = np.asarray(found.x, dtype=np.float64)
    return weights
