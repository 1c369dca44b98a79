"""What a forward pass shows of a chip, and the starts of its cells."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pairx_engine.errors import EngineError
from pairx_engine.relevance.company import times
from pairx_engine.relevance.fast import Pulls
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

    `embedding` is (D,), and `features` (C, h, w) are by layer. `kept` is the recorded pass, if it was to be
    kept, and `place` the chip's place in it.
    """

    chip: Tensor
    embedding: Tensor
    features: Mapping[str, Tensor]
    kept: Kept | None = None
    place: int = 0

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


def check_output(name: str, output: object, chip: Tensor) -> None:
    """Raise `EngineError` unless a layer's output is a map (N, C, h, w) of the chip's proportions."""
    if not isinstance(output, Tensor) or output.ndim != 4:
        shape = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
        raise EngineError(
            f"layer {name!r} gives {shape}, not a map (N, C, h, w); choose a convolutional stage"
        )
    (h, w), (height, width) = output.shape[-2:], chip.shape[-2:]
    if abs(h - w * height / width) > 1 + h / 4:
        # A map has the chip's proportions; with the channels last, one of its sides would be the channels.
        raise EngineError(
            f"layer {name!r} gives {tuple(output.shape)} for a chip of {height} x {width} pixels, which is no map "
            "(N, C, h, w): transformers often have the channels last; choose a convolutional stage"
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
