"""PAIR-X for one pair of chips: everything the figure, the tests and the arrays file need, in one value."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from pairx_engine.chips import Pixels
from pairx_engine.errors import EngineError, ModelError
from pairx_engine.lrp import reduce_channels
from pairx_engine.matching import Matches, cell_points, match_relevance, mutual_matches
from pairx_engine.models import ReIdModel
from pairx_engine.presets import Reduction
from pairx_engine.relevance import LayerExplainer
from pairx_engine.starts import starts_of

Floats = NDArray[np.float32]
_STORED: tuple[Reduction, ...] = ("abs_of_sum", "signed_sum", "sum_of_abs")


@dataclass(frozen=True)
class PairExplanation:
    """Why a model finds two chips alike; 0 and 1 are the two chips.

    `chip` (H, W, 3) uint8; `embedding` and `start_gradient` (D,), what was propagated from it: d cosine / d embedding, or
    for `conserving` each element's share of the cosine; the relevance grids (h, w) of the layer under three reductions (see
    `Preset`; `positive_sum` follows from the signed sum); the mutual matches, most relevant first: `match_cell` (n, 2) as
    (column, row), `match_point` (n, 2) as (x, y) in chip pixels, `match_distance` (n,) L2, `match_relevance` (n,) after
    `reduction`; `pixel_relevance` (k, H, W) of the first k matches.
    """

    layer: str
    preset: str
    reduction: Reduction
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
        """The first chip's relevance grid (h, w) under `reduction`."""
        return self._relevance(0)

    @property
    def relevance1(self) -> Floats:
        """The second chip's relevance grid (h, w) under `reduction`."""
        return self._relevance(1)

    def _relevance(self, side: int) -> Floats:
        if self.reduction == "positive_sum":
            return np.maximum(self.relevance_signed_sum1 if side else self.relevance_signed_sum0, 0)
        grid: Floats = getattr(self, f"relevance_{self.reduction}{side}")
        return grid

    def arrays(self) -> dict[str, NDArray[Any]]:
        """All arrays by field name, the cosine as a float32 scalar; what an arrays file holds."""
        return {
            f.name: np.asarray(getattr(self, f.name))
            for f in fields(self)
            if f.name not in ("layer", "preset", "reduction")
        }


def explain_pair(
    model: ReIdModel,
    chip0: Pixels,
    chip1: Pixels,
    layer: str | None = None,
    preset: str = "published",
    n_pixel_maps: int = 10,
    precision: str = "float32",
    reduction: str | None = None,
) -> PairExplanation:
    """Explain two chips (H, W, 3) uint8 of the model's input size at one layer (the model's own by default).

    Pixel maps are made for the `n_pixel_maps` most relevant matches (fewer where there are fewer). `reduction` takes the
    place of the preset's own. Raises `EngineError` for chips of another size, a model without a layer to explain, an
    unknown layer, preset, precision or reduction.
    """
    layer = layer or model.layer
    if layer is None:
        raise ModelError(f"model {model.source} names no layer to explain; name one (setting layer)")
    for chip in (chip0, chip1):
        if chip.dtype != np.uint8 or chip.shape != (*model.chip.size, 3):
            raise EngineError(f"chips must be uint8 {(*model.chip.size, 3)}, not {chip.dtype} {chip.shape}")
    if n_pixel_maps < 0:
        raise EngineError(f"the number of pixel maps must not be negative, got {n_pixel_maps}")
    explainer = LayerExplainer(model.network, [layer], preset, precision, reduction=reduction)
    chips = model.normalise([chip0, chip1])
    seen = explainer.see_all(list(chips), keep=n_pixel_maps > 0)
    embeddings = [one.embedding for one in seen]
    starts = starts_of(explainer.preset, *embeddings)
    channels = [
        found[layer][0] for found in explainer.channel_relevances(seen, [start[None] for start in starts])
    ]
    relevances = {name: [reduce_channels(c, name) for c in channels] for name in _STORED}
    used = [reduce_channels(c, explainer.preset.reduction) for c in channels]
    found = mutual_matches(*(one.features[layer] for one in seen))
    relevance = match_relevance(found, *used)
    order = np.argsort(-relevance, kind="stable")
    matches = found.take(order)
    pixels = explainer.all_pixel_maps(
        seen, layer, [cells[:n_pixel_maps] for cells in (matches.cell0, matches.cell1)]
    )
    named = {f"relevance_{name}": grids for name, grids in relevances.items()}
    named |= {"embedding": embeddings, "start_gradient": list(starts), "pixel_relevance": pixels}
    return PairExplanation(
        layer=layer,
        preset=preset,
        reduction=explainer.preset.reduction,
        chip0=chip0,
        chip1=chip1,
        cosine=np.float32(_cosine(*embeddings)),
        match_relevance=relevance[order],
        **{f"{name}{side}": pair[side].cpu().numpy() for name, pair in named.items() for side in (0, 1)},
        **_match_arrays(matches, tuple(used[0].shape), model.chip.size),
    )


def _cosine(embedding0: torch.Tensor, embedding1: torch.Tensor) -> float:
    return float(torch.nn.functional.cosine_similarity(embedding0.double(), embedding1.double(), dim=0))


def _match_arrays(matches: Matches, grid: tuple[int, ...], chip: tuple[int, int]) -> dict[str, Any]:
    cells = (matches.cell0, matches.cell1)
    return {
        **{f"match_cell{side}": cells[side].astype(np.int32) for side in (0, 1)},
        **{f"match_point{side}": cell_points(cells[side], grid, chip).astype(np.float32) for side in (0, 1)},
        "match_distance": matches.distance,
    }
