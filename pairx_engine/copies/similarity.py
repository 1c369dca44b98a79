"""Similarity transforms between two pictures: turned, resized, shifted, and perhaps mirrored.

Points are (x, y) in edge coordinates: (0, 0) is the corner of the picture, (0.5, 0.5) the centre of its first
pixel.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from pairx_engine.local.features import LocalFeatures
from pairx_engine.local.sift import RATIO, mutual_ratio_matches

Matrix = NDArray[np.float64]
Size = tuple[int, int]
"""(W, H)."""

INLIER_DISTANCE = 2.5
"""Pixels of the second picture within which a match agrees with a transform."""
FEWEST_INLIERS = 6
"""So many matches rarely agree by chance; what is found is checked pixel by pixel afterwards."""
_ITERATIONS = 2000
_TO_EDGES: Matrix = np.array([[1, 0, 0.5], [0, 1, 0.5]])
"""The map from OpenCV's coordinates, in which 0 is the centre of the first pixel."""


@dataclass(frozen=True)
class Candidate:
    """An affine map (2, 3) of the first picture's points to the second's.

    `inliers` is the number of local matches that agree with it.
    """

    matrix: Matrix
    inliers: int = 0


def shape_of(matrix: Matrix) -> tuple[bool, float, float, float]:
    """What an affine map (2, 3) does to a picture.

    Returns whether it mirrors, its angle in degrees (-180 to 180), its scale, and its anisotropy (at least
    1). The linear part is scale * R(angle) * diag(-1 if mirrored, 1) times a stretch, with R turning x
    towards y, clockwise on the screen. The scale is the square root of the determinant's magnitude, the
    anisotropy the ratio of the singular values.
    """
    linear = np.asarray(matrix)[:, :2]
    determinant = float(np.linalg.det(linear))
    mirrored = determinant < 0
    plain = linear @ np.diag([-1.0 if mirrored else 1.0, 1.0])
    angle = math.degrees(math.atan2(plain[1, 0] - plain[0, 1], plain[0, 0] + plain[1, 1]))
    longest, shortest = np.linalg.svd(linear, compute_uv=False)
    return mirrored, angle, scale_of(matrix), float(longest / max(shortest, 1e-12))


def scale_of(matrix: Matrix) -> float:
    """By how much an affine map (2, 3) enlarges lengths, averaged over directions.

    It is the square root of the determinant's magnitude.
    """
    return math.sqrt(abs(float(np.linalg.det(np.asarray(matrix)[:, :2]))))


def inverse(matrix: Matrix) -> Matrix:
    """The inverse map (2, 3); raises `numpy.linalg.LinAlgError` where there is none."""
    return np.asarray(np.linalg.inv(_square(matrix))[:2], dtype=np.float64)


def after(first: Matrix, second: Matrix) -> Matrix:
    """The map (2, 3) that applies the first, then the second."""
    return (_square(second) @ _square(first))[:2]


def in_centres(matrix: Matrix) -> Matrix:
    """The same map between points counted from pixel centres, as OpenCV counts them."""
    return after(after(_TO_EDGES, matrix), inverse(_TO_EDGES))


def in_edges(matrix: Matrix) -> Matrix:
    """The same map in edge coordinates, of a map between points counted from pixel centres."""
    return after(after(inverse(_TO_EDGES), matrix), _TO_EDGES)


def mirror(width: float) -> Matrix:
    """The map (2, 3) that exchanges left and right of a picture of this width."""
    return np.array([[-1.0, 0, width], [0, 1, 0]])


def _square(matrix: Matrix) -> Matrix:
    return np.vstack([matrix, [0, 0, 1]]).astype(np.float64)


def whole_onto_whole(orientation: int, first: Size, second: Size) -> Matrix:
    """The stretch of the whole first picture, in one of eight orientations, onto the whole second."""
    matrix: Matrix = np.diag([1 / first[0], 1 / first[1], 1.0])[:2]
    if orientation >= 4:
        matrix = after(matrix, mirror(1))
    for _ in range(orientation % 4):
        matrix = after(
            matrix, np.array([[0, 1, 0], [-1, 0, 1.0]])
        )  # counter-clockwise in the unit square, y down
    return after(matrix, np.diag([*second, 1.0])[:2])


def by_local_features(first: LocalFeatures, second: LocalFeatures, mirrored: bool) -> Candidate | None:
    """The similarity that most matches of SIFT features agree with; None where there are too few.

    A mirrored picture's features are computed from the first one's: nothing is detected again.
    """
    source = mirrored_features(first) if mirrored else first
    matches = mutual_ratio_matches(source.descriptors, second.descriptors, RATIO)
    if len(matches) < FEWEST_INLIERS:
        return None
    points_a, points_b = source.points[matches[:, 0]], second.points[matches[:, 1]]
    distinct = np.unique(np.hstack([points_a, points_b]).astype(np.float64), axis=0)
    found, mask = cv2.estimateAffinePartial2D(
        np.ascontiguousarray(distinct[:, :2]),
        np.ascontiguousarray(distinct[:, 2:]),
        method=cv2.RANSAC,
        ransacReprojThreshold=INLIER_DISTANCE,
        maxIters=_ITERATIONS,
        confidence=0.999,
        refineIters=10,
    )
    if found is None or not np.isfinite(found).all() or int(mask.sum()) < FEWEST_INLIERS:
        return None
    matrix = np.asarray(found, dtype=np.float64)
    if mirrored:
        matrix = after(mirror(first.view_size[0]), matrix)
    return Candidate(matrix, int(mask.sum()))


def mirrored_features(features: LocalFeatures) -> LocalFeatures:
    """The features of the mirror image, from left to right, of a picture with these SIFT features.

    A descriptor is a 4 x 4 grid of histograms of 8 directions, in a frame turned by the keypoint's own
    direction. Mirroring reverses the grid's rows and the sign of every direction.
    """
    grid = features.descriptors.reshape(-1, 4, 4, 8)
    descriptors = np.ascontiguousarray(grid[:, ::-1, :, -np.arange(8) % 8].reshape(-1, 128))
    points = features.points.copy()
    points[:, 0] = features.view_size[0] - points[:, 0]
    return LocalFeatures(points, descriptors, features.scores, features.view_size)
