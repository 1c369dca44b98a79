"""Where the cells of a layer lie in its output: in a map, with the channels last, or in a row of tokens.

| output | where it comes from |
| --- | --- |
| map (N, C, h, w) | convolutions |
| channels last (N, h, w, C) | stages of Swin |
| tokens (N, p + h w, C) | vision transformers: p class and register tokens, then the cells row by row |

A layer's output does not say which of these it is. Cells have the chip's proportions and are as many as some
stride leaves of the chip; channels hardly ever are. Where both readings are possible, what a stride leaves to
the cell comes first, and a map before channels that are last.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn

Form = Literal["map", "channels last", "tokens"]
_MOST_EXTRA = 8
"""Class and register tokens where the network does not say how many it has."""


@dataclass(frozen=True)
class CellGrid:
    """The cells of a layer's output, `height` x `width` of them.

    `extra` is how many tokens come before the cells: they lie nowhere in the photo.
    """

    form: Form
    height: int
    width: int
    extra: int = 0

    def maps(self, output: Tensor) -> Tensor:
        """The cells of an output as maps (N, C, h, w); without its extra tokens."""
        if self.form == "map":
            return output
        cells = output[:, self.extra :].unflatten(1, (self.height, self.width)) if self.is_row else output
        return cells.permute(0, 3, 1, 2)

    def placed(self, maps: Tensor, output: Tensor | None = None) -> Tensor:
        """Maps (N, C, h, w) in the layer's own form, with the extra tokens of an output of one item.

        Without an output these are zero.
        """
        if self.form == "map":
            return maps
        cells = maps.permute(0, 2, 3, 1)
        if not self.is_row:
            return cells.contiguous()
        count = self.extra + self.height * self.width
        if output is None:
            output = maps.new_zeros((1, count, maps.shape[1]))
        rows = output.expand(len(maps), -1, -1).clone()
        rows[:, self.extra :] = cells.flatten(1, 2)
        return rows

    @property
    def is_row(self) -> bool:
        """Whether the cells are tokens."""
        return self.form == "tokens"


def cell_grid(output: object, chip: tuple[int, int], extra: int | None = None) -> CellGrid | None:
    """The cells of a layer's output for a chip of size (H, W); None where it has none, or several items.

    `extra` is the network's number of class and register tokens, where it is known: a layer before these are
    added has none.
    """
    if not isinstance(output, Tensor) or output.ndim not in (3, 4) or len(output) != 1:
        return None
    shape = output.shape
    if output.ndim == 4:
        as_map, as_last = CellGrid("map", shape[2], shape[3]), CellGrid("channels last", shape[1], shape[2])
        for fits in (_is_left_by_a_stride, _has_proportions):
            for grid in (as_map, as_last):
                if fits(grid.height, grid.width, chip):
                    return grid
        return None
    # Numbers of tokens may fit by chance: what a stride leaves without remainder comes first.
    for exactly in (True, False):
        for before in range(_MOST_EXTRA + 1) if extra is None else dict.fromkeys((extra, 0)):
            for height, width in _grids(chip, exactly):
                if height * width + before == shape[1]:
                    return CellGrid("tokens", height, width, before)
    return None


def map_grid(output: object, chip: tuple[int, int]) -> CellGrid | None:
    """The cells of a map (N, C, h, w) with the proportions of a chip (H, W); None for anything else."""
    if (
        not isinstance(output, Tensor)
        or output.ndim != 4
        or not _has_proportions(output.shape[2], output.shape[3], chip)
    ):
        return None
    return CellGrid("map", output.shape[2], output.shape[3])


def extra_tokens(network: nn.Module, layer: str) -> int | None:
    """How many class and register tokens there are at a layer, as the part of the network around it says.

    None where no part says so, as in networks that are not timm's.
    """
    steps = layer.split(".")
    for end in range(len(steps), -1, -1):
        found = getattr(network.get_submodule(".".join(steps[:end])), "num_prefix_tokens", None)
        if isinstance(found, int):
            return found
    return None


def _is_left_by_a_stride(h: int, w: int, chip: tuple[int, int]) -> bool:
    return (h, w) in _grids(chip)


def _has_proportions(h: int, w: int, chip: tuple[int, int]) -> bool:
    """Whether a grid has the chip's proportions, as far as paddings leave them."""
    height, width = chip
    return abs(h - w * height / width) <= 1 + h / 4


def _grids(chip: tuple[int, int], exactly: bool = False) -> Iterator[tuple[int, int]]:
    """The grids (h, w) that strides leave of a chip, rounded down and up, or `exactly` without remainder."""
    for stride in range(1, max(chip) + 1):
        if exactly and (chip[0] % stride or chip[1] % stride):
            continue
        yield max(1, chip[0] // stride), max(1, chip[1] // stride)
        yield -(-chip[0] // stride), -(-chip[1] // stride)
