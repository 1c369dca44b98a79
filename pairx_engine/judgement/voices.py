"""What the photos of each name say of a photo: one voice per photo and name that anything is known of."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pairx_engine.judgement.inputs import UNKNOWN, Flags, Floats, Ints, Pairs, Photos


@dataclass(frozen=True, eq=False)
class Voices:
    """V voices, sorted by photo and name: `photo`, `name`, `value`, and `size`, the name's other photos, each (V,).

    A value is the log of the mean odds of one animal over the photos of the name; those that the photo has no pair with count as
    much as its `background` (N,). Names that it has no pair with at all have no voice here: each speaks with the background.
    `sizes` (K,) are the photos of every name. Odds of one animal against two are, up to a constant, the ratio of the density of this photo among photos of the animal to that among
    all photos; their mean over a name is thus a kernel density, and the voices are those of a classifier with a learned kernel.
    """

    photo: Ints
    name: Ints
    value: Floats
    size: Floats
    background: Floats
    sizes: Floats

    def of(self, rows: Ints) -> Voices:
        """Those of some photos, renumbered by their place in `rows`, which is ascending."""
        place = np.searchsorted(rows, self.photo)
        there = (place < len(rows)) & (rows[np.minimum(place, len(rows) - 1)] == self.photo)
        return Voices(
            place[there],
            self.name[there],
            self.value[there],
            self.size[there],
            self.background[rows],
            self.sizes,
        )


def voices(photos: Photos, pairs: Pairs, log_odds: Floats, doubt: Floats, background: Floats) -> Voices:
    """The voices over all photos. Pictures of one picture under one name are no support of each other.

    `doubt` (N,): the probability so far that a photo's name is wrong; it speaks for its name with the rest. `background` (N,): log
    of the mean odds with photos that there is no pair with. The own name always has a voice unless no photo is left to speak.
    """
    k = max(photos.n_names, 1)
    copies = pairs.same_picture & (photos.names[pairs.first] == photos.names[pairs.second])
    hearer, speaker, value = _sides(pairs, log_odds, ~copies)
    value = value + np.log1p(-np.minimum(doubt[speaker], 1 - 1e-6))
    named = photos.names[speaker] != UNKNOWN
    key = (hearer * k + photos.names[speaker])[named]
    order = np.argsort(key, kind="stable")
    key = key[order]
    starts = np.flatnonzero(np.r_[True, key[1:] != key[:-1]]) if len(key) else order
    listed, count = key[starts], np.diff(np.r_[starts, len(key)])
    total = np.logaddexp.reduceat(value[named][order], starts) if len(starts) else np.zeros(0)
    members = np.bincount(photos.names[photos.known], minlength=k).astype(np.float64)
    own = np.flatnonzero(photos.known) * k + photos.names[photos.known]
    place = np.searchsorted(listed, own)
    alone = own[np.append(listed, UNKNOWN)[place] != own]
    every = np.r_[listed, alone]
    total = np.r_[total, np.full(len(alone), -np.inf)]
    count = np.r_[count, np.zeros(len(alone), dtype=np.int64)]
    photo, name = np.divmod(every, k)
    size = (
        members[name]
        - (photos.names[photo] == name)
        - _copied(photos, pairs, copies)[photo] * (photos.names[photo] == name)
    )
    with np.errstate(divide="ignore"):
        rest = np.log(np.maximum(size - count, 0)) + background[photo]
        mean = np.logaddexp(total, rest) - np.log(np.maximum(size, 1))
    kept = np.flatnonzero(size > 0)
    kept = kept[np.argsort(every[kept], kind="stable")]
    return Voices(photo[kept], name[kept], mean[kept], size[kept], background, members[: photos.n_names])


def _copied(photos: Photos, pairs: Pairs, copies: Flags) -> Ints:
    """How many pictures of each photo there are under its own name besides it (N,)."""
    n = len(photos)
    return np.bincount(pairs.first[copies], minlength=n) + np.bincount(pairs.second[copies], minlength=n)


def _sides(pairs: Pairs, log_odds: Floats, counted: Flags) -> tuple[Ints, Ints, Floats]:
    """Every pair as each of its photos hears it."""
    a, b, v = pairs.first[counted], pairs.second[counted], log_odds[counted]
    return np.r_[a, b], np.r_[b, a], np.r_[v, v]
