"""How many of the wrong names the judgement finds in this catalogue.

The judgement makes some names wrong itself, and judges them like the others. Where photos of one animal look
no more alike than photos of two, the likelihood takes wrong names for right ones with confidence. Names that
are known to be wrong reveal that, and by how much the number of wrong names can be too low.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from pairx_engine.judgement.any_pair import AnyPair
from pairx_engine.judgement.inputs import UNKNOWN, Floats, Ints, Pairs, Photos
from pairx_engine.judgement.photo_model import Errors, Noise, doubts_of, learned_from
from pairx_engine.judgement.voices import Doubts, voices

SHARE = 0.1
"""Share of the photos that are given a wrong name, at most one photo of each name."""
MOST, FEWEST = 500, 100
"""Names made wrong at a time, at most, and in all, at least; small catalogues take several rounds."""
_REPEATS = 5
_NEAREST = 20
"""Photos of its new name that a photo is compared with."""
_PASSES = 2
_TRUSTED = 0.5
_SURE = 1.645
"""Distance below a mean, in standard errors, that a value stays above nineteen times in twenty."""
_SPREAD = 0.1
"""The least standard deviation of what one name made wrong adds."""


@dataclass(frozen=True)
class Sensitivity:
    """By how much the expected number of wrong names grows for each additional one, in [0, 1].

    `least` is a value that the true share hardly falls below. Both are NaN where no name can be made wrong.
    """

    share: float
    least: float


def sensitivity_of(odds: AnyPair, background: Floats, doubt: Floats, noise: Noise) -> Sensitivity:
    """Make names wrong and judge again, with the learned model of pairs, from the parameters `noise`.

    `background` and `doubt` (N,) are the voice of photos without a pair, and the probability so far that a
    name is wrong. The pairs that the new names require are not checked for showing one side of an animal.
    """
    photos, pairs = odds.photos, odds.pairs
    if photos.n_names < 2:  # no name is another animal's
        return Sensitivity(np.nan, np.nan)
    rows = learned_from(photos)
    told = odds.judged.log_odds
    rng = np.random.default_rng(0)
    before = _expected(photos, pairs, told, background, noise, rows)
    grown, planted = 0.0, 0
    for _ in range(_REPEATS):
        moved, named = _made_wrong(photos, rows, doubt, rng)
        if not len(moved):
            break
        first, second = _new_pairs(named, pairs, moved, odds.vectors)
        more, value = _with(pairs, first, second), np.r_[told, odds(first, second)]
        grown += _expected(named, more, value, background, noise, rows) - before
        planted += len(moved)
        if planted >= FEWEST:
            break
    if not planted:
        return Sensitivity(np.nan, np.nan)
    share = min(max(grown / planted, 0.0), 1.0)
    chance = max(np.sqrt(share * (1 - share)), _SPREAD) / np.sqrt(planted)
    return Sensitivity(share, max(share - _SURE * chance, 0.0))


def widened(errors: Errors, told: Sensitivity, names: int) -> Errors:
    """The interval, widened by what the judgement misses; at most all `names`.

    The upper end becomes the largest number of wrong names that would be counted as no more than the old
    upper end.
    """
    if np.isnan(told.least):
        return errors
    high = errors.high / told.least if told.least > 0 else np.inf
    return replace(errors, high=float(max(min(high, names), errors.high)), sensitivity=told.share)


def _made_wrong(photos: Photos, rows: Ints, doubt: Floats, rng: np.random.Generator) -> tuple[Ints, Photos]:
    """Photos given the name of another animal of their species, and all photos with these names."""
    names, species = photos.names, photos.species
    count = np.bincount(names[photos.known], minlength=photos.n_names)
    able = rows[(count[names[rows]] > 1) & (doubt[rows] < _TRUSTED) & (photos.verdict[rows] == UNKNOWN)]
    able = rng.permutation(able)
    able = able[np.sort(np.unique(names[able], return_index=True)[1])]
    given = names.copy()
    of_species = {s: np.unique(names[photos.known & (species == s)]) for s in np.unique(species[able])}
    for photo in able[: min(MOST, int(np.ceil(SHARE * len(rows))))]:
        others = of_species[species[photo]]
        others = others[others != names[photo]]
        if len(others):
            given[photo] = rng.choice(others)
    fold_of = np.full(photos.n_names, UNKNOWN)
    fold_of[names[photos.known]] = photos.folds[photos.known]
    folds = np.where(photos.known, fold_of[given], photos.folds)
    return np.flatnonzero(given != names), replace(photos, names=given, folds=folds)


def _new_pairs(photos: Photos, pairs: Pairs, moved: Ints, vectors: NDArray[np.floating]) -> tuple[Ints, Ints]:
    """Pairs (n,), (n,) of these photos with the nearest of their new name, if not there yet."""
    n = len(photos)
    found = []
    for photo in moved:
        own = np.flatnonzero(photos.names == photos.names[photo])
        own = own[own != photo]
        nearest = own[np.argsort(-(vectors[own] @ vectors[photo]), kind="stable")[:_NEAREST]]
        found.append(np.minimum(nearest, photo) * n + np.maximum(nearest, photo))
    keys = np.setdiff1d(np.concatenate(found), pairs.first * n + pairs.second)
    return keys // n, keys % n


def _with(pairs: Pairs, first: Ints, second: Ints) -> Pairs:
    """The pairs, and further ones of which only the photos are known.

    Signals are left out, since all pairs have been judged.
    """
    none = np.zeros(len(first), dtype=np.int64)
    return Pairs(
        np.r_[pairs.first, first],
        np.r_[pairs.second, second],
        np.r_[pairs.cosine, none],
        np.r_[pairs.rank_first, none],
        np.r_[pairs.rank_second, none],
        np.r_[pairs.same_picture, none > 0],
        {},
        np.r_[pairs.verdict, none + UNKNOWN],
    )


def _expected(
    photos: Photos, pairs: Pairs, log_odds: Floats, background: Floats, noise: Noise, rows: Ints
) -> float:
    """The expected number of wrong names among some photos, judged anew."""
    doubts = Doubts.none(len(photos))
    for _ in range(_PASSES):
        doubts = doubts_of(photos, voices(photos, pairs, log_odds, doubts, background), noise)
    return float(doubts.wrong[rows].sum())
