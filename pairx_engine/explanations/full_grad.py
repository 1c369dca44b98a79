"""FullGrad: the gradient times the pixels, and the gradient times the bias at every layer that has one.

s is the cosine of a photo with its partner, the partner and the embedding's norm held. Of a network of
convolutions, ReLUs, plain pooling and batch norms, which is linear around any photo, all these terms together
sum to s (Srinivas and Fleuret 2019):

    s = sum (d s / d x) x + sum over layers of sum (d s / d z) b,

z the layer's output, b its bias. A batch norm's is its implicit one, beta - mean gamma / sqrt(var + eps). A layer
norm's is its beta alone; what its statistics, attention and smooth activations do is no bias, so that in such
networks the sum misses s. What a term gives where there are no cells (gates, windows of Swin, class tokens, the
neck) has no place in a map and is counted instead. Kept with the maps, for either photo: `share`, which is s,
`input_sum`, `bias_sum` of what has its place, `unplaced_sum` of what has none, and `gap`, what s has beyond
them.

| method | how a term becomes part of the map |
| --- | --- |
| `full_grad` | as published: each channel's absolute values, stretched to 0..1 between its least and largest |
| `full_grad_signed` | as it is: the map sums to `input_sum` + `bias_sum` |

The former bears the name since it is what others mean by it. It lets each channel of each layer count alike, and
so it hardly depends on what is asked; the latter keeps sizes and signs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from timm.layers import LayerNorm2d
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd
from torchvision.models.convnext import LayerNorm2d as TorchvisionLayerNorm2d  # type: ignore[import-untyped]

from pairx_engine.explanations.recorded import embeddings_of, norm_held
from pairx_engine.explanations.seam import Explained, State, Subject, stretched
from pairx_engine.models.cells import cell_grid, extra_tokens
from pairx_engine.relevance.locking import exclusive
from pairx_engine.relevance.precision import FULL, tensor_cores

Post = Literal["published", "signed"]
_CHANNELS_FIRST = (_ConvNd, nn.modules.batchnorm._NormBase, nn.GroupNorm, LayerNorm2d, TorchvisionLayerNorm2d)
_CHANNELS_LAST = (nn.Linear, nn.LayerNorm)


@dataclass(frozen=True)
class FullGradients:
    """The terms of a chip: `pixels` (3, H, W), and `biases`, maps (C, h, w) of the layers' cells."""

    share: float
    pixels: Tensor
    biases: Sequence[Tensor]
    unplaced: float

    @property
    def sums(self) -> Mapping[str, float]:
        """What the terms sum to, and what they leave of `share`."""
        pixels = float(self.pixels.double().sum())
        biases = sum(float(term.double().sum()) for term in self.biases)
        return {
            "share": self.share,
            "input_sum": pixels,
            "bias_sum": biases,
            "unplaced_sum": self.unplaced,
            "gap": self.share - pixels - biases - self.unplaced,
        }


@dataclass(frozen=True)
class FullGrad:
    """The method with one way of making a map of the terms."""

    name: str
    about: str
    post: Post
    cost: float = 10
    sees_partner: bool = True

    def identity(self) -> Mapping[str, Any]:
        """How terms become a map."""
        return {"post": self.post}

    def explain(
        self, subject: Subject, chip_a: Tensor, chip_b: Tensor, state: State | None = None
    ) -> Explained:
        """Explain two chips; the subject's layer does not matter."""
        chips = chip_a, chip_b
        with exclusive(subject.network), tensor_cores(FULL):
            embeddings = embeddings_of(subject.network, *chips)
            maps, sums = [], []
            for chip, partner in zip(chips, reversed(embeddings), strict=True):
                terms = full_gradient_terms(subject.network, chip, partner)
                maps.append(_map_of(terms, self.post, chip))
                sums.append(terms.sums)
        plain = Explained.of_maps(maps[0], maps[1])
        kept = {name: np.array([one[name] for one in sums]) for name in sums[0]}
        return replace(plain, arrays={**plain.arrays, **kept})


def full_gradients() -> Sequence[FullGrad]:
    """Both."""
    about = "gradients times pixels and times all biases (FullGrad), {}"
    return [
        FullGrad("full_grad", about.format("each channel alike"), "published"),
        FullGrad("full_grad_signed", about.format("with sign and size"), "signed"),
    ]


def full_gradient_terms(network: nn.Module, chip: Tensor, partner: Tensor) -> FullGradients:
    """All terms of a chip (3, H, W) with its partner's embedding (D,) held."""
    with torch.enable_grad():
        given = chip.detach().clone().requires_grad_()
        with _biased_outputs(network) as found:
            share = norm_held(network(given[None]), partner)
        # What no gradient reaches, such as a table of positions, is no part of the photo's way.
        outputs = [one for one in found if one.output.requires_grad]
        slopes = torch.autograd.grad(share, [given, *(one.output for one in outputs)], allow_unused=True)
    placed, unplaced = [], 0.0
    for one, slope in zip(outputs, slopes[1:], strict=True):
        if slope is None:
            continue
        term = slope * one.bias
        grid = cell_grid(term, (chip.shape[-2], chip.shape[-1]), one.extra)
        total = float(term.double().sum())
        # A single cell is a photo's mean, as in gates: no place in it.
        if grid is not None and grid.height * grid.width > 1:
            placed.append(grid.maps(term)[0])
            total -= float(placed[-1].double().sum())
        unplaced += total
    pixels = torch.zeros_like(given) if slopes[0] is None else slopes[0] * given
    return FullGradients(float(share.detach()), pixels.detach(), placed, unplaced)


@dataclass(frozen=True)
class _Biased:
    """An output of a layer, and its bias in a shape that fits it; `extra` tokens are no cells."""

    output: Tensor
    bias: Tensor
    extra: int | None


@contextmanager
def _biased_outputs(network: nn.Module) -> Iterator[list[_Biased]]:
    """The outputs of all layers with a bias, filled as they run."""
    found: list[_Biased] = []
    with ExitStack() as handles:
        for name, module in network.named_modules():
            bias = _bias_of(module)
            if bias is not None:
                _watch(module, bias, extra_tokens(network, name), found, handles)
        yield found


def _watch(
    module: nn.Module, bias: Tensor, extra: int | None, found: list[_Biased], handles: ExitStack
) -> None:
    first = isinstance(module, _CHANNELS_FIRST) or hasattr(module, "running_mean")

    def keep(output: Tensor) -> Tensor:
        shape = (-1, *(1,) * (output.ndim - 2)) if first else bias.shape
        found.append(_Biased(output, bias.view(shape), extra))
        # A copy goes on: what follows may work in place.
        return output.clone()

    act = getattr(module, "act", None)
    if isinstance(act, nn.Module):
        # timm's norms with their activation inside: its input is the norm's output.
        handle = act.register_forward_pre_hook(lambda _, inputs: (keep(inputs[0]), *inputs[1:]))
    else:
        handle = module.register_forward_hook(lambda _, inputs, output: keep(output))
    handles.callback(handle.remove)


def _bias_of(module: nn.Module) -> Tensor | None:
    """A layer's bias, for a norm with kept statistics the implicit one; None for a layer without."""
    mean, variance = (getattr(module, name, None) for name in ("running_mean", "running_var"))
    bias = getattr(module, "bias", None)
    if isinstance(mean, Tensor) and isinstance(variance, Tensor):
        weight = getattr(module, "weight", None)
        scale = (1 if weight is None else weight.detach()) / (variance + getattr(module, "eps", 0.0)).sqrt()
        return (0 if bias is None else bias.detach()) - mean * scale
    if isinstance(bias, Tensor) and isinstance(module, _CHANNELS_FIRST + _CHANNELS_LAST):
        return bias.detach()
    return None


def _map_of(terms: FullGradients, post: Post, chip: Tensor) -> Tensor:
    made = _POSTS[post](terms.pixels, chip)
    for term in terms.biases:
        made = made + _POSTS[post](term, chip)
    return made


def _rescaled(term: Tensor, chip: Tensor) -> Tensor:
    """The published map (H, W) of a term (C, h, w).

    Channels are summed before they are stretched, which is the same and takes less.
    """
    size = term.abs()
    size = size - size.amin((1, 2), keepdim=True)
    most = size.amax((1, 2), keepdim=True)
    return stretched((size / most.where(most > 0, torch.ones_like(most))).sum(0), chip)


def _signed(term: Tensor, chip: Tensor) -> Tensor:
    """The map (H, W) of a term (C, h, w), with the same sum.

    Where the chip is no multiple of the grid, stretching changes the sum a little; the rest is spread evenly.
    """
    grid = term.sum(0)
    found = stretched(grid, chip) * (grid.numel() / chip[0].numel())
    return found + (grid.sum() - found.sum()) / found.numel()


_POSTS = {"published": _rescaled, "signed": _signed}
