"""Tummala and Suresh's explanation: a class activation map between a query and a support photo.

The source shows maps of a Siamese EfficientNet's last block that depend on both photos; its weights are not
published. This is our reading: a channel counts as far as both photos show it,

    map of the query = relu(sum_c w_c A_c),    w_c = mean(A_c) mean(B_c),

with A and B (C, h, w) the last maps of query and support. Each photo is the query once. Whatever layer the
subject is at, the map is of the network's last layer that still has positions: the last output of a module with
more than one cell, be it a map, channels last or tokens (`models/cells.py`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from pairx_engine.errors import EngineError
from pairx_engine.explanations.seam import Explained, State, Subject, stretched
from pairx_engine.models.cells import cell_grid, extra_tokens
from pairx_engine.relevance.locking import exclusive
from pairx_engine.relevance.precision import FULL, tensor_cores


@dataclass(frozen=True)
class Tummala:
    """The method described above."""

    name: str = "tummala"
    about: str = "the last layer's channels that both photos show (our reading of Tummala 2023)"
    cost: float = 3
    sees_partner: bool = True

    def identity(self) -> Mapping[str, Any]:
        """Nothing besides the name."""
        return {}

    def explain(
        self, subject: Subject, chip_a: Tensor, chip_b: Tensor, state: State | None = None
    ) -> Explained:
        """Explain two chips; raises `EngineError` where no layer of the network has cells."""
        a, b = (last_map(subject.network, chip) for chip in (chip_a, chip_b))
        weights = a.mean((1, 2)) * b.mean((1, 2))
        return Explained.of_maps(
            *(
                stretched(torch.tensordot(weights, one, dims=1).clamp(min=0), chip)
                for one, chip in ((a, chip_a), (b, chip_b))
            )
        )


def tummala() -> Sequence[Tummala]:
    """The one method."""
    return [Tummala()]


def last_map(network: nn.Module, chip: Tensor) -> Tensor:
    """The last map (C, h, w) of more than one cell in a network's pass over a chip (3, H, W).

    Raises `EngineError` where there is none.
    """
    found: list[Tensor] = []
    size = chip.shape[-2], chip.shape[-1]

    def keep(extra: int | None, module: nn.Module, inputs: object, output: object) -> None:
        grid = cell_grid(output, size, extra)
        if grid is not None and grid.height * grid.width > 1:
            assert isinstance(output, Tensor), "cells lie in a tensor"
            # A copy: what follows may work in place.
            found[:] = [grid.maps(output.detach())[0].clone()]

    with exclusive(network), tensor_cores(FULL), torch.no_grad():
        handles = [
            module.register_forward_hook(partial(keep, extra_tokens(network, name)))
            for name, module in network.named_modules()
        ]
        try:
            network(chip[None])
        finally:
            for handle in handles:
                handle.remove()
    if not found:
        raise EngineError(
            "the network has no layer whose cells have a place in the photo, which `tummala` needs",
            "choose another method: pairx explain --methods",
        )
    return found[0]
