"""Our engine on the same task: each photo forward once, all its starts pulled through that one forward."""

from __future__ import annotations

import inspect
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from pairx_engine.matching import match_relevance, mutual_matches
from pairx_engine.plausibility import match_coverage
from pairx_engine.propagation.precision import precision_named
from pairx_engine.relevance import LayerExplainer, Seen, starts_of
from pairx_engine.tuning import tuning_for
from tests.benchmarks.not_available import NotAvailable
from tests.benchmarks.published_way import Cells, Explained, Scored


def explainer_with(
    network: nn.Module, layer: str, preset: str, precision: str, changes: Mapping[str, Any]
) -> LayerExplainer:
    """An explainer whose device's `Tuning` is changed in some fields; `NotAvailable` where the engine has no such switch."""
    if not changes:
        return LayerExplainer(network, [layer], preset, precision)
    if "tuning" not in inspect.signature(LayerExplainer).parameters:
        raise NotAvailable("this engine takes no tuning")
    device = next(network.parameters()).device
    tuning = replace(tuning_for(device, precision_named(precision)), **changes)
    return LayerExplainer(network, [layer], preset, precision, tuning=tuning)


class EngineWay:
    """Explains pairs with `LayerExplainer`, by default in the published preset, so that the numbers can be compared."""

    def __init__(
        self,
        network: nn.Module,
        layer: str,
        precision: str,
        preset: str = "published",
        changes: Mapping[str, Any] | None = None,
    ) -> None:
        self.layer = layer
        self.explainer = explainer_with(network, layer, preset, precision, changes or {})

    def explain(self, chip0: Tensor, chip1: Tensor, n_maps: int) -> Explained:
        """The full explanation of one pair, each photo recorded once."""
        seen = {photo: self.explainer.see(chip, keep=True) for photo, chip in enumerate((chip0, chip1))}
        (scored,) = self._score(seen, [(0, 1)])
        return Explained(
            scored, self.maps(seen[0], scored.cell0[:n_maps]), self.maps(seen[1], scored.cell1[:n_maps])
        )

    def score(self, chips: Sequence[Tensor], pairs: Sequence[tuple[int, int]]) -> list[Scored]:
        """Pairs (positions in `chips`) as the score stage takes a shard: all starts of a photo together."""
        seen = {
            photo: self.explainer.see(chips[photo]) for photo in sorted({p for pair in pairs for p in pair})
        }
        return self._score(seen, pairs)

    def _score(self, seen: Mapping[int, Seen], pairs: Sequence[tuple[int, int]]) -> list[Scored]:
        starts: dict[int, list[tuple[int, int, Tensor]]] = defaultdict(list)
        for position, pair in enumerate(pairs):
            both = starts_of(self.explainer.preset, *(seen[photo].embedding for photo in pair))
            for side, (photo, start) in enumerate(zip(pair, both, strict=True)):
                starts[photo].append((position, side, start))
        grids: dict[tuple[int, int], NDArray[np.float32]] = {}
        for photo, wanted in starts.items():
            found = self.explainer.relevance(seen[photo], torch.stack([start for *_, start in wanted]))
            for (position, side, _), grid in zip(wanted, found[self.layer], strict=True):
                grids[position, side] = grid.float().cpu().numpy()
        return [
            self._match(*(seen[photo].features[self.layer] for photo in pair), grids[i, 0], grids[i, 1])
            for i, pair in enumerate(pairs)
        ]

    def maps(self, given: Tensor | Seen, cells: Cells) -> NDArray[np.float32]:
        """Pixel maps (k, H, W) of cells (k, 2) of a chip, seen or not."""
        return self.explainer.pixel_maps(given, self.layer, cells).float().cpu().numpy()

    def _match(
        self, features0: Tensor, features1: Tensor, grid0: NDArray[np.float32], grid1: NDArray[np.float32]
    ) -> Scored:
        found = mutual_matches(features0, features1)
        relevance = match_relevance(found, grid0, grid1)
        order = np.argsort(-relevance, kind="stable")
        matches = found.take(order)
        coverage = match_coverage(
            matches.cell0, matches.cell1, grid0.astype(np.float64), grid1.astype(np.float64)
        )
        return Scored(grid0, grid1, matches.cell0, matches.cell1, relevance[order], coverage)
