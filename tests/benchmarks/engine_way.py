"""Our engine on the same task: one forward pass per photo, through which all its starts are pulled."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from pairx_engine.device.tuning import Task, tuning_for
from pairx_engine.pair.matching import match_relevance, mutual_matches
from pairx_engine.pair.plausibility import match_coverage
from pairx_engine.relevance.explainer import LayerExplainer, Seen
from pairx_engine.relevance.starts import starts_of
from tests.benchmarks.not_available import NotAvailable
from tests.benchmarks.published_way import Cells, Explained, Scored


def explainer_with(
    network: nn.Module,
    layer: str,
    preset: str,
    precision: str,
    changes: Mapping[str, Any] | None = None,
    task: Task = "explain",
) -> LayerExplainer:
    """An explainer for a task, with some fields of its device's `Tuning` changed.

    Raises `NotAvailable` where the engine has no such switch.
    """
    device = next(network.parameters()).device
    tuning = tuning_for(device, precision, task)
    if unknown := (changes or {}).keys() - vars(tuning).keys():
        raise NotAvailable(f"the engine's tuning has no {', '.join(sorted(unknown))}")
    return LayerExplainer(network, [layer], preset, precision, tuning=replace(tuning, **(changes or {})))


class EngineWay:
    """Explains pairs with `LayerExplainer`.

    The default is the published preset, so that the numbers can be compared. `changes` are fields of the
    device's `Tuning` that get other values.
    """

    def __init__(
        self,
        network: nn.Module,
        layer: str,
        precision: str,
        preset: str = "published",
        changes: Mapping[str, Any] | None = None,
    ) -> None:
        self.layer = layer
        self.explainer, self.scorer = (
            explainer_with(network, layer, preset, precision, changes, task) for task in ("explain", "score")
        )

    def explain(self, chip_a: Tensor, chip_b: Tensor, n_maps: int) -> Explained:
        """The full explanation of one pair, as the product explains it: both photos recorded once."""
        seen = self.explainer.see_all([chip_a, chip_b], keep=True)
        (scored,) = self._score(self.explainer, dict(enumerate(seen)), [(0, 1)])
        cells = [some[:n_maps] for some in (scored.cell_a, scored.cell_b)]
        maps = self.explainer.all_pixel_maps(seen, self.layer, cells)
        return Explained(scored, *(some.float().cpu().numpy() for some in maps))

    def score(self, chips: Sequence[Tensor], pairs: Sequence[tuple[int, int]]) -> list[Scored]:
        """Pairs (positions in `chips`) as a shard of them: all starts of a photo together."""
        photos = sorted({p for pair in pairs for p in pair})
        seen = self.scorer.see_all([chips[photo] for photo in photos])
        return self._score(self.scorer, dict(zip(photos, seen, strict=True)), pairs)

    def _score(
        self, explainer: LayerExplainer, seen: Mapping[int, Seen], pairs: Sequence[tuple[int, int]]
    ) -> list[Scored]:
        starts: dict[int, list[tuple[int, int, Tensor]]] = defaultdict(list)
        for position, pair in enumerate(pairs):
            both = starts_of(explainer.preset, *(seen[photo].embedding for photo in pair))
            for side, (photo, start) in enumerate(zip(pair, both, strict=True)):
                starts[photo].append((position, side, start))
        found = explainer.relevances(
            [seen[photo] for photo in starts],
            [torch.stack([start for *_, start in wanted]) for wanted in starts.values()],
        )
        grids: dict[tuple[int, int], NDArray[np.float32]] = {}
        for wanted, one in zip(starts.values(), found, strict=True):
            for (position, side, _), grid in zip(wanted, one[self.layer].float().cpu().numpy(), strict=True):
                grids[position, side] = grid
        return [
            self._match(*(seen[photo].features[self.layer] for photo in pair), grids[i, 0], grids[i, 1])
            for i, pair in enumerate(pairs)
        ]

    def maps(self, given: Tensor | Seen, cells: Cells) -> NDArray[np.float32]:
        """Pixel maps (k, H, W) of cells (k, 2) of a chip, seen or not."""
        return self.explainer.pixel_maps(given, self.layer, cells).float().cpu().numpy()

    def _match(
        self, features_a: Tensor, features_b: Tensor, grid_a: NDArray[np.float32], grid_b: NDArray[np.float32]
    ) -> Scored:
        found = mutual_matches(features_a, features_b)
        relevance = match_relevance(found, grid_a, grid_b)
        order = np.argsort(-relevance, kind="stable")
        matches = found.take(order)
        coverage = match_coverage(
            matches.cell_a, matches.cell_b, grid_a.astype(np.float64), grid_b.astype(np.float64)
        )
        return Scored(grid_a, grid_b, matches.cell_a, matches.cell_b, relevance[order], coverage)
