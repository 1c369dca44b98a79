"""Similarities of single points: what a cell of one photo has in common with each cell of the other.

D[u, v] is how much the cells u of a and v of b give to the similarity together; the similarity is its sum over
all u and v wherever what follows the layer is linear without a bias.

* `simexpert_points`: D[u, v] = a_u . b_v / (n |mean a| m |mean b|), the activations' product, each photo's over
  its number of cells n and m (Stylianou et al. 2019, average pooling). Its sums over v are `simexpert`.
* `activation_points`: D[u, v] = f_u . f_v / (|e_a| |e_b|), with f_u = (d e / d a_u) a_u what the cell gives to its
  photo's embedding (Zhu et al. 2021). Where pooling and neck are linear this is their linear map of each
  position, its bias left out; elsewhere it is the embedding's first order, and its sums over v are what
  `activation_intensity` keeps the positive part of, as far as the f_v sum to e_b. For average pooling without
  a neck it equals `simexpert_points`.

The points asked are the `k` cells of either photo that give most to the similarity. Each is paired with the cell
of the other photo that has most in common with it; the k pairs with the largest D are shown. Of a pair (u, v)
b's pixel map is D[u, .] and a's is D[., v], stretched. A photo's whole map is the sum of these maps, each
weighted by the D of its pair; pairs whose D is not positive weigh nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pairx_engine.errors import EngineError
from pairx_engine.explanations.cell_products import shares
from pairx_engine.explanations.recorded import Recorded, recorded
from pairx_engine.explanations.seam import Explained, Shown, State, Subject, stretched
from pairx_engine.models.cells import CellGrid
from pairx_engine.pair.finding import as_array
from pairx_engine.pair.matching import cell_points
from pairx_engine.relevance.starts import SMALLEST_NORM

Both = tuple[Recorded, Recorded]
Pair = tuple[int, int]


class Products(Protocol):
    """D of a pair, a few rows at a time; cells are counted row by row."""

    def strength(self, side: int) -> Tensor:
        """What each cell of that photo gives to the similarity, (h, w)."""

    def rows(self, side: int, cells: Sequence[int]) -> Tensor:
        """D of these k cells of that photo with all cells of the other, (k, h', w')."""


@dataclass(frozen=True)
class CellPoints:
    """One of this module's methods.

    `cells` are (column, row) of a's grid that are asked in place of the strongest; then nothing is asked of b,
    and the order of the photos matters.
    """

    name: str
    about: str
    products: type[Activations] | type[Contributions]
    cost: float
    cells: tuple[Pair, ...] | None = None
    sees_partner: bool = True

    def identity(self) -> Mapping[str, Any]:
        """The points asked, where they are given."""
        return {} if self.cells is None else {"cells": [list(cell) for cell in self.cells]}

    def explain(
        self, subject: Subject, chip_a: Tensor, chip_b: Tensor, state: State | None = None
    ) -> Explained:
        """Explain two chips; raises `EngineError` where the layer gives no cells, or not those asked."""
        with recorded(subject, chip_a, chip_b) as both:
            products = self.products(both)
            if self.cells is None:
                return _shown(products, _strongest(products, subject.k), both)
            return _shown(products, _asked(products, self.cells, both[0].grid), both)


def points_of_cells() -> Sequence[CellPoints]:
    """Both."""
    return [
        CellPoints(
            "simexpert_points", "strongest cells, each with its like (Stylianou 2019)", Activations, 8
        ),
        CellPoints(
            "activation_points",
            "strongest cells, each with what gives to the embedding alike (Zhu 2021)",
            Contributions,
            80,
        ),
    ]


class Activations:
    """Products of the activations themselves."""

    def __init__(self, both: Both) -> None:
        self._cells = [one.activation.double().flatten(1).T for one in both]
        self._grids = [one.activation.shape[-2:] for one in both]
        self._strength = shares(both[0].activation, both[1].activation)
        norms = [float(cells.mean(0).norm()) * len(cells) for cells in self._cells]
        self._norm = max(norms[0] * norms[1], SMALLEST_NORM**2)

    def strength(self, side: int) -> Tensor:
        """What each cell gives to the cosine of the average-pooled activations, (h, w)."""
        return self._strength[side]

    def rows(self, side: int, cells: Sequence[int]) -> Tensor:
        """Products of these k cells with all cells of the other photo, (k, h', w')."""
        found = self._cells[side][list(cells)] @ self._cells[1 - side].T / self._norm
        return found.unflatten(1, self._grids[1 - side])


class Contributions:
    """Products of what cells give to the embeddings, to first order.

    The full table would take a pass for every cell. A row takes one pass forward for f_u, and one back through
    the other photo, since f_u . f_v = b_v . (d (f_u . e_b) / d b_v).
    """

    def __init__(self, both: Both) -> None:
        self._both = both
        norms = [float(one.embedding.double().norm().clamp(min=SMALLEST_NORM)) for one in both]
        self._norm = norms[0] * norms[1]
        self._known: dict[Pair, Tensor] = {}

    def strength(self, side: int) -> Tensor:
        """What each cell gives to the cosine with the norms held, (h, w)."""
        one = self._both[side]
        return (one.activation.double() * one.share.double()).sum(0)

    def rows(self, side: int, cells: Sequence[int]) -> Tensor:
        """Products of these k cells with all cells of the other photo, (k, h', w')."""
        new = [cell for cell in dict.fromkeys(cells) if (side, cell) not in self._known]
        if new:
            one, other = self._both[side], self._both[1 - side]
            alone = torch.zeros((len(new), *one.activation.shape)).to(one.activation)
            for place, cell in enumerate(new):
                row, column = divmod(cell, one.activation.shape[-1])
                alone[place, :, row, column] = one.activation[:, row, column]
            slopes = other.pulled(one.pushed(alone)).double()
            found = (slopes * other.activation.double()).sum(1) / self._norm
            self._known |= {(side, cell): grid for cell, grid in zip(new, found, strict=True)}
        return torch.stack([self._known[side, cell] for cell in cells])


def _strongest(products: Products, k: int) -> list[Pair]:
    """The k pairs (u, v) that have most in common, among the k strongest cells of either photo."""
    found: dict[Pair, float] = {}
    for side in (0, 1):
        cells = products.strength(side).flatten().argsort(descending=True, stable=True)[:k].tolist()
        for cell, row in zip(cells, products.rows(side, cells), strict=True):
            found[_with_most(cell, row, side)] = float(row.max())
    # Equal ones in the order of their cells: which photo was asked first must not show.
    return sorted(found, key=lambda pair: (-found[pair], sorted(pair)))[:k]


def _asked(products: Products, cells: Sequence[Pair], grid: CellGrid) -> list[Pair]:
    """Each of a's cells (column, row) with the one of b that has most in common with it."""
    if not cells or any(not (0 <= x < grid.width and 0 <= y < grid.height) for x, y in cells):
        raise EngineError(
            f"ask cells (column, row) of the layer's grid of {grid.width} columns and {grid.height} rows, "
            f"not {list(cells)}"
        )
    flat = [row * grid.width + column for column, row in cells]
    return [_with_most(cell, row, 0) for cell, row in zip(flat, products.rows(0, flat), strict=True)]


def _with_most(cell: int, row: Tensor, side: int) -> Pair:
    """The cell with the one that has most in common with it, a's first."""
    other = int(row.argmax())
    return (cell, other) if side == 0 else (other, cell)


def _shown(products: Products, pairs: Sequence[Pair], both: Both) -> Explained:
    of_b = products.rows(0, [u for u, _ in pairs])
    of_a = products.rows(1, [v for _, v in pairs])
    value = torch.stack([row.flatten()[v] for row, (_, v) in zip(of_b, pairs, strict=True)])
    order = value.argsort(descending=True, stable=True)
    value, of_a, of_b, pairs = value[order], of_a[order], of_b[order], [pairs[i] for i in order.tolist()]
    pixels = [
        torch.stack([stretched(grid, one.chip) for grid in grids])
        for grids, one in zip((of_a, of_b), both, strict=True)
    ]
    weights = value.clamp(min=0)
    maps = [torch.tensordot(weights.to(p), p, dims=1) for p in pixels]
    cells = [torch.tensordot(weights, grids, dims=1) for grids in (of_a, of_b)]
    shown = Shown(
        (as_array(cells[0]), as_array(cells[1])),
        (_points(pairs, 0, both[0]), _points(pairs, 1, both[1])),
        as_array(value),
        (as_array(pixels[0]), as_array(pixels[1])),
    )
    arrays = {"map0": as_array(maps[0]), "map1": as_array(maps[1]), "similarity": as_array(value)}
    arrays |= {f"points{side}": shown.points[side] for side in (0, 1)}
    return Explained((maps[0], maps[1]), shown, arrays=arrays)


def _points(pairs: Sequence[Pair], side: int, one: Recorded) -> NDArray[np.float64]:
    height, width = one.activation.shape[-2:]
    cells = [(pair[side] % width, pair[side] // width) for pair in pairs]
    return cell_points(cells, (height, width), (one.chip.shape[-2], one.chip.shape[-1]))
