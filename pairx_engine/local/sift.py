"""SIFT with RootSIFT descriptors, mutual nearest neighbours and the ratio test.

It needs no weights and takes milliseconds.
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from pairx_engine.local.features import (
    Identity,
    LocalFeatures,
    LocalMatcher,
    Matches,
    Pixels,
    Rated,
    no_matches,
    require_view,
    strongest_features,
)
from pairx_engine.local.registry import DEFAULT_KEYPOINTS

CONTRAST_THRESHOLD = 0.01
"""A quarter of OpenCV's default: coats are low in contrast."""
EDGE_THRESHOLD = 10.0
SIGMA = 1.6
RATIO = 0.85
"""Looser than Lowe's 0.8, since the test is made from both sides and MAGSAC follows."""
_WIDTH = 128
_ROUNDING = 1e-6


def load(folder: Path | None, device: str, max_keypoints: int) -> LocalMatcher:
    """The matcher; it needs no weights and runs on the CPU."""
    return SiftMatcher(max_keypoints)


class SiftMatcher:
    """SIFT keypoints of the grey view, matched by RootSIFT distance.

    Descriptors (n, 128) are the square roots of L1-normalised SIFT vectors (Arandjelovic and Zisserman 2012),
    hence of unit length. A match is a pair of mutual nearest neighbours whose distance is under `ratio` times
    the distance to the next nearest, seen from either side. Lowe 2004 tests one side only; with both sides
    match(a, b) equals match(b, a).
    """

    name = "sift"
    min_inliers = 8

    def __init__(self, max_keypoints: int = DEFAULT_KEYPOINTS, ratio: float = RATIO) -> None:
        if max_keypoints < 1:
            raise ValueError(f"max_keypoints must be at least 1, not {max_keypoints}")
        if not 0 < ratio <= 1:
            raise ValueError(f"ratio must lie in (0, 1], not {ratio}")
        self.max_keypoints = max_keypoints
        self.ratio = ratio
        # Without the precise upscale OpenCV shifts keypoints by a quarter pixel, as its old versions did.
        self._detector = cv2.SIFT.create(
            nfeatures=max_keypoints,
            contrastThreshold=CONTRAST_THRESHOLD,
            edgeThreshold=EDGE_THRESHOLD,
            sigma=SIGMA,
            enable_precise_upscale=True,
        )

    @property
    def threads(self) -> bool:
        """True: NumPy and OpenCV keep no state between two pairs and release the interpreter's lock."""
        return True

    def extraction_identity(self) -> Identity:
        """Detector's parameters and OpenCV's major version."""
        return {
            "extractor": "root-sift.v1",
            "opencv": int(cv2.__version__.split(".")[0]),
            "max_keypoints": self.max_keypoints,
            "contrast_threshold": CONTRAST_THRESHOLD,
            "edge_threshold": EDGE_THRESHOLD,
            "sigma": SIGMA,
        }

    def identity(self) -> Identity:
        """Those of the extraction, and the ratio."""
        return {"matcher": self.name, **self.extraction_identity(), "ratio": self.ratio}

    def extract(self, view: Pixels) -> LocalFeatures:
        """Features of a view (H, W, 3) uint8 RGB; scores are SIFT's responses."""
        require_view(view)
        grey = cv2.cvtColor(view, cv2.COLOR_RGB2GRAY)
        keypoints, raw = self._detector.detectAndCompute(grey, None)
        size = (view.shape[1], view.shape[0])
        if raw is None or not keypoints:
            empty = np.empty((0, 2)), np.empty((0, _WIDTH)), np.empty(0)
            return strongest_features(*empty, size, self.max_keypoints)
        # OpenCV counts pixel centres, our frame counts edges.
        points = np.array([keypoint.pt for keypoint in keypoints], dtype=np.float32) + np.float32(0.5)
        scores = np.array([keypoint.response for keypoint in keypoints], dtype=np.float32)
        return strongest_features(points, root_sift(raw), scores, size, self.max_keypoints)

    def match(self, first: LocalFeatures, second: LocalFeatures) -> Matches:
        """Mutual nearest neighbours (m, 2) that pass the ratio test from both sides, sorted."""
        return self.rated_match(first, second)[0]

    def rated_match(self, first: LocalFeatures, second: LocalFeatures) -> Rated:
        """The same, and one minus the larger of a match's two ratios as the confidence in it."""
        return rated_mutual_matches(first.descriptors, second.descriptors, self.ratio)


def root_sift(descriptors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Square roots of L1-normalised non-negative vectors (n, d).

    Their Euclidean distance is the Hellinger distance.
    """
    total = np.maximum(descriptors.sum(axis=1, keepdims=True), np.finfo(np.float32).tiny)
    return np.sqrt(descriptors / total)


def mutual_ratio_matches(first: NDArray[np.float32], second: NDArray[np.float32], ratio: float) -> Matches:
    """Index pairs (m, 2) of mutual nearest neighbours of descriptor sets (n0, d) and (n1, d).

    Ambiguous pairs are removed: a pair at distance D stays when D < ratio * (distance to the second nearest),
    in both directions. With a single descriptor on the other side there is no second nearest. Then nothing
    distinguishes a match from chance, and there is no match. Of equally near neighbours the first counts as
    nearest, and the ratio test then removes the pair.
    """
    return rated_mutual_matches(first, second, ratio)[0]


def rated_mutual_matches(first: NDArray[np.float32], second: NDArray[np.float32], ratio: float) -> Rated:
    """`mutual_ratio_matches`, and of each the confidence 1 - D / (distance to the second nearest)."""
    if len(first) < 2 or len(second) < 2:
        return no_matches(), np.zeros(0)
    value = _minus_half_squared_distances(first, second)
    j = value.argmax(axis=1)
    best = value[np.arange(len(first)), j]
    mutual = best == value.max(axis=0)[j]
    # Rows that tie for one column are ambiguous; without them each row and column holds at most one pair.
    mutual &= np.bincount(j[mutual], minlength=len(second))[j] == 1
    i = np.flatnonzero(mutual)
    j, best = j[i], best[i]
    value[i, j] = -np.inf
    runner_up = np.maximum(value.max(axis=1)[i], value.max(axis=0)[j])
    # The values are negative and halves of squares: the comparison turns round, and the ratio is squared.
    passed = best > ratio**2 * runner_up
    confidence = 1 - np.sqrt(best[passed].astype(np.float64) / runner_up[passed])
    return np.stack([i[passed], j[passed]], axis=1).astype(np.int64), confidence


def _minus_half_squared_distances(
    first: NDArray[np.float32], second: NDArray[np.float32]
) -> NDArray[np.float32]:
    """-|a - b|^2 / 2 for all pairs (n0, n1) in one product; two more columns hold squared lengths."""
    half_a = -0.5 * np.einsum("nd,nd->n", first, first)[:, None]
    half_b = -0.5 * np.einsum("nd,nd->n", second, second)[:, None]
    left = np.hstack([first, half_a, np.ones_like(half_a)])
    right = np.hstack([second, np.ones_like(half_b), half_b])
    value = left @ right.T
    # What float32 leaves of the distance of equal descriptors is rounding; as zero it makes them tie.
    value[value > -_ROUNDING] = 0
    return value
