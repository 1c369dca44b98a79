"""Which animal an unknown photo shows, or a new one, before and after candidates are re-ranked."""

from __future__ import annotations

import numpy as np

from tests.benchmarks.suspects.photos import Floats, Words

SHORTLIST = 20


def reranked(cosines: Floats, probability: Floats, first: int = SHORTLIST) -> Floats:
    """Scores (N, N) that rank the `first` nearest of each row by probability, all others by cosine.

    The others stand behind this shortlist. A candidate of the shortlist without a probability (NaN) stands
    behind those with one. -inf stays -inf. Scores of different rows can be compared by their probability: 2 +
    p on the shortlist, else the cosine.
    """
    order = np.argsort(-cosines, axis=1, kind="stable")[:, :first]
    rows = np.arange(len(cosines))[:, None]
    chosen = probability[rows, order]
    out = cosines.copy()
    out[rows, order] = np.where(
        np.isfinite(cosines[rows, order]) & ~np.isnan(chosen), 2 + chosen, out[rows, order]
    )
    return out


def by_query(scores: Floats, trusted: Words) -> dict[str, float]:
    """Rank-1, rank-5, mAP and open-set error of all photos as queries.

    -inf marks what a query may not be compared with. Only photos of an animal that another photo shows count.
    Open set: each of those queries is asked once more without the other photos of its animal. The error is
    the equal error rate: the share of known animals taken for new equals that of new ones taken for known.
    """
    first, fifth, precisions, with_mates, without = [], [], [], [], []
    for query, row in enumerate(scores):
        able = np.flatnonzero(np.isfinite(row))
        order = able[np.argsort(-row[able], kind="stable")]
        right = trusted[order] == trusted[query]
        if not right.any() or right.all():
            continue
        first.append(right[0])
        fifth.append(right[:5].any())
        precisions.append((np.cumsum(right) / np.arange(1, len(right) + 1))[right].mean())
        with_mates.append(row[order[0]])
        without.append(row[order[~right][0]])
    return {
        "rank-1": float(np.mean(first)),
        "rank-5": float(np.mean(fifth)),
        "mAP": float(np.mean(precisions)),
        "open-set error": equal_error_rate(np.array(with_mates), np.array(without)),
        "queries": float(len(first)),
    }


def equal_error_rate(known: Floats, new: Floats) -> float:
    """The least of max(share of `known` below, share of `new` at or above) over all thresholds."""
    thresholds = np.unique(np.concatenate([known, new]))
    missed = np.searchsorted(np.sort(known), thresholds, side="left") / len(known)
    taken = 1 - np.searchsorted(np.sort(new), thresholds, side="left") / len(new)
    return float(np.maximum(missed, taken).min())
