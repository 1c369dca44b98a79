"""The probability that a pair shows one animal, by its embeddings and by what matching adds.

Both parts are ridge logistic regressions on the names as they are given, over pairs that were found whatever
their names. The model that judges a pair was learned without the pairs of both its animals (`FOLDS`), so a
name never proves itself. A signal adds zero for a pair that is as its embeddings lead one to expect, and
where the signal is missing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import combinations_with_replacement

import numpy as np
from scipy.optimize import minimize

from pairx_engine.judgement.inputs import FOLDS, UNKNOWN, Flags, Floats, Ints, Pairs, Photos
from pairx_engine.judgement.logistic import Answers, fit_logistic

TERMS = ("prior", "cosine", "crowding", "nearer_rank", "farther_rank")
"""Terms of the part of the embeddings; `LEVEL` and those of the signals follow."""
LEVEL = "level"
"""The term of matched pairs that levels the part of the embeddings.

Where few pairs have strong evidence, each pair without that evidence becomes a little less likely.
"""
PRIOR = np.array([-0.5, 1.5, -0.75, 0.5, 0.5])
"""Weights where nothing can be learned: right signs and cautious sizes, a guess, not a measurement."""
RISING = np.array([False, True, False, True, True])
STRENGTH = np.array([0.5, 2.0, 2.0, 2.0, 2.0])
"""Strength with which weights lean towards the prior: a few dozen pairs outweigh it."""
SPECIES_STRENGTH = 10.0
"""Strength with which a species' weights lean towards those of all species."""
FEWEST = 200
"""Retrieved pairs from which on a species has weights of its own."""
CROWD = 10
"""Number of nearest photos whose mean cosine says how crowded a photo's surroundings are."""
MOST_LEARNED_FROM = 30_000
"""Most pairs that one part learns from; of more pairs, every n-th is taken."""
_SIGNAL_STRENGTH = 3.0
_WIDEST = 10.0
_FEW = 0.01
"""Share of matched pairs cut off at either end of the odds when the usual signal is drawn."""
_VERDICT_WEIGHT = 5.0
"""A person's verdict counts as much as so many names."""
FREE = "about_"
"""Prefix of a signal that is a circumstance, not evidence: it may speak either way."""


@dataclass(frozen=True, eq=False)
class PairJudgement:
    """Of P pairs: `log_odds` (P,) that each shows one animal, the sum of `added` (P, T) over `terms`.

    `learned`: weights (T,) by the two folds that they were learned without and the species (-1 for all).
    `trust`: the share of each signal's part that held-out animals grant it, 0 for a signal that is ignored.
    `level`: (a, b), by which matched pairs get a + (b - 1) times the part of their embeddings.
    """

    terms: tuple[str, ...]
    added: Floats
    learned: Mapping[tuple[int, int, int], Floats]
    trust: Mapping[str, float]
    level: tuple[float, float] = (0.0, 1.0)

    @property
    def log_odds(self) -> Floats:
        """Natural log of P(one animal) / P(two animals), (P,)."""
        total: Floats = self.added.sum(axis=1)
        return total


def judge_pairs(photos: Photos, pairs: Pairs, doubt: Floats) -> PairJudgement:
    """Judge all pairs; `doubt` (N,) in [0, 1] is the probability so far that a photo's name is wrong.

    Learning takes into account how sure both names of a pair are.
    """
    told = _told(photos, pairs, doubt)
    learnable = pairs.retrieved & ~pairs.same_picture & (told.weight > 0)
    folds = _fold_codes(photos, pairs)
    names = tuple(sorted(pairs.signals))
    terms = (*TERMS, LEVEL, *names)
    added = np.zeros((len(pairs), len(terms)))
    x = embedding_terms(photos, pairs)
    learned = _embedding_part(photos, pairs, folds, x, told, learnable)
    _apply(photos, pairs, folds, x, learned, added[:, : len(TERMS)])
    del x
    rows = _scored(pairs)
    if not len(rows):
        return PairJudgement(terms, added, learned, dict.fromkeys(names, 0.0))
    odds = added[rows, : len(TERMS)].sum(axis=1)
    z = _surplus(pairs, names, rows, odds)
    rises = np.array([not name.startswith(FREE) for name in names])
    able = (learnable & pairs.matched)[rows]
    more, trust, level = _signal_part(folds[rows], z, rises, odds, told.at(rows), able)
    added[rows, len(TERMS) :] = more
    return PairJudgement(terms, added, learned, dict(zip(names, trust.tolist(), strict=True)), level)


def _scored(pairs: Pairs) -> Ints:
    """Rows of the pairs that any signal is known of."""
    known = np.zeros(len(pairs), dtype=bool)
    for value in pairs.signals.values():
        known |= np.isfinite(value)
    return np.flatnonzero(known)


def _told(photos: Photos, pairs: Pairs, doubt: Floats) -> Answers:
    """Whether each pair has one name, and how sure that is.

    The weight is zero where a name is unknown and nobody gave a verdict.
    """
    a, b = pairs.first, pairs.second
    same = (photos.names[a] == photos.names[b]).astype(np.float64)
    known = photos.known[a] & photos.known[b]
    right = 1 - doubt
    asked = pairs.verdict >= 0
    return Answers(
        np.where(asked, pairs.verdict, same).astype(np.float64),
        np.where(asked, _VERDICT_WEIGHT, known.astype(np.float64)),
        np.where(asked, 1.0, right[a] * right[b]),
        1 / max(photos.n_names, 2),
    )


def embedding_terms(photos: Photos, pairs: Pairs) -> Floats:
    """The terms (P, 5) of the embeddings of all pairs; see `embedding_terms_of`."""
    crowd, scales = surroundings(photos, pairs)
    x = np.empty((len(pairs), len(TERMS)))
    for species, rows in _species(photos, pairs):
        a, b = pairs.first[rows], pairs.second[rows]
        x[rows] = embedding_terms_of(
            pairs.cosine[rows], crowd[a], crowd[b], pairs.rank_first[rows], pairs.rank_second[rows], scales[species]
        )  # fmt: skip
    return x


def embedding_terms_of(
    cosine: Floats, crowd_first: Floats, crowd_second: Floats, rank_first: Ints, rank_second: Ints, scale: tuple[float, float]
) -> Floats:  # fmt: skip
    """The terms (n, 5) of the embeddings, in the order of `TERMS`.

    `crowding` is the mean over both photos of how near their nearest ten are. The terms of ranks are the
    reciprocal places of each photo among the other's nearest, the larger and the smaller, 0 beyond the list.
    `scale` is mean and spread of the cosines of the species' retrieved pairs, the unit of all cosines here.
    """
    centre, spread = scale
    near = [
        np.divide(1.0, rank, out=np.zeros(len(cosine)), where=rank > 0) for rank in (rank_first, rank_second)
    ]
    return np.column_stack(
        [
            np.ones(len(cosine)),
            (cosine - centre) / spread,
            ((crowd_first + crowd_second) / 2 - centre) / spread,
            np.maximum(*near),
            np.minimum(*near),
        ]
    )


def surroundings(photos: Photos, pairs: Pairs) -> tuple[Floats, dict[int, tuple[float, float]]]:
    """Mean cosine of each photo's nearest ten (N,), and mean and spread of cosines by species.

    The latter are of the retrieved pairs. Code -1 is always there. It stands for the pairs of no species with
    weights of its own, or for all pairs where there are none.
    """
    n = len(photos)
    total, count = np.zeros(n), np.zeros(n)
    for photo, rank in ((pairs.first, pairs.rank_first), (pairs.second, pairs.rank_second)):
        near = (rank > 0) & (rank <= CROWD)
        total += np.bincount(photo[near], pairs.cosine[near], n)
        count += np.bincount(photo[near], minlength=n)
    usual = total.sum() / max(count.sum(), 1)
    crowd = np.divide(total, count, out=np.full(n, usual), where=count > 0)
    scales = {UNKNOWN: _scale(pairs.cosine[pairs.retrieved])}
    for species, rows in _species(photos, pairs):
        scales[species] = _scale(pairs.cosine[rows & pairs.retrieved])
    return crowd, scales


def _scale(cosine: Floats) -> tuple[float, float]:
    return (float(cosine.mean()), max(float(cosine.std()), 1e-6)) if len(cosine) > 1 else (0.0, 1.0)


def _species(photos: Photos, pairs: Pairs) -> Iterator[tuple[int, Flags]]:
    """Groups of pairs scaled and weighed alike: each species with enough pairs, all others as -1."""
    a, b = photos.species[pairs.first], photos.species[pairs.second]
    code = np.where(a == b, a, UNKNOWN)
    counts = np.bincount(code[pairs.retrieved] + 1, minlength=code.max(initial=UNKNOWN) + 2)
    own = [s for s in range(len(counts) - 1) if counts[s + 1] >= FEWEST]
    if len(own) == 1 and counts[own[0] + 1] == counts.sum():
        own = []  # one species is the whole catalogue
    for s in own:
        yield s, code == s
    if (rest := ~np.isin(code, own)).any():
        yield UNKNOWN, rest


def _embedding_part(
    photos: Photos, pairs: Pairs, folds: Ints, x: Floats, told: Answers, learnable: Flags
) -> dict[tuple[int, int, int], Floats]:
    """The weights (5,) by the two folds that they were learned without and the species."""
    learned: dict[tuple[int, int, int], Floats] = {}
    groups = [(species, _some(learnable & rows)) for species, rows in _species(photos, pairs)]
    some = _some(learnable)
    for f, g in _asked(folds):
        rows, answers = _free(folds, told, some, f, g)
        common = fit_logistic(x[rows], answers, PRIOR, STRENGTH, RISING)
        for species, own in groups:
            w = common
            if len(groups) > 1:
                rows, answers = _free(folds, told, own, f, g)
                w = fit_logistic(x[rows], answers, common, np.full(len(TERMS), SPECIES_STRENGTH), RISING)
            learned[f, g, species] = w
    return learned


def _apply(
    photos: Photos,
    pairs: Pairs,
    folds: Ints,
    x: Floats,
    learned: Mapping[tuple[int, int, int], Floats],
    added: Floats,
) -> None:
    """Write what each term adds (P, 5)."""
    for species, rows in _species(photos, pairs):
        table = np.zeros((_CODES, len(TERMS)))
        for (f, g, of), w in learned.items():
            if of == species:
                table[_code(f, g)] = w
        added[rows] = x[rows] * table[folds[rows]]


_CODES = (FOLDS + 1) ** 2


def _code(f: int, g: int) -> int:
    """The number of a pair of folds, f <= g; -1 is that of unknown names."""
    return (f + 1) * (FOLDS + 1) + g + 1


def _fold_codes(photos: Photos, pairs: Pairs) -> Ints:
    """The number of each pair's two folds (P,).

    A photo without a name is in no fold. The model for its pairs was learned without the other's fold.
    """
    a, b = photos.folds[pairs.first], photos.folds[pairs.second]
    low, high = np.minimum(a, b), np.maximum(a, b)
    low = np.where(low == UNKNOWN, high, low)
    return (low + 1) * (FOLDS + 1) + high + 1


def _asked(folds: Ints) -> Iterator[tuple[int, int]]:
    """The pairs of folds that any pair has."""
    there = np.bincount(folds, minlength=_CODES) > 0
    for f, g in [(UNKNOWN, UNKNOWN), *combinations_with_replacement(range(FOLDS), 2)]:
        if there[_code(f, g)]:
            yield f, g


def _free(folds: Ints, told: Answers, rows: Ints, f: int, g: int) -> tuple[Ints, Answers]:
    """Of some rows, those of pairs without an animal of either fold, and their answers.

    They are weighed so that the share of pairs of one name is as among all rows. Leaving out two of five
    folds keeps three fifths of the pairs of one name, but only nine in twenty-five of the pairs of two.
    """
    free = np.array(
        [c // (FOLDS + 1) - 1 not in (f, g) and c % (FOLDS + 1) - 1 not in (f, g) for c in range(_CODES)]
    )
    if f == UNKNOWN:
        free[:] = True
    left = rows[free[folds[rows]]]
    labels, weight = told.yes, told.weight
    fair = weight[left].copy()
    for same in (True, False):
        of_class = (labels[left] >= 0.5) == same
        kept = fair[of_class].sum()
        if kept > 0:
            fair[of_class] *= weight[rows[(labels[rows] >= 0.5) == same]].sum() / kept
    total = fair.sum()
    return left, told.at(left, fair * (weight[left].sum() / total) if total > 0 else fair)


def _some(rows: Flags) -> Ints:
    """Indices of the rows, or of every n-th of them where there are too many."""
    found = np.flatnonzero(rows)
    return found[:: max(1, -(-len(found) // MOST_LEARNED_FROM))]


def _surplus(pairs: Pairs, names: tuple[str, ...], rows: Ints, odds: Floats) -> Floats:
    """Signals (n, S) of some rows less what the embeddings lead one to expect, in spreads; 0 if missing.

    The expected value is a parabola of the log-odds of the embeddings (n,), fitted to the pairs that were
    matched whatever their names. Outside the range of nearly all of these it stays at its value at the ends:
    pairs that names chose go far below, where the parabola knows nothing.
    """
    out = np.zeros((len(rows), len(names)))
    fair = (pairs.matched & ~pairs.same_picture)[rows]
    if not fair.any():
        return out
    scale = np.clip(odds, *np.clip(np.quantile(odds[fair], (_FEW, 1 - _FEW)), -10, 10))
    curve = np.column_stack([np.ones(len(rows)), scale, scale * scale])
    for k, name in enumerate(names):
        value = pairs.signals[name][rows]
        there = np.isfinite(value)
        base = there & fair
        if base.sum() < curve.shape[1] + 2:
            continue
        usual = np.linalg.lstsq(curve[base], value[base], rcond=None)[0]
        rest = np.where(there, np.where(there, value, 0) - curve @ usual, 0.0)
        spread = rest[base].std()
        if spread > 1e-9:
            out[:, k] = np.clip(rest / spread, -_WIDEST, _WIDEST)
    return out


def _signal_part(
    folds: Ints, z: Floats, rises: Flags, odds: Floats, told: Answers, learnable: Flags
) -> tuple[Floats, Floats, tuple[float, float]]:
    """What the level and each signal add to scored pairs, what is granted of it, and the level.

    Returns (n, 1 + S), the share of each signal's part that held-out animals grant (S,), and the level (a,
    b).
    """
    n = z.shape[1]
    added = np.zeros_like(z)
    # The embeddings' part has a slope of its own: among scored pairs it may mean more or less.
    x = np.column_stack([np.ones(len(odds)), np.clip(odds, -15, 15), z])
    centre = np.r_[0.0, 1.0, np.zeros(n)]
    strength = np.r_[0.5, 2.0, np.full(n, _SIGNAL_STRENGTH)]
    rising = np.r_[False, True, rises]
    some = _some(learnable)
    for f, g in _asked(folds):
        rows, answers = _free(folds, told, some, f, g)
        w = fit_logistic(x[rows], answers, centre, strength, rising)
        asked = folds == _code(f, g)
        added[asked] = z[asked] * w[2:]
    held = some[folds[some] != _code(UNKNOWN, UNKNOWN)]
    trust = granted(added[held], odds[held], told.at(held))
    shift, slope = 0.0, 1.0
    if trust.any():
        shift, slope = _level(odds[held], (added[held] * trust).sum(axis=1), told.at(held))
    level = shift + (slope - 1) * np.clip(odds, -15, 15)
    return np.column_stack([level, added * trust]), trust, (shift, slope)


def _level(odds: Floats, said: Floats, told: Answers) -> tuple[float, float]:
    """(a, b) for which a + b odds + said (n,) is likeliest."""
    x = np.column_stack([np.ones(len(odds)), np.clip(odds, -15, 15), said])
    strength = np.array([0.5, 2.0, 1e9])  # what signals say is no longer a question
    a, b, _ = fit_logistic(x, told, np.array([0.0, 1.0, 1.0]), strength, np.array([False, True, True]))
    return float(a), float(b)


def granted(added: Floats, odds: Floats, told: Answers) -> Floats:
    """The share in [0, 1] of what each of S signals adds (n, S) that held-out pairs confirm.

    Held-out pairs are of animals that the signals' weights were not learned from. The shares t minimise the
    loss at a + b odds + sum_k t_k added_k, plus sum_k s_k t_k, where s_k is the standard error of the loss's
    slope at t_k = 0. So a signal is ignored unless what it adds is larger than chance.
    """
    n = added.shape[1]
    if not len(odds):
        return np.zeros(n)
    base = np.column_stack([np.ones(len(odds)), np.clip(odds, -15, 15)])
    start = fit_logistic(base, told, np.array([0.0, 1.0]), np.array([0.5, 2.0]), np.array([False, True]))
    chance = np.sqrt(((added * told.loss(base @ start)[1][:, None]) ** 2).sum(axis=0))
    x = np.column_stack([base, added])

    def objective(t: Floats) -> tuple[float, Floats]:
        loss, slope = told.loss(x @ t)
        return float(loss + chance @ t[2:]), x.T @ slope + np.r_[0.0, 0.0, chance]

    bounds = [(None, None), (0.0, None), *[(0.0, 1.0)] * n]
    found = minimize(
        objective,
        np.r_[start, np.zeros(n)],
        jac=True,
        method="L-BFGS-B",
        bounds=bounds,
        options={"ftol": 1e-12},
    )
    shares: Floats = np.asarray(found.x[2:], dtype=np.float64)
    return np.where(chance > 0, shares, 0.0)
