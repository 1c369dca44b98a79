"""One name, two animals: the weakest cut inside a name, and how much it looks like a cut between two animals.

The cut is sought in the tree of average linkage over the log-odds of the name's pairs. Photos that hang on alone are passed
by on the way down the tree: a single photo cut off is a wrong name of a photo, no second animal. Of the cuts on the way the
one is taken whose sides agree within themselves most above what they have in common; then photos change sides as long as
that makes the cut weaker. What a cut is worth is learned from the catalogue: cuts of names as they are, nearly all of one
animal, against cuts of two names put together.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from pairx_engine.judgement.names import NamePairs, strongest
from pairx_engine.judgement.scale import Prior, Scale, learn
from pairx_engine.judgement.sets import (
    Index,
    Names,
    Photos,
    Values,
    blocks,
    cross,
    names_of,
    packed,
    photo_keys,
    trimmed,
)

MOST_PHOTOS = 32
"""Photos of a name among which the cut is sought; the others join the side that they are more like."""
FEWEST_IN_A_SIDE = 2
EXPECTED_SHARE = 0.01
"""Names in a hundred that are expected to hold two animals before anything was seen; stated, and updated by what is found."""
PRIOR_WEIGHT = 1.0
"""What that expectation weighs against the judged names. More than with pairs: where the model is weak, cuts of one animal and
of two overlap, and a share that is free to grow takes the one for the other."""
STRANGERS = 3
"""Nearest names with which a name is put together to learn what a cut between two animals looks like."""
JOINED_BY = 8
"""Photos of a side with which the others of a large name are compared."""
MOST_UNIONS = 600
"""Pairs of names put together; more teach no more."""
NAMES_AT_ONCE = 512
FEATURES = 4
MOVES = 20
"""Photos that may change sides."""


@dataclass(frozen=True)
class Cut:
    """Two sides of a set of photos, as positions, and what is said across and within: log-odds, cosines."""

    side_a: tuple[int, ...]
    side_b: tuple[int, ...]
    features: tuple[float, ...]
    across: float


@dataclass(frozen=True)
class Split:
    """A name that looks like two animals: photos of the larger and of the smaller side.

    `log_odds` of `probability` that it is two; `mean_log_odds` of the pairs across, which are `n_pairs`; `supporting`: the
    pairs (photo of a, photo of b) that least look like one animal, worst first.
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
    """The weakest cut of every name that has one, by falling log-odds: `name` (m,) positions among `names`."""

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


def linkage(weights: NDArray[np.floating]) -> list[tuple[list[int], list[int]]]:
    """The merges of average linkage over symmetric weights (n, n), the diagonal apart: the last merge first."""
    n = len(weights)
    mean = weights.astype(np.float64).copy()
    np.fill_diagonal(mean, -np.inf)
    groups: list[list[int]] = [[i] for i in range(n)]
    merges = []
    for _ in range(n - 1):
        i, j = divmod(int(mean.argmax()), n)
        a, b = len(groups[i]), len(groups[j])
        merges.append((groups[i], groups[j]))
        mean[i] = mean[:, i] = (a * mean[i] + b * mean[j]) / (a + b)
        mean[j] = mean[:, j] = -np.inf
        mean[i, i] = -np.inf
        groups[i] = groups[i] + groups[j]
    return merges[::-1]


def weakest_cut(odds: NDArray[np.floating], cosines: NDArray[np.floating]) -> Cut | None:
    """The weakest cut of n photos by symmetric log-odds and cosines (n, n), NaN where two may not be compared.

    Its strength is the lesser of the mean log-odds within the sides less the mean across. None without two sides of two
    photos that have a comparable pair across.
    """
    known = ~np.isnan(odds)
    if not known.any():
        return None
    # Pairs that may not be compared hold together as the ordinary pair does: nothing speaks for a cut there.
    filled = np.where(known, odds, np.nanmean(odds))
    best: tuple[float, NDArray[np.bool_], list[int]] | None = None
    part = list(range(len(odds)))
    for one, two in linkage(filled):
        if sorted(one + two) != sorted(part):
            continue
        if min(len(one), len(two)) >= FEWEST_IN_A_SIDE:
            side = np.isin(part, two)
            inner = np.ix_(part, part)
            side, strength = moved(odds[inner], side)
            if np.isfinite(strength) and (best is None or strength > best[0]):
                best = strength, side, part
        part = one if len(one) >= len(two) else two
        if len(part) < 2 * FEWEST_IN_A_SIDE:
            break
    if best is None:
        return None
    _, side, part = best
    photos = np.array(part)
    a, b = photos[~side], photos[side]
    # Photos passed by on the way join the side that they are more like.
    for photo in sorted(set(range(len(odds))) - set(part)):
        to_a, to_b = _mean(filled[photo, photos[~side]]), _mean(filled[photo, photos[side]])
        a, b = (np.append(a, photo), b) if to_a >= to_b else (a, np.append(b, photo))
    core = photos[~side], photos[side]
    features = _features(odds, cosines, *core)
    larger, smaller = (a, b) if (len(a), _mean(filled[a])) >= (len(b), _mean(filled[b])) else (b, a)
    return Cut(
        tuple(sorted(map(int, larger))),
        tuple(sorted(map(int, smaller))),
        features,
        _mean(odds[np.ix_(*core)]),
    )


def strength(odds: NDArray[np.floating], side: NDArray[np.bool_]) -> float:
    """How far two sides agree within themselves above what they have in common; -inf where that cannot be said."""
    return float(_Flips.of(odds, side).strength(np.zeros(len(side), dtype=bool))[0])


def moved(odds: NDArray[np.floating], side: NDArray[np.bool_]) -> tuple[NDArray[np.bool_], float]:
    """Sides after photos changed over one at a time, the best first, as long as the cut gets stronger."""
    now = strength(odds, side)
    for _ in range(MOVES):
        values = _Flips.of(odds, side).strength(np.ones(len(side), dtype=bool))
        best = int(np.argmax(values))
        if not values[best] > now + 1e-9:
            break
        side = side.copy()
        side[best] = ~side[best]
        now = float(values[best])
    return side, now


@dataclass(frozen=True, eq=False)
class _Flips:
    """Sums and counts of pairs within either side and across, and those of each photo with either side (n,)."""

    side: NDArray[np.bool_]
    total: tuple[Values, Values]
    count: tuple[Values, Values]

    @classmethod
    def of(cls, odds: NDArray[np.floating], side: NDArray[np.bool_]) -> _Flips:
        known = ~np.isnan(odds)
        filled, counted = np.where(known, odds, 0.0).astype(np.float64), known.astype(np.float64)
        sides = np.stack([~side, side], axis=1).astype(np.float64)
        total, count = filled @ sides, counted @ sides
        return cls(side, (total[:, 0], total[:, 1]), (count[:, 0], count[:, 1]))

    def strength(self, flipped: NDArray[np.bool_]) -> Values:
        """The strength (n,) after each photo alone has changed over, where `flipped`, or else as it is."""
        number = self.side.sum() + np.where(flipped, np.where(self.side, -1, 1), 0)
        found = []
        for kind in (self.total, self.count):
            within = kind[0][~self.side].sum() / 2, kind[1][self.side].sum() / 2
            across = kind[1][~self.side].sum()
            leave = np.where(flipped, np.where(self.side, -1.0, 1.0), 0.0)
            # A photo that changes over takes its pairs along: those with its own side go across.
            inner = within[0] - leave * kind[0], within[1] + leave * kind[1]
            found.append((*inner, across + leave * (kind[0] - kind[1])))
        with np.errstate(invalid="ignore", divide="ignore"):
            a, b, across = (np.where(c > 0.5, t / c, np.nan) for t, c in zip(*found, strict=True))
        value = np.fmin(a, b) - across
        able = (np.minimum(number, len(self.side) - number) >= FEWEST_IN_A_SIDE) & ~np.isnan(value)
        return np.where(able, value, -np.inf)


def _mean(values: NDArray[np.floating]) -> float:
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else np.nan


def _share(values: NDArray[np.floating]) -> float:
    known = values[~np.isnan(values)].astype(np.float64)
    if not len(known):
        return np.nan
    mean = float(expit(known).mean().clip(1e-9, 1 - 1e-9))
    return float(np.log(mean / (1 - mean)))


def _features(
    odds: NDArray[np.floating], cosines: NDArray[np.floating], a: Index, b: Index
) -> tuple[float, ...]:
    """What speaks for two animals: little across, much within the weaker side, of probabilities and of cosines."""
    found: list[float] = []
    for values, mean in ((odds, _share), (cosines, _mean)):
        across = mean(values[np.ix_(a, b)])
        within = [w for w in (mean(values[np.ix_(s, s)]) for s in (a, b)) if np.isfinite(w)]
        found += [-across, (min(within) if within else np.nan) - across]
    return tuple(found)


def judge_splits(photos: Photos, pairs: NamePairs) -> Splits:
    """The weakest cut of every name of four photos or more, with the log-odds that it parts two animals.

    `pairs` are the judged pairs of names: the nearest are put together, half of the photos of each, to learn from.
    """
    names = names_of(photos, photo_keys(photos.vectors), MOST_PHOTOS)
    able = np.flatnonzero(names.sizes >= 2 * FEWEST_IN_A_SIDE)
    found = cuts_of(photos, names.sample[able])
    kept = [i for i, cut in enumerate(found) if cut is not None]
    name, cuts = able[kept], tuple(cut for cut in found if cut is not None)
    judged = _table(cuts)
    chosen, unions = _unions(names, pairs)
    strange = cuts_of(photos, unions)
    # A cut of what is likely one animal after all tells nothing of two.
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


def cuts_of(photos: Photos, sets: Index) -> list[Cut | None]:
    """The weakest cut of each set (m, s) of photos."""
    found: list[Cut | None] = [None] * len(sets)
    sizes = (sets >= 0).sum(1)
    order = np.argsort(sizes, kind="stable")
    for rows in blocks(len(order), NAMES_AT_ONCE):
        some = trimmed(sets[order[rows]])
        odds, cosines = cross(photos, some, some)
        for i, row in enumerate(order[rows]):
            n = sizes[row]
            if n >= 2 * FEWEST_IN_A_SIDE:
                found[row] = weakest_cut(odds[i, :n, :n], cosines[i, :n, :n])
    return found


def _unions(names: Names, pairs: NamePairs) -> tuple[Index, Index]:
    """Judged pairs of names (u,), of each name with its nearest, and half of the photos of both together (u, s)."""
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
    photos: Photos, judged: Splits, least: float = 0.0, most: int | None = None
) -> list[Split]:
    """The cuts of at least probability `least`, at most `most`, with all photos on either side and the pairs that say so."""
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


def _members(photos: Photos, codes: Index) -> list[Index]:
    """All photos of each of some names, ascending."""
    order = np.argsort(photos.names, kind="stable")
    ordered = photos.names[order]
    low, high = np.searchsorted(ordered, codes), np.searchsorted(ordered, codes, side="right")
    return [order[i:j] for i, j in zip(low, high, strict=True)]


def _nearer(photos: Photos, rest: Index, side: Index) -> Values:
    """Mean log-odds (r,) of photos with the first photos of a side; what cannot be compared is no nearer to either."""
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
