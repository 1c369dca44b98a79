"""The probability that a photo's name is wrong: what the voices say of its true name, and how often names are
wrong here.

The true name of a photo is one of those that speak of it or a new one,

    P(true = k) = (exp(t v_k) + exp(t f)) n_k^s / Z    with v_k the voice and n_k the photos of name k,  exp(t u) / Z for a new one,

and the given name is the true one with probability 1 - e, else any other. The floor f is for the photos that
look like no other photo of their own animal: below it voices differ by nothing, so a photo is not called
wrong for being hard, only where another name speaks up. The temperature t, the weight s of a name's size, the
novelty u, the floor f and the share e of wrong names are those under which the given names are most likely;
nobody's word is needed, and wrong names are part of the model, so they do not bend it (the classical model of
random label noise).
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
"""What is believed of log t, s, log-odds of e, u and f before any photo was seen: mean and standard
deviation."""
_STARTS = _CENTRE + np.array([[0, 0, 0, 0, 0], [0, -0.4, 1, -4, 0], [-1, 0.3, 0, 3, 0], [0, 0, 0, 0, 4]])
"""The likelihood can have several peaks where the pictures say little: the highest that is reached from these
counts."""
MOST_LEARNED_FROM = 4000
"""Named photos that the parameters are learned from; of more, every n-th."""
_DRAWS, _DRAWN_OVER = 200, 2000
_BESIDE = 0.1
"""Standard deviation, as a share of the number of errors, of what the model leaves out: photos that are wrong
together, names that
few photos tell. Stated, not learned."""
_FAR = 100.0
"""Nothing is further from the floor than that, in log-odds."""
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
    """Of N photos: `log_odds` and `probability` that the name is wrong, NaN without a name; `proposed`, the
    likeliest other name,
    -1 where none speaks, and its `share` of what can be true instead, a new animal too; `own` and `rival`,
    the voices of both, NaN where there is none; and `undefended`, where no photo of the own name can speak
    for it.
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
    """How many names are wrong: the expected number, and an interval that holds the truth nine times in ten.

    `sensitivity`: by how much the expected number grows for each name more that is wrong; NaN where that was
    not asked.
    """

    expected: float
    low: float
    high: float
    sensitivity: float = np.nan


@dataclass(frozen=True, eq=False)
class TrueNames:
    """What can be true of N photos, as log-probabilities: the name of each voice (V,), a name without a voice
    (N,), a new
    animal (N,); and the mean log of the size of names without a voice (N,), by their weights. `spoken` (V,),
    `quiet` (N,): how much of a voice, and of a name without one, is no floor.
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
    """log(exp(t v) + exp(t f)) of voices, and the share of the first part in it."""
    t = np.exp(noise.log_t)
    if np.isneginf(noise.floor):
        return t * voice, np.ones(len(voice))
    above = np.exp(np.clip(t * (voice - noise.floor), -_FAR, _FAR))
    return t * noise.floor + np.log1p(above), above / (1 + above)


def _unheard(heard: Voices, power: float) -> tuple[Floats, Floats]:
    """Of the names without a voice for each photo: the sum of size^power (N,), and the mean of log size by
    these weights (N,)."""
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
    """What is to be thought of every name before the next pass: as in `judge_photos`, but with parameters
    sought from one start."""
    starts = _STARTS[:1] if start is None else np.array([[*vars(start).values()]])
    noise = _likeliest(_Likelihood(photos, heard), starts)
    log_odds = _log_odds_wrong(photos, heard, _own_voice(photos, heard), noise)
    proposed, share, _ = _proposals(photos, heard, noise)
    return Doubts(np.where(np.isnan(log_odds), -np.inf, log_odds), proposed, share)


def judge_photos(photos: Photos, heard: Voices) -> tuple[PhotoJudgement, Errors]:
    """Judge the names of all photos; needs voices of all of them."""
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
    """Log-odds of a wrong name (N,): of undefended photos those of any name, without a name NaN."""
    log_odds = _log_odds(_log_right(photos, heard, own_at, noise), noise, photos.n_names)
    log_odds = np.where(own_at < 0, noise.logit_e, log_odds)
    # What a person said is taken at its word.
    log_odds = np.select([photos.verdict == 1, photos.verdict == 0], [-_TOLD, _TOLD], log_odds)
    return np.where(photos.known, log_odds, np.nan)


def _own_voice(photos: Photos, heard: Voices) -> Ints:
    """Which voice is that of each photo's own name (N,), -1 where none is."""
    found = np.full(len(photos), -1, dtype=np.int64)
    own = np.flatnonzero(heard.name == photos.names[heard.photo])
    found[heard.photo[own]] = own
    return found


def _log_right(photos: Photos, heard: Voices, own_at: Ints, noise: Noise) -> Floats:
    """Log of P(true name = given name) by the voices alone (N,); of a name without a voice, of a new animal."""
    true = true_names(heard, noise)
    return _own_or(own_at, true.named, true.new)


def _log_odds(right: Floats, noise: Noise, n_names: int) -> Floats:
    """Log-odds of a wrong name: e / (K - 1) (1 - p) against (1 - e) p."""
    other = np.log1p(-np.exp(np.minimum(right, -1e-12)))
    return noise.logit_e - np.log(max(n_names - 1, 1)) + other - right


class _Likelihood:
    """Minus the log-likelihood of the given names, and of the prior of the parameters, with its gradient."""

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
        # Of what each voice adds: that of the voice itself, and that of the floor.
        own_part, quiet_part = true.spoken, true.quiet
        value = own_part * heard.value + (1 - own_part) * noise.floor
        quiet = quiet_part * heard.background + (1 - quiet_part) * noise.floor
        size = np.log(heard.size)
        # Of the name that is given and of what is to be expected: the derivatives of z by log t, s, u and f.
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
    """The value of the own name's voice, or otherwise that of a new animal (N,)."""
    return np.where(own >= 0, value[own], otherwise) if len(value) else otherwise


def _fitted(photos: Photos, heard: Voices) -> tuple[Noise, NDArray[np.float64]]:
    """The parameters at which the given names are most likely, and their covariance (5, 5) by the curvature
    there."""
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
    # Odds of single pairs that are calibrated may be sharpened only as far as the names are found by them at
    # all: where they say little, sharper ones would make every name a suspect.
    bounds[0] = (bounds[0][0], loss.found)
    bounds[1] = (0.0, 1.5)  # a name of many photos is never less likely for that
    peaks = [minimize(loss, start, jac=True, method="L-BFGS-B", bounds=bounds) for start in starts]
    return Noise(*map(float, min(peaks, key=lambda peak: float(peak.fun)).x))


def _errors(photos: Photos, heard: Voices, own_at: Ints, noise: Noise, spread: NDArray[np.float64]) -> Errors:
    """The number of wrong names under parameters drawn around the likeliest, and under chance given those."""
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
        p = expit(_log_odds(_log_right(some, part, own, drawn), drawn, photos.n_names))
        mean, chance = p.sum(), np.sqrt((p * (1 - p)).sum())
        beside = _BESIDE * mean * rng.standard_normal()
        counts.append((mean + chance * rng.standard_normal() + beside) * len(rows) / len(part_rows))
    low, high = np.quantile(np.maximum(counts, 0), (0.05, 0.95))
    right = _log_right(some, part, own, noise)
    expected = expit(_log_odds(right, noise, photos.n_names)).sum() * len(rows) / len(part_rows)
    return Errors(float(expected), float(low), float(high))


def _proposals(photos: Photos, heard: Voices, noise: Noise) -> tuple[Ints, Floats, Floats]:
    """The likeliest name other than the given one (N,), its share among all that can be true instead, and its
    voice."""
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
