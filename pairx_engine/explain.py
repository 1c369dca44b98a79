"""One pair of chips explained in full: embeddings, relevances, matches and pixel maps, as arrays."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pairx_engine.chips import Pixels
from pairx_engine.errors import ModelError
from pairx_engine.lrp import PRESETS, reduce_channels
from pairx_engine.matching import cell_points, match_relevance, mutual_matches
from pairx_engine.models import ReIdModel
from pairx_engine.relevance import LayerExplainer, cosine_start

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class PairExplanation:
    """Everything PAIR-X says of one pair at one layer; 0 and 1 are the two photos, matches come most relevant first.

    `chip` (H, W, 3) uint8 · `embedding` (D,) raw · `start_gradient` (D,) d cos / d embedding · `relevance_*` (h, w) channel
    relevances reduced in three ways · `relevance` the one that the preset uses · `match_cell` (n, 2) column, row ·
    `match_point` (n, 2) x, y in chip pixels · `match_distance` (n,) L2 · `match_relevance` (n,) product of both cells'
    relevances · `pixel_relevance` (k, H, W) of the first k matches.
    """

    layer: str
    preset: str
    chip0: Pixels
    chip1: Pixels
    embedding0: Floats
    embedding1: Floats
    cosine: np.float32
    start_gradient0: Floats
    start_gradient1: Floats
    relevance_abs_of_sum0: Floats
    relevance_abs_of_sum1: Floats
    relevance_signed_sum0: Floats
    relevance_signed_sum1: Floats
    relevance_sum_of_abs0: Floats
    relevance_sum_of_abs1: Floats
    match_cell0: NDArray[np.int32]
    match_cell1: NDArray[np.int32]
    match_point0: Floats
    match_point1: Floats
    match_distance: Floats
    match_relevance: NDArray[np.float64]
    pixel_relevance0: Floats
    pixel_relevance1: Floats

    @property
    def relevance0(self) -> Floats:
        """The first photo's grid as the preset reduces it."""
        grid: Floats = getattr(self, f"relevance_{PRESETS[self.preset].reduction}0")
        return grid

    @property
    def relevance1(self) -> Floats:
        """The second photo's grid as the preset reduces it."""
        grid: Floats = getattr(self, f"relevance_{PRESETS[self.preset].reduction}1")
        return grid

    def arrays(self) -> dict[str, Any]:
        """All arrays by name, ready for `numpy.savez`."""
        return {f.name: np.asarray(getattr(self, f.name)) for f in fields(self) if f.name not in ("layer", "preset")}


def explain_pair(
    model: ReIdModel,
    chip0: Pixels,
    chip1: Pixels,
    layer: str | None = None,
    preset: str = "published",
    n_pixel_maps: int = 10,
) -> PairExplanation:
    """Explain why two chips (H, W, 3) uint8 of the model's input size are similar.

    `layer` defaults to the model's own. Raises `ModelError` when the model has none, ValueError for an unknown layer or
    preset.
    """
    name = layer or model.layer
    if name is None:
        raise ModelError(f"model {model.source} names no layer to explain; choose one")
    explainer = LayerExplainer(model.network, [name], preset)
    inputs = model.normalise([chip0, chip1])
    # One chip a forward, as in the batch job: the numbers of a photo must not depend on its company.
    seen = [explainer.activations(inputs[i : i + 1]) for i in (0, 1)]
    starts = cosine_start(seen[0].embeddings[0], seen[1].embeddings[0])
    out: dict[str, Any] = {"layer": name, "preset": preset, "chip0": chip0, "chip1": chip1}
    out["cosine"] = _cosine(*(s.embeddings[0].double().cpu().numpy() for s in seen))
    with explainer.open():
        for i in (0, 1):
            channels = explainer.channel_relevance(inputs[i], starts[i][None])[name][0]
            out[f"embedding{i}"] = seen[i].embeddings[0].cpu().numpy()
            out[f"start_gradient{i}"] = starts[i].cpu().numpy()
            for reduction in ("abs_of_sum", "signed_sum", "sum_of_abs"):
                out[f"relevance_{reduction}{i}"] = reduce_channels(channels, reduction).cpu().numpy()  # type: ignore[arg-type]
        matches = mutual_matches(seen[0].features[name][0], seen[1].features[name][0])
        grids = [out[f"relevance_{PRESETS[preset].reduction}{i}"] for i in (0, 1)]
        relevance = match_relevance(matches, *grids)
        order = np.argsort(-relevance, kind="stable")
        out |= {"match_relevance": relevance[order], "match_distance": matches.distance[order]}
        for i, cells in enumerate((matches.cell0, matches.cell1)):
            out[f"match_cell{i}"] = cells[order].astype(np.int32)
            out[f"match_point{i}"] = cell_points(cells[order], grids[i].shape, chip0.shape[:2]).astype(np.float32)
            maps = explainer.pixel_maps(inputs[i], name, cells[order][:n_pixel_maps])
            out[f"pixel_relevance{i}"] = maps.cpu().numpy()
    return PairExplanation(**out)


def _cosine(first: NDArray[np.float64], second: NDArray[np.float64]) -> np.float32:
    return np.float32(first @ second / (np.linalg.norm(first) * np.linalg.norm(second)))
