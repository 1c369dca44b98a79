"""Folds of animals: what was fitted on some animals is evaluated on others."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pairx_engine.evaluation.pairs import LabelledPairs


@dataclass(frozen=True, eq=False)
class Folds:
    """`animals` (k,) ascending codes, `fold` (k,) of each in 0 ... n_folds - 1."""

    animals: NDArray[np.int64]
    fold: NDArray[np.int64]
    n_folds: int

    def of(self, codes: NDArray[np.int64]) -> NDArray[np.int64]:
        """Folds (n,) of animal codes (n,). Raises ValueError for an animal that has none."""
        places = np.searchsorted(self.animals, codes).clip(max=len(self.animals) - 1)
        if (self.animals[places] != codes).any():
            raise ValueError("an animal belongs to no fold")
        folds: NDArray[np.int64] = self.fold[places]
        return folds


def folds_by_animal(animal_codes: ArrayLike, n_folds: int, seed: int) -> Folds:
    """Every animal of `animal_codes` (n,), which may repeat, in one of `n_folds` folds at random.

    Folds differ by at most one animal in size (not in pairs). Deterministic for a seed and the same for any
    order of the codes. Raises ValueError for fewer than two folds and for fewer animals than folds.
    """
    animals = np.unique(np.asarray(animal_codes, dtype=np.int64))
    if not 2 <= n_folds <= len(animals):
        raise ValueError(f"{len(animals)} animals make no {n_folds} folds")
    fold = np.random.default_rng(seed).permutation(np.arange(len(animals)) % n_folds)
    return Folds(animals, fold, n_folds)


def split(pairs: LabelledPairs, assignment: Folds, fold: int) -> tuple[LabelledPairs, LabelledPairs]:
    """Pairs to fit on and pairs held out: both animals outside `fold`, and both inside it.

    Pairs of one animal inside and one outside are in neither part: fitting on them would show a held-out
    animal, and evaluating on them would show a fitted one. So every correct pair is held out in one fold, an
    incorrect pair in one fold or none: only about 1 / n_folds of the incorrect pairs are ever held out.
    Raises ValueError for a fold that does not exist.
    """
    if not 0 <= fold < assignment.n_folds:
        raise ValueError(f"no fold {fold} among {assignment.n_folds}")
    inside_a, inside_b = assignment.of(pairs.animal_a) == fold, assignment.of(pairs.animal_b) == fold
    return pairs.take(~inside_a & ~inside_b), pairs.take(inside_a & inside_b)
