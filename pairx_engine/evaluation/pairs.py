"""Labelled pairs: what every statistic of the evaluation is taken over."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.int64] | NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class LabelledPairs:
    """Labelled pairs of one dataset under one plausibility score.

    `cosine` (n,) float64, finite. `score` (n,) float64, NaN where the pair has no such score (no homography);
    larger means more plausible. `correct` (n,) bool: both photos carry one name. `animal_a`, `animal_b` (n,)
    int64: code of the animal in either photo, in either order.

    Raises ValueError for shapes that differ, other types, a cosine that is not finite, an infinite score, and
    a `correct` that the animals contradict. An infinite score has no mean; for residuals use the inverse,
    which is 0 where the residual mean is inf.
    """

    cosine: NDArray[np.float64]
    score: NDArray[np.float64]
    correct: NDArray[np.bool_]
    animal_a: NDArray[np.int64]
    animal_b: NDArray[np.int64]

    def __post_init__(self) -> None:
        expected = {"cosine": "float64", "score": "float64", "correct": "bool"} | dict.fromkeys(
            ("animal_a", "animal_b"), "int64"
        )
        for name, dtype in expected.items():
            column = getattr(self, name)
            if not isinstance(column, np.ndarray) or column.dtype != dtype or column.shape != (len(self),):
                raise ValueError(f"{name} must be {dtype} of shape ({len(self)},), one value per pair")
        if not np.isfinite(self.cosine).all():
            raise ValueError("every pair has a finite cosine")
        if np.isinf(self.score).any():
            raise ValueError("a score is a finite number, or NaN where there is none")
        if not np.array_equal(self.correct, self.animal_a == self.animal_b):
            raise ValueError("a pair is correct if and only if both photos show one animal")

    def __len__(self) -> int:
        return len(self.cosine)

    def scored(self) -> LabelledPairs:
        """The pairs whose score is a number, in the same order."""
        known = ~np.isnan(self.score)
        return self if known.all() else self.take(known)

    def take(self, rows: Rows) -> LabelledPairs:
        """The pairs at `rows`: indices (m,), which may repeat, or a mask (n,)."""
        return LabelledPairs(
            self.cosine[rows], self.score[rows], self.correct[rows], self.animal_a[rows], self.animal_b[rows]
        )
