"""Photos and scored pairs as plain arrays.

The simple methods and the measures see these, and never the trusted names.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]
Words = NDArray[np.object_]
"""Texts, None where unknown."""


def words(values: Any) -> Words:
    """Texts as an array of objects, with None for what is empty."""
    return np.array([value or None for value in values], dtype=object)


def known(values: Words) -> Bools:
    """Which texts are known (N,)."""
    return np.array([value is not None for value in values], dtype=bool)


def equal(values: Words) -> Bools:
    """Which two texts are known and equal (N, N)."""
    codes = np.unique([value or "" for value in values], return_inverse=True)[1]
    there = known(values)
    return np.asarray((codes[:, None] == codes[None]) & there[:, None] & there[None])


@dataclass(frozen=True, eq=False)
class Photos:
    """Photos in a fixed order: ids, names, vectors (N, D) of unit length, and what else is known.

    Names are as the catalogue says, wrong ones included.
    """

    ids: tuple[str, ...]
    names: Words
    vectors: Floats
    viewpoints: Words
    encounters: Words
    species: Words

    def only(self, wanted: Bools) -> Photos:
        """Those that are wanted (N,), in their order."""
        ids = tuple(name for name, keep in zip(self.ids, wanted, strict=True) if keep)
        arrays = {f.name: getattr(self, f.name)[wanted] for f in fields(self) if f.name != "ids"}
        return Photos(ids, **arrays)

    def renamed(self, names: Words) -> Photos:
        """The same photos under other names."""
        return replace(self, names=names)

    def comparable(self, sides: bool = True) -> Bools:
        """Which two photos may be compared, (N, N).

        Not a photo with itself, and not two of one encounter. With `sides`, not two different known sides
        either.
        """
        able = ~equal(self.encounters)
        np.fill_diagonal(able, False)
        if sides:
            there = known(self.viewpoints)
            able &= equal(self.viewpoints) | ~(there[:, None] & there[None])
        return able

    def cosines(self, sides: bool = True) -> Floats:
        """Cosines of all with all (N, N), -inf where two photos may not be compared."""
        return np.where(self.comparable(sides), self.vectors @ self.vectors.T, -np.inf)


@dataclass(frozen=True, eq=False)
class Pairs:
    """Scored pairs: positions `a` and `b` (P,) in `Photos`, cosines, and further columns (P,).

    A missing value is NaN. `comparable` is false where the two photos show two sides. `retrieved` says that
    one is among the nearest of the other whatever the names: pairs that were chosen by one rule.
    """

    a: Ints
    b: Ints
    cosine: Floats
    comparable: Bools
    retrieved: Bools
    columns: Mapping[str, Floats] = field(default_factory=dict)
    ids: Words = field(default_factory=lambda: np.empty(0, dtype=object))

    def same(self, names: Words) -> Bools:
        """Which pairs have one name (P,)."""
        return np.asarray(names[self.a] == names[self.b], dtype=bool) & known(names[self.a])

    def only(self, wanted: Bools) -> Pairs:
        """Those that are wanted (P,)."""
        columns = {name: values[wanted] for name, values in self.columns.items()}
        rest = {name: getattr(self, name)[wanted] for name in ("a", "b", "cosine", "comparable", "retrieved")}
        return Pairs(**rest, columns=columns, ids=self.ids[wanted] if len(self.ids) else self.ids)


def with_names(photos: Photos, pairs: Pairs) -> tuple[Photos, Pairs]:
    """The photos that have a name, and the pairs of two such photos.

    An animal without a name contradicts nobody.
    """
    there = known(photos.names)
    place = np.cumsum(there) - 1
    kept = pairs.only(there[pairs.a] & there[pairs.b])
    return photos.only(there), replace(kept, a=place[kept.a], b=place[kept.b])


def folds(names: Words, count: int = 5) -> Ints:
    """Fold of each photo by its name, (N,).

    The same names give the same folds, whatever the order of the photos.
    """
    order = np.unique([str(name) for name in names])
    drawn = np.random.default_rng(0).permutation(len(order)) % count
    return np.asarray(drawn[np.searchsorted(order, [str(name) for name in names])], dtype=np.int64)
