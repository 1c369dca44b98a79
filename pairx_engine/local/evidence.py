"""What an independent local matcher says of a pair of photos.

That is matched points, and a homography between the two chips or the reason why there is none.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pairx_engine.local.features import LocalFeatures, LocalMatcher
from pairx_engine.local.homography import (
    Method,
    NoHomography,
    estimate_homography,
    rescale,
    rescale_points,
    within,
)

Points = NDArray[np.float64]


@dataclass(frozen=True)
class LocalEvidence:
    """What a local matcher found in a pair of photos.

    `matrix` (3, 3) maps the first chip's pixels to the second's; without it `reason` says why. `n_matches` is
    the number of local matches, `n_inliers` that of distinct matches within the threshold of the homography
    (None without one). `points` (n_matches, 2) of either photo are where the matches lie, as (x, y) in chip
    pixels, before any homography; None where nothing was matched because features were missing. `inliers`
    (n_matches,) marks the matches that the homography explains, and each repeat of such a match (None without
    one).
    """

    n_matches: int
    n_inliers: int | None
    matrix: NDArray[np.float64] | None
    reason: str | None
    points: tuple[Points, Points] | None = None
    inliers: NDArray[np.bool_] | None = None

    def __post_init__(self) -> None:
        if self.points is not None and {len(side) for side in self.points} != {self.n_matches}:
            raise ValueError(f"{self.n_matches} matches need as many points in either photo")
        if self.inliers is not None and len(self.inliers) != self.n_matches:
            raise ValueError(f"{self.n_matches} matches cannot have {len(self.inliers)} marks of inliers")


def local_evidence(
    matcher: LocalMatcher,
    first: LocalFeatures,
    second: LocalFeatures,
    chip_size: tuple[int, int],
    method: Method = "magsac",
    threshold: float = 3.0,
) -> LocalEvidence:
    """Match the features of two views and fit a homography, expressed in the chips' pixels.

    `chip_size` is (H, W). The homography is fitted in the views, and `threshold` is in view pixels. Views are
    larger than chips and keep the aspect ratio, so a threshold in their pixels means the same in every
    direction.
    """
    index = matcher.match(first, second)
    views = first.points[index[:, 0]], second.points[index[:, 1]]
    chip = (chip_size[1], chip_size[0])
    points = (
        rescale_points(views[0], first.view_size, chip),
        rescale_points(views[1], second.view_size, chip),
    )
    found = estimate_homography(*views, method, threshold, matcher.min_inliers)
    if isinstance(found, NoHomography):
        return LocalEvidence(len(index), None, None, found.reason, points)
    matrix = rescale(found.matrix, first.view_size, chip, second.view_size, chip)
    inliers = within(found.matrix, *views, threshold)
    return LocalEvidence(len(index), found.n_inliers, matrix, None, points, inliers)
