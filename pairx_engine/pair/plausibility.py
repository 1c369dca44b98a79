"""How plausible a pair's explanation is.

Two measures: residuals under an independent homography (Eq. 4), and matched relevance (Eq. 5). Both are taken
over *all* mutual matches at a layer, before the relevance filter that picks matches for drawing. Points are
(x, y) in chip pixels, edge coordinates; relevances are grids (h, w) over the layer's cells; a match is a cell
(column, row) in each. Residuals are in chip pixels of the second photo. The paper writes cell indices, which
differ by the stride (440 / 28 = 15.7 for MiewID's blocks.3), so its numbers and ours differ by that factor.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pairx_engine.local.homography import transform

Grid = NDArray[np.float64]
Cells = NDArray[np.int64]
Residuals = NDArray[np.float64]

TOP_SHARE = 0.05
"""Share of a layer's cells whose most relevant matches enter `top_residual_mean`."""
RESIDUAL_FLOOR = 1e-6
"""Least mean residual that counts, in chip pixels; smaller residuals are rounding.

The floor keeps Eq. 4 finite for a photo and its own copy.
"""


@dataclass(frozen=True)
class Plausibility:
    """The scores of one pair.

    `n_matches` is the number of mutual matches, `match_fraction` its share of the most there can be (cells of
    the smaller grid). `match_coverage` in [0, 1] (Eq. 5) is None when no cell has relevance. `residuals`
    (n,), their mean, its inverse S1 (Eq. 4, per chip pixel) and the mean over the most relevant matches
    (`top_residual_mean`) are None without a homography; the means are also None without matches. A mean is
    inf when a match lies on the homography's horizon; S1 is then 0.
    """

    n_matches: int
    match_fraction: float
    match_coverage: float | None
    residual_mean: float | None
    inverted_residual_mean: float | None
    top_residual_mean: float | None
    residuals: Residuals | None

    def __post_init__(self) -> None:
        if self.n_matches < 0 or not 0 <= self.match_fraction <= 1:
            raise ValueError(f"{self.n_matches} matches are no fraction {self.match_fraction} of a grid")
        if self.match_coverage is not None and not 0 <= self.match_coverage <= 1:
            raise ValueError(f"match coverage must lie in [0, 1], not {self.match_coverage}")
        means = (self.residual_mean, self.inverted_residual_mean, self.top_residual_mean)
        if len({mean is None for mean in means}) != 1:
            raise ValueError(f"residual means are all known or all unknown, not {means}")
        if any(mean is not None and not mean >= 0 for mean in means):
            raise ValueError(f"residual means cannot be negative or NaN: {means}")
        if self.residuals is not None and self.residuals.shape != (self.n_matches,):
            raise ValueError(f"{self.n_matches} matches have residuals of shape {self.residuals.shape}")


def residuals(matrix: NDArray[np.float64], points_a: ArrayLike, points_b: ArrayLike) -> Residuals:
    """|H p0 - p1| for matched points (n, 2) each, (n,) in pixels of the second photo.

    A point that H sends exactly to infinity has residual inf. (OpenCV's perspectiveTransform would move it to
    the origin, which looks plausible.) A point beyond the horizon of H maps to a finite place and gets a
    finite residual.
    """
    mapped = transform(matrix, points_a)
    return np.hypot(*(mapped - np.asarray(points_b, dtype=np.float64)).T)


def inverted_residual_mean(values: Residuals) -> float | None:
    """Eq. 4: S1 = 1 / mean residual, in 1 / pixels; None without matches, 0 for an infinite mean.

    A mean under `RESIDUAL_FLOOR` counts as the floor. So identical pictures get the largest S1 instead of
    infinity or null, and sort as the most plausible.
    """
    return 1.0 / max(float(values.mean()), RESIDUAL_FLOOR) if len(values) else None


def top_residual_mean(values: Residuals, match_relevance: NDArray[np.float64], n_cells: int) -> float | None:
    """Mean residual of the most relevant matches; None without matches.

    int(0.05 * cells) matches are taken, at least one. Of equally relevant matches the earlier ones are taken;
    `plausibility` sorts them by cell first.
    """
    if not len(values):
        return None
    most = np.argsort(-match_relevance, kind="stable")[: max(1, int(n_cells * TOP_SHARE))]
    return float(values[most].mean())


def match_coverage(cells_a: Cells, cells_b: Cells, relevance_a: Grid, relevance_b: Grid) -> float | None:
    """Eq. 5: (sum of R0 at matched cells + sum of R1 at matched cells) / (sum of R0 + sum of R1).

    Cells (n, 2) are (column, row), each at most once per photo. Magnitudes |R| are used, so the result lies
    in [0, 1]. The maps of the published code are magnitudes already; with the signed maps of the preset
    `paper`, a quotient of signed sums would not be a share. None when both maps are zero throughout.
    """
    parts = [(np.abs(relevance_a), cells_a), (np.abs(relevance_b), cells_b)]
    total = sum(float(grid.sum()) for grid, _ in parts)
    if total == 0:
        return None
    # Summed in another order than the total, the matched part can exceed the total by a rounding error.
    return min(1.0, sum(float(grid[cells[:, 1], cells[:, 0]].sum()) for grid, cells in parts) / total)


def plausibility(
    cells_a: ArrayLike,
    cells_b: ArrayLike,
    points_a: ArrayLike,
    points_b: ArrayLike,
    relevance_a: ArrayLike,
    relevance_b: ArrayLike,
    homography: NDArray[np.float64] | None,
) -> Plausibility:
    """Score one pair from all its mutual matches.

    `cells` (n, 2) integer (column, row) and `points` (n, 2) chip pixels of the n matches in each photo,
    `relevance` (h, w) of each, `homography` (3, 3) from the first chip to the second or None. Scores do not
    depend on the order of matches beyond rounding; `residuals` come in the order given. Matches are ranked by
    |R0| |R1| for `top_residual_mean`. Raises ValueError for cells outside the grid or used twice, lengths
    that differ, relevances that are not finite.
    """
    grids = [_grid(relevance_a), _grid(relevance_b)]
    cells = [_cells(given, grid) for given, grid in zip((cells_a, cells_b), grids, strict=True)]
    n_matches, n_cells = len(cells[0]), min(grid.size for grid in grids)
    if len({n_matches, len(cells[1]), len(np.asarray(points_a)), len(np.asarray(points_b))}) != 1:
        raise ValueError("cells and points of the two photos must be given for the same matches")
    values = residuals(homography, _points(points_a), _points(points_b)) if homography is not None else None
    mean = inverse = top = None
    if values is not None and n_matches:
        flat = [
            rows_columns[:, 1] * grid.shape[1] + rows_columns[:, 0]
            for rows_columns, grid in zip(cells, grids, strict=True)
        ]
        relevance = np.abs(grids[0].ravel()[flat[0]]) * np.abs(grids[1].ravel()[flat[1]])
        by_cell = np.argsort(flat[0])
        mean, inverse = float(values.mean()), inverted_residual_mean(values)
        top = top_residual_mean(values[by_cell], relevance[by_cell], n_cells)
    coverage = match_coverage(cells[0], cells[1], grids[0], grids[1])
    return Plausibility(n_matches, n_matches / n_cells, coverage, mean, inverse, top, values)


def _grid(relevance: ArrayLike) -> Grid:
    grid = np.asarray(relevance, dtype=np.float64)
    if grid.ndim != 2 or not grid.size or not np.isfinite(grid).all():
        raise ValueError(
            f"a relevance is a finite grid (h, w), not one of shape {grid.shape} with holes or NaN"
        )
    return grid


def _points(points: ArrayLike) -> NDArray[np.float64]:
    return np.asarray(points, dtype=np.float64).reshape(-1, 2)


def _cells(cells: ArrayLike, grid: Grid) -> Cells:
    pairs = np.asarray(cells).reshape(-1, 2)
    if len(pairs) and not np.issubdtype(pairs.dtype, np.integer):
        raise ValueError(f"cells are integer (column, row), not {pairs.dtype}")
    pairs = pairs.astype(np.int64)
    if ((pairs < 0) | (pairs >= grid.shape[::-1])).any():
        raise ValueError(f"cells (column, row) lie outside the grid of {grid.shape[1]} x {grid.shape[0]}")
    if len(np.unique(pairs, axis=0)) != len(pairs):
        raise ValueError("a cell is matched twice; plausibility is defined for mutual matches")
    return pairs
