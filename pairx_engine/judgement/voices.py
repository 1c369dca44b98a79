"""What the photos of each name say of a photo: one voice per photo and name that anything is known of."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pairx_engine.judgement.inputs import UNKNOWN, Flags, Floats, Ints, Pairs, Photos


@dataclass(frozen=True, eq=False)
class Voices:
    """V voices, sorted by photo and name: `photo`, `name`, `value`, and `size`, the name's other photos, each (V,).

    A value is the log of the mean odds of one animal over the photos of the name, those without a pair counting as nothing. Odds
    of one animal against two are, up to a constant, the ratio of the density of this photo among photos of the animal to that among
    all photos; their mean over a name is thus a kernel density, and the voices are those of a classifier with a learned kernel.
    """

    photo: Ints
    name: Ints
    value: Floats
    size: Floats

    def of(self, rows: Ints) -> Voices:
        """Those of some photos, renumbered by their place in `rows`, which is ascending."""
        place = np.searchsorted(rows, self.photo)
        there = (place < len(rows)) & (rows[np.minimum(place, len(rows) - 1)] == self.photo)
        return Voices(place[there], self.name[there], self.value[there], self.size[there])


def voices(photos: Photos, pairs: Pairs, log_odds: Floats, doubt: Floats) -> Voices:
    """The voices over all photos. Pictures of one picture under one name are no support of each other.

    `doubt` (N,): the probability so far that a photo's name is wrong; it speaks for its name with the rest.
    """
    counted = ~(pairs.same_picture & (photos.names[pairs.first] == photos.names[pairs.second]))
    hearer, speaker, value = _sides(pairs, log_odds, counted)
    value = value + np.log1p(-np.minimum(doubt[speaker], 0.999))
    named = photos.names[speaker] != UNKNOWN
    hearer, speaker, value = hearer[named], speaker[named], value[named]
    key = hearer * max(photos.n_names, 1) + photos.names[speaker]
    order = np.argsort(key, kind="stable")
    key, value = key[order], value[order]
    if not len(key):
        empty = np.zeros(0, dtype=np.int64)
        return Voices(empty, empty, np.zeros(0), np.zeros(0))
    starts = np.flatnonzero(np.r_[True, key[1:] != key[:-1]])
    total = np.logaddexp.reduceat(value, starts)
    photo, name = np.divmod(key[starts], max(photos.n_names, 1))
    members = np.bincount(photos.names[photos.known], minlength=photos.n_names)
    size = (members[name] - (photos.names[photo] == name)).astype(np.float64)
    return Voices(photo, name, total - np.log(np.maximum(size, 1)), np.maximum(size, 1))


def _sides(pairs: Pairs, log_odds: Floats, counted: Flags) -> tuple[Ints, Ints, Floats]:
    """Every pair as each of its photos hears it."""
    a, b, v = pairs.first[counted], pairs.second[counted], log_odds[counted]
    return np.r_[a, b], np.r_[b, a], np.r_[v, v]
