"""Labelled pairs to take statistics of, drawn from a seed."""

import numpy as np

from pairx_engine.evaluation.pairs import LabelledPairs


def pairs_of(cosine, score, correct, rng=None):
    """Pairs with the given values; animals are drawn so that they agree with `correct`."""
    rng = rng or np.random.default_rng(0)
    correct = np.asarray(correct, dtype=bool)
    a = rng.integers(0, 20, len(correct))
    b = np.where(correct, a, (a + rng.integers(1, 20, len(correct))) % 20)
    return LabelledPairs(np.asarray(cosine, dtype=float), np.asarray(score, dtype=float), correct, a, b)


def random_pairs(seed, n=60, ties=False, missing=0.1):
    """n pairs whose score rises with the cosine and with being correct; with `ties`, few values of both."""
    rng = np.random.default_rng(seed)
    correct = rng.random(n) < 0.5
    cosine = np.clip(0.4 + 0.2 * correct + 0.2 * rng.normal(size=n), -1, 1)
    score = 2 * cosine + 0.7 * correct + rng.normal(size=n)
    if ties:
        cosine, score = np.round(cosine * 8) / 8, np.round(score * 2) / 2
    score[rng.random(n) < missing] = np.nan
    return pairs_of(cosine, score, correct, rng)


def with_values(pairs, score=None, cosine=None):
    """The same pairs with another score or another cosine."""
    return LabelledPairs(
        pairs.cosine if cosine is None else cosine,
        pairs.score if score is None else score,
        pairs.correct, pairs.animal_a, pairs.animal_b,
    )  # fmt: skip


def swapped(pairs):
    """The same values with the classes exchanged."""
    return pairs_of(pairs.cosine, pairs.score, ~pairs.correct)
