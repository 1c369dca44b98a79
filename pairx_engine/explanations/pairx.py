"""PAIR-X and its parts, under every preset.

* `pairx_PRESET`: the pixel relevances of the first k matches together, as the figure colours them.
* `relevance_PRESET`: the layer's relevance grid stretched over the chip, which is the figure's heat map; it
  involves no matches.
* `lrp_PRESET`: the layer's relevance in all channels, pulled on to the pixels; it involves no matches.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pairx_engine.explanations.seam import Explained, Shown, State, Subject, stretched
from pairx_engine.pair.finding import as_array, find, grids_by_reduction
from pairx_engine.relevance.explainer import LayerExplainer, Seen
from pairx_engine.relevance.presets import PRESETS, preset_named, reduce_channels
from pairx_engine.relevance.starts import starts_of

Explain = Callable[[LayerExplainer, Subject, Tensor, Tensor], Explained]


@dataclass(frozen=True)
class Propagated:
    """One of this module's explanations under one preset."""

    kind: str
    preset: str
    about: str
    cost: float
    how: Explain
    sees_partner: bool = True

    @property
    def name(self) -> str:
        """Kind and preset."""
        return f"{self.kind}_{self.preset}"

    def identity(self) -> Mapping[str, Any]:
        """What may change under the preset's name: the parameters of its rules."""
        return preset_named(self.preset).parameters

    def explain(
        self, subject: Subject, chip_a: Tensor, chip_b: Tensor, state: State | None = None
    ) -> Explained:
        """Explain two chips under the preset."""
        return self.how(subject.explainer(self.preset), subject, chip_a, chip_b)


def propagated() -> Sequence[Propagated]:
    """Every kind under every preset that is registered now."""
    kinds: tuple[tuple[str, str, float, Explain], ...] = (
        ("pairx", "pixel relevance of the most relevant matches, {}", 25, _pairx),
        ("relevance", "relevance of the layer's cells, {}", 8, _relevance),
        ("lrp", "relevance propagated to the pixels, {}", 15, _lrp),
    )
    return [
        Propagated(kind, preset, about.format(preset), cost, how)
        for kind, about, cost, how in kinds
        for preset in PRESETS
    ]


def _pairx(explainer: LayerExplainer, subject: Subject, chip_a: Tensor, chip_b: Tensor) -> Explained:
    """The sum over the k most relevant matches of their scaled pixel maps, as the map of a photo.

    Each term is (share of their relevance) * (pixel relevance / its own sum). A match's pixel relevance
    starts from the layer's features at its cell, so its size says how strong these features are, not how much
    they matter. PAIR-X ranks by the match's relevance and draws each map to its own scale. Hence each map
    counts as a distribution over pixels, weighted by the match's relevance. Matches whose relevance is not
    positive, which only signed presets have, weigh nothing. If no match has positive relevance, the maps are
    zero.
    """
    seen = [explainer.see(chip, keep=True) for chip in (chip_a, chip_b)]
    finding = find(explainer, seen, subject.layer).ordered()
    pixels = explainer.all_pixel_maps(
        seen, subject.layer, [side.cells[: subject.k] for side in finding.sides]
    )
    relevance = finding.relevance[: subject.k]
    map_a, map_b = (_weighted(maps, relevance[relevance > 0]) for maps in pixels)
    drawn = as_array(pixels[0]), as_array(pixels[1])
    return Explained((map_a, map_b), Shown.of_finding(finding, drawn), finding)


def _weighted(maps: Tensor, relevance: NDArray[np.float64]) -> Tensor:
    """The sum of the first maps, each divided by its own sum and weighted by its match's relevance.

    `relevance` holds those of the first maps, all positive.
    """
    maps = maps[: len(relevance)]
    weights = torch.from_numpy(relevance / relevance.sum()).to(maps)
    sums = maps.sum(dim=(1, 2))
    # A cell whose features are all zero has a map of zeros.
    return torch.tensordot(weights / sums.where(sums > 0, torch.ones_like(sums)), maps, dims=1)


def _relevance(explainer: LayerExplainer, subject: Subject, chip_a: Tensor, chip_b: Tensor) -> Explained:
    """The layer's grids as the preset reduces them, stretched bilinearly to the chips, as maps."""
    seen = [explainer.see(chip) for chip in (chip_a, chip_b)]
    how = explainer.preset.reduction
    grids = grids_by_reduction(explainer, seen, subject.layer, [how])[how]
    map_a, map_b = (
        stretched(torch.from_numpy(grid).to(one.chip.device), one.chip)
        for grid, one in zip(grids, seen, strict=True)
    )
    return Explained.of_maps(map_a, map_b)


def _lrp(explainer: LayerExplainer, subject: Subject, chip_a: Tensor, chip_b: Tensor) -> Explained:
    """The pair's relevance propagated through the layer to the pixels, as maps.

    RGB is reduced as the preset reduces channels. Where all relevance passes through the layer, as it does
    between the stages of a network, this is plain LRP. Raises `EngineError` on the general path.
    """
    seen = [explainer.see(chip, keep=True) for chip in (chip_a, chip_b)]
    starts = starts_of(explainer.preset, *(one.embedding for one in seen))
    return Explained.of_maps(
        *(_to_pixels(explainer, subject.layer, one, start) for one, start in zip(seen, starts, strict=True))
    )


def _to_pixels(explainer: LayerExplainer, layer: str, seen: Seen, start: Tensor) -> Tensor:
    channels = explainer.channel_relevance(seen, start[None])[layer]
    pixels = explainer.pixel_relevance(seen, layer, channels)
    return reduce_channels(pixels, explainer.preset.reduction)[0]
