"""What a forward pass shows of a chip, and the starts of its cells."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn

from pairx_engine.errors import EngineError
from pairx_engine.models.cells import CellGrid, cell_grid, extra_tokens, map_grid
from pairx_engine.relevance.company import times
from pairx_engine.relevance.descriptors import path_of
from pairx_engine.relevance.fast import Pulls
from pairx_engine.relevance.suitable import presets_for_attention
from pairx_engine.relevance.window import Window, cut, whole

Cell = tuple[int, int]


@dataclass(frozen=True)
class Kept:
    """A recorded forward pass: its pulls, and the features (N, C, h, w) by layer.

    `chips` is how many of its N chips are not filling.
    """

    pulls: Pulls
    features: Mapping[str, Tensor]
    chips: int

    @property
    def photos(self) -> int:
        """N, filling included."""
        return len(next(iter(self.features.values())))


@dataclass(frozen=True)
class Seen:
    """What a forward pass shows of a chip (3, H, W).

    `embedding` is (D,), and `features` (C, h, w), which cells are matched by, are by layer. `kept` is the recorded pass, if it was to be
    kept, and `place` the chip's place in it.
    """

    chip: Tensor
    embedding: Tensor
    features: Mapping[str, Tensor]
    kept: Kept | None = None
    place: int = 0
    outputs: Mapping[str, Tensor] = field(default_factory=dict)
    """The layers' own outputs. Features are their cells, and share their memory, unless they are keys."""

    @property
    def nbytes(self) -> int:
        """Bytes that chip, embedding and features take."""
        return sum(tensor.nbytes for tensor in (self.chip, self.embedding, *self.features.values()))


def pass_of(given: Sequence[Tensor | Seen]) -> Kept | None:
    """The recorded pass whose chips are exactly these, in this order; None if there is none."""
    kept = given[0].kept if isinstance(given[0], Seen) else None
    if kept is None or len(given) != kept.chips:
        return None
    same = (isinstance(one, Seen) and one.kept is kept and one.place == i for i, one in enumerate(given))
    return kept if all(same) else None


def cells_of(network: nn.Module, layer: str, output: object, chip: Tensor, any_form: bool) -> CellGrid:
    """Where a layer's output (N, ...) has its cells, for chips like this one (3, H, W).

    Raises `EngineError` where it has none, or has them elsewhere than in a map (N, C, h, w) and `any_form`
    is false.
    """
    one = output[:1] if isinstance(output, Tensor) and output.ndim else output
    size = int(chip.shape[-2]), int(chip.shape[-1])
    grid = cell_grid(one, size, extra_tokens(network, path_of(layer))) if any_form else map_grid(one, size)
    if grid is not None:
        return grid
    shape = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
    others = " or ".join(presets_for_attention())
    wanted = "" if any_form else ", not a map (N, C, h, w), which its preset asks for"
    raise EngineError(
        f"layer {layer!r} gives {shape} for a chip of {size[0]} x {size[1]} pixels{wanted}; choose a stage or "
        f"block whose cells lie in the chip{'' if any_form else f', or preset {others}'}"
    )


def check_cells(cells: Sequence[Cell], features: Tensor) -> None:
    """Raise `EngineError` for a cell (column, row) outside the grid of features (N, C, h, w)."""
    h, w = features.shape[-2:]
    if any(not (0 <= column < w and 0 <= row < h) for column, row in cells):
        raise EngineError(f"some cells lie outside the layer's grid of {w} columns and {h} rows")


def single_cells(features: Tensor, cells: Sequence[Sequence[Cell]], windowed: bool) -> tuple[Tensor, Window]:
    """Features (N, C, h, w) of which all but one cell are zero, for P cells of each: (N P, C, h', w').

    With `windowed` in the smallest window that holds all the cells, else in whole maps.
    """
    flat = [cell for some in cells for cell in some]
    columns, rows = (np.array(part) for part in zip(*flat, strict=True))
    held = whole(features)
    if windowed:
        held = Window(int(rows.min()), int(rows.max()) + 1, int(columns.min()), int(columns.max()) + 1)
    mask = np.zeros((len(flat), 1, *held.size), dtype=np.float32)
    mask[np.arange(len(flat)), 0, rows - held.top, columns - held.left] = 1
    chosen = torch.from_numpy(mask).to(features.device, features.dtype)
    return times(chosen, cut(features, held)), held
