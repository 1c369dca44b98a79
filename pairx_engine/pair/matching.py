"""Mutual nearest matches between the feature maps of two chips, their places and relevance.

Frames: a cell is (column, row) of the layer's grid; a point is (x, y) in chip pixels, the origin at the
chip's top-left corner.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from pairx_engine.device.tuning import DISTANCES_AT_ONCE
from pairx_engine.errors import EngineError

Cells = NDArray[np.int64]


@dataclass(frozen=True)
class Matches:
    """Pairs of cells that are each other's nearest.

    `cell_a`, `cell_b` (n, 2) int64 as (column, row) of the two grids; `distance` (n,) float32, L2 between the
    raw feature vectors, in the layer's units.
    """

    cell_a: Cells
    cell_b: Cells
    distance: NDArray[np.float32]

    def __post_init__(self) -> None:
        n = len(self.distance)
        if self.cell_a.shape != (n, 2) or self.cell_b.shape != (n, 2) or self.distance.shape != (n,):
            raise ValueError(
                f"{n} distances need cells ({n}, 2), not {self.cell_a.shape} and {self.cell_b.shape}"
            )

    def __len__(self) -> int:
        return len(self.distance)

    def take(self, order: NDArray[np.int64]) -> Matches:
        """The matches at these positions, in this order."""
        return Matches(self.cell_a[order], self.cell_b[order], self.distance[order])


def mutual_matches(features_a: Tensor, features_b: Tensor) -> Matches:
    """Cells of two maps (C, h, w) and (C, h', w') that are each other's nearest in L2.

    Features are not normalised. A cell i of the first map and j of the second match when j is the nearest of
    i and i the nearest of j. Among equally near cells the first in row-major order counts, as in OpenCV's
    brute-force matcher with cross-check. Matches are ordered by the first map's cells, row-major. Runs on the
    maps' device, with memory bounded by blocks. Raises `EngineError` for maps that do not fit or hold values
    that are not finite.
    """
    if features_a.ndim != 3 or features_b.ndim != 3 or features_a.shape[0] != features_b.shape[0]:
        shapes = f"{tuple(features_a.shape)} and {tuple(features_b.shape)}"
        raise EngineError(f"maps must be (C, h, w) with equal C, not {shapes}")
    cells_a, cells_b = (f.detach().flatten(1).T.float().contiguous() for f in (features_a, features_b))
    if not (cells_a.isfinite().all() and cells_b.isfinite().all()):
        raise EngineError(
            "a feature map holds values that are not finite; check the chip and the model's weights"
        )
    nearest_a, distance_a, nearest_b = _nearest(cells_a, cells_b)
    index_a = torch.arange(len(cells_a), device=cells_a.device)
    mutual = nearest_b[nearest_a] == index_a
    return Matches(
        _as_cells(index_a[mutual], features_a.shape[-1]),
        _as_cells(nearest_a[mutual], features_b.shape[-1]),
        distance_a[mutual].cpu().numpy(),
    )


def _nearest(cells_a: Tensor, cells_b: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The nearest row and its distance for each row of the first, and the nearest row for the second."""
    nearest_a, distance_a = [], []
    best_b = cells_b.new_full((len(cells_b),), float("inf"))
    nearest_b = torch.zeros(len(cells_b), dtype=torch.long, device=cells_b.device)
    rows = max(1, DISTANCES_AT_ONCE // len(cells_b))
    for first in range(0, len(cells_a), rows):
        # By differences: the expansion into dot products loses digits and breaks ties at random.
        distances = torch.cdist(
            cells_a[first : first + rows], cells_b, compute_mode="donot_use_mm_for_euclid_dist"
        )
        least, column = distances.min(dim=1)
        nearest_a.append(column)
        distance_a.append(least)
        least_b, row = distances.min(dim=0)
        closer = least_b < best_b
        best_b = torch.where(closer, least_b, best_b)
        nearest_b = torch.where(closer, row + first, nearest_b)
    return torch.cat(nearest_a), torch.cat(distance_a), nearest_b


def _as_cells(index: Tensor, width: int) -> Cells:
    return torch.stack([index % width, index // width], dim=1).cpu().numpy()


def cell_points(cells: ArrayLike, grid: tuple[Any, ...], chip: tuple[int, int]) -> NDArray[np.float64]:
    """Centres of cells (n, 2), as (x, y) in chip pixels.

    x = (W / w) (column + 1/2), y = (H / h) (row + 1/2), with `grid` = (h, w) and `chip` = (H, W).
    """
    step = np.array([chip[1] / grid[1], chip[0] / grid[0]])
    return (np.asarray(cells, dtype=np.float64).reshape(-1, 2) + 0.5) * step


def match_relevance(
    matches: Matches, relevance_a: Tensor | ArrayLike, relevance_b: Tensor | ArrayLike
) -> NDArray[np.float64]:
    """R0 at a match's first cell times R1 at its second, (n,) double.

    The relevance grids are (h, w) and (h', w').
    """
    return _at(relevance_a, matches.cell_a) * _at(relevance_b, matches.cell_b)


def _at(relevance: Tensor | ArrayLike, cells: Cells) -> NDArray[np.float64]:
    grid = relevance.detach().cpu().numpy() if isinstance(relevance, Tensor) else relevance
    return np.asarray(grid, dtype=np.float64)[cells[:, 1], cells[:, 0]]
