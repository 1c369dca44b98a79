"""The benchmark's yardstick: the general zennit path, written the way the published PAIR-X code is.

What it shares with our engine are the LRP rules (`pairx_engine.relevance.hooks.lrp_rules`), so that the two
agree in every number; what it keeps of the published code is its structure:

* six forwards of the whole network per pair: for each photo a plain one, one under the rules for the
  relevance at the layer, and one more under the rules for the pixel maps;
* parameters that want gradients throughout, as they come out of a checkpoint, so that a plain backward pass
  of the whole network (only to read the start gradient at the embedding) and every backward pass under the
  rules also compute the gradients of all parameters they pass;
* the rules put on and taken off for every one of these uses;
* the relevance at the layer read by a full backward hook, while the backward pass runs on to the input;
* one backward pass per match and photo, from the layer's features masked to one cell.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from pairx_engine.pair.plausibility import match_coverage
from pairx_engine.relevance.hooks import SQUEEZE_EXCITE, lrp_rules

Cells = NDArray[np.int64]


@dataclass(frozen=True)
class Scored:
    """A pair without pictures: both relevance grids (h, w), and the matches, most relevant first.

    `cell_a`, `cell_b` (n, 2) as (column, row), `relevance` (n,) the product at both cells; `coverage` is Eq.
    5.
    """

    grid_a: NDArray[np.float32]
    grid_b: NDArray[np.float32]
    cell_a: Cells
    cell_b: Cells
    relevance: NDArray[np.float64]
    coverage: float | None


@dataclass(frozen=True)
class Explained:
    """A pair with pictures: `maps_a`, `maps_b` (k, H, W) belong to the first k matches."""

    scored: Scored
    maps_a: NDArray[np.float32]
    maps_b: NDArray[np.float32]


class PublishedWay:
    """Explains pairs with the published structure.

    Chips are normalised, (3, H, W), on the network's device.

    The network's parameters are made to want gradients, as in the published code, and stay so.
    """

    def __init__(self, network: nn.Module, layer: str) -> None:
        self.network = network.eval().requires_grad_(True)
        self.layer = network.get_submodule(layer)

    def explain(self, chip_a: Tensor, chip_b: Tensor, n_maps: int) -> Explained:
        """The full explanation of one pair."""
        scored = self._score(chip_a, chip_b)
        return Explained(
            scored, self.maps(chip_a, scored.cell_a[:n_maps]), self.maps(chip_b, scored.cell_b[:n_maps])
        )

    def score(self, chips: Sequence[Tensor], pairs: Sequence[tuple[int, int]]) -> list[Scored]:
        """Every pair (positions in `chips`) for itself: nothing is shared between the pairs of a photo."""
        return [self._score(chips[a], chips[b]) for a, b in pairs]

    def maps(self, chip: Tensor, cells: Cells) -> NDArray[np.float32]:
        """Pixel maps (k, H, W) of cells (k, 2): one forward of the whole network, one backward pass per cell."""
        image = chip[None].clone().requires_grad_()
        maps = []
        with self._rules():
            features, _ = self._forward(image)
            for column, row in cells:
                start = torch.zeros_like(features)
                start[..., row, column] = features[..., row, column].detach()
                features.backward(gradient=start, retain_graph=True)
                maps.append(image.grad[0].sum(dim=0).abs())
                image.grad = None
        self._forget()
        if not maps:
            return np.zeros((0, *chip.shape[-2:]), np.float32)
        return torch.stack(maps).cpu().numpy()

    def _score(self, chip_a: Tensor, chip_b: Tensor) -> Scored:
        chips = chip_a[None], chip_b[None]
        features, embeddings = zip(*(self._forward(chip) for chip in chips), strict=True)
        starts = self._start_gradients(*embeddings)
        maps = [f.detach()[0] for f in features]
        grids = [self._relevance(chip, start) for chip, start in zip(chips, starts, strict=True)]
        cell_a, cell_b = opencv_matches(*maps)
        (c0, r0), (c1, r1) = cell_a.T, cell_b.T
        relevance = grids[0][r0, c0].astype(np.float64) * grids[1][r1, c1]
        order = np.argsort(-relevance, kind="stable")
        coverage = match_coverage(cell_a, cell_b, *(grid.astype(np.float64) for grid in grids))
        self._forget()
        return Scored(*grids, cell_a[order], cell_b[order], relevance[order], coverage)

    def _forward(self, chips: Tensor) -> tuple[Tensor, Tensor]:
        """Features at the layer and embeddings, both still in the graph."""
        kept: list[Tensor] = []
        handle = self.layer.register_forward_hook(lambda module, inputs, output: kept.append(output))
        try:
            embeddings = self.network(chips)
        finally:
            handle.remove()
        return kept[0], embeddings

    def _start_gradients(self, embedding_a: Tensor, embedding_b: Tensor) -> tuple[Tensor, Tensor]:
        embedding_a.retain_grad()
        embedding_b.retain_grad()
        torch.nn.functional.cosine_similarity(embedding_a, embedding_b).backward()
        return embedding_a.grad, embedding_b.grad

    def _relevance(self, chip: Tensor, start: Tensor) -> NDArray[np.float32]:
        """|sum over channels| of the relevance at the layer, (h, w)."""
        kept: list[Tensor] = []
        handle = self.layer.register_full_backward_hook(
            lambda module, below, above: kept.append(above[0].detach())
        )
        try:
            with self._rules():
                self.network(chip).backward(gradient=start)
        finally:
            handle.remove()
        return kept[0][0].sum(dim=0).abs().cpu().numpy()

    @contextmanager
    def _rules(self) -> Iterator[None]:
        with lrp_rules(self.network):
            # Our rules freeze the parameters; the published code does not. It sends zeros through the gates
            # where our rules send nothing. zennit fails where it is sent nothing, so the gates stay frozen
            # here, which saves this side time.
            self.network.requires_grad_(True)
            for module in self.network.modules():
                if isinstance(module, SQUEEZE_EXCITE):
                    module.requires_grad_(False)
            yield

    def _forget(self) -> None:
        self.network.zero_grad(set_to_none=True)


def opencv_matches(features_a: Tensor, features_b: Tensor) -> tuple[Cells, Cells]:
    """Cells (n, 2) of two maps (C, h, w) that OpenCV's brute-force matcher with cross-check pairs."""
    described = [f.flatten(1).T.float().contiguous().cpu().numpy() for f in (features_a, features_b)]
    found = cv2.BFMatcher(cv2.NORM_L2, crossCheck=True).match(*described)
    index0, index1 = (
        np.array([getattr(m, k) for m in found], dtype=np.int64) for k in ("queryIdx", "trainIdx")
    )
    width0, width1 = features_a.shape[-1], features_b.shape[-1]
    return (
        np.stack([index0 % width0, index0 // width0], axis=1),
        np.stack([index1 % width1, index1 // width1], axis=1),
    )
