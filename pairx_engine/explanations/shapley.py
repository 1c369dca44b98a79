"""Shapley values by weighted least squares: Kernel SHAP (Lundberg and Lee 2017), apart from any picture.

There are n players, and v(S) is what a coalition S of them reaches. Shapley values phi solve

    min sum_S w(|S|) (v(S) - v(none) - sum_{i in S} phi_i)^2   with   sum_i phi_i = v(all) - v(none)

over all coalitions but the empty and the whole one, w(k) = (n - 1) / (C(n, k) k (n - k)). With fewer
evaluations than coalitions, sizes whose coalitions can all be afforded are taken whole, from sizes 1 and n - 1
inwards; of the other sizes coalitions are drawn, each together with its complement (Covert and Lee 2021: the
pairs cancel most of the noise).
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from math import comb

import numpy as np
from numpy.typing import NDArray

Members = NDArray[np.bool_]
Values = NDArray[np.float64]
_ROUNDING = 1e-9


@dataclass(frozen=True)
class Coalitions:
    """Coalitions (m, n) of n players, all different, neither empty nor whole.

    `weights` (2, m) are those in the least squares of either half of the draws: coalitions that were taken
    whole count in both, drawn ones in the half that drew them. Rows sum to the same. Their mean is the
    weighting of all draws.
    """

    members: Members
    weights: Values

    @property
    def exact(self) -> bool:
        """Whether nothing was drawn, so that the values are the Shapley values themselves."""
        return len(self.members) == 2 ** self.members.shape[1] - 2


def fewest(n: int) -> int:
    """The least evaluations that determine n values from either half of the draws."""
    return int(min(4 * n + 2, 2**n))


def coalitions(n: int, evaluations: int, draw: np.random.Generator) -> Coalitions:
    """Coalitions of n players for at most so many evaluations, the empty and the whole one included.

    From 2^n evaluations on these are all. Raises ValueError for less than `fewest`.
    """
    if n < 1 or evaluations < fewest(n):
        raise ValueError(f"{n} players need at least {fewest(n)} evaluations, not {evaluations}")
    left, sizes = evaluations - 2, list(range(1, n // 2 + 1))
    members, weights = [np.zeros((0, n), dtype=bool)], [np.zeros(0)]
    while sizes and _count(n, sizes[0]) <= left * _weight(n, sizes[0]) / _weights(n, sizes) + _ROUNDING:
        size = sizes.pop(0)
        members.append(_whole(n, size))
        weights.append(np.full(len(members[-1]), _weight(n, size) / len(members[-1])))
        left -= len(members[-1])
    taken, each = np.concatenate(members), np.concatenate(weights)
    if not sizes:
        return Coalitions(taken, np.stack([each, each]))
    # Fewer draws are left than coalitions, and at least a pair for either half.
    shares = np.array([_weight(n, size) for size in sizes]) / _weights(n, sizes)
    pairs = left // 2
    drawn = np.array([_one(n, size, draw) for size in draw.choice(sizes, pairs, p=shares)])
    of_second_half = np.arange(pairs) % 2 == 1
    halves = [_with_complements(drawn[of_second_half == half]) for half in (False, True)]
    found, row = np.unique(np.concatenate(halves), axis=0, return_inverse=True)
    added = np.zeros((2, len(found)))
    for half, rows in enumerate(np.split(row.ravel(), [len(halves[0])])):
        np.add.at(added[half], rows, _weights(n, sizes) / len(rows))
    return Coalitions(np.concatenate([taken, found]), np.concatenate([np.stack([each, each]), added], axis=1))


def solve(members: Members, weights: Values, reached: Values, none: float, everyone: float) -> Values:
    """The values (n,) that fit what coalitions (m, n) reach (m,) best; they sum to `everyone` - `none`.

    Sums are in double precision. Where coalitions leave values open, these are as equal as can be.
    """
    n = members.shape[1]
    even = (everyone - none) / n
    size = members.sum(axis=1)
    # Around the even share only differences between players are left, which sum to zero: centred rows.
    rows = members - size[:, None] / n
    root = np.sqrt(weights)
    apart, *_ = np.linalg.lstsq(root[:, None] * rows, root * (reached - none - even * size), rcond=1e-10)
    return np.asarray(even + apart - apart.mean())


def agreement(values: Values) -> float:
    """Pearson's correlation over the players of two sets of values (2, n); 1 where the sets are equal.

    NaN where either set is constant and they are not equal.
    """
    if np.array_equal(values[0], values[1]):
        return 1.0
    apart = values - values.mean(axis=1, keepdims=True)
    norms = np.linalg.norm(apart, axis=1)
    return float(apart[0] @ apart[1] / (norms[0] * norms[1])) if norms.all() else float("nan")


def agreement_of_seeds(halves: float) -> float:
    """What two seeds would agree to, told from how two halves of one seed's draws do (Spearman and Brown).

    It holds where noise falls with the number of draws; halves that do not agree at all tell nothing more.
    """
    return 2 * halves / (1 + halves) if halves > 0 else halves


def _count(n: int, size: int) -> int:
    """Coalitions of that size, and of their complements' size."""
    return comb(n, size) * (1 if 2 * size == n else 2)


def _weight(n: int, size: int) -> float:
    """The kernel's weight of all those coalitions together."""
    return _count(n, size) * (n - 1) / (comb(n, size) * size * (n - size))


def _weights(n: int, sizes: list[int]) -> float:
    return sum(_weight(n, size) for size in sizes)


def _whole(n: int, size: int) -> Members:
    found = np.zeros((comb(n, size), n), dtype=bool)
    for row, chosen in enumerate(combinations(range(n), size)):
        found[row, list(chosen)] = True
    return found if 2 * size == n else _with_complements(found)


def _one(n: int, size: int, draw: np.random.Generator) -> Members:
    found = np.zeros(n, dtype=bool)
    found[draw.choice(n, size, replace=False)] = True
    return found


def _with_complements(members: Members) -> Members:
    return np.concatenate([members, ~members])
