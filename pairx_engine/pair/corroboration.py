"""Local matches counted where the model looks.

They show whether an independent matcher confirms PAIR-X. PAIR-X says where a network sees two photos agree; a
local matcher says where their texture agrees. Neither knows of the other. Every signal here is a number of
local matches, weighted by the relevance of the places where they lie. Unless it says otherwise, a signal
counts matches *before any homography*, so that a turned head or a bent flank does not make it useless.

Relevance is taken per photo, as a multiple of its mean: rho(c) = N |R(c)| / sum |R|, with N cells. A local
match m lies in the cells a(m), b(m) of the two grids; its weight is

    w(m) = sqrt(rho_A(a(m)) rho_B(b(m))),

1 where the model looks as much as it does on average at both ends, 0 where it does not look at either end.
The weight of a mutual deep match is defined in the same way by its own two cells. All sums are correctly
rounded: the order of matches, and which photo comes first, change no bit.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pairx_engine.local.evidence import LocalEvidence
from pairx_engine.pair.finding import Finding
from pairx_engine.pair.matching import Cells, cell_points
from pairx_engine.pair.plausibility import RESIDUAL_FLOOR, residuals

Values = NDArray[np.float64]
FEWEST_FOR_CORRELATION = 3
"""Least number of points for a correlation: two points always lie on a line."""
_NOWHERE = -9
"""A cell that is near no cell."""


@dataclass(frozen=True)
class Corroboration:
    """The signals of one pair at one layer; every one is finite, or None where it has no value.

    With w the weights of this module's docstring, and sums over the local matches m:

    * `weighted_matches` = sum w(m): local matches, weighted by the root of both cells' relevance; 0 or more;
    * `product_weighted_matches` = sum w(m)^2: weighted by the product;
    * `agreeing_matches`: those that *agree* with a mutual deep match, which means that both their ends lie in
      its cells or in cells next to them, corners included;
    * `weighted_agreeing_matches` = sum of w(m) over those that agree;
    * `weighted_inliers` = sum of w(m) over those that the homography explains; None without a homography;
    * `weighted_inverted_residual_mean` = sum w(d) / sum w(d) |H p_d - q_d| over the mutual deep matches d:
      Eq. 4 with its mean weighted, in 1 / chip pixels of the second photo and hence not symmetric; None
      without a homography or weights;
    * `match_symmetry`, `local_symmetry`: Pearson's correlation of rho_A and rho_B at the two ends of the deep
      and of the local matches, in [-1, 1]; None for fewer than three or where either side is constant.

    Weighted signals and correlations are None where a grid is zero throughout: then nothing says where that
    model looks. Signals that count local matches are None where nothing was matched because features were
    missing; without a match they are 0.
    """

    weighted_matches: float | None
    product_weighted_matches: float | None
    agreeing_matches: int | None
    weighted_agreeing_matches: float | None
    weighted_inliers: float | None
    weighted_inverted_residual_mean: float | None
    match_symmetry: float | None
    local_symmetry: float | None


def corroboration(finding: Finding, local: LocalEvidence, chip: tuple[int, int]) -> Corroboration:
    """All signals of a pair by its finding and its local evidence; `chip` is (H, W) of both chips."""
    shapes = [(int(side.grid.shape[0]), int(side.grid.shape[1])) for side in finding.sides]
    deep = finding.sides[0].cells, finding.sides[1].cells
    grids = [relative_relevance(side.grid) for side in finding.sides]
    if local.points is None:
        return Corroboration(None, None, None, None, None, None, correlation(*_at(grids, deep)), None)
    near = cells_of(local.points[0], shapes[0], chip), cells_of(local.points[1], shapes[1], chip)
    agree = agreeing(near, deep, shapes[0])
    count = int(agree.sum())
    if any(grid is None for grid in grids):
        return Corroboration(None, None, count, None, None, None, None, None)
    rho, rho_deep = _at(grids, near), _at(grids, deep)
    weights = np.sqrt(rho[0] * rho[1])
    return Corroboration(
        math.fsum(weights),
        math.fsum(rho[0] * rho[1]),
        count,
        math.fsum(weights[agree]),
        None if local.inliers is None else math.fsum(weights[local.inliers]),
        _inverted_residual_mean(np.sqrt(rho_deep[0] * rho_deep[1]), deep, shapes, chip, local),
        correlation(*rho_deep),
        correlation(*rho),
    )


def _at(grids: Sequence[Values | None], cells: tuple[Cells, Cells]) -> tuple[Values, Values]:
    """rho of either photo at the cells (n, 2) of the matches' ends; nothing where a grid has no rho."""
    if grids[0] is None or grids[1] is None:
        return np.empty(0), np.empty(0)
    return grids[0][cells[0][:, 1], cells[0][:, 0]], grids[1][cells[1][:, 1], cells[1][:, 0]]


def relative_relevance(grid: NDArray[np.floating]) -> Values | None:
    """rho (h, w) = h w |R| / sum |R|, with mean 1; None for a grid (h, w) of zeros."""
    size = np.abs(np.asarray(grid, dtype=np.float64))
    total = math.fsum(size.ravel())
    return size * (size.size / total) if total else None


def cells_of(points: Values, grid: tuple[int, int], chip: tuple[int, int]) -> Cells:
    """The cells (n, 2), as (column, row) of a grid (h, w), of points (n, 2), as (x, y) of a chip (H, W).

    column = floor(x w / W), row = floor(y h / H); the chip's far edges belong to the last cells.
    """
    (height, width), (rows, columns) = chip, grid
    found = np.floor(np.asarray(points, dtype=np.float64).reshape(-1, 2) * [columns / width, rows / height])
    return np.clip(found.astype(np.int64), 0, [columns - 1, rows - 1])


def agreeing(
    local: tuple[Cells, Cells], deep: tuple[Cells, Cells], grid: tuple[int, int]
) -> NDArray[np.bool_]:
    """Which local matches agree with a deep match, (n,).

    At both ends they lie in its cell or in one of the eight cells around it. `local` and `deep` are the cells
    (n, 2) and (k, 2), as (column, row), of matches in either photo; no cell of the first photo has two deep
    matches. `grid` is (h, w) of the first photo.
    """
    # Where in the second photo each cell of the first is matched, with a margin of unmatched cells.
    partner = np.full((grid[0] + 2, grid[1] + 2, 2), _NOWHERE, dtype=np.int64)
    partner[deep[0][:, 1] + 1, deep[0][:, 0] + 1] = deep[1]
    found = np.zeros(len(local[0]), dtype=np.bool_)
    for down in range(3):
        for right in range(3):
            there = partner[local[0][:, 1] + down, local[0][:, 0] + right]
            found |= (np.abs(there - local[1]) <= 1).all(axis=1)
    return found


def correlation(x: Values, y: Values) -> float | None:
    """Pearson's correlation of x (n,) and y (n,), in [-1, 1].

    None for fewer than three values or a constant side.
    """
    if len(x) < FEWEST_FOR_CORRELATION:
        return None
    dx, dy = x - math.fsum(x) / len(x), y - math.fsum(y) / len(y)
    spread = math.sqrt(math.fsum(dx * dx)) * math.sqrt(math.fsum(dy * dy))
    if np.ptp(x) == 0 or np.ptp(y) == 0 or spread == 0:
        return None
    return max(-1.0, min(1.0, math.fsum(dx * dy) / spread))


def _inverted_residual_mean(
    weights: Values,
    deep: tuple[Cells, Cells],
    shapes: list[tuple[int, int]],
    chip: tuple[int, int],
    local: LocalEvidence,
) -> float | None:
    total = math.fsum(weights)
    if local.matrix is None or total == 0:
        return None
    ends = [cell_points(cells, shape, chip) for cells, shape in zip(deep, shapes, strict=True)]
    # A match without weight must not count, even where its residual is infinite.
    used = weights > 0
    mean = math.fsum(weights[used] * residuals(local.matrix, ends[0][used], ends[1][used])) / total
    return 1.0 / max(mean, RESIDUAL_FLOOR)
