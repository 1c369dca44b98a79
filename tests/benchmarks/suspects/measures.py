"""Measures of a ranking against what was planted, and of what the list expects of itself.

They are by photo, by row and by name. Equal scores have no order: where a measure depends on it, its
expectation over all orders counts.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

import numpy as np

from tests.benchmarks.suspects.photos import Bools, Floats

FIRST_PHOTOS = (10, 20, 50)
FIRST_ROWS = (20, 50)


def average_precision(score: Floats, truth: Bools) -> float:
    """Sum over falling distinct scores of (gain in recall) x precision; NaN without anything to find."""
    if not truth.any():
        return float("nan")
    values, group = np.unique(-np.asarray(score, dtype=np.float64), return_inverse=True)
    hits = np.bincount(group, weights=truth, minlength=len(values))
    seen = np.cumsum(np.bincount(group, minlength=len(values)))
    return float((hits * np.cumsum(hits) / seen).sum() / truth.sum())


def expected_hits(score: Floats, truth: Bools, first: int) -> float:
    """Hits among the first photos, in expectation over the orders of equal scores."""
    hits, left = 0.0, float(first)
    for value in np.unique(score)[::-1]:
        group = truth[score == value]
        hits += float(group.sum()) * min(1.0, left / len(group))
        left -= len(group)
        if left <= 0:
            break
    return hits


def by_photo(score: Floats, truth: Bools) -> dict[str, float]:
    """AP, precision of the first 10, 20 and 50 photos, and recall among as many as were planted."""
    planted = int(truth.sum())
    found = {"AP": average_precision(score, truth)}
    found |= {f"P@{k}": expected_hits(score, truth, k) / k for k in FIRST_PHOTOS}
    found["R@N"] = expected_hits(score, truth, planted) / planted if planted else float("nan")
    return found


def echo_share(rows: Sequence[Collection[int]]) -> float:
    """Share of rows that blame only photos which an earlier row has blamed.

    Each row is given as the photos that it blames.
    """
    seen: set[int] = set()
    echoes = 0
    for photos in rows:
        echoes += bool(photos) and set(photos) <= seen
        seen |= set(photos)
    return echoes / len(rows) if rows else float("nan")


def distinct_found(rows: Iterable[Collection[int]], truth: Bools) -> int:
    """How many different planted photos the rows blame."""
    return len({i for photos in rows for i in photos if truth[i]})


def by_row(rows: Sequence[Collection[int]], truth: Bools) -> dict[str, float]:
    """Of a list of rows, most suspect first: echoes, and different planted photos among the first."""
    found: dict[str, float] = {"rows": len(rows), "echo share": echo_share(rows)}
    for k in FIRST_ROWS:
        found |= {f"echo@{k}": echo_share(rows[:k]), f"found@{k}": distinct_found(rows[:k], truth)}
    return found


def scored_photos(rows: Sequence[tuple[Collection[int], float]], count: int) -> Floats:
    """The suspicion of each of `count` photos: its best row's score, or -1 where it is in no row.

    Rows are ranked (photos, score). Of equal scores the earlier row's is higher by a hair, so that the list's
    own order counts.
    """
    out = np.full(count, -1.0)
    for rank, (photos, score) in enumerate(rows):
        for i in photos:
            out[i] = max(out[i], score - 1e-9 * rank)
    return out


def error_of_expected_precision(expected: Floats, truth: Bools, first: int) -> float:
    """What a list expects of its first rows minus the share of errors found there; NaN without rows.

    Where there are fewer rows than `first`, all count. `expected` (n,) holds for each row the expected share
    of errors among all rows up to it.
    """
    if not len(expected):
        return float("nan")
    return float(expected[:first][-1] - truth[:first].mean())


def holds(low: float, high: float, truth: float) -> float:
    """1 where an interval holds the truth, else 0: its mean over plantings is the coverage."""
    return float(low <= truth <= high)


def share_closed(ours: float, simple: float) -> float:
    """The share that ours closes of the gap between the best simple method and 1.

    Negative for a loss, NaN where there is no gap.
    """
    return (ours - simple) / (1 - simple) if simple < 1 else float("nan")
