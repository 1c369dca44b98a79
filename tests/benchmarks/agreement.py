"""How far the numbers of two ways lie apart, so that a claim of speed is never about wrong numbers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tests.benchmarks.published_way import Scored
from tests.devices import tolerance

Pair = tuple[int, int]
TOP = 20


@dataclass(frozen=True)
class Agreement:
    """How far one way's numbers are from the reference's.

    Errors are the largest absolute difference over the reference's maximum, the worst of all pairs and both
    photos.

    `same_matches` counts the pairs whose matches are the same cells. `rank` is Spearman's correlation of the
    match relevances over the matches that both have. `top` is the share of the reference's 20 most relevant
    matches that are among the other's. Both are (mean, worst) over `pairs`. `pictures` is Pearson's
    correlation of pixel maps of the same cells, (mean, worst). None where nothing of the kind was computed.
    """

    pairs: int
    relevance_error: float
    same_matches: int
    rank: tuple[float, float]
    top: tuple[float, float]
    map_error: float | None
    pictures: tuple[float, float] | None

    def exact(self, device: str = "cpu") -> bool:
        """Whether these are the reference's numbers up to a device's single precision.

        On a CPU the matches must be the same. Elsewhere near ties may fall otherwise, but the most relevant
        matches must agree.
        """
        limit = tolerance(device, "float32")
        same = self.same_matches == self.pairs if limit.ties == 0 else self.top[1] >= limit.top
        near = self.map_error is None or self.map_error <= limit.maps
        return self.relevance_error <= limit.relevance and near and same


def compare(
    found: Mapping[Pair, Scored],
    wanted: Mapping[Pair, Scored],
    maps: NDArray[np.float32] | None = None,
    wanted_maps: NDArray[np.float32] | None = None,
) -> Agreement:
    """Compare all pairs that both have, and pixel maps (k, H, W) of the same cells in the same order."""
    both = [(found[pair], wanted[pair]) for pair in wanted if pair in found]
    if not both:
        raise ValueError("the two ways have no pair in common")
    shared = maps is not None and wanted_maps is not None
    return Agreement(
        pairs=len(both),
        relevance_error=max(
            relative_error(getattr(a, g), getattr(b, g)) for a, b in both for g in ("grid_a", "grid_b")
        ),
        same_matches=sum(set(_keys(a)) == set(_keys(b)) for a, b in both),
        rank=_mean_and_worst([rank_correlation(a, b) for a, b in both]),
        top=_mean_and_worst([top_overlap(a, b) for a, b in both]),
        map_error=max(map(relative_error, maps, wanted_maps)) if shared else None,
        pictures=_mean_and_worst(
            [_pearson(a.ravel(), b.ravel()) for a, b in zip(maps, wanted_maps, strict=True)]
        )
        if shared
        else None,
    )


def relative_error(found: NDArray[np.floating], wanted: NDArray[np.floating]) -> float:
    """max |found - wanted| / max |wanted|; infinite for values that are not finite."""
    difference, scale = float(np.abs(found.astype(np.float64) - wanted).max()), float(np.abs(wanted).max())
    if not np.isfinite(difference):
        return float("inf")
    return difference / scale if scale > 0 else float(difference > 0)


def rank_correlation(found: Scored, wanted: Scored) -> float:
    """Spearman's correlation of the relevances of matches that both have; NaN for fewer than three."""
    position = {key: i for i, key in enumerate(_keys(found))}
    common = [(position[key], i) for i, key in enumerate(_keys(wanted)) if key in position]
    if len(common) < 3:
        return float("nan")
    here, there = np.array(common).T
    return _pearson(_ranks(found.relevance[here]), _ranks(wanted.relevance[there]))


def top_overlap(found: Scored, wanted: Scored, top: int = TOP) -> float:
    """Share of the reference's `top` most relevant matches that are among the other's `top` most relevant."""
    first = set(_keys(wanted)[:top])
    return len(first & set(_keys(found)[:top])) / len(first) if first else float("nan")


def _keys(scored: Scored) -> list[tuple[int, ...]]:
    return [(*a, *b) for a, b in zip(scored.cell_a.tolist(), scored.cell_b.tolist(), strict=True)]


def _ranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Ranks from 1, equal values sharing the mean of theirs."""
    _, group, count = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(count)
    return (last - (count - 1) / 2)[group]


def _pearson(a: NDArray[np.floating], b: NDArray[np.floating]) -> float:
    a, b = a.astype(np.float64) - a.mean(dtype=np.float64), b.astype(np.float64) - b.mean(dtype=np.float64)
    norm = np.sqrt((a @ a) * (b @ b))
    return float(a @ b / norm) if norm > 0 else float("nan")


def _mean_and_worst(values: list[float]) -> tuple[float, float]:
    return float(np.mean(values)), float(np.min(values))
