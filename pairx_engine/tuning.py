"""How much is computed at once on a device, and how maps lie in its memory: every tuned number of the engine in one place.

None of it changes what is computed, but a product's kernel is chosen by its shape, and another kernel rounds otherwise. So a
group's size is fixed wherever that was seen to matter, and what is missing is filled up: a row must not depend on its company.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import torch

from pairx_engine.propagation.precision import Precision

Layout = Literal["contiguous", "channels_last"]


@dataclass(frozen=True)
class Tuning:
    """How one device works.

    `starts` of one photo are pulled at once through the part above the layers, but not more than `cells` cells of the
    largest map. Groups of starts are filled up where that map has fewer than `filled_below` cells (None: always). `maps` are
    pixel maps at once; with `windows` each group is pulled through its own receptive field, otherwise through whole maps, and
    filled up. `together` records both photos of a pair in one forward pass. `forward` and `pull` say how maps lie in memory
    on the way up and down. `graphs` replays a recorded pass as one CUDA graph.
    """

    starts: int
    maps: int
    cells: int | None
    filled_below: int | None
    windows: bool
    together: bool
    forward: Layout
    pull: Layout
    graphs: bool = False

    def __post_init__(self) -> None:
        if min(self.starts, self.maps) < 1:
            raise ValueError(f"groups hold at least one, not {self.starts} starts and {self.maps} maps")


CPU = Tuning(
    # Products with the weights gain from company up to here; more was no faster on two cores, and takes more memory.
    starts=5,
    cells=4096,
    # On larger maps groups of 1 to 6 gave the same bits (MiewID's shape, 440 px).
    filled_below=512,
    # One at a time, each through its own receptive field: the union of two fields costs more than company gains.
    maps=1,
    windows=True,
    together=False,
    forward="channels_last",
    pull="channels_last",
)
GPU = Tuning(
    # A photo has five neighbours and is a neighbour of about as many; ten maps are what a figure shows.
    starts=10,
    maps=10,
    cells=None,
    filled_below=None,
    # Windows change shape with every cell, and cuDNN plans each shape anew.
    windows=False,
    together=True,
    forward="contiguous",
    pull="contiguous",
)
"""Chosen from counts (`tests.benchmarks.launches`), not from timings: none has been taken."""


def tuning_for(device: torch.device, precision: Precision) -> Tuning:
    """What suits a device: on a GPU, products in short formats want channels last."""
    if device.type == "cpu":
        return CPU
    return GPU if precision.name == "float32" else replace(GPU, pull="channels_last")
