"""One recorded pass of a chip: a layer's activations, and how the pair's cosine depends on them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional

from pairx_engine.errors import EngineError
from pairx_engine.explanations.seam import Subject
from pairx_engine.relevance.explainer import find_layer
from pairx_engine.relevance.locking import exclusive
from pairx_engine.relevance.precision import FULL, tensor_cores
from pairx_engine.relevance.starts import SMALLEST_NORM

AT_ONCE = 32
"""Changed chips or feature maps that run forward together."""
Cosines = Callable[[Tensor], Tensor]
"""From changed chips (N, 3, H, W) of a photo to their cosines (N,) with its partner."""


@dataclass(frozen=True)
class Recorded:
    """What one pass of a chip (3, H, W) left, with its partner's embedding (D,) held.

    `activation` A, `gradient` d cosine / d A and `share` are (C, h, w), at the subject's layer. `share` is the
    gradient with the embedding's norm held: by it a linear rest of the network shares out the whole cosine.
    """

    network: nn.Module
    layer: nn.Module
    chip: Tensor
    partner: Tensor
    activation: Tensor
    gradient: Tensor
    share: Tensor
    cosine: float

    def cosines_of_chips(self, chips: Tensor) -> Tensor:
        """The cosine of each changed chip (N, 3, H, W) with the partner (N,)."""
        return _cosines(self.network, self.partner, chips)

    def cosines_of_maps(self, maps: Tensor) -> Tensor:
        """The cosine (N,) where the layer gives each of `maps` (N, C, h, w) in place of the activations."""
        found = []
        with torch.no_grad():
            for part in maps.split(AT_ONCE):
                with _replaced(self.layer, part):
                    embeddings = self.network(self.chip.expand(len(part), -1, -1, -1))
                found.append(_cosine(embeddings, self.partner))
        return torch.cat(found)


@contextmanager
def recorded(subject: Subject, chip_a: Tensor, chip_b: Tensor) -> Iterator[tuple[Recorded, Recorded]]:
    """Both chips, each recorded with the other as its held partner; the network is ours for the block.

    Raises `EngineError` where the layer gives no map (N, C, h, w), or where the cosine does not depend on it.
    """
    network, layer = subject.network, find_layer(subject.network, subject.layer)
    with exclusive(network), tensor_cores(FULL):
        with torch.no_grad():
            embeddings = [network(chip[None])[0] for chip in (chip_a, chip_b)]
        yield (
            _record(network, layer, subject.layer, chip_a, embeddings[1]),
            _record(network, layer, subject.layer, chip_b, embeddings[0]),
        )


@contextmanager
def partner_held(subject: Subject, chip_a: Tensor, chip_b: Tensor) -> Iterator[tuple[Cosines, Cosines]]:
    """For each photo, the cosine of changed chips of it with the other as its held partner; records no layer.

    The network is ours for the block.
    """
    network = subject.network
    with exclusive(network), tensor_cores(FULL):
        with torch.no_grad():
            embeddings = [network(chip[None])[0] for chip in (chip_a, chip_b)]
        yield partial(_cosines, network, embeddings[1]), partial(_cosines, network, embeddings[0])


def _record(network: nn.Module, layer: nn.Module, name: str, chip: Tensor, partner: Tensor) -> Recorded:
    outputs: list[Tensor] = []

    def keep(module: nn.Module, inputs: object, output: Tensor) -> Tensor:
        outputs.append(output)
        # A copy goes on: what follows may work in place.
        return output.clone()

    handle = layer.register_forward_hook(keep)
    try:
        with torch.enable_grad():
            given = chip.detach().clone().requires_grad_()
            embedding = network(given[None])
            cosine, held = _cosine(embedding, partner)[0], _norm_held(embedding, partner)
    finally:
        handle.remove()
    if len(outputs) != 1 or not isinstance(outputs[0], Tensor) or outputs[0].ndim != 4:
        raise EngineError(
            f"layer {name!r} gives no single map (N, C, h, w), which class activation maps need"
        )
    (gradient,) = torch.autograd.grad(cosine, outputs, allow_unused=True, retain_graph=True)
    if gradient is None:
        raise EngineError(f"the embedding does not depend on layer {name!r}")
    (share,) = torch.autograd.grad(held, outputs)
    return Recorded(
        network, layer, chip, partner, outputs[0].detach()[0], gradient[0], share[0], float(cosine.detach())
    )


@contextmanager
def _replaced(layer: nn.Module, maps: Tensor) -> Iterator[None]:
    handle = layer.register_forward_hook(lambda *_: maps)
    try:
        yield
    finally:
        handle.remove()


def _cosines(network: nn.Module, partner: Tensor, chips: Tensor) -> Tensor:
    with torch.no_grad():
        return torch.cat([_cosine(network(part), partner) for part in chips.split(AT_ONCE)])


def _cosine(embeddings: Tensor, partner: Tensor) -> Tensor:
    """Cosines (N,) of embeddings (N, D) with the partner's (D,)."""
    return functional.cosine_similarity(embeddings.double(), partner.double()[None], dim=1, eps=SMALLEST_NORM)


def _norm_held(embedding: Tensor, partner: Tensor) -> Tensor:
    """The cosine of an embedding (1, D), whose gradient takes the embedding's norm for a constant."""
    e, p = embedding[0].double(), partner.double()
    return (e @ p) / (e.detach().norm() * p.norm()).clamp(min=SMALLEST_NORM)
