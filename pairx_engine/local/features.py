"""What a local matcher extracts from one photo, and the interface that all local matchers share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pairx_engine.errors import ModelError

Pixels = NDArray[np.uint8]
Matches = NDArray[np.int64]
Identity = Mapping[str, str | int | float]
Rated = tuple[Matches, NDArray[np.float64]]
"""Matches (m, 2), and a confidence in (0, 1] of each, (m,)."""


class MissingWeightsError(ModelError, FileNotFoundError):
    """A matcher's weights are not in the named folder; the message says which, and their source."""


@dataclass(frozen=True)
class LocalFeatures:
    """Keypoints and descriptors of one view; none at all (n = 0) is a valid finding.

    `points` (n, 2) float32: x in [0, W], y in [0, H] of the view in *edge* coordinates. There (0.5, 0.5) is
    the centre of the first pixel, and a stretch of the picture scales the points. `descriptors` (n, d)
    float32. `scores` (n,) float32: the detector's own strength. `view_size` is (width, height). Raises
    ValueError when these disagree.
    """

    points: NDArray[np.float32]
    descriptors: NDArray[np.float32]
    scores: NDArray[np.float32]
    view_size: tuple[int, int]

    def __post_init__(self) -> None:
        n = len(self.points)
        shapes = (self.points.shape, self.descriptors.ndim, len(self.descriptors), self.scores.shape)
        if shapes != ((n, 2), 2, n, (n,)):
            raise ValueError(
                f"points (n, 2), descriptors (n, d) and scores (n,) have shapes {self.points.shape}, "
                f"{self.descriptors.shape} and {self.scores.shape}"
            )
        for name, array in (
            ("points", self.points),
            ("descriptors", self.descriptors),
            ("scores", self.scores),
        ):
            if array.dtype != np.float32:
                raise ValueError(f"{name} must be float32, not {array.dtype}")
            if not np.isfinite(array).all():
                raise ValueError(f"{name} hold values that are not finite")
        if min(self.view_size) < 1:
            raise ValueError(f"view_size must be (width, height) of at least one pixel, not {self.view_size}")
        if n and not ((self.points >= 0) & (self.points <= self.view_size)).all():
            raise ValueError(
                f"points lie outside the view of {self.view_size[0]} x {self.view_size[1]} pixels"
            )

    def __len__(self) -> int:
        return len(self.points)


def strongest_features(
    points: ArrayLike, descriptors: ArrayLike, scores: ArrayLike, view_size: tuple[int, int], limit: int
) -> LocalFeatures:
    """The `limit` strongest of a detector's findings, strongest first, ties by position (y, then x).

    `points` (n, 2) are in edge coordinates of the view. Descriptors are rounded to what float16 can hold. So
    a matcher sees the same numbers whether the features come fresh from the detector or from a store of half
    the size.
    """
    xy, strength = np.asarray(points, dtype=np.float32), np.asarray(scores, dtype=np.float32)
    vectors = np.asarray(descriptors, dtype=np.float32)
    # SIFT may find several orientations at one point with one strength: their descriptors decide the order.
    keys = [*vectors[:, : min(8, vectors.shape[1])].T, xy[:, 0], xy[:, 1], -strength]
    order = np.lexsort(keys)[:limit]
    width, height = view_size
    return LocalFeatures(
        np.ascontiguousarray(np.clip(xy[order], 0, np.array([width, height], dtype=np.float32))),
        vectors[order].astype(np.float16).astype(np.float32),
        np.ascontiguousarray(strength[order]),
        view_size,
    )


class LocalMatcher(Protocol):
    """Finds and matches local features; results of a pair depend only on its two photos."""

    @property
    def name(self) -> str:
        """The name under which `load_local_matcher` finds it."""

    @property
    def min_inliers(self) -> int:
        """Inliers of a homography that matches between different animals rarely reach."""

    @property
    def threads(self) -> bool:
        """Whether several threads may match at once, and are faster together."""

    def extraction_identity(self) -> Identity:
        """Everything that changes what `extract` returns: parameters, versions, hashes of weights."""

    def identity(self) -> Identity:
        """Everything that changes what `extract` followed by `match` returns."""

    def extract(self, view: Pixels) -> LocalFeatures:
        """Features of one view (H, W, 3) uint8 RGB."""

    def match(self, first: LocalFeatures, second: LocalFeatures) -> Matches:
        """Index pairs (m, 2) into the two sets, sorted by the first; no index occurs twice on one side."""


@runtime_checkable
class Confident(Protocol):
    """A local matcher that says how sure it is of each match."""

    def rated_match(self, first: LocalFeatures, second: LocalFeatures) -> Rated:
        """What `match` returns, and a confidence in each."""


def rated_matches(matcher: LocalMatcher, first: LocalFeatures, second: LocalFeatures) -> Rated:
    """Matches of two sets with the matcher's confidence in each; all alike where it does not say."""
    if isinstance(matcher, Confident):
        return matcher.rated_match(first, second)
    found = matcher.match(first, second)
    return found, np.ones(len(found))


def require_view(view: Pixels) -> None:
    """Raise ValueError unless the view is (H, W, 3) uint8, as every matcher expects it."""
    if view.ndim != 3 or view.shape[2] != 3 or view.dtype != np.uint8 or min(view.shape[:2]) < 1:
        raise ValueError(f"a view is (H, W, 3) uint8 RGB, not {view.shape} {view.dtype}")


def no_matches() -> Matches:
    """An empty list of matches, (0, 2)."""
    return np.empty((0, 2), dtype=np.int64)
