"""Pixel maps of both photos of a pair, by PAIR-X under each preset and by what it should beat.

All are (H, W) of the chip, in arbitrary units, larger where the pixel counts for more; chips are normalised (3, H, W).

* `pairx_PRESET`: the pixel relevances of the first k matches together, as the figure colours them;
* `relevance_PRESET`: the layer's relevance grid stretched over the chip, the heat map of the figure, no matches involved;
* `lrp_PRESET`: the layer's relevance in all channels, pulled on to the pixels, no matches involved;
* `gradient`, `gradient_x_input`: the cosine's gradient;
* `random`, `random_smooth`, `centre`: know nothing of the photos. Smooth maps flip connected areas and scattered ones do
  not, and animals stand in the middle, so an explanation should beat all three.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from pairx_engine.errors import EngineError
from pairx_engine.faithfulness.fills import gaussian_blur
from pairx_engine.lrp import exclusive, reduce_channels
from pairx_engine.matching import match_relevance, mutual_matches
from pairx_engine.presets import PRESETS
from pairx_engine.propagation.precision import FULL, tensor_cores
from pairx_engine.propagation.window import whole
from pairx_engine.relevance import LayerExplainer, Seen, find_layer
from pairx_engine.starts import SMALLEST_NORM, starts_of

Maps = tuple[Tensor, Tensor]
_PROPAGATED = tuple(f"{kind}_{preset}" for kind in ("pairx", "relevance", "lrp") for preset in PRESETS)
METHODS: tuple[str, ...] = (
    *_PROPAGATED,
    "gradient",
    "gradient_x_input",
    "random",
    "random_smooth",
    "centre",
)
SMOOTH_SHARE = 1 / 16
"""Standard deviation of `random_smooth`, of the chip's shorter side: patches of the size of a few cells of a late layer."""
CENTRE_SHARE = 1 / 4
_MAPS = 2
"""Keeps these draws apart from those of pixel flipping under the same seed."""


class PairMapper:
    """Makes pixel maps of pairs by name, for one network and one of its layers.

    `k` is the number of matches that PAIR-X's maps take in, `seed` draws the random maps, `precision` names an entry of
    `PRECISIONS`. Explainers are made when first needed and kept. Raises `EngineError` for an unknown layer.
    """

    def __init__(
        self, network: nn.Module, layer: str, k: int = 10, seed: int = 0, precision: str = "float32"
    ) -> None:
        if k < 1 or seed < 0:
            raise EngineError(
                f"a map takes at least one match, and a seed is not negative; got {k} and {seed}"
            )
        find_layer(network, layer)
        self.network, self.layer, self.k, self.seed, self.precision = network, layer, k, seed, precision
        self._explainers: dict[str, LayerExplainer] = {}

    def pair_maps(self, chip0: Tensor, chip1: Tensor, method: str) -> Maps:
        """Maps (H, W) of both chips by one of `METHODS`; the same again for the same chips.

        Raises `EngineError` for an unknown method, and where a network is explained by the general path and the method
        needs the fast one.
        """
        if method not in METHODS:
            raise EngineError(f"unknown method {method!r}; choose one of {', '.join(METHODS)}")
        if method in _PROPAGATED:
            kind, preset = method.split("_")
            return self._propagated(kind, preset, chip0, chip1)
        if method.startswith("gradient"):
            return gradient_maps(self.network, chip0, chip1, times_input=method == "gradient_x_input")
        if method == "centre":
            return centre_map(chip0), centre_map(chip1)
        smooth = method == "random_smooth"
        return random_map(chip0, [self.seed, 0, _MAPS], smooth), random_map(
            chip1, [self.seed, 1, _MAPS], smooth
        )

    def _propagated(self, kind: str, preset: str, chip0: Tensor, chip1: Tensor) -> Maps:
        if preset not in self._explainers:
            self._explainers[preset] = LayerExplainer(self.network, [self.layer], preset, self.precision)
        explainer = self._explainers[preset]
        if kind == "pairx":
            return pairx_maps(explainer, self.layer, chip0, chip1, self.k)
        return (relevance_maps if kind == "relevance" else lrp_maps)(explainer, self.layer, chip0, chip1)


def pairx_maps(explainer: LayerExplainer, layer: str, chip0: Tensor, chip1: Tensor, k: int = 10) -> Maps:
    """Sum over the k most relevant matches of (share of their relevance) * (pixel relevance / its own sum).

    A match's pixel relevance starts from the layer's features at its cell, so its size says how strong these features are
    and not how much they matter; PAIR-X ranks by the match's relevance and draws each map to its own scale. Hence each map
    counts as a distribution over pixels, weighted by the match's relevance. Matches whose relevance is not positive, which
    only signed presets have, weigh nothing; where none is positive the maps are zero.
    """
    seen = [explainer.see(chip, keep=True) for chip in (chip0, chip1)]
    matches = mutual_matches(*(one.features[layer] for one in seen))
    relevance = match_relevance(matches, *(grid[0] for grid in _relevances(explainer, layer, *seen)))
    first = np.argsort(-relevance, kind="stable")[:k]
    first = first[relevance[first] > 0]
    weights = torch.from_numpy(relevance[first] / relevance[first].sum()).to(chip0)
    map0, map1 = (
        _weighted(explainer.pixel_maps(one, layer, cells[first]), weights)
        for one, cells in zip(seen, (matches.cell0, matches.cell1), strict=True)
    )
    return map0, map1


def relevance_maps(explainer: LayerExplainer, layer: str, chip0: Tensor, chip1: Tensor) -> Maps:
    """The layer's relevance grids as the preset reduces them, stretched bilinearly to the chips."""
    seen = [explainer.see(chip) for chip in (chip0, chip1)]
    map0, map1 = (
        functional.interpolate(grid[None], one.chip.shape[-2:], mode="bilinear", align_corners=False)[0, 0]
        for grid, one in zip(_relevances(explainer, layer, *seen), seen, strict=True)
    )
    return map0, map1


def lrp_maps(explainer: LayerExplainer, layer: str, chip0: Tensor, chip1: Tensor) -> Maps:
    """The pair's relevance propagated to the pixels, through the layer; reduced over RGB as the preset reduces channels.

    Where all relevance passes through the layer, as it does between the stages of a network, this is plain LRP. Raises
    `EngineError` on the general path.
    """
    if explainer.path != "fast":
        raise EngineError("relevance in pixels needs the fast path, which cannot explain this network")
    seen = [explainer.see(chip, keep=True) for chip in (chip0, chip1)]
    starts = starts_of(explainer.preset, *(one.embedding for one in seen))
    map0, map1 = (_to_pixels(explainer, layer, one, start) for one, start in zip(seen, starts, strict=True))
    return map0, map1


def gradient_maps(network: nn.Module, chip0: Tensor, chip1: Tensor, times_input: bool = False) -> Maps:
    """The gradient of the cosine with respect to both chips: sum over RGB of |g|, or of g * chip with its sign.

    The network runs in evaluation mode and is left as it was found, its parameters without gradients.
    """
    with exclusive(network), tensor_cores(FULL), torch.enable_grad():
        chips = [chip.detach().clone().requires_grad_() for chip in (chip0, chip1)]
        # One at a time, so that chips may differ in size.
        embedding0, embedding1 = (network(chip[None])[0].double() for chip in chips)
        cosine = functional.cosine_similarity(embedding0, embedding1, dim=0, eps=SMALLEST_NORM)
        gradients = torch.autograd.grad(cosine, chips)
    if times_input:
        map0, map1 = ((g * chip.detach()).sum(dim=0) for g, chip in zip(gradients, chips, strict=True))
    else:
        map0, map1 = (g.abs().sum(dim=0) for g in gradients)
    return map0, map1


def random_map(chip: Tensor, seed: list[int], smooth: bool = False) -> Tensor:
    """Uniform noise in [0, 1) per pixel, drawn on the CPU; `smooth` under a Gaussian of `SMOOTH_SHARE` of the side."""
    noise = torch.from_numpy(np.random.default_rng(seed).random(chip.shape[-2:]))
    if smooth:
        noise = gaussian_blur(noise[None], SMOOTH_SHARE * min(noise.shape))[0]
    return noise.to(chip)


def centre_map(chip: Tensor) -> Tensor:
    """A Gaussian about the chip's middle, of `CENTRE_SHARE` of either side."""
    height, width = chip.shape[-2:]
    rows, columns = (
        torch.exp(-0.5 * (((torch.arange(n, dtype=torch.float64) + 0.5) / n - 0.5) / CENTRE_SHARE) ** 2)
        for n in (height, width)
    )
    return torch.outer(rows, columns).to(chip)


def _relevances(explainer: LayerExplainer, layer: str, seen0: Seen, seen1: Seen) -> Maps:
    """Relevance grids (1, h, w) of the layer for both photos."""
    start0, start1 = starts_of(explainer.preset, seen0.embedding, seen1.embedding)
    return (
        explainer.relevance(seen0, start0[None])[layer],
        explainer.relevance(seen1, start1[None])[layer],
    )


def _weighted(maps: Tensor, weights: Tensor) -> Tensor:
    sums = maps.sum(dim=(1, 2))
    # A cell whose features are all zero has a map of zeros.
    return torch.tensordot(weights / sums.where(sums > 0, torch.ones_like(sums)), maps, dims=1)


def _to_pixels(explainer: LayerExplainer, layer: str, seen: Seen, start: Tensor) -> Tensor:
    assert seen.kept is not None, "the fast path keeps what it is asked to keep"
    channels = explainer.channel_relevance(seen, start[None])[layer]
    pixels = seen.kept.pulls.below(layer, channels, whole(channels)).to(seen.chip.dtype)
    return reduce_channels(pixels, explainer.preset.reduction)[0]
