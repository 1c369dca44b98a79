"""Matches of classical local features as an explanation: what a reader without the model would point at.

They know nothing of the network. Keypoints are found on the chips, since these are all that an explanation is
given; the homography of the pipeline comes from larger views of the same photos, and so from other keypoints.

Where a homography is found, only the matches that it explains in both directions count: those that it maps to
within `THRESHOLD` from the first photo to the second, and by a fit of its own from the second to the first.
Without one all matches count. A match counts by the matcher's confidence in it. It gives as much to either map,
spread by a Gaussian about its keypoint and within the chip, so that both maps sum to the confidences. A pair
without matches has maps of zeros.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pairx_engine.explanations.seam import Explained, Shown, State, Subject
from pairx_engine.local.features import LocalMatcher, rated_matches
from pairx_engine.local.homography import Homography, estimate_homography, within
from pairx_engine.local.registry import LOCAL_MATCHERS

SPREAD = 1 / 32
"""Standard deviation of a match's Gaussian, as a share of the chip's shorter side.

The finest keypoints are described by about six times as much.
"""
THRESHOLD = 3.0
"""Distance in chip pixels up to which a homography explains a match."""
Points = NDArray[np.float64]
_COST, _COST_OF_NETWORKS = 3, 40


@dataclass(frozen=True)
class LocalMatches:
    """The matches of one local matcher, which is named as in `LOCAL_MATCHERS`."""

    matcher: str
    needs: str = ""
    cost: float = _COST
    sees_partner: bool = True

    @property
    def name(self) -> str:
        """That of the matcher, after `matches_`."""
        return f"matches_{self.matcher}"

    @property
    def about(self) -> str:
        """What it shows."""
        return f"matched keypoints of {self.matcher}, which knows no model"

    def identity(self) -> Mapping[str, Any]:
        """What the maps are made with; the identity of the matcher, which its weights are part of, is apart."""
        return {"spread": SPREAD, "threshold": THRESHOLD}

    def explain(
        self, subject: Subject, chip_a: Tensor, chip_b: Tensor, state: State | None = None
    ) -> Explained:
        """Explain two chips; all matches count, whatever `k` is.

        Raises `EngineError` where the matcher needs weights that the subject does not have.
        """
        matcher = subject.matchers(self.matcher)
        chips = chip_a, chip_b
        a, b = (matcher.extract(subject.values_of(chip).pixels(chip)) for chip in chips)
        index, confidence = rated_matches(matcher, a, b)
        points = a.points[index[:, 0]].astype(np.float64), b.points[index[:, 1]].astype(np.float64)
        explained = explained_matches(matcher, *points)
        counts = np.ones(len(index), dtype=bool) if explained is None else explained
        order = np.flatnonzero(counts)[np.argsort(-confidence[counts], kind="stable")]
        shown, weights = (points[0][order], points[1][order]), confidence[order]
        maps = [
            torch.from_numpy(spread(at, weights, (chip.shape[-2], chip.shape[-1]))).to(chip)
            for at, chip in zip(shown, chips, strict=True)
        ]
        plain = Explained.of_maps(*maps)
        arrays = {
            "match_point0": points[0],
            "match_point1": points[1],
            "match_confidence": confidence,
            "match_explained": np.zeros(len(index), dtype=bool) if explained is None else explained,
        }
        return replace(
            plain,
            shown=Shown(plain.shown.heat, shown, weights, plain.shown.pixels),
            arrays={**plain.arrays, **arrays},
            remarks=(_remark(len(index), explained),),
        )


def local_matches() -> Sequence[LocalMatches]:
    """One for every local matcher that is registered now; networks of keypoints cost more than SIFT."""
    return [
        LocalMatches(each.name, f"needs weights of {each.name}", _COST_OF_NETWORKS)
        if each.needs_weights
        else LocalMatches(each.name)
        for each in LOCAL_MATCHERS.values()
    ]


def explained_matches(matcher: LocalMatcher, points_a: Points, points_b: Points) -> NDArray[np.bool_] | None:
    """Which matches (n, 2), (n, 2) a homography explains in both directions, (n,); None without one.

    Exchanging the photos changes nothing.
    """
    both = np.ones(len(points_a), dtype=bool)
    for one, other in ((points_a, points_b), (points_b, points_a)):
        found = estimate_homography(one, other, "magsac", THRESHOLD, matcher.min_inliers)
        if not isinstance(found, Homography):
            return None
        both &= within(found.matrix, one, other, THRESHOLD)
    return both


def spread(points: Points, weights: NDArray[np.float64], size: tuple[int, int]) -> NDArray[np.float64]:
    """A map (H, W) to which each of the points (n, 2) gives its weight (n,), by a Gaussian about it.

    Points are (x, y) in edge coordinates, in [0, W] and [0, H].
    """
    sigma = SPREAD * min(size)
    columns, rows = (_normal(points[:, axis], side, sigma) for axis, side in ((0, size[1]), (1, size[0])))
    return np.asarray((rows * weights[:, None]).T @ columns)


def _normal(centres: NDArray[np.float64], side: int, sigma: float) -> NDArray[np.float64]:
    """Gaussians about centres (n,) at the middles of `side` pixels, each summing to 1, (n, side)."""
    away = (np.arange(side) + 0.5 - centres[:, None]) / sigma
    # Relative to the nearest pixel, so that a narrow Gaussian does not vanish between two.
    size = np.exp(-0.5 * (away**2 - (away**2).min(axis=1, keepdims=True)))
    return np.asarray(size / size.sum(axis=1, keepdims=True))


def _remark(n: int, explained: NDArray[np.bool_] | None) -> str:
    if explained is None:
        return f"{n} matches on the chips, no homography: all count"
    return f"{n} matches on the chips, of which a homography explains {int(explained.sum())}: these count"
