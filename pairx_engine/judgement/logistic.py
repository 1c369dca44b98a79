"""Ridge logistic regression that leans on given weights instead of on zero, with signs that cannot turn."""

from __future__ import annotations

import numpy as np
from scipy.optimize import minimize
from scipy.special import expit, log_expit

from pairx_engine.judgement.inputs import Flags, Floats


def fit_logistic(
    x: Floats, y: Floats, weight: Floats, centre: Floats, strength: Floats, rising: Flags
) -> Floats:
    """Weights w (D,) that minimise sum_i weight_i log(1 + exp(-s_i x_i w)) + (w - centre)' S (w - centre) / 2.

    S is the matrix `strength` (D, D), or has the `strength` (D,) on its diagonal.

    `x` (n, D), `y` (n,) in [0, 1] (a share counts as both answers), s = 1 for yes and -1 for no; `weight` (n,). Those of
    `rising` (D,) are held at or above zero. Without any rows the answer is `centre`, so a prior serves where nothing can be
    learned. The objective is convex, so the result does not depend on where the search begins.
    """

    def objective(w: Floats) -> tuple[float, Floats]:
        margin = x @ w
        loss = -(weight * (y * log_expit(margin) + (1 - y) * log_expit(-margin))).sum()
        away = w - centre
        pull = strength * away if strength.ndim == 1 else strength @ away
        return float(loss + away @ pull / 2), x.T @ (weight * (expit(margin) - y)) + pull

    bounds = [(0.0 if up else None, None) for up in rising]
    start = np.where(rising, np.maximum(centre, 0), centre)
    found = minimize(
        objective, start, jac=True, method="L-BFGS-B", bounds=bounds, options={"maxiter": 200, "ftol": 1e-12}
    )
    weights: Floats = np.asarray(found.x, dtype=np.float64)
    return weights
