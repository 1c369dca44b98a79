"""What an independent local matcher says of a pair: a homography between the two chips, or why there is none."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pairx_engine.homography import Method, NoHomography, estimate_homography, rescale
from pairx_engine.local.features import LocalFeatures, LocalMatcher


@dataclass(frozen=True)
class LocalEvidence:
    """`matrix` (3, 3) maps the first chip's pixels to the second's; without it `reason` says why.

    `n_matches` local matches, `n_inliers` of them within the threshold of the homography (None without one).
    """

    n_matches: int
    n_inliers: int | None
    matrix: NDArray[np.float64] | None
    reason: str | None


def local_evidence(
    matcher: LocalMatcher,
    first: LocalFeatures,
    second: LocalFeatures,
    chip_size: tuple[int, int],
    method: Method = "magsac",
    threshold: float = 3.0,
) -> LocalEvidence:
    """Match the features of two views and fit a homography there (`threshold` in view pixels), expressed in the chips.

    `chip_size` is (H, W). Views are larger than chips and keep the aspect, so a threshold in their pixels means the same
    in every direction.
    """
    index = matcher.match(first, second)
    found = estimate_homography(
        first.points[index[:, 0]], second.points[index[:, 1]], method, threshold, matcher.min_inliers
    )
    if isinstance(found, NoHomography):
        return LocalEvidence(len(index), None, None, found.reason)
    chip = (chip_size[1], chip_size[0])
    matrix = rescale(found.matrix, first.view_size, chip, second.view_size, chip)
    return LocalEvidence(len(index), found.n_inliers, matrix, None)
