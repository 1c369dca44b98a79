"""The probability that a photo's name is wrong.

It depends on what the voices say of the photo's true name, and on how often names are wrong in this
catalogue. The true name of a photo is one of those that speak of it or a new one,

    P(true = k) = (exp(t v_k) + exp(t f)) n_k^s / Z    with v_k the voice and n_k the photos of name k,
                  exp(t u) / Z                         for a new one,

and the given name is the true one with probability 1 - e, and any other name otherwise.

The floor f is for photos that look like no other photo of their own animal. Below it, differences between
voices do not count. So a photo is not called wrong for being difficult, only where another name speaks up.
The temperature t, the weight s of a name's size, the novelty u, the floor f and the share e of wrong names
are those under which the given names are most likely. No verified labels are needed, and wrong names are part
of the model, so they do not bias it (the classical model of random label noise).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import expit

from pairx_engine.judgement.inputs import UNKNOWN, Flags, Floats, Ints, Photos
from pairx_engine.judgement.voices import Doubts, Voices

_CENTRE = np.array([0.0, 0.5, -3.5, -3.0, -5.0])
_SPREAD = np.array([0.5, 0.5, 1.0, 2.0, 2.0])
"""The prior of log t, s, log-odds of e, u and f: mean and standard deviation."""
_STARTS = _CENTRE + np.array([[0, 0, 0, 0, 0], [0, -0.4, 1, -4, 0], [-1, 0.3, 0, 3, 0], [0, 0, 0, 0, 4]])
"""Starting points of the search for the most likely parameters; the highest peak found counts.

The likelihood can have several peaks where the pictures say little.
"""
MOST_LEARNED_FROM = 4000
"""Most named photos that the parameters are learned from; of more photos, every n-th is taken."""
_DRAWS, _DRAWN_OVER = 200, 2000
_BESIDE = 0.1
"""Spread of what the model leaves out, as a share of the number of errors.

It is a standard deviation, stated and not learned. Left out are photos that are wrong together, and names
that few photos speak for.
"""
_FAR = 100.0
"""The largest distance from the floor that counts, in log-odds."""
_TOLD = 20.0
"""Log-odds of what a person said."""


@dataclass(frozen=True)
class Noise:
    """The parameters of a catalogue: `log_t`, `size`, `logit_e`, `novelty`, `floor`."""

    log_t: float
    size: float
    logit_e: float
    novelty: float
    floor: float

    @property
    def share_wrong(self) -> float:
        """The share e of names that are wrong."""
        return float(expit(self.logit_e))


@dataclass(frozen=True, eq=False)
class PhotoJudgement:
    """Of N photos: how likely the name is wrong, and what speaks for which other name.

    `log_odds` and `probability` are those of a wrong name, NaN without a name. `proposed` is the likeliest
    other name, -1 where none speaks, and `share` its share of what can be true instead, including a new
    animal. `own` and `rival` are the voices of the own and the proposed name, NaN where there is none.
    `undefended` marks photos for whose own name no photo can speak.
    """

    log_odds: Floats
    probability: Floats
    proposed: Ints
    share: Floats
    own: Floats
    rival: Floats
    undefended: Flags
    noise: Noise


@dataclass(frozen=True)
class Errors:
    """How many names are wrong: the expected number, and an interval of probability 0.9.

    `sensitivity` is by how much the expected number grows for each additional wrong name; NaN where it was
    not measured.
    """

    expected: float
    low: float
    high: float
    sensitivity: float = np.nan


@dataclass(frozen=True, eq=False)
class TrueNames:
    """What can be true of N photos, as log-probabilities.

    `named` (V,) is that of the name of each voice, `unheard` (N,) that of any name without a voice, `new`
    (N,) that of a new animal. `unheard_size` (N,) is the mean log of the size of names without a voice, by
    their weights. `spoken` (V,) and `quiet` (N,) are the shares of a voice, and of a name without one, that
    do not come from the floor.
    """

    named: Floats
    unheard: Floats
    new: Floats
    unheard_size: Floats
    spoken: Floats
    quiet: Floats


def true_names(heard: Voices, noise: Noise) -> TrueNames:
    """The model's probabilities of every photo's true name."""
    n = len(heard.background)
    t = np.exp(noise.log_t)
    lifted, spoken = _lifted(heard.value, noise)
    z = lifted + noise.size * np.log(heard.size)
    weight, size = _unheard(heard, noise.size)
    lifted, quiet = _lifted(heard.background, noise)
    with np.errstate(divide="ignore"):
        unheard = lifted + np.log(weight)
    new = np.full(n, t * noise.novelty)
    total = _log_sum(heard.photo, z, np.logaddexp(new, unheard))
    return TrueNames(z - total[heard.photo], unheard - total, new - total, size, spoken, quiet)


def _lifted(voice: Floats, noise: Noise) -> tuple[Floats, Floats]:
    """log(exp(t v) + exp(t f)) of voices, and the share of the first term in it."""
    t = np.exp(noise.log_t)
    if np.isneginf(noise.floor):
        return t * voice, np.ones(len(voice))
    above = np.exp(np.clip(t * (voice - noise.floor), -_FAR, _FAR))
    return t * noise.floor + np.log1p(above), above / (1 + above)


def _unheard(heard: Voices, power: float) -> tuple[Floats, Floats]:
    """The names without a voice for each photo: sum of size^power (N,), weighted mean log size (N,).

    The powers are the weights of the mean.
    """
    n = len(heard.background)
    weight: Floats = np.power(heard.sizes, power)
    log_size = np.log(np.maximum(heard.sizes, 1))
    total: Floats = np.full(n, weight.sum()) - np.bincount(heard.photo, weight[heard.name], n)
    moment = np.full(n, (weight * log_size).sum()) - np.bincount(
        heard.photo, (weight * log_size)[heard.name], n
    )
    total = np.where(total > 1e-9 * max(weight.sum(), 1e-300), total, 0.0)
    mean: Floats = np.divide(moment, total, out=np.zeros(n), where=total > 0)
    return total, mean


def _log_sum(photo: Ints, value: Floats, base: Floats) -> Floats:
    """log(exp(base) + sum of exp(value) over the photo's own) of each photo (N,)."""
    top = base.copy()
    np.maximum.at(top, photo, value)
    total = np.bincount(photo, np.exp(value - top[photo]), len(base)) + np.exp(base - top)
    out: Floats = top + np.log(total)
    return out


def learned_from(photos: Photos) -> Ints:
    """The named photos that the parameters are learned from, evenly spread where there are too many."""
    rows = np.flatnonzero(photos.known)
    return rows[:: -(-len(rows) // MOST_LEARNED_FROM) or 1]


def doubts_of(photos: Photos, heard: Voices, start: Noise | None = None) -> Doubts:
    """What to think of every name before the next pass.

    As in `judge_photos`, but the parameters are sought from one start only.
    """
    starts = _STARTS[:1] if start is None else np.array([[*vars(start).values()]])
    noise = _likeliest(_Likelihood(photos, heard), starts)
    log_odds = _log_odds_wrong(photos, heard, _own_voice(photos, heard), noise)
    proposed, share, _ = _proposals(photos, heard, noise)
    return Doubts(np.where(np.isnan(log_odds), -np.inf, log_odds), proposed, share)


def judge_photos(photos: Photos, heard: Voices) -> tuple[PhotoJudgement, Errors]:
    """Judge the names of all photos; needs the voices of all of them."""
    n = len(photos)
    own_at = _own_voice(photos, heard)
    undefended = photos.known & (own_at < 0)
    noise, spread = _fitted(photos, heard)
    log_odds = _log_odds_wrong(photos, heard, own_at, noise)
    proposed, share, rival = _proposals(photos, heard, noise)
    own = np.where(own_at >= 0, heard.value[own_at] if len(heard.value) else np.nan, np.nan)
    judged = PhotoJudgement(log_odds, expit(log_odds), proposed, share, own, rival, undefended, noise)
    return judged, _errors(photos, heard, own_at, noise, spread) if n else Errors(0, 0, 0)


def _log_odds_wrong(photos: Photos, heard: Voices, own_at: Ints, noise: Noise) -> Floats:
    """Log-odds of a wrong name (N,).

    An undefended photo has those of any name; a photo without a name has NaN.
    """
    log_odds = _log_odds(_log_right(photos, heard, own_at, noise), noise, photos.n_names)
    log_odds = np.where(own_at < 0, noise.logit_e, log_odds)
    # A person's verdict overrules the model.
    log_odds = np.select([photos.verdict == 1, photos.verdict == 0], [-_TOLD, _TOLD], log_odds)
    return np.where(photos.known, log_odds, np.nan)


def _own_voice(photos: Photos, heard: Voices) -> Ints:
    """Which voice is that of each photo's own name (N,), -1 where none is."""
    found = np.full(len(photos), -1, dtype=np.int64)
    own = np.flatnonzero(heard.name == photos.names[heard.photo])
    found[heard.photo[own]] = own
    return found


def _log_right(photos: Photos, heard: Voices, own_at: Ints, noise: Noise) -> Floats:
    """Log of P(true name = given name) by the voices alone (N,).

    For a name without a voice it is that of a new animal.
    """
    true = true_names(heard, noise)
    return _own_or(own_at, true.named, true.new)


def _log_odds(right: Floats, noise: Noise, n_names: int) -> Floats:
    """Log-odds of a wrong name: e / (K - 1) (1 - p) against (1 - e) p."""
    other = np.log1p(-np.exp(np.minimum(right, -1e-12)))
    return noise.logit_e - np.log(max(n_names - 1, 1)) + other - right


class _Likelihood:
    """Minus the log-likelihood of the given names and of the parameters' prior, with its gradient."""

    def __init__(self, photos: Photos, heard: Voices) -> None:
        rows = learned_from(photos)
        self.heard, self.n = heard.of(rows), len(rows)
        part = photos.at(rows)
        self.own = _own_voice(part, self.heard)
        self.others = max(photos.n_names - 1, 1)
        top = np.full(self.n, -np.inf)
        np.maximum.at(top, self.heard.photo, self.heard.value)
        defended = self.own >= 0
        self.found = (
            float((self.heard.value[self.own[defended]] >= top[defended]).mean()) if defended.any() else 0.0
        )
        """Share of photos for which no name speaks louder than their own."""

    def __call__(self, p: Floats) -> tuple[float, Floats]:
        noise, heard, n, own = Noise(*p), self.heard, self.n, self.own
        true = true_names(heard, noise)
        t, e = np.exp(noise.log_t), noise.share_wrong
        # A voice's term is a sum of the voice itself and the floor: derivatives weigh both by their shares.
        own_part, quiet_part = true.spoken, true.quiet
        value = own_part * heard.value + (1 - own_part) * noise.floor
        quiet = quiet_part * heard.background + (1 - quiet_part) * noise.floor
        size = np.log(heard.size)
        # Derivatives of z by log t, s, u and f: that of the given name less the expected one.
        given = _own_or(own, true.named, true.new)
        chance, fresh, unheard = np.exp(true.named), np.exp(true.new), np.exp(true.unheard)
        by_t = t * (
            _own_or(own, value, np.full(n, noise.novelty))
            - np.bincount(heard.photo, chance * value, n)
            - unheard * quiet
            - fresh * noise.novelty
        )
        by_s = (
            _own_or(own, size, np.zeros(n))
            - np.bincount(heard.photo, chance * size, n)
            - unheard * true.unheard_size
        )
        by_u = t * ((own < 0) - fresh)
        by_f = t * (
            _own_or(own, 1 - own_part, np.zeros(n))
            - np.bincount(heard.photo, chance * (1 - own_part), n)
            - unheard * (1 - quiet_part)
        )
        right = np.exp(given)
        likely = (1 - e) * right + e / self.others * (1 - right)
        pull = (1 - e - e / self.others) * right / likely
        by_e = (-right + (1 - right) / self.others) / likely * e * (1 - e)
        away = (p - _CENTRE) / _SPREAD
        slope = -np.array(
            [(pull * by_t).sum(), (pull * by_s).sum(), by_e.sum(), (pull * by_u).sum(), (pull * by_f).sum()]
        )
        return float(-np.log(likely).sum() + (away * away).sum() / 2), slope + away / _SPREAD


def _own_or(own: Ints, value: Floats, otherwise: Floats) -> Floats:
    """The value of the own name's voice; otherwise that of a new animal (N,)."""
    return np.where(own >= 0, value[own], otherwise) if len(value) else otherwise


def _fitted(photos: Photos, heard: Voices) -> tuple[Noise, NDArray[np.float64]]:
    """The parameters at which the given names are most likely, and their covariance (5, 5).

    The covariance comes from the curvature at that point.
    """
    loss = _Likelihood(photos, heard)
    noise = _likeliest(loss, _STARTS)
    at = np.array([*vars(noise).values()])
    step = 1e-3 * np.eye(len(_CENTRE))
    curvature = np.array([(loss(at + d)[1] - loss(at - d)[1]) / 2e-3 for d in step])
    values, vectors = np.linalg.eigh((curvature + curvature.T) / 2)
    values = np.maximum(values, 1 / _SPREAD.max() ** 2)
    return noise, np.asarray((vectors / values) @ vectors.T)


def _likeliest(loss: _Likelihood, starts: NDArray[np.float64]) -> Noise:
    """The highest of the peaks that are reached from some starts (s, 5)."""
    bounds = [(c - 6 * s, c + 6 * s) for c, s in zip(_CENTRE, _SPREAD, strict=True)]
    # Calibrated odds of single pairs may be sharpened only as far as they find the names at all. Where they
    # say little, sharper odds would make every name a suspect.
    bounds[0] = (bounds[0][0], loss.found)
    bounds[1] = (0.0, 1.5)  # a name of many photos is never less likely for that
    peaks = [minimize(loss, start, jac=True, method="L-BFGS-B", bounds=bounds) for start in starts]
    return Noise(*map(float, min(peaks, key=lambda peak: float(peak.fun)).x))


def _errors(photos: Photos, heard: Voices, own_at: Ints, noise: Noise, spread: NDArray[np.float64]) -> Errors:
    """The number of wrong names, and its interval.

    Parameters are drawn around the likeliest ones, and chance given each draw.
    """
    rows = np.flatnonzero(photos.known & (own_at >= 0))
    if not len(rows):
        return Errors(0, 0, 0)
    part_rows = rows[:: -(-len(rows) // _DRAWN_OVER) or 1]
    part = heard.of(part_rows)
    some = photos.at(part_rows)
    own = _own_voice(some, part)
    rng = np.random.default_rng(0)
    at = np.array([*vars(noise).values()])
    counts = []
    for draw in rng.multivariate_normal(at, spread, _DRAWS, method="eigh"):
        drawn = Noise(*map(float, draw))
        p = _wrong(some, _log_odds(_log_right(some, part, own, drawn), drawn, photos.n_names))
        mean, chance = p.sum(), np.sqrt((p * (1 - p)).sum())
        beside = _BESIDE * mean * rng.standard_normal()
        counts.append((mean + chance * rng.standard_normal() + beside) * len(rows) / len(part_rows))
    low, high = np.quantile(np.maximum(counts, 0), (0.05, 0.95))
    likeliest = _log_odds(_log_right(some, part, own, noise), noise, photos.n_names)
    expected = _wrong(some, likeliest).sum() * len(rows) / len(part_rows)
    return Errors(float(expected), float(low), float(high))


def _wrong(photos: Photos, log_odds: Floats) -> Floats:
    """The probability that each name is wrong (N,); a person's verdict overrules the model."""
    found: Floats = np.select([photos.verdict == 1, photos.verdict == 0], [0.0, 1.0], expit(log_odds))
    return found


def _proposals(photos: Photos, heard: Voices, noise: Noise) -> tuple[Ints, Floats, Floats]:
    """The likeliest name other than the given one (N,), its share, and its voice.

    The share is among all that can be true instead of the given name.
    """
    n = len(photos)
    true = true_names(heard, noise)
    named = true.named
    other = np.flatnonzero(heard.name != photos.names[heard.photo])
    order = other[np.lexsort((heard.name[other], -named[other], heard.photo[other]))]
    first = order[np.r_[True, heard.photo[order][1:] != heard.photo[order][:-1]]] if len(order) else order
    proposed = np.full(n, UNKNOWN, dtype=np.int64)
    share, rival = np.zeros(n), np.full(n, np.nan)
    total = _log_sum(heard.photo[other], named[other], np.logaddexp(true.new, true.unheard))
    photo = heard.photo[first]
    share[photo] = np.exp(named[first] - total[photo])
    rival[photo] = heard.value[first]
    proposed[photo] = heard.name[first]
    return proposed, share, rival
