"""What the photos of each name say of a photo: one voice per photo and name with any evidence."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import expit

from pairx_engine.judgement.inputs import UNKNOWN, Flags, Floats, Ints, Pairs, Photos

_SUREST = 1 - 1e-6
"""The largest doubt that counts."""


@dataclass(frozen=True, eq=False)
class Voices:
    """V voices, sorted by photo and name: `photo`, `name`, `value` and `size`, each (V,).

    `size` is the number of the name's other photos. A value is the log of the mean odds of one animal over
    the photos of the name. Photos that the photo has no pair with count as its `background` (N,). Names that
    it has no pair with at all have no voice here: each of them speaks with the background. `sizes` (K,) are
    the numbers of photos of all names.

    Odds of one animal against two are, up to a constant, a ratio of densities: that of this photo among
    photos of the animal to that among all photos. Their mean over a name is thus a kernel density, and the
    voices are those of a classifier with a learned kernel.
    """

    photo: Ints
    name: Ints
    value: Floats
    size: Floats
    background: Floats
    sizes: Floats

    def of(self, rows: Ints) -> Voices:
        """The voices of some photos, renumbered by their place in `rows`, which is ascending."""
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


@dataclass(frozen=True, eq=False)
class Doubts:
    """What is thought so far of N photos' names.

    `log_odds` that each name is wrong, -inf where nothing speaks against it or there is no name; the name
    `proposed` instead, -1 for none; and its `share` of what can be true instead.
    """

    log_odds: Floats
    proposed: Ints
    share: Floats

    @classmethod
    def none(cls, n: int) -> Doubts:
        """Every name is believed."""
        return cls(np.full(n, -np.inf), np.full(n, UNKNOWN, dtype=np.int64), np.zeros(n))

    @property
    def wrong(self) -> Floats:
        """The probability that each name is wrong (N,)."""
        return np.asarray(expit(self.log_odds), dtype=np.float64)


def voices(photos: Photos, pairs: Pairs, log_odds: Floats, doubts: Doubts, background: Floats) -> Voices:
    """The voices over all photos; copies of one picture under one name do not support each other.

    A photo speaks for its name as far as that name is right. Two photos may each be thought to have the
    other's name. Then the comparison of the two made both suspect, although one of the names is right. So
    only the more suspect photo is doubted. It also speaks, to the other, for the name proposed for it. The
    other photo speaks as if it were not doubted. `background` (N,) is the log of the mean odds with photos
    that there is no pair with. The own name always has a voice unless no photo is left to speak.
    """
    k = max(photos.n_names, 1)
    copies = pairs.same_picture & (photos.names[pairs.first] == photos.names[pairs.second])
    key, value, counted = _said(photos, _sides(pairs, log_odds, ~copies), doubts, k)
    order = np.argsort(key, kind="stable")
    key = key[order]
    starts = np.flatnonzero(np.r_[True, key[1:] != key[:-1]]) if len(key) else order
    listed = key[starts]
    count = np.add.reduceat(counted[order].astype(np.int64), starts) if len(starts) else order
    total = np.logaddexp.reduceat(value[order], starts) if len(starts) else np.zeros(0)
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


def _said(
    photos: Photos, sides: tuple[Ints, Ints, Floats], doubts: Doubts, k: int
) -> tuple[Ints, Floats, Flags]:
    """Log-odds (n,) that count for hearer x k + name.

    With each stands whether the speaker is one of the name's photos.
    """
    hearer, speaker, value = sides
    named = photos.names[speaker] != UNKNOWN
    mutual = named & photos.known[hearer] & (doubts.proposed[speaker] == photos.names[hearer])
    mutual &= doubts.proposed[hearer] == photos.names[speaker]
    more = doubts.log_odds[speaker] > doubts.log_odds[hearer]
    wrong = doubts.wrong
    given = value + np.where(~mutual | more, np.log1p(-np.minimum(wrong, _SUREST))[speaker], 0.0)
    instead = wrong * doubts.share
    moved = mutual & more & (instead[speaker] > 1 - _SUREST)
    key = np.r_[(hearer * k + photos.names[speaker])[named], (hearer * k + doubts.proposed[speaker])[moved]]
    said = np.r_[given[named], value[moved] + np.log(instead[speaker[moved]])]
    return key, said, np.arange(len(key)) < named.sum()


def _copied(photos: Photos, pairs: Pairs, copies: Flags) -> Ints:
    """How many copies of each photo there are under its own name besides it (N,)."""
    n = len(photos)
    return np.bincount(pairs.first[copies], minlength=n) + np.bincount(pairs.second[copies], minlength=n)


def _sides(pairs: Pairs, log_odds: Floats, counted: Flags) -> tuple[Ints, Ints, Floats]:
    """Every pair as each of its photos hears it."""
    a, b, v = pairs.first[counted], pairs.second[counted], log_odds[counted]
    return np.r_[a, b], np.r_[b, a], np.r_[v, v]
