"""Relevance of a network's middle layers and of the pixels, for one photo and any number of start relevances."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from pairx_engine.lrp import PRESETS, Preset, lock_of, lrp_rules, reduce_channels


@dataclass(frozen=True)
class Activations:
    """One plain forward of N chips: raw embeddings (N, D) and, per layer, features (N, C, h, w)."""

    embeddings: Tensor
    features: dict[str, Tensor]


def cosine_start(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    """Start relevances of two embeddings (D,): the gradients of their cosine.

    d cos / d e0 = (e1/|e1| - cos e0/|e0|) / |e0|, and likewise for e1. Their product with the embedding itself is zero, as
    the cosine does not depend on length.
    """
    length0, length1 = first.norm(), second.norm()
    unit0, unit1 = first / length0, second / length1
    cosine = unit0 @ unit1
    return (unit1 - cosine * unit0) / length0, (unit0 - cosine * unit1) / length1


class _StopForward(Exception):
    """Raised by a hook once the wanted layer has been computed."""


class LayerExplainer:
    """Explains one network at one or several layers, with the rules of a preset.

    `layers` are names of submodules whose output is one map (N, C, h, w). Inputs are normalised chips on the network's
    device. Raises ValueError for an unknown preset, a name that the network does not have, or a map of another shape.
    """

    def __init__(self, network: nn.Module, layers: Sequence[str], preset: str = "published") -> None:
        if preset not in PRESETS:
            raise ValueError(f"preset {preset!r} is not one of {', '.join(PRESETS)}")
        if not layers or len(set(layers)) != len(layers):
            raise ValueError(f"name at least one layer, each once, not {list(layers)}")
        self.network = network
        self.preset: Preset = PRESETS[preset]
        self.layers = tuple(layers)
        self._modules = {name: _submodule(network, name) for name in self.layers}
        self._open = 0

    @contextmanager
    def open(self) -> Iterator[None]:
        """Keep the rules in place over many calls: putting them there costs as much as propagating. May be nested."""
        with lock_of(self.network), ExitStack() as stack:
            if not self._open:
                stack.enter_context(lrp_rules(self.network))
            self._open += 1
            try:
                yield
            finally:
                self._open -= 1

    def activations(self, chips: Tensor) -> Activations:
        """Embeddings and features of chips (N, 3, H, W) by a plain forward."""
        features: dict[str, Tensor] = {}

        def keep(name: str) -> Any:
            def hook(module: nn.Module, inputs: Any, output: Tensor) -> None:
                features[name] = _checked(name, output)

            return hook

        with lock_of(self.network), torch.no_grad(), _hooks(self._modules, keep):
            embeddings = self.network(chips)
        return Activations(embeddings, features)

    def channel_relevance(self, chip: Tensor, starts: Tensor) -> dict[str, Tensor]:
        """Relevance of every channel, per layer (P, C, h, w), for P start relevances (P, D) of one chip (3, H, W).

        The photo is forwarded once. At the first of the layers its features are repeated P times, so that only what lies
        above is computed P-fold, and nothing below is propagated.
        """
        kept: dict[str, Tensor] = {}

        def watch(name: str) -> Any:
            def hook(module: nn.Module, inputs: Any, output: Tensor) -> Tensor:
                if not kept:
                    output = _checked(name, output).detach().expand(len(starts), -1, -1, -1).clone().requires_grad_()
                kept[name] = output
                return output

            return hook

        with self.open(), torch.enable_grad(), _hooks(self._modules, watch):
            embeddings = self.network(chip[None])
            found = torch.autograd.grad(embeddings, [kept[name] for name in self.layers], grad_outputs=starts)
        return dict(zip(self.layers, found, strict=True))

    def relevance(self, chip: Tensor, starts: Tensor) -> dict[str, Tensor]:
        """Relevance grids per layer (P, h, w), reduced as the preset says; see `channel_relevance`."""
        channels = self.channel_relevance(chip, starts)
        return {name: reduce_channels(found, self.preset.reduction) for name, found in channels.items()}

    def pixel_maps(self, chip: Tensor, layer: str, cells: Any, chunk: int | None = None) -> Tensor:
        """Pixel relevance (k, H, W) of k cells (k, 2), each (column, row), of one layer: |sum over RGB|.

        Each start is the layer's features in one cell and zero elsewhere; the forward stops at the layer. `chunk` starts
        are propagated at once: by default one on a CPU, where larger batches thrash the cache, and sixteen on a GPU.
        """
        if layer not in self._modules:
            raise ValueError(f"layer {layer!r} is not one of this explainer's: {', '.join(self.layers)}")
        where = torch.as_tensor(cells, dtype=torch.int64, device=chip.device).reshape(-1, 2)
        size = chunk or (16 if chip.is_cuda else 1)
        with self.open():
            maps = [self._pixel_maps(chip, layer, part) for part in where.split(size) if len(part)]
        return torch.cat(maps) if maps else chip.new_zeros((0, *chip.shape[1:]))

    def _pixel_maps(self, chip: Tensor, layer: str, cells: Tensor) -> Tensor:
        pixels = chip.detach().expand(len(cells), -1, -1, -1).clone().requires_grad_()
        reached: list[Tensor] = []

        def stop(module: nn.Module, inputs: Any, output: Tensor) -> None:
            reached.append(_checked(layer, output))
            raise _StopForward

        handle = self._modules[layer].register_forward_hook(stop)
        try:
            with torch.enable_grad():
                self.network(pixels)
        except _StopForward:
            pass
        finally:
            handle.remove()
        features = reached[0]
        start = torch.zeros_like(features)
        index = torch.arange(len(cells), device=chip.device)
        start[index, :, cells[:, 1], cells[:, 0]] = features.detach()[index, :, cells[:, 1], cells[:, 0]]
        (relevance,) = torch.autograd.grad(features, pixels, grad_outputs=start)
        return relevance.sum(1).abs()


@contextmanager
def _hooks(modules: dict[str, nn.Module], make: Any) -> Iterator[None]:
    handles = [module.register_forward_hook(make(name)) for name, module in modules.items()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _submodule(network: nn.Module, name: str) -> nn.Module:
    known = {n: m for n, m in network.named_modules() if n}
    if name not in known:
        near = difflib.get_close_matches(name, known, 5) or [n for n in known if n.count(".") <= 1][:12]
        raise ValueError(f"the network has no layer {name!r}; near names: {', '.join(near)}")
    return known[name]


def _checked(name: str, output: Tensor) -> Tensor:
    if not isinstance(output, Tensor) or output.ndim != 4:
        shape = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
        raise ValueError(f"layer {name!r} gives {shape}, not one map (N, C, h, w); choose a convolutional layer")
    return output
