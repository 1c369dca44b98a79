"""Evidence for one animal between photos that are not among each other's nearest.

It is little, and alike for all names.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pairx_engine.judgement.any_pair import AnyPair
from pairx_engine.judgement.inputs import UNKNOWN, Floats, Pairs, Photos
from pairx_engine.judgement.pair_model import PairJudgement

SAMPLE = 200
"""Photos that stand for all others, evenly spread over the catalogue's order."""
_AT_ONCE = 2048


def background(photos: Photos, pairs: Pairs, judged: PairJudgement, vectors: NDArray[np.floating]) -> Floats:
    """Log of the mean odds (N,) of each photo with photos that it has no pair with.

    The odds are by the embeddings alone; `vectors` (N, D) are unit embeddings. Only nearest photos have
    pairs, but a name speaks with all of its photos. The photos of a photo's own name are always looked up. So
    without this background the own name would speak with more photos than any other name. Photos of other
    species are left out.
    """
    n = len(photos)
    sample = np.unique(np.linspace(0, n - 1, min(SAMPLE, n)).astype(np.int64))
    listed = np.zeros((n, len(sample)), dtype=bool)
    place = np.full(n, -1, dtype=np.int64)
    place[sample] = np.arange(len(sample))
    for one, other in ((pairs.first, pairs.second), (pairs.second, pairs.first)):
        there = place[other] >= 0
        listed[one[there], place[other[there]]] = True
    listed[sample, np.arange(len(sample))] = True
    one, other = photos.species[:, None], photos.species[sample]
    listed |= (one != UNKNOWN) & (other != UNKNOWN) & (one != other)
    # `by_embeddings` looks nothing up: pairs of the sample that were judged are masked by `listed`.
    odds = AnyPair(photos, pairs, judged, vectors)
    others = vectors[sample].astype(np.float32).T
    out = np.empty(n)
    for start in range(0, n, _AT_ONCE):
        rows = np.arange(start, min(start + _AT_ONCE, n))
        cosine = (vectors[rows].astype(np.float32) @ others).astype(np.float64).ravel()
        value = odds.by_embeddings(np.repeat(rows, len(sample)), np.tile(sample, len(rows)), cosine)
        value = np.where(listed[rows], -np.inf, value.reshape(len(rows), -1))
        count = np.maximum((~listed[rows]).sum(axis=1), 1)
        out[rows] = np.logaddexp.reduce(value, axis=1) - np.log(count)
    return np.where(np.isfinite(out), out, out[np.isfinite(out)].mean() if np.isfinite(out).any() else -10.0)
