"""One recorded pass of a chip: a layer's activations, and how the pair's cosine depends on them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel

from pairx_engine.errors import EngineError
from pairx_engine.explanations.seam import Subject
from pairx_engine.models.cells import CellGrid, cell_grid, extra_tokens
from pairx_engine.relevance.descriptors import path_of
from pairx_engine.relevance.locking import exclusive
from pairx_engine.relevance.precision import FULL, tensor_cores
from pairx_engine.relevance.starts import SMALLEST_NORM
from pairx_engine.relevance.ways import find_layer

AT_ONCE = 32
"""Changed chips or feature maps that run forward together."""
Cosines = Callable[[Tensor], Tensor]
"""From changed chips (N, 3, H, W) of a photo to their cosines (N,) with its partner."""


@dataclass(frozen=True)
class Recorded:
    """What one pass of a chip (3, H, W) left, with its partner's embedding (D,) held.

    `activation` A, `gradient` d cosine / d A and `share` are (C, h, w), at the subject's layer. `share` is the
    gradient with the embedding's norm held: by it a linear rest of the network shares out the whole cosine.
    `output` is the layer's output as it is, whose cells `grid` knows; class and register tokens are no cells.
    """

    network: nn.Module
    layer: nn.Module
    chip: Tensor
    partner: Tensor
    embedding: Tensor
    output: Tensor
    grid: CellGrid
    activation: Tensor
    gradient: Tensor
    share: Tensor
    cosine: float

    def cosines_of_chips(self, chips: Tensor) -> Tensor:
        """The cosine of each changed chip (N, 3, H, W) with the partner (N,)."""
        return _cosines(self.network, self.partner, chips)

    def cosines_of_maps(self, maps: Tensor) -> Tensor:
        """The cosine (N,) where the layer gives each of `maps` (N, C, h, w) in place of the activations.

        Class and register tokens stay what they are.
        """
        found = []
        with torch.no_grad():
            for part in maps.split(AT_ONCE):
                with _replaced(self.layer, self.grid.placed(part, self.output)):
                    embeddings = self.network(self.chip.expand(len(part), -1, -1, -1))
                found.append(cosines_with(embeddings, self.partner))
        return torch.cat(found)

    def pushed(self, directions: Tensor) -> Tensor:
        """How the embedding answers a move of the activations along each of `directions` (N, C, h, w): (N, D).

        This is its derivative along them, at the recorded pass.
        """
        found = []
        nowhere = torch.zeros_like(self.output)
        # Other kernels of attention have no derivative of this kind.
        with torch.no_grad(), forward_ad.dual_level(), sdpa_kernel(SDPBackend.MATH):
            for part in directions.split(AT_ONCE):
                moved = self.grid.placed(part, nowhere).contiguous()
                held = self.output.expand_as(moved).clone(memory_format=torch.contiguous_format)
                with _replaced(self.layer, forward_ad.make_dual(held, moved)):
                    embeddings = self.network(self.chip.expand(len(part), -1, -1, -1))
                answer = forward_ad.unpack_dual(embeddings).tangent
                found.append(torch.zeros_like(embeddings) if answer is None else answer)
        return torch.cat(found)

    def pulled(self, directions: Tensor) -> Tensor:
        """The gradient at the layer, (N, C, h, w), of the embedding's product with each direction (N, D)."""
        with torch.enable_grad(), sdpa_kernel(SDPBackend.MATH):
            output = self.output.clone().requires_grad_()
            with _replaced(self.layer, output.clone()):
                embedding = self.network(self.chip[None])[0]
            found = [
                torch.autograd.grad(embedding, output, one.to(embedding), retain_graph=True)[0]
                for one in directions
            ]
        return self.grid.maps(torch.cat(found))


@contextmanager
def recorded(subject: Subject, chip_a: Tensor, chip_b: Tensor) -> Iterator[tuple[Recorded, Recorded]]:
    """Both chips, each recorded with the other as its held partner; the network is ours for the block.

    Taken from the subject's `passes` where these two tensors were recorded before. Raises `EngineError` where
    the layer gives no cells, or where the cosine does not depend on them.
    """
    key = id(chip_a), id(chip_b)
    with exclusive(subject.network), tensor_cores(FULL):
        kept = None if subject.passes is None else subject.passes.get(key)
        if kept is None:
            # The chips stay with what was made of them, so that no other tensor gets their ids.
            kept = (chip_a, chip_b), _recorded(subject, chip_a, chip_b)
            if subject.passes is not None:
                subject.passes[key] = kept
        yield kept[1]


def _recorded(subject: Subject, chip_a: Tensor, chip_b: Tensor) -> tuple[Recorded, Recorded]:
    embeddings = embeddings_of(subject.network, chip_a, chip_b)
    return _record(subject, chip_a, *embeddings), _record(subject, chip_b, *reversed(embeddings))


def activation_of(subject: Subject, chip: Tensor) -> Tensor:
    """The activations (C, h, w) of a chip (3, H, W) at the subject's layer, by one forward pass.

    Raises `EngineError` where the layer gives no cells.
    """
    with exclusive(subject.network), tensor_cores(FULL), torch.no_grad():
        _, output = _watched(subject, chip)
        return _grid_of(subject, output, chip).maps(output)[0].contiguous()


def _record(subject: Subject, chip: Tensor, own: Tensor, partner: Tensor) -> Recorded:
    name = subject.layer
    with torch.enable_grad():
        embedding, output = _watched(subject, chip.detach().clone().requires_grad_())
        cosine, held = cosines_with(embedding, partner)[0], norm_held(embedding, partner)
    grid = _grid_of(subject, output, chip)
    slopes = [
        torch.autograd.grad(value, output, allow_unused=True, retain_graph=True)[0]
        for value in (cosine, held)
    ]
    if slopes[0] is None:
        raise EngineError(f"the embedding does not depend on layer {name!r}")
    activation, gradient, share = (grid.maps(x.detach())[0].contiguous() for x in (output, *slopes))
    if grid.extra and not share.any() and slopes[1].any():
        raise EngineError(
            f"the embedding sees layer {name!r} through class and register tokens alone, and its cells count for "
            "nothing; choose an earlier block"
        )
    network, layer = subject.network, find_layer(subject.network, name)
    return Recorded(
        network,
        layer,
        chip,
        partner,
        own,
        output.detach(),
        grid,
        activation,
        gradient,
        share,
        float(cosine.detach()),
    )


@contextmanager
def partner_held(subject: Subject, chip_a: Tensor, chip_b: Tensor) -> Iterator[tuple[Cosines, Cosines]]:
    """For each photo, the cosine of changed chips of it with the other as its held partner; records no layer.

    The network is ours for the block.
    """
    network = subject.network
    with exclusive(network), tensor_cores(FULL):
        a, b = embeddings_of(network, chip_a, chip_b)
        yield partial(_cosines, network, b), partial(_cosines, network, a)


def _watched(subject: Subject, chip: Tensor) -> tuple[Tensor, Tensor]:
    """The embedding (1, D) of a chip, and what the subject's layer gave on the way."""
    outputs: list[Tensor] = []

    def keep(module: nn.Module, inputs: object, output: Tensor) -> Tensor:
        outputs.append(output)
        # A copy goes on: what follows may work in place.
        return output.clone() if isinstance(output, Tensor) else output

    handle = find_layer(subject.network, subject.layer).register_forward_hook(keep)
    try:
        embedding = subject.network(chip[None])
    finally:
        handle.remove()
    if len(outputs) != 1:
        raise EngineError(
            f"layer {subject.layer!r} gives no single map of cells: it runs {len(outputs)} times in a forward pass; "
            "choose a layer that runs once"
        )
    return embedding, outputs[0]


def _grid_of(subject: Subject, output: Tensor, chip: Tensor) -> CellGrid:
    height, width = chip.shape[-2:]
    found = cell_grid(output, (height, width), extra_tokens(subject.network, path_of(subject.layer)))
    if found is None:
        shape = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
        raise EngineError(
            f"layer {subject.layer!r} gives no single map of cells: {shape} for a chip of {height} x {width} pixels is "
            "neither a map (1, C, h, w), nor (1, h, w, C), nor a row of tokens (1, p + h w, C); choose a stage or a block"
        )
    return found


@contextmanager
def _replaced(layer: nn.Module, output: Tensor) -> Iterator[None]:
    handle = layer.register_forward_hook(lambda *_: output)
    try:
        yield
    finally:
        handle.remove()


def embeddings_of(network: nn.Module, chip_a: Tensor, chip_b: Tensor) -> tuple[Tensor, Tensor]:
    """The embeddings (D,) of two chips, which may differ in size, without gradients."""
    with torch.no_grad():
        return network(chip_a[None])[0], network(chip_b[None])[0]


def _cosines(network: nn.Module, partner: Tensor, chips: Tensor) -> Tensor:
    with torch.no_grad():
        return torch.cat([cosines_with(network(part), partner) for part in chips.split(AT_ONCE)])


def cosines_with(embeddings: Tensor, partner: Tensor) -> Tensor:
    """Cosines (N,) of embeddings (N, D) with the partner's (D,)."""
    return functional.cosine_similarity(embeddings.double(), partner.double()[None], dim=1, eps=SMALLEST_NORM)


def norm_held(embedding: Tensor, partner: Tensor) -> Tensor:
    """The cosine of an embedding (1, D), whose gradient takes the embedding's norm for a constant."""
    e, p = embedding[0].double(), partner.double()
    return (e @ p) / (e.detach().norm() * p.norm()).clamp(min=SMALLEST_NORM)
