"""Two names, one animal: which pairs of names look like the two halves of one name.

Candidates are the names whose centroids are nearest, found over the whole catalogue, whether or not any photo
of one name was ever among the nearest of a photo of the other. The names that given pairs of photos point to
are candidates, too. Each candidate is judged by the pairs across (`sets`), and by how far these stand out
from what either name has in common with its other candidates.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import expit

from pairx_engine.judgement.scale import Prior, Scale, learn
from pairx_engine.judgement.sets import (
    Evidence,
    Index,
    NamedPhotos,
    Names,
    Values,
    blocks,
    cross,
    evidence_between,
    halves,
    names_of,
    photo_keys,
)

CANDIDATES = 5
"""Nearest names of each name that are judged."""
SUPPORTING = 5
"""Pairs of photos shown with a row."""
EXPECTED_SHARE = 0.01
"""Share of names that are expected to have a twin before any evidence.

The share is a stated assumption, and the evidence updates it.
"""
PRIOR_WEIGHT = 0.25
"""The weight of that expectation against the judged pairs.

It is low, since halves of names are a fair picture of twins.
"""
ROWS_AT_ONCE = 1024


@dataclass(frozen=True)
class NamePair:
    """Two names (codes, `name_a` below `name_b`) and how likely they are one animal.

    `log_odds` are those of `probability`; `mean_log_odds` is over the `n_pairs` pairs of photos across.
    `supporting` are the pairs (photo of a, photo of b) that support it most, best first.
    """

    name_a: int
    name_b: int
    log_odds: float
    probability: float
    mean_log_odds: float
    n_pairs: int
    supporting: tuple[tuple[int, int], ...]


@dataclass(frozen=True, eq=False)
class NamePairs:
    """All judged pairs of names, by falling log-odds.

    `first`, `second` (m,) are positions among `names`. `reach` is the share of name halves that are as near
    as the candidates are; so likely it is that a twin is judged at all.
    """

    names: Names
    first: Index
    second: Index
    log_odds: Values
    evidence: Evidence
    scale: Scale
    reach: float

    def __len__(self) -> int:
        return len(self.first)

    @property
    def probability(self) -> Values:
        """(m,)."""
        return np.asarray(expit(self.log_odds), dtype=np.float64)


def centroids(photos: NamedPhotos) -> tuple[Index, Index, NDArray[np.float32]]:
    """The unit mean vector of the photos of each name and viewpoint.

    Returns names (c,), viewpoints (c,) and vectors (c, D), in ascending order.
    """
    rows = np.flatnonzero(photos.names >= 0)
    kinds, group = np.unique(
        np.stack([photos.names[rows], photos.viewpoint[rows]]), axis=1, return_inverse=True
    )
    total = np.zeros((kinds.shape[1], photos.vectors.shape[1]), dtype=np.float32)
    order = np.argsort(group.ravel(), kind="stable")
    for part in blocks(len(rows), 1 << 14):
        at = group.ravel()[order[part]]
        start = np.flatnonzero(np.r_[True, at[1:] != at[:-1]])
        vectors = photos.vectors[rows[order[part]]].astype(np.float32)
        total[at[start]] += np.add.reduceat(vectors, start, axis=0)
    total /= np.linalg.norm(total, axis=1, keepdims=True).clip(1e-12)
    return kinds[0], kinds[1], total


def candidates(
    photos: NamedPhotos, names: Names, k: int = CANDIDATES, near: tuple[Index, Index] | None = None
) -> tuple[Index, Index]:
    """Candidate pairs of names, as pairs of positions (m,) among `names`.

    The first position is below the second; pairs are unique and ascending. They pair each name with the `k`
    others with the nearest centroid of a comparable viewpoint and species, and the names of the pairs of
    photos `near`. Computes K x K products in blocks, so the whole matrix is never in memory.
    """
    if not len(names.codes):
        return np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64)
    name, view, centre = centroids(photos)
    at = names.at(name)
    species = photos.species[names.sample[:, 0]][at]
    found = []
    # Centroids are in order of names, so those of one name are neighbours.
    low, high = np.searchsorted(at, at), np.searchsorted(at, at, side="right")
    told_apart = [codes for codes in (view, species) if len(np.unique(codes[codes >= 0])) > 1]
    top = min(k, len(centre))
    for rows in blocks(len(centre), ROWS_AT_ONCE):
        cosine = torch.from_numpy(centre[rows]) @ torch.from_numpy(centre).T
        for step in range(int((high - low).max())):
            own = np.minimum(low[rows] + step, high[rows] - 1)
            cosine[torch.arange(len(cosine)), torch.from_numpy(own)] = -torch.inf
        for codes in told_apart:
            apart = (codes[rows, None] != codes) & (codes[rows, None] >= 0) & (codes >= 0)
            cosine[torch.from_numpy(apart)] = -torch.inf
        value, best = cosine.topk(top, dim=1)
        good = torch.isfinite(value).numpy()
        found.append(np.stack([np.repeat(at[rows], top)[good.ravel()], at[best.numpy()][good]]))
    if near is not None:
        a, b = names.at(photos.names[near[0]]), names.at(photos.names[near[1]])
        keep = (a >= 0) & (b >= 0) & (a != b)
        found.append(np.stack([a[keep], b[keep]]))
    pairs = np.unique(np.sort(np.concatenate(found, axis=1), axis=0), axis=1)
    return pairs[0], pairs[1]


def judge_name_pairs(photos: NamedPhotos, near: tuple[Index, Index] | None = None) -> NamePairs:
    """All candidate pairs of names with their log-odds of being one animal."""
    names = names_of(photos, photo_keys(photos.vectors))
    first, second = candidates(photos, names, near=near)
    evidence = evidence_between(photos, names.sample[first], names.sample[second])
    seen = evidence.pairs > 0
    first, second = first[seen], second[seen]
    evidence = Evidence(*(v[seen] for v in vars(evidence).values()))
    levels = [_Level.of(len(names.codes), first, second, v) for v in (evidence.share, evidence.cosine)]
    features = np.column_stack([evidence.columns(), *(level.above_others(first, second) for level in levels)])
    half, own = _halves(photos, names)
    known = np.column_stack(
        [half.columns(), half.share - levels[0].usual()[own], half.cosine - levels[1].usual()[own]]
    )
    # A half that would not have been a candidate tells nothing about the candidates.
    least = np.full(len(names.codes), np.inf)
    np.minimum.at(least, np.r_[first, second], np.r_[evidence.cosine, evidence.cosine])
    reached = half.cosine >= least[own]
    reach = float((reached.sum() + 1) / (len(reached) + 1))
    known, own = known[reached], own[reached]
    expected = EXPECTED_SHARE * len(names.codes)
    fold = names.keys[own], names.keys[first] ^ names.keys[second]
    scale = learn(known, features, Prior.of(expected / max(len(first), 1), len(first), PRIOR_WEIGHT), fold)
    log_odds = scale.log_odds
    order = np.lexsort((second, first, -log_odds))
    return NamePairs(
        names,
        first[order],
        second[order],
        log_odds[order],
        Evidence(*(v[order] for v in vars(evidence).values())),
        scale,
        reach,
    )


@dataclass(frozen=True, eq=False)
class _Level:
    """Something that names have in common with their candidates.

    `count` and `total` (K,) are of each name, `value` (m,) of each pair.
    """

    count: Values
    total: Values
    value: Values

    @classmethod
    def of(cls, names: int, first: Index, second: Index, value: Values) -> _Level:
        both, twice = np.r_[first, second], np.r_[value, value]
        count = np.bincount(both, minlength=names).astype(float)
        return cls(count, np.bincount(both, twice, minlength=names).astype(float), value)

    def usual(self) -> Values:
        """Mean over the candidates of each name, NaN without any."""
        return np.divide(self.total, self.count, out=np.full(len(self.count), np.nan), where=self.count > 0)

    def above_others(self, first: Index, second: Index) -> Values:
        """How far a pair stands out from the other candidates of both its names.

        NaN where neither name has another candidate.
        """
        others = self.count[first] + self.count[second] - 2
        rest = self.total[first] + self.total[second] - 2 * self.value
        return self.value - np.divide(rest, others, out=np.full(len(first), np.nan), where=others > 0)


def _halves(photos: NamedPhotos, names: Names) -> tuple[Evidence, Index]:
    """Evidence between two halves of each name of two photos or more, and whose halves they are.

    Names are halved in two ways: at random (by key), and, with four photos or more, into the photos most and
    least like the photo of lowest key. The second halves are as different as two names that a person took for
    two animals.
    """
    able = np.flatnonzero(names.sizes >= 2)
    sets = names.sample[able]
    parts, own = [], []
    if len(able):
        alternate = np.broadcast_to(np.arange(sets.shape[1]) % 2 == 1, sets.shape)
        parts.append(evidence_between(photos, *halves(sets, alternate)))
        own.append(able)
        hard = np.flatnonzero(names.sizes[able] >= 4)
        if len(hard):
            likeness = cross(photos, sets[hard][:, :1], sets[hard])[0][:, 0]
            likeness[:, 0] = np.inf
            order = np.argsort(np.where(np.isnan(likeness), -np.inf, -likeness), axis=1, kind="stable")
            far = np.argsort(order, axis=1) >= (sets[hard] >= 0).sum(1, keepdims=True) / 2
            parts.append(evidence_between(photos, *halves(sets[hard], far)))
            own.append(able[hard])
    if not parts:
        return evidence_between(photos, names.sample[:0], names.sample[:0]), able
    together = Evidence(*(np.concatenate([vars(p)[f] for p in parts]) for f in vars(parts[0])))
    seen = together.pairs > 0
    return Evidence(*(v[seen] for v in vars(together).values())), np.concatenate(own)[seen]


def described(
    photos: NamedPhotos, judged: NamePairs, least: float = 0.0, most: int | None = None
) -> list[NamePair]:
    """The judged pairs of at least probability `least`, at most `most`, with their supporting pairs."""
    count = int((judged.probability >= least).sum())
    count = count if most is None else min(count, most)
    found = []
    for row in range(count):
        a, b = judged.names.sample[judged.first[row]], judged.names.sample[judged.second[row]]
        weights = cross(photos, a[None], b[None])[0][0]
        found.append(
            NamePair(
                int(judged.names.codes[judged.first[row]]),
                int(judged.names.codes[judged.second[row]]),
                float(judged.log_odds[row]),
                float(judged.probability[row]),
                float(judged.evidence.log_odds[row]),
                int(judged.evidence.pairs[row]),
                strongest(weights, a, b),
            )
        )
    return found


def strongest(weights: NDArray[np.floating], first: Index, second: Index) -> tuple[tuple[int, int], ...]:
    """The pairs of photos of highest log-odds (s, t), each photo at most twice, best first."""
    chosen: list[tuple[int, int]] = []
    used: dict[int, int] = {}
    flat = np.where(np.isnan(weights), -np.inf, weights).ravel()
    for place in np.argsort(-flat, kind="stable"):
        if len(chosen) == SUPPORTING or not np.isfinite(flat[place]):
            break
        pair = int(first[place // len(second)]), int(second[place % len(second)])
        if all(used.get(photo, 0) < 2 for photo in pair):
            chosen.append(pair)
            for photo in pair:
                used[photo] = used.get(photo, 0) + 1
    return tuple(chosen)
