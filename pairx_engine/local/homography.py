"""Homographies between two photos: robust estimation from local matches, and change of frames.

All points are (x, y) in *edge* coordinates: x in [0, W], y in [0, H], (0, 0) the corner of the picture, (0.5,
0.5) the centre of its first pixel. It is the frame of PAIR-X's cell centres x = (W / w)(i + 0.5), and the
only one in which a stretch of the picture purely scales its points. OpenCV and kornia report keypoints in
*centre* coordinates (0 is the centre of the first pixel). The extractors of `pairx_engine.local` add the half
pixel; no later step does.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

Method = Literal["magsac", "least_squares"]
Reason = Literal["too_few_matches", "too_few_inliers", "degenerate", "estimation_failed"]
Size = tuple[float, float]

METHODS: tuple[str, ...] = get_args(Method)
MIN_MATCHES = 4
"""A homography has eight degrees of freedom, and a match gives two equations."""
MIN_INLIERS = 8
"""Least inliers of a homography that counts.

Four matches always fit some homography; pairs of different animals reach seven inliers by chance, rarely
eight.
"""
MAX_ZOOM = 6.0
"""Largest plausible local change of scale between two cuts of one animal brought to one size."""
MIN_SPREAD = 3.0
"""Least root mean square distance (pixels) of the inliers from their best line.

Inliers nearer to a line determine no homography.
"""
_CONFIDENCE = 0.999
_ITERATIONS = 5000


@dataclass(frozen=True)
class Homography:
    """A plane-to-plane map of the first photo's points to the second's.

    `matrix` (3, 3) float64 with matrix[2, 2] = 1. `n_inliers` distinct matches are mapped to within the
    threshold, in the frame of the estimation. `n_matches` distinct matches were given.
    """

    matrix: NDArray[np.float64]
    n_inliers: int
    n_matches: int
    method: Method

    def __post_init__(self) -> None:
        if self.matrix.shape != (3, 3) or self.matrix.dtype != np.float64:
            raise ValueError(
                f"a homography is a (3, 3) float64 matrix, not {self.matrix.shape} {self.matrix.dtype}"
            )
        if not np.isfinite(self.matrix).all() or self.matrix[2, 2] != 1.0:
            raise ValueError("a homography must be finite and normalised to matrix[2, 2] = 1")
        if not 0 <= self.n_inliers <= self.n_matches:
            raise ValueError(f"{self.n_inliers} inliers of {self.n_matches} matches")
        if self.method not in METHODS:
            raise ValueError(f"method must be one of {', '.join(METHODS)}, not {self.method!r}")


@dataclass(frozen=True)
class NoHomography:
    """Why two photos have no homography.

    * `too_few_matches`: fewer than four distinct matches.
    * `too_few_inliers`: fewer agree than chance explains.
    * `degenerate`: the fit is not a view of one surface (collinear, mirrored, folded, or zoomed beyond
      reason).
    * `estimation_failed`: the solver found nothing or something not finite.
    """

    reason: Reason
    n_inliers: int = 0
    n_matches: int = 0

    def __post_init__(self) -> None:
        if self.reason not in get_args(Reason):
            raise ValueError(f"reason must be one of {', '.join(get_args(Reason))}, not {self.reason!r}")


def estimate_homography(
    points_a: ArrayLike,
    points_b: ArrayLike,
    method: Method = "magsac",
    threshold: float = 3.0,
    min_inliers: int = MIN_INLIERS,
    seed: int = 0,
) -> Homography | NoHomography:
    """Fit H with points_b ~ H points_a, each (n, 2) in pixels of its own photo.

    `magsac` is robust (MAGSAC++ score with sigma-consensus local optimisation, `threshold` in pixels of the
    second photo) and refuses what cannot be two views of one surface. `least_squares` fits all matches and
    refuses nothing, as the metric of the PAIR-X paper was computed; there `threshold` only counts inliers.
    The same matches in any order and the same seed give the same result to the bit; a repeated match counts
    once in `magsac`. Raises ValueError for points that are not finite (n, 2) pairs.
    """
    if method not in METHODS:
        raise ValueError(f"method must be one of {', '.join(METHODS)}, not {method!r}")
    if not threshold > 0:
        raise ValueError(f"threshold must be a positive number of pixels, not {threshold}")
    matches = _canonical(points_a, points_b)
    distinct = np.unique(matches, axis=0)
    if len(distinct) < MIN_MATCHES:
        return NoHomography("too_few_matches", n_matches=len(distinct))
    solved = _solve(distinct if method == "magsac" else matches, method, threshold, seed)
    if solved is None:
        return NoHomography("estimation_failed", n_matches=len(distinct))
    inliers = distinct[within(solved, distinct[:, :2], distinct[:, 2:], threshold)]
    if method == "magsac":
        if len(inliers) < max(min_inliers, MIN_MATCHES):
            return NoHomography("too_few_inliers", len(inliers), len(distinct))
        if not _is_view_of_one_surface(solved, inliers):
            return NoHomography("degenerate", len(inliers), len(distinct))
    return Homography(solved, len(inliers), len(distinct), method)


def _canonical(points_a: ArrayLike, points_b: ArrayLike) -> NDArray[np.float64]:
    """Matches as sorted rows (x0, y0, x1, y1), so that the sampler always sees one order."""
    first, second = np.asarray(points_a, dtype=np.float64), np.asarray(points_b, dtype=np.float64)
    if first.shape != second.shape or first.ndim != 2 or first.shape[1] != 2:
        raise ValueError(
            f"matches are two arrays (n, 2) of equal length, not {first.shape} and {second.shape}"
        )
    matches = np.hstack([first, second])
    if not np.isfinite(matches).all():
        raise ValueError("matches hold points that are not finite")
    return matches[np.lexsort(matches.T[::-1])]


def _solve(
    matches: NDArray[np.float64], method: Method, threshold: float, seed: int
) -> NDArray[np.float64] | None:
    source, target = np.ascontiguousarray(matches[:, :2]), np.ascontiguousarray(matches[:, 2:])
    try:
        if method == "magsac":
            matrix, _ = cv2.findHomography(source, target, _magsac(threshold, seed))
        else:
            matrix, _ = cv2.findHomography(source, target, 0)
    except cv2.error:
        return None
    return normalised(matrix) if matrix is not None else None


def _magsac(threshold: float, seed: int) -> cv2.UsacParams:
    # The settings behind OpenCV's USAC_MAGSAC flag, spelled out so that the sampler's state is ours.
    settings = cv2.UsacParams()
    settings.score = cv2.SCORE_METHOD_MAGSAC
    settings.sampler = cv2.SAMPLING_UNIFORM
    settings.loMethod = cv2.LOCAL_OPTIM_SIGMA
    settings.loSampleSize = 75
    settings.loIterations = 15
    settings.final_polisher = cv2.MAGSAC
    settings.final_polisher_iterations = 3
    settings.threshold = threshold
    settings.confidence = _CONFIDENCE
    settings.maxIterations = _ITERATIONS
    settings.isParallel = False
    settings.randomGeneratorState = seed
    return settings


def _is_view_of_one_surface(matrix: NDArray[np.float64], inliers: NDArray[np.float64]) -> bool:
    """Whether the map is plausible at its inliers; corners without inliers do not count.

    A robust fit always finds some subset. On a wrong pair the best subset tends to collapse a region into a
    point or line, or to mirror it. Chips are never mirrored and a flank cannot be seen from behind. So the
    map must keep orientation, have all inliers on one side of its horizon, zoom moderately, and rest on
    points that are not on one line.
    """
    centred = [side - side.mean(axis=0) for side in (inliers[:, :2], inliers[:, 2:])]
    if min(np.linalg.svd(side, compute_uv=False)[1] for side in centred) < MIN_SPREAD * np.sqrt(len(inliers)):
        return False
    depth = inliers[:, :2] @ matrix[2, :2] + 1.0
    # All negative is fine: then the origin, where the matrix is normalised, lies beyond the horizon.
    if not ((depth > 0).all() or (depth < 0).all()):
        return False
    mapped = transform(matrix, inliers[:, :2])
    # Jacobian of the map at each inlier: (A - mapped row2) / depth, A the upper-left block.
    jacobian = (matrix[None, :2, :2] - mapped[:, :, None] * matrix[None, 2:, :2]) / depth[:, None, None]
    zoom = np.linalg.svd(jacobian, compute_uv=False)
    return bool((np.linalg.det(jacobian) > 0).all() and zoom.max() <= MAX_ZOOM and zoom.min() >= 1 / MAX_ZOOM)


def normalised(matrix: ArrayLike) -> NDArray[np.float64] | None:
    """The matrix (3, 3) scaled to matrix[2, 2] = 1; None if not finite or with the origin at infinity."""
    values = np.array(matrix, dtype=np.float64)
    if (
        values.shape != (3, 3)
        or not np.isfinite(values).all()
        or abs(values[2, 2]) <= 1e-12 * np.abs(values).max()
    ):
        return None
    values /= values[2, 2]
    return values if np.isfinite(values).all() else None


def transform(matrix: NDArray[np.float64], points: ArrayLike) -> NDArray[np.float64]:
    """Map points (n, 2) by a homography (3, 3); a point on its horizon becomes (inf, inf)."""
    source = np.asarray(points, dtype=np.float64)
    mapped = source @ matrix[:, :2].T + matrix[:, 2]
    depth = mapped[:, 2:]
    out = np.full((len(source), 2), np.inf)
    return np.divide(mapped[:, :2], depth, out=out, where=depth != 0)


def within(
    matrix: NDArray[np.float64], points_a: ArrayLike, points_b: ArrayLike, threshold: float
) -> NDArray[np.bool_]:
    """Which matches (n, 2) each a homography (3, 3) transfers to within `threshold`, (n,).

    The threshold is in pixels of the second photo.
    """
    error = np.linalg.norm(transform(matrix, points_a) - np.asarray(points_b, dtype=np.float64), axis=1)
    return np.asarray(error <= threshold)


def rescale(
    matrix: NDArray[np.float64], from_a: Size, to_a: Size, from_b: Size, to_b: Size
) -> NDArray[np.float64]:
    """Express a homography between two frames in stretched frames.

    For instance, a homography is fitted in views and used in chips. Sizes are (width, height): `from_a`,
    `from_b` of the pictures in which the matrix (3, 3) holds, `to_a`, `to_b` of the same cuts stretched to
    another size. The factors in x and y may differ. Exact for edge coordinates, and matrix[2, 2] stays 1.
    """
    if min(*from_a, *to_a, *from_b, *to_b) <= 0:
        raise ValueError("sizes of pictures must be positive")
    into_a = np.array([from_a[0] / to_a[0], from_a[1] / to_a[1], 1.0])
    into_b = np.array([to_b[0] / from_b[0], to_b[1] / from_b[1], 1.0])
    return np.asarray(into_b[:, None] * matrix * into_a[None, :], dtype=np.float64)


def rescale_points(points: ArrayLike, from_size: Size, to_size: Size) -> NDArray[np.float64]:
    """Points (n, 2) of a picture of `from_size` (width, height), after its stretch to `to_size`."""
    factor = np.array([to_size[0] / from_size[0], to_size[1] / from_size[1]])
    return np.asarray(points, dtype=np.float64) * factor
