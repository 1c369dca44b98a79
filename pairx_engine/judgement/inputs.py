"""What is judged, as plain arrays: the photos with their names, and pairs of photos."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]

FOLDS = 5
"""Number of parts into which the animals are cut.

The model that judges a pair was learned without the parts of both its animals.
"""
UNKNOWN = -1


@dataclass(frozen=True, eq=False)
class Photos:
    """N photos: codes (N,) of names and species, -1 where unknown.

    `folds` (N,): the fold that each name belongs to. `verdict` (N,): 1 where a person said that the name is
    right, 0 where a person said that it is wrong, -1 where nobody did.
    """

    names: Ints
    species: Ints
    folds: Ints
    verdict: Ints

    def __len__(self) -> int:
        return len(self.names)

    @classmethod
    def of(
        cls, names: Sequence[str | None], species: Sequence[str | None], verdict: Ints | None = None
    ) -> Photos:
        """Photos of these names, in their order; codes follow the alphabet."""
        codes = codes_of(names)
        order = sorted({n for n in names if n is not None})
        # By hash, so that neither the alphabet nor the number of photos decides which animals share a fold.
        place = sorted(range(len(order)), key=lambda i: hashlib.sha256(order[i].encode()).hexdigest())
        fold = np.empty(len(order) + 1, dtype=np.int64)
        fold[place] = np.arange(len(order)) % FOLDS
        fold[-1] = UNKNOWN
        nobody = np.full(len(codes), UNKNOWN, dtype=np.int64)
        return cls(codes, codes_of(species), fold[codes], nobody if verdict is None else verdict)

    def at(self, rows: Ints) -> Photos:
        """Some of the photos, with the same codes."""
        return Photos(self.names[rows], self.species[rows], self.folds[rows], self.verdict[rows])

    @property
    def known(self) -> Flags:
        """Which photos have a name (N,)."""
        return self.names != UNKNOWN

    @property
    def n_names(self) -> int:
        """How many names there are."""
        return int(self.names.max(initial=UNKNOWN)) + 1


def codes_of(values: Sequence[str | None]) -> Ints:
    """A number per distinct value in the order of the alphabet, -1 for None."""
    known = {v: i for i, v in enumerate(sorted({v for v in values if v is not None}))}
    return np.array([UNKNOWN if v is None else known[v] for v in values], dtype=np.int64)


@dataclass(frozen=True, eq=False)
class Pairs:
    """P unordered pairs of comparable photos, each once.

    `first`, `second`: rows of `Photos`. `cosine`: that of their embeddings. `rank_first`: place of the second
    photo among the photos nearest to the first one whatever their names, from 1, and 0 beyond the list;
    `rank_second`: the same the other way round. `same_picture`: whether the two are one picture, which is no
    evidence for any name. `signals`: values by name, NaN where missing. `verdict`: 1 where a person said one
    animal, 0 where a person said two animals, -1 where nobody did. Pairs up to rank `top_k` were matched
    whatever their names; of the pairs beyond it, names decided which have signals.
    """

    first: Ints
    second: Ints
    cosine: Floats
    rank_first: Ints
    rank_second: Ints
    same_picture: Flags
    signals: Mapping[str, Floats]
    verdict: Ints
    top_k: int = sys.maxsize

    def __post_init__(self) -> None:
        lengths = {
            len(v) for v in (*vars(self).values(), *self.signals.values()) if isinstance(v, np.ndarray)
        }
        if len(lengths) > 1:
            raise ValueError(f"the columns of pairs must have one length, not {sorted(lengths)}")

    def __len__(self) -> int:
        return len(self.first)

    @property
    def retrieved(self) -> Flags:
        """Pairs that were found among the nearest whatever their names.

        Only this selection of pairs does not depend on names.
        """
        return self._within(sys.maxsize)

    @property
    def matched(self) -> Flags:
        """Those of the retrieved pairs that were also matched, whatever their names.

        The weights of signals are to be learned from these pairs alone.
        """
        return self._within(self.top_k)

    def _within(self, rank: int) -> Flags:
        first, second = self.rank_first, self.rank_second
        within: Flags = ((first > 0) & (first <= rank)) | ((second > 0) & (second <= rank))
        return within
