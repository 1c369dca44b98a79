"""Log-odds of any two photos, judged or not.

A judged pair has its log-odds from all that is known of it, any other pair by the embeddings alone.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from pairx_engine.judgement.inputs import FOLDS, UNKNOWN, Floats, Ints, Pairs, Photos
from pairx_engine.judgement.pair_model import PRIOR, TERMS, PairJudgement, surroundings

_AT_ONCE = 8192


@dataclass(frozen=True, eq=False)
class AnyPair:
    """A callable (first, second) -> log-odds that two photos show one animal.

    `vectors` (N, D) are unit embeddings.
    """

    photos: Photos
    pairs: Pairs
    judged: PairJudgement
    vectors: NDArray[np.floating]

    def __call__(self, first: Ints, second: Ints) -> Floats:
        """Log-odds (n,) of photos first[i] and second[i], in either order."""
        out = np.empty(len(first))
        for start in range(0, len(first), _AT_ONCE):
            part = slice(start, start + _AT_ONCE)
            out[part] = self._some(first[part], second[part])
        return out

    def _some(self, first: Ints, second: Ints) -> Floats:
        low, high = np.minimum(first, second), np.maximum(first, second)
        keys, order, odds = self._known
        wanted = low * len(self.photos) + high
        place = np.searchsorted(keys, wanted).clip(max=max(len(keys) - 1, 0))
        known = keys[place] == wanted if len(keys) else np.zeros(len(wanted), dtype=bool)
        out = np.zeros(len(wanted))
        out[known] = odds[order[place[known]]]
        a, b = low[~known], high[~known]
        if len(a):
            one, other = (self.vectors[rows].astype(np.float32) for rows in (a, b))
            out[~known] = self.by_embeddings(a, b, np.einsum("nd,nd->n", one, other).astype(np.float64))
        return out

    @cached_property
    def _known(self) -> tuple[Ints, Ints, Floats]:
        keys = self.pairs.first * len(self.photos) + self.pairs.second
        order = np.argsort(keys, kind="stable")
        return keys[order], order, self.judged.log_odds

    @cached_property
    def _surroundings(self) -> tuple[Floats, dict[int, tuple[float, float]]]:
        return surroundings(self.photos, self.pairs)

    def by_embeddings(self, a: Ints, b: Ints, cosine: Floats) -> Floats:
        """Log-odds (n,) by the embeddings alone, as of photos that are not among each other's nearest."""
        crowd, scales = self._surroundings
        species = np.where(self.photos.species[a] == self.photos.species[b], self.photos.species[a], UNKNOWN)
        out = np.zeros(len(a))
        for code, scale in scales.items():
            there = (species == code) if code != UNKNOWN else ~np.isin(species, [s for s in scales if s >= 0])
            centre, spread = scale
            # The terms of ranks are zero, since these pairs have no ranks.
            prior, alike, crowded, *_ = np.moveaxis(self._weights(a[there], b[there], code), -1, 0)
            crowding = (crowd[a[there]] + crowd[b[there]]) / 2 - centre
            out[there] = prior + (alike * (cosine[there] - centre) + crowded * crowding) / spread
        return out

    def _weights(self, a: Ints, b: Ints, species: int) -> Floats:
        """Weights (n, 5) that were learned without either animal."""
        by_folds: Floats = self._by_folds[species][self.photos.folds[a], self.photos.folds[b]]
        return by_folds

    @cached_property
    def _by_folds(self) -> dict[int, Floats]:
        """Of each species the weights (FOLDS + 1, FOLDS + 1, 5) by the folds of both photos.

        The last fold is that of unknown names.
        """
        found = {}
        for species in self._surroundings[1]:
            weights = np.empty((FOLDS + 1, FOLDS + 1, len(TERMS)))
            for f, g in itertools.product(range(UNKNOWN, FOLDS), repeat=2):
                low, high = min(f, g), max(f, g)
                folds = (high if low == UNKNOWN else low), high
                weights[f, g] = self.judged.learned.get((*folds, species), self._any(species))
            found[species] = weights
        return found

    def _any(self, species: int) -> Floats:
        """The mean of a species' weights, for folds that no judged pair has.

        Where no pair shows two species, photos of two species get the mean of all weights.
        """
        learned = self.judged.learned
        own = [w for (_, _, s), w in learned.items() if s == species]
        found: Floats = np.mean(own or list(learned.values()) or [PRIOR], axis=0)
        return found
