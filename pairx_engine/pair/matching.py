"""Mutual nearest matches between the feature maps of two chips, where they lie, and how relevant they are.

Frames: a cell is (column, row) of the layer's grid; a point is (x, y) in chip pixels, the origin at the chip's top-left
corner.
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

    `cell0`, `cell1` (n, 2) int64 as (column, row) of the two grids; `distance` (n,) float32, L2 between the raw feature
    vectors, in the layer's units.
    """

    cell0: Cells
    cell1: Cells
    distance: NDArray[np.float32]

    def __post_init__(self) -> None:
        n = len(self.distance)
        if self.cell0.shape != (n, 2) or self.cell1.shape != (n, 2) or self.distance.shape != (n,):
            raise ValueError(
                f"{n} distances need cells ({n}, 2), not {self.cell0.shape} and {self.cell1.shape}"
            )

    def __len__(self) -> int:
        return len(self.distance)

    def take(self, order: NDArray[np.int64]) -> Matches:
        """The matches at these positions, in this order."""
        return Matches(self.cell0[order], self.cell1[order], self.distance[order])


def mutual_matches(features0: Tensor, features1: Tensor) -> Matches:
    """Cells of two maps (C, h, w) and (C, h', w') that are each other's nearest in L2, without normalisation.

    A cell i of the first map and j of the second match when j is the nearest of i and i the nearest of j; among equally
    near cells the first in row-major order counts, as in OpenCV's brute-force matcher with cross-check. Ordered by the
    first map's cells, row-major. Runs on the maps' device, with memory bounded by blocks. Raises `EngineError` for maps
    that do not fit or hold values that are not finite.
    """
    if features0.ndim != 3 or features1.ndim != 3 or features0.shape[0] != features1.shape[0]:
        shapes = f"{tuple(features0.shape)} and {tuple(features1.shape)}"
        raise EngineError(f"maps must be (C, h, w) with equal C, not {shapes}")
    cells0, cells1 = (f.detach().flatten(1).T.float().contiguous() for f in (features0, features1))
    if not (cells0.isfinite().all() and cells1.isfinite().all()):
        raise EngineError(
            "a feature map holds values that are not finite; check the chip and the model's weights"
        )
    nearest0, distance0, nearest1 = _nearest(cells0, cells1)
    index0 = torch.arange(len(cells0), device=cells0.device)
    mutual = nearest1[nearest0] == index0
    return Matches(
        _as_cells(index0[mutual], features0.shape[-1]),
        _as_cells(nearest0[mutual], features1.shape[-1]),
        distance0[mutual].cpu().numpy(),
    )


def _nearest(cells0: Tensor, cells1: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """For each row of the first its nearest of the second and the distance; for each of the second its nearest."""
    nearest0, distance0 = [], []
    best1 = cells1.new_full((len(cells1),), float("inf"))
    nearest1 = torch.zeros(len(cells1), dtype=torch.long, device=cells1.device)
    rows = max(1, DISTANCES_AT_ONCE // len(cells1))
    for first in range(0, len(cells0), rows):
        # From differences: the expansion into dot products loses digits and breaks ties at random.
        distances = torch.cdist(
            cells0[first : first + rows], cells1, compute_mode="donot_use_mm_for_euclid_dist"
        )
        least, column = distances.min(dim=1)
        nearest0.append(column)
        distance0.append(least)
        least1, row = distances.min(dim=0)
        closer = least1 < best1
        best1 = torch.where(closer, least1, best1)
        nearest1 = torch.where(closer, row + first, nearest1)
    return torch.cat(nearest0), torch.cat(distance0), nearest1


def _as_cells(index: Tensor, width: int) -> Cells:
    return torch.stack([index % width, index // width], dim=1).cpu().numpy()


def cell_points(cells: ArrayLike, grid: tuple[Any, ...], chip: tuple[int, int]) -> NDArray[np.float64]:
    """Centres of cells (n, 2), as (x, y) in chip pixels.

    x = (W / w) (column + 1/2), y = (H / h) (row + 1/2), with `grid` = (h, w) and `chip` = (H, W).
    """
    step = np.array([chip[1] / grid[1], chip[0] / grid[0]])
    return (np.asarray(cells, dtype=np.float64).reshape(-1, 2) + 0.5) * step


def match_relevance(
    matches: Matches, relevance0: Tensor | ArrayLike, relevance1: Tensor | ArrayLike
) -> NDArray[np.float64]:
    """R0 at the first cell times R1 at the second, (n,) double, from the relevance grids (h, w) and (h', w')."""
    return _at(relevance0, matches.cell0) * _at(relevance1, matches.cell1)


def _at(relevance: Tensor | ArrayLike, cells: Cells) -> NDArray[np.float64]:
    grid = relevance.detach().cpu().numpy() if isinstance(relevance, Tensor) else relevance
    return np.asarray(grid, dtype=np.float64)[cells[:, 1], cells[:, 0]]
