"""Drawn catalogues for tests of the judgement.

Animals are points, photos lie about them, names have planted errors, and pairs are the nearest ones.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from pairx_engine.judgement.inputs import Floats, Ints, Pairs, Photos


@dataclass(frozen=True, eq=False)
class Drawn:
    """The true animals (N,), which photos have a wrong name (N,), and what is judged."""

    true: Ints
    wrong: NDArray[np.bool_]
    names: Sequence[str | None]
    photos: Photos
    pairs: Pairs
    vectors: Floats

    def naming(self, names: Sequence[str | None]) -> Drawn:
        """The same pictures under other names."""
        species = [None if s < 0 else str(s) for s in self.photos.species]
        return replace(self, names=names, photos=Photos.of(names, species, self.photos.verdict))


def nearest_pairs(
    vectors: Floats, names: Sequence[str | None], near: int, species: Ints | None = None
) -> Pairs:
    """Pairs of the `near` nearest photos of one species, and all pairs of one name; sorted by photos."""
    n = len(vectors)
    cosine = (vectors @ vectors.T).astype(np.float64)
    seen = cosine - 9 * np.eye(n)
    if species is not None:
        seen[species[:, None] != species] = -9
    rank = np.argsort(np.argsort(-seen, axis=1), axis=1) + 1
    rank[(rank > near) | (seen < -2)] = 0
    found = [
        (i, j)
        for i in range(n)
        for j in range(i + 1, n)
        if rank[i, j] or rank[j, i] or (names[i] is not None and names[i] == names[j])
    ]
    first, second = np.array(found, dtype=np.int64).reshape(-1, 2).T
    return Pairs(
        first,
        second,
        cosine[first, second],
        rank[first, second],
        rank[second, first],
        np.zeros(len(first), dtype=bool),
        {},
        np.full(len(first), -1, dtype=np.int64),
    )


def drawn(
    seed: int,
    animals: int = 30,
    photos: int = 6,
    noise: float = 1.0,
    wrong: float = 0.0,
    unknown: float = 0.0,
    near: int = 12,
    species: int = 1,
    dimension: int = 24,
) -> Drawn:
    """A catalogue; `wrong` and `unknown` are shares of its photos.

    Animal i is of species i modulo `species`.
    """
    random = np.random.default_rng(seed)
    true = np.repeat(np.arange(animals), photos)
    n = len(true)
    vectors = random.standard_normal((animals, dimension))[true] + noise * random.standard_normal(
        (n, dimension)
    )
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    given = true.copy()
    order = random.permutation(n)
    bad, nameless = order[: round(wrong * n)], order[n - round(unknown * n) :]
    given[bad] = (true[bad] + species * random.integers(1, max(animals // species, 2), len(bad))) % animals
    names: list[str | None] = [f"animal {g}" for g in given]
    for i in nameless:
        names[i] = None
    kind = true % species
    pairs = nearest_pairs(vectors, names, near, kind)
    is_wrong = given != true
    is_wrong[nameless] = False
    return Drawn(true, is_wrong, names, Photos.of(names, [str(s) for s in kind]), pairs, vectors)


def some(pairs: Pairs, rows: Ints) -> Pairs:
    """The pairs of these rows, in this order."""
    columns = {k: v[rows] for k, v in vars(pairs).items() if isinstance(v, np.ndarray)}
    return replace(pairs, **columns, signals={k: v[rows] for k, v in pairs.signals.items()})


def with_signals(found: Drawn, signals: Mapping[str, Floats]) -> Pairs:
    """The pairs with these signals."""
    return replace(found.pairs, signals=dict(signals))


def truth(found: Drawn) -> Floats:
    """Whether each pair shows one animal (P,)."""
    same: Floats = (found.true[found.pairs.first] == found.true[found.pairs.second]).astype(np.float64)
    return same
