"""How much is computed at once on a device, and how maps lie in its memory.

All tuned numbers of the engine stand here. They do not change what is computed, but the shape of a product
decides which kernel computes it, and kernels round differently. So a group's size is fixed wherever that
matters, and missing items are filled up: a row must not depend on its company.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import torch

Layout = Literal["contiguous", "channels_last"]
"""How a map's numbers lie in memory."""


SMALL_MAP = 2048
"""Cells of a map up to which a 1 x 1 convolution is computed as a product of matrices.

A convolution lays its weights out anew each time. Timed on a CPU.
"""
HEAVY_PRODUCT = 50_000_000
"""Multiplications per item from which the convolution is faster after all.

It is faster by a tenth, in single precision on a CPU.
"""
WINDOW_SIZES = 8
"""Parts of a window's size; over an edge of the map a window is cut to a multiple of one part.

Few sizes are better, since kernels are compiled anew for each size.
"""
WINDOW_STEP = 4
"""Sizes of windows that lost their edges are multiples of this, for the same reason."""
WORTH_LOOKING = 256
"""Cells of a window below which looking for light edges costs more than it saves, on a CPU."""
DISTANCES_AT_ONCE = 4_000_000
"""Distances between the cells of two maps, 16 MB in single precision. Chosen for memory."""
NUMBERS_AT_ONCE = 4_000_000
"""Vector elements in double precision in a search for neighbours, 32 MB of each operand.

Chosen for memory.
"""
PRODUCTS_AT_ONCE = 1 << 24
"""Products of queries and photos in a search for neighbours on a CPU, 64 MB. Chosen from timings."""
PRODUCTS_AT_ONCE_ON_A_GPU = 1 << 28
"""The same on a GPU, 1 GB. Chosen from counts of launches, not from timings: none has been taken."""
SCORES_AT_ONCE = 1 << 21
"""Scores of like pairs, 16 MB. Chosen for memory."""


def topk_tile(queries: int, device: torch.device) -> int:
    """Columns whose products with all queries are looked at together."""
    most = PRODUCTS_AT_ONCE if device.type == "cpu" else PRODUCTS_AT_ONCE_ON_A_GPU
    return max(256, min(8192, most // max(1, queries)))


Task = Literal["score", "explain"]


@dataclass(frozen=True)
class Tuning:
    """How one device works on one task.

    `photos` are recorded in one forward pass. `starts` of each photo are pulled at once through the part
    above the layers, but not more than `cells` cells of the largest map (None: no such bound). Groups are
    filled up where that map has fewer than `filled_below` cells (None: always). `maps` of each photo are
    pulled at once through the part below the layers. With `windows` they are pulled through the cells that
    relevance can reach, otherwise as whole maps and filled up. `forward` says how maps lie in memory on the
    way up, `pull` on the way down (None: as the forward pass leaves them). `graphs` replays recorded passes
    and pulls as CUDA graphs.
    """

    photos: int
    starts: int
    maps: int
    cells: int | None
    filled_below: int | None
    windows: bool
    forward: Layout
    pull: Layout | None
    graphs: bool = False

    def __post_init__(self) -> None:
        if min(self.photos, self.starts, self.maps) < 1:
            raise ValueError(f"groups hold at least one: {self}")


CPU = Tuning(
    # One photo in a forward pass: batches were no faster on two cores, and a photo's numbers then depend on
    # no other photo.
    photos=1,
    # Products with the weights gain from company up to here; larger groups were no faster and take more
    # memory.
    starts=5,
    cells=4096,
    # On larger maps groups of 1, 2, 3, 4 and 6 gave the same bits (MiewID's shape, 440 px).
    filled_below=512,
    # One at a time, each through its own receptive field: the union of two costs more than a group gains.
    maps=1,
    windows=True,
    forward="channels_last",
    pull=None,
)
_GPU: dict[Task, Tuning] = {
    # A photo has five neighbours and is a neighbour of about as many.
    "score": Tuning(4, 10, 10, None, None, windows=False, forward="contiguous", pull=None),
    # Two photos, one start each, and as many pixel maps as a figure shows.
    "explain": Tuning(2, 1, 10, None, None, windows=False, forward="contiguous", pull=None),
}
"""Chosen from counts (`tests.benchmarks.launches`), not from timings: none has been taken.

Maps are pulled whole, since windows change shape with every cell and cuDNN plans each shape anew.
"""


def tuning_for(device: torch.device, precision: str, task: Task = "explain") -> Tuning:
    """What suits a device and task.

    On a GPU, products in short formats want the channels last.
    """
    if device.type == "cpu":
        return CPU
    chosen = _GPU[task]
    return chosen if precision == "float32" else replace(chosen, pull="channels_last")
