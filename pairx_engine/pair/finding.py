"""PAIR-X's finding: what one layer says of a pair of photos.

The algorithm stands here once, for all who need it.

1. *see*: a forward pass per photo gives embedding and features (`LayerExplainer.see`);
2. *starts*: what is propagated from the two embeddings (`pairx_engine.relevance.starts`);
3. *relevance*: a grid of either photo, from all starts of a photo at once (`pair_grids`);
4. *matches*: mutual nearest cells of the two feature maps, and where they lie (`match`);
5. *product*: a match's relevance, from both grids at its cells; with all matches, the two scores (`Finding`).

`find` does steps 2 to 5 for one pair. Scoring and sweeping do step 3 for many pairs that share photos, and
the other steps pair by pair.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pairx_engine.errors import PhotoError
from pairx_engine.pair.matching import Cells, Matches, cell_points, match_relevance, mutual_matches
from pairx_engine.pair.plausibility import Plausibility, match_coverage, plausibility
from pairx_engine.relevance.explainer import LayerExplainer
from pairx_engine.relevance.presets import Preset, Reduction
from pairx_engine.relevance.seen import Seen
from pairx_engine.relevance.starts import starts_of

Key = TypeVar("Key")
Grid = NDArray[np.floating]
Grids = tuple[Grid, Grid]
"""Relevance (h, w) of either photo's cells."""
Points = NDArray[np.floating]


@dataclass(frozen=True)
class Matched:
    """Mutual matches of two photos at a layer, and where they lie.

    They are in the order of the first photo's cells. `points` (n, 2) of either photo are (x, y) in chip
    pixels.
    """

    layer: str
    matches: Matches
    points: tuple[Points, Points]


@dataclass(frozen=True)
class Side:
    """A finding's part in one photo: its relevance grid, and one end of each match.

    `grid` is (h, w), `cells` (n, 2) are (column, row), and `points` (n, 2) are (x, y) in chip pixels.
    """

    grid: Grid
    cells: Cells
    points: Points


@dataclass(frozen=True)
class Finding:
    """Matches of two photos at a layer, with the relevance of either side.

    `distance` (n,) is L2 between raw features.
    """

    layer: str
    sides: tuple[Side, Side]
    distance: NDArray[np.float32]

    @cached_property
    def matches(self) -> Matches:
        """The matches alone."""
        return Matches(self.sides[0].cells, self.sides[1].cells, self.distance)

    @cached_property
    def relevance(self) -> NDArray[np.float64]:
        """R0 at a match's first cell times R1 at its second, (n,)."""
        return match_relevance(self.matches, self.sides[0].grid, self.sides[1].grid)

    @cached_property
    def order(self) -> NDArray[np.int64]:
        """Places of the matches by falling relevance, (n,); ties in the order given."""
        return np.argsort(-self.relevance, kind="stable")

    def ordered(self) -> Finding:
        """The same finding, most relevant matches first."""
        sides = tuple(
            replace(side, cells=side.cells[self.order], points=side.points[self.order]) for side in self.sides
        )
        return Finding(self.layer, (sides[0], sides[1]), self.distance[self.order])

    def coverage(self) -> float | None:
        """Relevance-weighted match coverage (Eq. 5)."""
        grids = (np.asarray(side.grid, dtype=np.float64) for side in self.sides)
        return match_coverage(self.sides[0].cells, self.sides[1].cells, *grids)

    def plausibility(self, homography: NDArray[np.float64] | None) -> Plausibility:
        """Both scores, with a homography (3, 3) from the first chip to the second, or without.

        `residuals` are in the order of the matches.
        """
        a, b = self.sides
        return plausibility(a.cells, b.cells, a.points, b.points, a.grid, b.grid, homography)


def find(explainer: LayerExplainer, seen: Sequence[Seen], layer: str) -> Finding:
    """The finding of two seen photos at one of the explainer's layers, under its preset."""
    how = explainer.preset.reduction
    matched = match(seen, layer, (int(seen[0].chip.shape[-2]), int(seen[0].chip.shape[-1])))
    return weigh(matched, grids_by_reduction(explainer, seen, layer, [how])[how])


def match(seen: Sequence[Seen], layer: str, chip: tuple[int, int]) -> Matched:
    """Mutual matches of two seen photos at a layer; `chip` is (H, W) of the chips."""
    features = [one.features[layer] for one in seen]
    found = mutual_matches(*features)
    a, b = (
        cell_points(cells, tuple(of.shape[-2:]), chip)
        for cells, of in zip((found.cell_a, found.cell_b), features, strict=True)
    )
    return Matched(layer, found, (a, b))


def weigh(matched: Matched, grids: Grids) -> Finding:
    """The finding of matches under relevance grids; raises `PhotoError` for grids that are not finite."""
    if not all(np.isfinite(grid).all() for grid in grids):
        raise PhotoError("score_not_finite", f"the relevance at {matched.layer} holds NaN or infinity")
    cells = matched.matches.cell_a, matched.matches.cell_b
    a, b = (Side(*parts) for parts in zip(grids, cells, matched.points, strict=True))
    return Finding(matched.layer, (a, b), matched.matches.distance)


def grids_by_reduction(
    explainer: LayerExplainer, seen: Sequence[Seen], layer: str, reductions: Sequence[Reduction]
) -> dict[Reduction, Grids]:
    """Relevance grids of two seen photos at a layer, reduced over channels in each of several ways."""

    def relevances(starts: Mapping[str, Tensor]) -> Iterable[tuple[str, Mapping[Reduction, Tensor]]]:
        found = explainer.relevances_by_reduction(seen, list(starts.values()), reductions)
        for photo, one in zip(starts, found, strict=True):
            yield photo, {how: one[how][layer] for how in reductions}

    embeddings = {"0": seen[0].embedding, "1": seen[1].embedding}
    return pair_grids(explainer.preset, [("", "0", "1")], embeddings, relevances)[""]


def pair_grids(
    preset: Preset,
    pairs: Iterable[tuple[str, str, str]],
    embeddings: Mapping[str, Tensor],
    relevances: Callable[[Mapping[str, Tensor]], Iterable[tuple[str, Mapping[Key, Tensor]]]],
) -> dict[str, dict[Key, Grids]]:
    """Relevance grids of many pairs, by pair and by the keys of `relevances`: layers or reductions.

    `pairs` are (pair, first photo, second photo). `relevances` gets the starts (P, D) of every photo, one for
    each of its pairs, and yields photos with their relevances (P, h, w). So a photo is recorded once for all
    its partners. If `relevances` leaves a photo out, its pairs are left out, too.
    """
    places: dict[str, list[tuple[str, int]]] = defaultdict(list)
    starts: dict[str, list[Tensor]] = defaultdict(list)
    for pair, *photos in pairs:
        both = starts_of(preset, *(embeddings[photo] for photo in photos))
        for side, (photo, start) in enumerate(zip(photos, both, strict=True)):
            places[photo].append((pair, side))
            starts[photo].append(start)
    sides: dict[str, tuple[dict[Key, Grid], dict[Key, Grid]]] = defaultdict(lambda: ({}, {}))
    for photo, found in relevances({photo: torch.stack(some) for photo, some in starts.items()}):
        for key, grids in found.items():
            for (pair, side), grid in zip(places[photo], as_array(grids), strict=True):
                sides[pair][side][key] = grid
    return {
        pair: {key: (a[key], b[key]) for key in a} for pair, (a, b) in sides.items() if a.keys() == b.keys()
    }


def as_array(tensor: Tensor) -> NDArray[np.floating]:
    """A tensor on the host.

    16-bit formats are given in single precision, since NumPy lacks some of them.
    """
    wide = tensor if tensor.dtype in (torch.float32, torch.float64) else tensor.float()
    found: NDArray[np.floating] = wide.detach().cpu().numpy()
    return found
