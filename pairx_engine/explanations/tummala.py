"""Tummala and Suresh's explanation: a class activation map between a query and a support photo.

The source shows maps of a Siamese EfficientNet's last block that depend on both photos; its weights are not
published. This is our reading: a channel counts as far as both photos show it,

    map of the query = relu(sum_c w_c A_c),    w_c = mean(A_c) mean(B_c),

with A and B (C, h, w) the last maps of query and support. Each photo is the query once. Whatever layer the
subject is at, the map is of the network's last layer that still has positions: the last output of a module
(1, C, h, w), or (1, h, w, C) where that fits the chip's proportions better, of more than one cell.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from pairx_engine.errors import EngineError
from pairx_engine.explanations.seam import Explained, State, Subject, stretched
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
        """Explain two chips; raises `EngineError` where the network ends in tokens or has no maps."""
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

    Raises `EngineError` where there is none, or where tokens (1, n, C) come after it.
    """
    found: list[Tensor] = []

    def keep(module: nn.Module, inputs: object, output: object) -> None:
        if isinstance(output, Tensor) and output.ndim in (3, 4) and output.shape[0] == 1:
            last = output[0] if output.ndim == 3 else _channels_first(output[0], chip)
            positions = len(last) if output.ndim == 3 else last[0].numel()
            if positions > 1:
                # A copy: what follows may work in place.
                found[:] = [last.detach().clone()]

    with exclusive(network), tensor_cores(FULL), torch.no_grad():
        handles = [module.register_forward_hook(keep) for module in network.modules()]
        try:
            network(chip[None])
        finally:
            for handle in handles:
                handle.remove()
    if not found or found[0].ndim != 3:
        raise EngineError(
            "the network has no map of features as its last layer with positions, which `tummala` needs",
            "choose a method that works at a layer that you name: pairx explain --methods",
        )
    return found[0]


def _channels_first(output: Tensor, chip: Tensor) -> Tensor:
    """A map as (C, h, w), whether that or (h, w, C) is its order; the chip's proportions tell."""
    height, width = chip.shape[-2:]

    def misfit(h: int, w: int) -> float:
        return abs(math.log(h * width / (w * height)))

    one, two, three = output.shape
    return output if misfit(two, three) <= misfit(one, two) else output.permute(2, 0, 1)
