"""Pairs of near-identical pictures by their hashes, in any of eight orientations.

The time grows only with the number of photos, not of pairs. Two hashes that differ in at most b bits agree in
at least one of b + 1 bands, so only pictures that share a band are compared.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from pairx_engine.photo.perceptual_hash import ORIENTATIONS, hash_distances
from pairx_engine.retrieval.rules import UNKNOWN, PairRule, PhotoKeys

Found = NDArray[np.int64]
"""(M, 3): a photo, a photo that it resembles, and the differing bits."""

_COMPARED_AT_ONCE = 1 << 22


def near_identical(
    hashes: NDArray[np.uint64], keys: PhotoKeys, rule: PairRule, bits: int, limit: int
) -> list[tuple[int, int]]:
    """Pairs (a < b) of near-identical pictures under different or unknown names.

    At most `limit` per photo. `hashes` (N, 8) are those of the orientations, that of the picture as it is
    first. A pair is near-identical if one picture as it is and the other in some orientation differ in at
    most `bits` bits. Of a photo's copies those with fewest differing bits count, ties by row. Pictures
    without any contrast (hash 0) resemble one another whatever they show and are left out, and so are pairs
    that `rule` does not admit. Pairs of one name are re-sightings or harmless duplicates and are left to the
    ranking by cosine.
    """
    found = np.empty((0, 3), dtype=np.int64)
    for orientation in range(ORIENTATIONS):
        for part in _alike(hashes[:, 0], hashes[:, orientation], bits):
            allowed = part[_admitted(part, keys, rule)]
            # Each pair as either of its photos sees it.
            found = _nearest(np.concatenate([found, allowed, allowed[:, [1, 0, 2]]]), limit)
    return sorted({(min(a, b), max(a, b)) for a, b in found[:, :2].tolist()})


def _alike(upright: NDArray[np.uint64], turned: NDArray[np.uint64], bits: int) -> Iterator[Found]:
    """Photos whose hash differs from another photo's turned hash in at most `bits` bits.

    They are given part by part.
    """
    queries, others = np.flatnonzero(upright != 0), np.flatnonzero((turned != 0) & (upright != 0))
    for band in range(bits + 1):
        low, high = 64 * band // (bits + 1), 64 * (band + 1) // (bits + 1)
        mine, theirs = (
            (values >> np.uint64(low)) & np.uint64((1 << (high - low)) - 1)
            for values in (upright[queries], turned[others])
        )
        order = np.argsort(theirs, kind="stable")
        first = np.searchsorted(theirs[order], mine, side="left")
        counts = np.searchsorted(theirs[order], mine, side="right") - first
        ends = np.cumsum(counts)
        start = 0
        while start < len(queries):
            before = ends[start - 1] if start else 0
            stop = max(start + 1, int(np.searchsorted(ends, before + _COMPARED_AT_ONCE, side="right")))
            size = counts[start:stop]
            a = np.repeat(queries[start:stop], size)
            within = np.arange(int(size.sum())) - np.repeat(np.cumsum(size) - size, size)
            b = others[order[np.repeat(first[start:stop], size) + within]]
            distance = hash_distances(upright[a], turned[b])
            near = (distance <= bits) & (a != b)
            yield np.stack([a[near], b[near], distance[near].astype(np.int64)], axis=1)
            start = stop


def _admitted(part: Found, keys: PhotoKeys, rule: PairRule) -> NDArray[np.bool_]:
    a, b = part[:, 0], part[:, 1]
    names = keys.identity
    admitted: NDArray[np.bool_] = rule.admits(keys, a, b) & ((names[a] != names[b]) | (names[a] == UNKNOWN))
    return admitted


def _nearest(found: Found, limit: int) -> Found:
    """Of each photo the `limit` others with fewest differing bits, ties by row.

    Each of them stands once, with its least distance.
    """
    found = found[np.lexsort((found[:, 2], found[:, 1], found[:, 0]))]
    found = found[np.any(np.diff(found[:, :2], axis=0, prepend=-1) != 0, axis=1)]
    found = found[np.lexsort((found[:, 1], found[:, 2], found[:, 0]))]
    starts = np.searchsorted(found[:, 0], found[:, 0], side="left")
    return found[np.arange(len(found)) - starts < limit]
