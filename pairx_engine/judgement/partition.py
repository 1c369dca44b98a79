"""One name, two animals: the weakest cut inside a name, and whether it parts two animals.

Small names are cut in every way (`exact_cuts`), larger ones along a tree (`cuts`). What a cut is worth is
learned from the catalogue. Cuts of names as they are, nearly all of one animal, are compared with cuts of two
names put together.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import expit

from pairx_engine.judgement.cuts import FEWEST_IN_A_SIDE, Cut, weakest_cut
from pairx_engine.judgement.exact_cuts import FEW, exact_cuts
from pairx_engine.judgement.names import NamePairs, strongest
from pairx_engine.judgement.scale import Prior, Scale, learn
from pairx_engine.judgement.sets import (
    Index,
    NamedPhotos,
    Names,
    Values,
    blocks,
    cross,
    names_of,
    packed,
    photo_keys,
)

MOST_PHOTOS = 32
"""Photos of a name among which the cut is sought; others join the side that they resemble more."""
EXPECTED_SHARE = 0.01
"""Share of names that are expected to hold two animals before any evidence.

The share is a stated assumption, and the evidence updates it.
"""
PRIOR_WEIGHT = 1.0
"""The weight of that expectation against the judged names.

It is larger than for pairs of names. Where the model is weak, cuts of one animal and of two overlap, and a
share that is free to grow would mistake the first for the second.
"""
STRANGERS = 3
"""Number of nearest names that each name is put together with.

These unions teach what a cut between two animals looks like.
"""
JOINED_BY = 8
"""Photos of a side with which the other photos of a large name are compared."""
MOST_UNIONS = 600
"""Pairs of names put together, at most; more of them teach nothing more."""
NAMES_AT_ONCE = 512
FEATURES = 4


@dataclass(frozen=True)
class Split:
    """A name that looks like two animals: photos of the larger and of the smaller side.

    `log_odds` are those of `probability`, that the name is two animals. `mean_log_odds` is over the `n_pairs`
    pairs across. `supporting` are the pairs (photo of a, photo of b) that least look like one animal, worst
    first.
    """

    name: int
    side_a: tuple[int, ...]
    side_b: tuple[int, ...]
    log_odds: float
    probability: float
    mean_log_odds: float
    n_pairs: int
    supporting: tuple[tuple[int, int], ...]


@dataclass(frozen=True, eq=False)
class Splits:
    """The weakest cut of every name that has one, by falling log-odds.

    `name` (m,) are positions among `names`.
    """

    names: Names
    name: Index
    log_odds: Values
    cuts: tuple[Cut, ...]
    scale: Scale

    def __len__(self) -> int:
        return len(self.name)

    @property
    def probability(self) -> Values:
        """(m,)."""
        return np.asarray(expit(self.log_odds), dtype=np.float64)


def judge_splits(photos: NamedPhotos, pairs: NamePairs) -> Splits:
    """The weakest cut of every name of four photos or more, with the log-odds that it parts two animals.

    `pairs` are the judged pairs of names. To learn from, the nearest names are put together, with half of the
    photos of each.
    """
    names = names_of(photos, photo_keys(photos.vectors), MOST_PHOTOS)
    able = np.flatnonzero(names.sizes >= 2 * FEWEST_IN_A_SIDE)
    found = cuts_of(photos, names.sample[able])
    kept = [i for i, cut in enumerate(found) if cut is not None]
    name, cuts = able[kept], tuple(cut for cut in found if cut is not None)
    judged = _table(cuts)
    chosen, unions = _unions(names, pairs)
    strange = cuts_of(photos, unions)
    # A cut of two names that are likely one animal teaches nothing about two.
    apart = pairs.log_odds[chosen] < 0
    two = np.array([i for i, cut in enumerate(strange) if cut is not None and apart[i]], dtype=np.int64)
    known = _table([cut for i in two if (cut := strange[i]) is not None])
    of_pair = names.keys[pairs.first[chosen]] ^ names.keys[pairs.second[chosen]]
    scale = learn(
        known, judged, Prior.of(EXPECTED_SHARE, len(judged), PRIOR_WEIGHT), (of_pair[two], names.keys[name])
    )
    log_odds = scale.log_odds
    order = np.lexsort((name, -log_odds))
    return Splits(names, name[order], log_odds[order], tuple(cuts[i] for i in order), scale)


def _table(cuts: Sequence[Cut]) -> Values:
    return np.array([cut.features for cut in cuts], dtype=np.float64).reshape(-1, FEATURES)


def cuts_of(photos: NamedPhotos, sets: Index) -> list[Cut | None]:
    """The weakest cut of each set (m, s) of photos."""
    found: list[Cut | None] = [None] * len(sets)
    sizes = (sets >= 0).sum(1)
    for size in np.unique(sizes[sizes >= 2 * FEWEST_IN_A_SIDE]):
        of_size = np.flatnonzero(sizes == size)
        for rows in blocks(len(of_size), NAMES_AT_ONCE):
            odds, cosines = cross(photos, *[sets[of_size[rows], :size]] * 2)
            cuts = exact_cuts(odds, cosines) if size <= FEW else map(weakest_cut, odds, cosines)
            for row, cut in zip(of_size[rows], cuts, strict=True):
                found[row] = cut
    return found


def _unions(names: Names, pairs: NamePairs) -> tuple[Index, Index]:
    """Judged pairs (u,) of each name with its nearest names, and the sets of photos (u, s).

    A set holds half of the photos of both names.
    """
    both = np.concatenate([pairs.first, pairs.second])
    order = np.lexsort((np.tile(np.arange(len(pairs)), 2), both))
    start = np.flatnonzero(np.r_[True, both[order][1:] != both[order][:-1]]) if len(both) else order
    place = np.arange(len(order)) - np.repeat(start, np.diff(np.r_[start, len(order)]))
    rank = np.empty(len(order), dtype=np.int64)
    rank[order] = place
    close = np.minimum(rank[: len(pairs)], rank[len(pairs) :]) < STRANGERS
    close &= (names.sizes[pairs.first] >= FEWEST_IN_A_SIDE) & (names.sizes[pairs.second] >= FEWEST_IN_A_SIDE)
    near = np.flatnonzero(close)
    mixed = names.keys[pairs.first[near]] ^ (names.keys[pairs.second[near]] * np.uint64(3))
    chosen = np.sort(near[np.argsort(mixed, kind="stable")[:MOST_UNIONS]])
    sets = []
    for name in (pairs.first[chosen], pairs.second[chosen]):
        some = names.sample[name]
        count = np.maximum(FEWEST_IN_A_SIDE, ((some >= 0).sum(1) + 1) // 2)
        sets.append(np.where(np.arange(some.shape[1]) < count[:, None], some, -1))
    union = np.concatenate(sets, axis=1)
    return chosen, packed(union)


def described_splits(
    photos: NamedPhotos, judged: Splits, least: float = 0.0, most: int | None = None
) -> list[Split]:
    """The cuts of at least probability `least`, at most `most`, with all photos on either side.

    Each comes with the pairs that support it.
    """
    count = int((judged.probability >= least).sum())
    count = count if most is None else min(count, most)
    wanted = judged.name[:count]
    members = _members(photos, judged.names.codes[wanted])
    found = []
    for row in range(count):
        sample, cut = judged.names.sample[judged.name[row]], judged.cuts[row]
        a, b = sample[list(cut.side_a)], sample[list(cut.side_b)]
        odds = cross(photos, a[None], b[None])[0][0]
        rest = np.setdiff1d(members[row], sample)
        if len(rest):
            to_b = _nearer(photos, rest, a) < _nearer(photos, rest, b)
            a, b = np.r_[a, rest[~to_b]], np.r_[b, rest[to_b]]
        found.append(
            Split(
                int(judged.names.codes[judged.name[row]]),
                tuple(sorted(a.tolist())),
                tuple(sorted(b.tolist())),
                float(judged.log_odds[row]),
                float(judged.probability[row]),
                cut.across,
                int((~np.isnan(odds)).sum()),
                strongest(-odds, a, b[: odds.shape[1]]),
            )
        )
    return found


def _members(photos: NamedPhotos, codes: Index) -> list[Index]:
    """All photos of each of some names, ascending."""
    order = np.argsort(photos.names, kind="stable")
    ordered = photos.names[order]
    low, high = np.searchsorted(ordered, codes), np.searchsorted(ordered, codes, side="right")
    return [order[i:j] for i, j in zip(low, high, strict=True)]


def _nearer(photos: NamedPhotos, rest: Index, side: Index) -> Values:
    """Mean log-odds (r,) of photos with the first photos of a side; 0 for what cannot be compared."""
    found = np.empty(len(rest))
    for rows in blocks(len(rest), 1024):
        odds = cross(
            photos,
            rest[rows][:, None],
            np.broadcast_to(side[:JOINED_BY], (len(rest[rows]), len(side[:JOINED_BY]))),
        )[0]
        known = ~np.isnan(odds)
        found[rows] = np.where(known, odds, 0).sum((1, 2)) / known.sum((1, 2)).clip(1)
    return found
