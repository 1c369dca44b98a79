"""Relevance at inner layers and in pixels, from one explainer per network.

All grids are (h, w) of the layer's feature map; cells are (column, row), both counted from 0 at the top left. Chips are
normalised network inputs, (3, H, W) or (N, 3, H, W), on the network's device. A layer's output must be (N, C, h, w).
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass

import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn

from pairx_engine.errors import EngineError
from pairx_engine.lrp import exclusive, lrp_rules, preset_named, reduce_channels

SMALLEST_NORM = 1e-8
PIXELS_AT_ONCE = 131_072
"""Input pixels of one batch of pixel maps on a CPU: five chips of 160 px, one of 440 px; larger ones thrash the caches."""
MAPS_AT_ONCE_ON_GPU = 16


@dataclass(frozen=True)
class Activations:
    """What a plain forward pass gives: `embeddings` (N, D) and, per layer, `features` (N, C, h, w)."""

    embeddings: Tensor
    features: dict[str, Tensor]


class _LayerReached(Exception):
    """Leaves a forward pass once the wanted layer has run."""

    def __init__(self, features: Tensor) -> None:
        super().__init__()
        self.features = features


def cosine_start(embeddings0: Tensor, embeddings1: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients of the cosine with respect to both embeddings, (..., D) each: PAIR-X's start of the propagation.

    d cos / d e0 = (e1 / |e1| - cos * e0 / |e0|) / |e0|, and the same with 0 and 1 exchanged. Computed in double
    precision, returned in the inputs' type. Norms below 1e-8 count as 1e-8.
    """
    e0, e1 = embeddings0.double(), embeddings1.double()
    norm0 = e0.norm(dim=-1, keepdim=True).clamp(min=SMALLEST_NORM)
    norm1 = e1.norm(dim=-1, keepdim=True).clamp(min=SMALLEST_NORM)
    unit0, unit1 = e0 / norm0, e1 / norm1
    cosine = (unit0 * unit1).sum(dim=-1, keepdim=True)
    start0, start1 = (unit1 - cosine * unit0) / norm0, (unit0 - cosine * unit1) / norm1
    return start0.to(embeddings0.dtype), start1.to(embeddings1.dtype)


def find_layer(network: nn.Module, name: str) -> nn.Module:
    """The submodule at a dotted path such as ``backbone.blocks.3``; raises `EngineError` with near names."""
    known = {path: module for path, module in network.named_modules() if path}
    if name in known:
        return known[name]
    near = difflib.get_close_matches(name, known, n=5, cutoff=0.5) or [n for n, _ in network.named_children()]
    raise EngineError(f"the network has no layer {name!r}; near names: {', '.join(near)}")


class LayerExplainer:
    """Activations, relevances and pixel maps of one network at some of its layers.

    `layers` are dotted module paths; `preset` names an entry of `PRESETS`. Safe to share between threads, which take
    turns. The network is left untouched after every call.
    """

    def __init__(self, network: nn.Module, layers: Sequence[str], preset: str = "published") -> None:
        if not layers or isinstance(layers, str):
            raise EngineError("name at least one layer to explain, as a list of dotted module paths")
        self.network = network
        self.preset = preset_named(preset)
        self.layers = tuple(dict.fromkeys(layers))
        self._modules = {name: find_layer(network, name) for name in self.layers}
        self._on_main_path: bool | None = None

    def open(self) -> AbstractContextManager[None]:
        """Keep the LRP rules in place over many calls; registering them costs milliseconds each time.

        Other threads that want the same network wait until the context closes.
        """
        return lrp_rules(self.network)

    def activations(self, chips: Tensor) -> Activations:
        """Embeddings and features of chips (N, 3, H, W), by a plain forward without gradients."""
        features: dict[str, Tensor] = {}

        def keep(name: str, output: Tensor) -> None:
            # A copy: many networks go on to overwrite a layer's output in place.
            features[name] = output.clone()

        with exclusive(self.network), torch.no_grad(), self._watch(self.layers, chips, keep):
            embeddings = self.network(chips)
        return Activations(embeddings, features)

    def relevance(self, chip: Tensor, starts: Tensor) -> dict[str, Tensor]:
        """Relevance of one chip (3, H, W) for each start relevance of its embedding (P, D): per layer (P, h, w).

        The chip runs forward once; only the part above the lowest layer runs per start. Reduced over channels as the
        preset says.
        """
        owner = torch.zeros(len(starts), dtype=torch.long, device=starts.device)
        return self.relevances(chip[None], owner, starts, chunk=max(1, len(starts)))

    def relevances(self, chips: Tensor, owner: Tensor, starts: Tensor, chunk: int = 8) -> dict[str, Tensor]:
        """Relevances of many chips (N, 3, H, W): start p (of (P, D)) belongs to chip `owner[p]`; per layer (P, h, w).

        Starts are worked off in groups of `chunk`, ordered by chip, so that few chips run forward twice and memory is
        bounded by the group. Results come in the order of `starts`. Raises `EngineError` for shapes that do not fit.
        """
        if (
            chips.ndim != 4
            or starts.ndim != 2
            or owner.shape != starts.shape[:1]
            or len(starts) == 0
            or chunk < 1
        ):
            raise EngineError(
                f"chips {tuple(chips.shape)}, owner {tuple(owner.shape)} and starts {tuple(starts.shape)} must be "
                "(N, 3, H, W), (P,) and (P, D) with at least one start, and chunk at least 1"
            )
        order = torch.argsort(owner, stable=True)
        groups = []
        for group in order.split(chunk):
            used, local = torch.unique(owner[group], return_inverse=True)
            channels = self.channel_relevances(chips[used], local, starts[group])
            groups.append({name: reduce_channels(r, self.preset.reduction) for name, r in channels.items()})
        back = torch.argsort(order)
        return {name: torch.cat([group[name] for group in groups])[back] for name in self.layers}

    def channel_relevances(self, chips: Tensor, owner: Tensor, starts: Tensor) -> dict[str, Tensor]:
        """Signed relevance of every channel, per layer (P, C, h, w), all starts (P, D) in one pass.

        Arguments as in `relevances`. This is what the three reductions are made from.
        """
        one_each = len(chips) == len(owner) and torch.equal(
            owner, torch.arange(len(owner), device=owner.device)
        )
        if not one_each and not self._main_path(chips[:1]):
            # A branch around the layer would keep the chips' batch, so the starts' batch begins at the input.
            chips, one_each = chips[owner], True
        features: dict[str, Tensor] = {}

        def branch_off(name: str, output: Tensor) -> Tensor:
            if not output.requires_grad:
                output = (output if one_each else output[owner]).detach().clone().requires_grad_()
            features[name] = output
            # A copy goes on: the network may overwrite it, and what is differentiated must stay.
            return output.clone()

        with lrp_rules(self.network), torch.enable_grad(), self._watch(self.layers, chips, branch_off):
            embeddings = self.network(chips)
            if embeddings.shape != starts.shape:
                raise EngineError(
                    f"starts have shape {tuple(starts.shape)}, embeddings {tuple(embeddings.shape)}"
                )
            wanted = [features[name] for name in self.layers]
            if not embeddings.requires_grad:
                raise EngineError(
                    f"the embedding does not depend on {', '.join(self.layers)}; choose other layers"
                )
            relevances = torch.autograd.grad(embeddings, wanted, starts, allow_unused=True)
        unused = [name for name, r in zip(self.layers, relevances, strict=True) if r is None]
        if unused:
            raise EngineError(f"the embedding does not depend on {', '.join(unused)}; choose other layers")
        return dict(zip(self.layers, relevances, strict=True))

    def pixel_maps(
        self, chip: Tensor, layer: str, cells: ArrayLike | Tensor, chunk: int | None = None
    ) -> Tensor:
        """Pixel relevance of single cells: chip (3, H, W), `cells` (k, 2) as (column, row), to (k, H, W).

        The start is the layer's features with all but one cell set to zero, propagated to the input; the map is
        |sum over RGB|. One forward, stopped at the layer, serves all cells; `chunk` of them are propagated at once (by
        default few on a CPU, sixteen on a GPU). Raises `EngineError` for cells outside the grid or an unknown layer.
        """
        if layer not in self._modules:
            raise EngineError(f"layer {layer!r} is not among this explainer's: {', '.join(self.layers)}")
        where = torch.as_tensor(cells, dtype=torch.long, device=chip.device).reshape(-1, 2)
        if len(where) == 0:
            return chip.new_zeros((0, *chip.shape[-2:]))
        width = min(chunk or _maps_at_once(chip), len(where))
        maps = []
        with lrp_rules(self.network), torch.enable_grad():
            pixels = chip.detach().expand(width, *chip.shape).clone().requires_grad_()
            features = self._features_at(layer, pixels)
            _check_cells(where, features)
            for group in where.split(width):
                starts = _single_cells(features.detach(), group)
                (gradient,) = torch.autograd.grad(features, pixels, starts, retain_graph=True)
                maps.append(gradient[: len(group)].sum(dim=1).abs())
        return torch.cat(maps)

    def _features_at(self, layer: str, pixels: Tensor) -> Tensor:
        def stop(name: str, output: Tensor) -> None:
            raise _LayerReached(output)

        try:
            with self._watch((layer,), pixels, stop):
                self.network(pixels)
        except _LayerReached as reached:
            return reached.features
        raise AssertionError("watching a layer ends by reaching it or by an error")

    def _main_path(self, chip: Tensor) -> bool:
        """Whether all that reaches the embedding passes through each of the layers."""
        if self._on_main_path is None:
            self._on_main_path = all(self._cuts(name, chip) for name in self.layers)
        return self._on_main_path

    def _cuts(self, layer: str, chip: Tensor) -> bool:
        pixels = chip.detach().clone().requires_grad_()
        cut = self._watch((layer,), pixels, lambda _, output: output.detach())
        with exclusive(self.network), torch.enable_grad(), cut:
            return not self.network(pixels).requires_grad

    @contextmanager
    def _watch(
        self, layers: Sequence[str], chips: Tensor, seen: Callable[[str, Tensor], Tensor | None]
    ) -> Iterator[None]:
        """Call `seen(name, output)` when a layer has run on `chips`; a tensor that it returns takes the output's place."""
        done: set[str] = set()

        def hook_of(name: str) -> Callable[[nn.Module, object, Tensor], Tensor | None]:
            def hook(module: nn.Module, inputs: object, output: Tensor) -> Tensor | None:
                _check_output(name, output, chips, name in done)
                done.add(name)
                return seen(name, output)

            return hook

        handles = []
        try:
            for name in layers:
                handles.append(self._modules[name].register_forward_hook(hook_of(name)))  # noqa: PERF401
            yield
            missing = [name for name in layers if name not in done]
            if missing:
                raise EngineError(
                    f"layer {', '.join(missing)} takes no part in the forward pass; choose another"
                )
        finally:
            for handle in handles:
                handle.remove()


def _check_output(name: str, output: object, chips: Tensor, again: bool) -> None:
    if not isinstance(output, Tensor) or output.ndim != 4:
        shape = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
        raise EngineError(
            f"layer {name!r} gives {shape}, not a map (N, C, h, w); choose a convolutional stage"
        )
    (h, w), (height, width) = output.shape[-2:], chips.shape[-2:]
    if abs(h - w * height / width) > 1 + h / 4:
        # A map has the chip's proportions; with the channels last, one of its sides would be the channels.
        raise EngineError(
            f"layer {name!r} gives {tuple(output.shape)} for chips of {height} x {width} pixels, which is no map "
            "(N, C, h, w): transformers often have the channels last; choose a convolutional stage"
        )
    if again:
        raise EngineError(
            f"layer {name!r} runs more than once in a forward pass; choose a layer that runs once"
        )


def _check_cells(cells: Tensor, features: Tensor) -> None:
    h, w = features.shape[-2:]
    if (cells < 0).any() or (cells[:, 0] >= w).any() or (cells[:, 1] >= h).any():
        raise EngineError(f"some cells lie outside the layer's grid of {w} columns and {h} rows")


def _single_cells(features: Tensor, cells: Tensor) -> Tensor:
    """Features (m, C, h, w) with all but one cell zero in each of the first len(cells) items, all zero in the others."""
    item = torch.arange(len(cells), device=features.device)
    columns, rows = cells.unbind(dim=1)
    starts = torch.zeros_like(features)
    starts[item, :, rows, columns] = features[item, :, rows, columns]
    return starts


def _maps_at_once(chip: Tensor) -> int:
    if chip.is_cuda:
        return MAPS_AT_ONCE_ON_GPU
    return max(1, PIXELS_AT_ONCE // (chip.shape[-2] * chip.shape[-1]))
