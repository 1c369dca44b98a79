"""Evidence between sets of photos: what the pairs across say together of being one animal.

Sets are rows of a matrix of photo indices, padded by -1, so that thousands of them are handled at once. Pairs
of photos are not independent: ten frames of one moment say hardly more than one frame. So nothing is summed
over pairs. Means describe a set of pairs, and what a mean is worth is learned from the catalogue's own names
(`scale`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

PAIRS_AT_ONCE = 500_000
"""Pairs of photos whose log-odds are computed in one call."""
MOST_PHOTOS = 12
"""Most photos that stand for a set.

144 pairs estimate a mean well enough, and a name of a thousand photos costs no more.
"""

UPPER = 0.125
"""Share of the pairs above the quantile that is stated besides the mean."""

Index = NDArray[np.int64]
Values = NDArray[np.float64]
LogOdds = Callable[[Index, Index], NDArray[np.floating]]
"""Calibrated log-odds (n,) that photos first[i] and second[i] show one animal."""


@dataclass(frozen=True, eq=False)
class NamedPhotos:
    """A catalogue as the judgement of names sees it: N photos, integer codes (N,) with -1 for unknown.

    `vectors` (N, D) are unit embeddings of any float type; `log_odds` is called with comparable pairs only.
    Raises ValueError where lengths differ.
    """

    names: Index
    species: Index
    encounter: Index
    viewpoint: Index
    vectors: NDArray[np.floating]
    log_odds: LogOdds

    def __post_init__(self) -> None:
        lengths = {len(v) for v in (self.names, self.species, self.encounter, self.viewpoint, self.vectors)}
        if len(lengths) != 1:
            raise ValueError(f"codes and vectors must have one length, not {sorted(lengths)}")

    def __len__(self) -> int:
        return len(self.names)

    def comparable(self, first: Index, second: Index) -> NDArray[np.bool_]:
        """Which pairs may be compared.

        A pair is of two different photos, not of one known encounter, nor of two known viewpoints or species.
        """
        encounter, other = self.encounter[first], self.encounter[second]
        found: NDArray[np.bool_] = (first != second) & ((encounter != other) | (encounter < 0))
        for codes in (self.viewpoint, self.species):
            a, b = codes[first], codes[second]
            found &= (a == b) | (a < 0) | (b < 0)
        return found


@dataclass(frozen=True, eq=False)
class Names:
    """The K known names in ascending order of code, and photos that stand for each.

    `sample` is (K, at most `most`), padded by -1. `keys` (K,) do not depend on any order.
    """

    codes: Index
    sizes: Index
    sample: Index
    keys: NDArray[np.uint64]

    def at(self, photo_names: Index) -> Index:
        """Positions among `codes` of names, -1 where a name is none of them."""
        place = np.searchsorted(self.codes, photo_names).clip(max=max(len(self.codes) - 1, 0))
        return np.where(self.codes[place] == photo_names, place, -1) if len(self.codes) else place - 1


def photo_keys(vectors: NDArray[np.floating]) -> NDArray[np.uint64]:
    """A number (N,) per photo that depends on its embedding alone.

    What is drawn by these numbers does not depend on any order.
    """
    keys = np.empty(len(vectors), dtype=np.uint64)
    odd = np.random.default_rng(0).integers(1, 2**62, size=vectors.shape[1], dtype=np.uint64) * 2 + 1
    for rows in blocks(len(vectors), 1 << 14):
        bits = np.ascontiguousarray(vectors[rows], dtype=np.float32).view(np.uint32).astype(np.uint64)
        mixed = (bits * odd).sum(1, dtype=np.uint64)
        keys[rows] = (mixed ^ (mixed >> np.uint64(29))) * np.uint64(0x9E3779B97F4A7C15)
    return keys


def blocks(count: int, size: int) -> Iterator[slice]:
    """Consecutive slices of at most `size` over `count` items."""
    for start in range(0, count, size):
        yield slice(start, min(start + size, count))


def names_of(photos: NamedPhotos, keys: NDArray[np.uint64], most: int = MOST_PHOTOS) -> Names:
    """All known names, each with the photos of lowest key, in ascending order of key."""
    order = np.lexsort((np.arange(len(keys)), keys, photos.names))
    order = order[photos.names[order] >= 0]
    codes, first, sizes = np.unique(photos.names[order], return_index=True, return_counts=True)
    width = min(most, int(sizes.max(initial=0)))
    place = first[:, None] + np.arange(width)
    inside = np.arange(width) < sizes[:, None]
    sample = np.where(inside, order[np.where(inside, place, 0)] if len(order) else -1, -1)
    least = keys[sample[:, 0]] if len(codes) else keys[:0]
    return Names(codes, sizes, sample, least)


def cross(
    photos: NamedPhotos, first: Index, second: Index
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Log-odds and cosines (m, s, t) of all pairs across sets (m, s) and (m, t).

    NaN where padded or not comparable.
    """
    a, b = np.broadcast_arrays(first[:, :, None], second[:, None, :])
    odds = np.full(a.shape, np.nan, dtype=np.float32)
    asked = (a >= 0) & (b >= 0)
    asked[asked] = photos.comparable(a[asked], b[asked])
    if asked.any():
        odds[asked] = photos.log_odds(a[asked], b[asked])
    # Each photo's vector is gathered once per set, not once per pair.
    one, two = (photos.vectors[sets].astype(np.float32) for sets in (first, second))
    return odds, np.where(asked, one @ two.transpose(0, 2, 1), np.float32(np.nan))


@dataclass(frozen=True, eq=False)
class Evidence:
    """What m pairs of sets say, each (m,); NaN where no two photos may be compared.

    `log_odds`: mean over the pairs. `share`: log-odds of the mean probability; a few wrong photos in either
    set hardly change it. `upper`: the quantile above which an eighth of the pairs lie; unlike that of the
    best pair, it does not grow with the sets. `cosine`: mean over the pairs. `pairs`: how many pairs were
    compared.
    """

    log_odds: Values
    share: Values
    upper: Values
    cosine: Values
    pairs: Index

    def columns(self) -> Values:
        """The columns (m, 3) that are learned from."""
        return np.column_stack([self.share, self.upper, self.cosine])


def told(weights: NDArray[np.floating], cosines: NDArray[np.floating]) -> Evidence:
    """The evidence of log-odds and cosines (m, s, t), with NaN for pairs that were not compared."""
    known = ~np.isnan(weights)
    pairs = known.sum((1, 2))
    filled = np.where(known, weights, 0.0).astype(np.float64)
    chance = np.where(known, 1 / (1 + np.exp(-filled.clip(-30, 30))), 0.0)
    mean = divided(chance.sum((1, 2)), pairs).clip(1e-9, 1 - 1e-9)
    share = np.log(mean / (1 - mean))
    total = np.where(known, cosines, 0.0).astype(np.float64).sum((1, 2))
    return Evidence(divided(filled.sum((1, 2)), pairs), share, upper(weights), divided(total, pairs), pairs)


def upper(weights: NDArray[np.floating]) -> Values:
    """The quantile (m,) of log-odds (m, s, t) above which `UPPER` of them lie; NaN of none.

    It is interpolated linearly between neighbours.
    """
    flat = np.sort(weights.reshape(len(weights), weights[:1].size or 1).astype(np.float64), axis=1)
    last = (~np.isnan(flat)).sum(1) - 1
    place = (1 - UPPER) * last.clip(0)
    low = place.astype(np.int64)
    high = np.minimum(low + 1, last.clip(0))
    rows = np.arange(len(flat))
    return flat[rows, low] + (place - low) * (flat[rows, high] - flat[rows, low])


def divided(total: Values, count: NDArray[np.integer]) -> Values:
    """Means (m,) of totals, NaN over nothing."""
    return np.divide(total, count, out=np.full(len(total), np.nan), where=count > 0)


def evidence_between(photos: NamedPhotos, first: Index, second: Index) -> Evidence:
    """The evidence between sets (m, s) and (m, t) of photos, in slices of bounded memory."""
    sizes = (first >= 0).sum(1) * 1000 + (second >= 0).sum(1)
    order = np.argsort(sizes, kind="stable")
    parts: list[Evidence] = []
    numbers = (
        first.shape[1] * second.shape[1] + photos.vectors.shape[1] * (first.shape[1] + second.shape[1]) // 8
    )
    for rows in blocks(len(order), max(1, PAIRS_AT_ONCE // max(1, numbers))):
        a, b = trimmed(first[order[rows]]), trimmed(second[order[rows]])
        parts.append(told(*cross(photos, a, b)))
    if not parts:
        return told(np.empty((0, 1, 1)), np.empty((0, 1, 1)))
    back = np.argsort(order, kind="stable")
    return Evidence(*(np.concatenate([vars(p)[f] for p in parts])[back] for f in vars(parts[0])))


def trimmed(sets: Index) -> Index:
    """Sets without the columns that none of them uses; padding is at the end of each."""
    return sets[:, : max(1, int((sets >= 0).sum(1).max(initial=1)))]


def halves(sets: Index, second: NDArray[np.bool_]) -> tuple[Index, Index]:
    """Each set cut in two: where `second` (m, s) is false, and where it is true; padding at the end."""
    return packed(np.where(second, -1, sets)), packed(np.where(second, sets, -1))


def packed(sets: Index) -> Index:
    """Sets with their padding at the end, order kept."""
    order = np.argsort(sets < 0, axis=1, kind="stable")
    return np.take_along_axis(sets, order, 1)
