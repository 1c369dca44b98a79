"""Mutual nearest matches between the cells of two feature maps, and where the cells lie in the chips.

Frames: a cell is (column, row) of the layer's grid; a point is (x, y) in chip pixels with the origin at the chip's top-left
corner, so the centre of cell (c, r) is ((W/w)(c + 0.5), (H/h)(r + 0.5)).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

_ROWS = 4096


@dataclass(frozen=True)
class Matches:
    """n mutual nearest cells: `cell0`, `cell1` (n, 2) integer (column, row), and `distance` (n,), L2 of the descriptors.

    Sorted by the first photo's cells, row by row.
    """

    cell0: NDArray[np.int64]
    cell1: NDArray[np.int64]
    distance: NDArray[np.float32]

    def __post_init__(self) -> None:
        n = len(self.distance)
        if self.cell0.shape != (n, 2) or self.cell1.shape != (n, 2):
            raise ValueError(f"{n} distances need cells (n, 2), not {self.cell0.shape} and {self.cell1.shape}")

    def __len__(self) -> int:
        return len(self.distance)


def mutual_matches(features0: Tensor, features1: Tensor) -> Matches:
    """Cells that are each other's nearest, by L2 of unnormalised descriptors, for maps (C, h, w) and (C, h', w').

    As OpenCV's cross-checked brute-force matcher: of equally near cells the one with the lowest index counts. Distances are
    compared in single precision after a double-precision product, so equal descriptors stay equally near. Raises ValueError
    when the maps have different numbers of channels.
    """
    if features0.ndim != 3 or features1.ndim != 3 or features0.shape[0] != features1.shape[0]:
        raise ValueError(f"two maps (C, h, w) of one C are needed, not {tuple(features0.shape)} and {tuple(features1.shape)}")
    first, second = (f.detach().flatten(1).T.double() for f in (features0, features1))
    nearest0, nearest1 = _nearest(first, second), _nearest(second, first)
    index0 = torch.arange(len(first), device=first.device)
    mutual = nearest1[nearest0] == index0
    index0, index1 = index0[mutual], nearest0[mutual]
    distance = (first[index0] - second[index1]).norm(dim=1).float()
    return Matches(
        _cells(index0, features0.shape[2]), _cells(index1, features1.shape[2]), distance.cpu().numpy()
    )


def _nearest(queries: Tensor, others: Tensor) -> Tensor:
    lengths = (others * others).sum(1)
    found = []
    for part in queries.split(_ROWS):
        squared = ((part * part).sum(1, keepdim=True) + lengths - 2 * part @ others.T).float()
        # argmin gives no word on ties; the lowest index of the minima does.
        ties = squared == squared.amin(1, keepdim=True)
        found.append(ties.to(torch.uint8).argmax(1))
    return torch.cat(found)


def _cells(index: Tensor, width: int) -> NDArray[np.int64]:
    flat = index.cpu().numpy()
    return np.stack([flat % width, flat // width], axis=1).astype(np.int64)


def cell_points(cells: ArrayLike, grid: tuple[Any, ...], chip: tuple[int, int]) -> NDArray[np.float64]:
    """Centres (n, 2) in chip pixels of cells (n, 2), for a grid (h, w) and a chip (H, W)."""
    factor = np.array([chip[1] / grid[1], chip[0] / grid[0]])
    return (np.asarray(cells, dtype=np.float64).reshape(-1, 2) + 0.5) * factor


def match_relevance(matches: Matches, relevance0: ArrayLike, relevance1: ArrayLike) -> NDArray[np.float64]:
    """Relevance of each match (n,): the product of its two cells' relevances, from grids (h, w)."""
    grid0, grid1 = np.asarray(relevance0, dtype=np.float64), np.asarray(relevance1, dtype=np.float64)
    product: NDArray[np.float64] = (
        grid0[matches.cell0[:, 1], matches.cell0[:, 0]] * grid1[matches.cell1[:, 1], matches.cell1[:, 0]]
    )
    return product
