"""PAIR-X for one pair of chips, as one value for the figure, the tests and the arrays file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pairx_engine.errors import EngineError, ModelError
from pairx_engine.models import ReIdModel
from pairx_engine.pair.finding import Finding, Grid, as_array, grids_by_reduction, match, weigh
from pairx_engine.photo.chips import Pixels
from pairx_engine.relevance.account import account, accounts
from pairx_engine.relevance.explainer import LayerExplainer
from pairx_engine.relevance.presets import AUTO, Reduction
from pairx_engine.relevance.seen import Seen
from pairx_engine.relevance.starts import cosine, starts_of
from pairx_engine.relevance.suitable import preset_for

_STORED: tuple[Reduction, ...] = ("abs_of_sum", "signed_sum", "sum_of_abs")
"""`positive_sum` follows from the signed sum."""


@dataclass(frozen=True)
class ExplainedPhoto:
    """One photo of an explained pair.

    `chip` (H, W, 3) uint8. `embedding` (D,). `start` (D,): what was propagated from the embedding, which is d
    cosine / d embedding, or each element's share for presets that share out the cosine. `relevance`: grids
    (h, w) of the layer by reduction (see `Preset`). `pixels` (k, H, W): the pixel relevance of the first k
    matches.
    """

    chip: Pixels
    embedding: Grid
    start: Grid
    relevance: Mapping[Reduction, Grid]
    pixels: Grid
    account: Mapping[str, float] = field(default_factory=dict)
    """How much of the cosine ends in the pixels, and elsewhere by kind; empty where that is not known."""


@dataclass(frozen=True)
class PairExplanation:
    """Why a model finds two chips alike.

    `finding` holds the matches, most relevant first, `photos` what either photo holds besides.
    """

    preset: str
    reduction: Reduction
    cosine: np.float32
    finding: Finding
    photos: tuple[ExplainedPhoto, ExplainedPhoto]

    def arrays(self) -> dict[str, NDArray[Any]]:
        """All arrays by name, as an arrays file holds them; names end in 0 and 1 for the two photos.

        `match_cell` (n, 2) as (column, row), `match_point` (n, 2) as (x, y) in chip pixels, `match_distance`
        (n,) L2, `match_relevance` (n,) after the reduction, `cosine` a float32 scalar; `account` (m,) says of
        each `account_kind` (m,) how much of the cosine ends there, where the preset can tell; the others as in
        `ExplainedPhoto`.
        """
        arrays: dict[str, NDArray[Any]] = {
            "cosine": np.asarray(self.cosine),
            "match_distance": self.finding.distance,
            "match_relevance": self.finding.relevance,
        }
        for i, (photo, side) in enumerate(zip(self.photos, self.finding.sides, strict=True)):
            arrays |= {
                f"chip{i}": photo.chip,
                f"embedding{i}": photo.embedding,
                f"start_gradient{i}": photo.start,
                **{f"relevance_{how}{i}": photo.relevance[how] for how in _STORED},
                f"match_cell{i}": side.cells.astype(np.int32),
                f"match_point{i}": side.points.astype(np.float32),
                f"pixel_relevance{i}": photo.pixels,
            }
            if photo.account:
                arrays["account_kind"] = np.array(list(photo.account))
                arrays[f"account{i}"] = np.array(list(photo.account.values()))
        return arrays


def explain_pair(
    model: ReIdModel,
    chip_a: Pixels,
    chip_b: Pixels,
    layer: str | None = None,
    preset: str = AUTO,
    n_pixel_maps: int = 10,
    precision: str = "float32",
    reduction: str | None = None,
) -> PairExplanation:
    """Explain two chips (H, W, 3) uint8 of the model's input size at one layer.

    The default is the model's own layer. Pixel maps are made for the `n_pixel_maps` most relevant matches
    (fewer where there are fewer). `reduction` replaces the preset's own. Raises `EngineError` for chips of
    another size, a model without a layer to explain, and an unknown layer, preset, precision or reduction.
    """
    layer = layer or model.layer
    if layer is None:
        raise ModelError(f"model {model.source} names no layer to explain; name one (setting layer)")
    for chip in (chip_a, chip_b):
        if chip.dtype != np.uint8 or chip.shape != (*model.chip.size, 3):
            raise EngineError(f"chips must be uint8 {(*model.chip.size, 3)}, not {chip.dtype} {chip.shape}")
    if n_pixel_maps < 0:
        raise EngineError(f"the number of pixel maps must not be negative, got {n_pixel_maps}")
    preset = preset_for(model.network, preset)
    explainer = LayerExplainer(model.network, [layer], preset, precision, reduction=reduction)
    return explain_with(explainer, model, (chip_a, chip_b), layer, n_pixel_maps)


def explain_with(
    explainer: LayerExplainer, model: ReIdModel, chips: tuple[Pixels, Pixels], layer: str, n_pixel_maps: int
) -> PairExplanation:
    """As `explain_pair`, with an existing explainer of the model's network."""
    seen = explainer.see_all(list(model.normalise(list(chips))), keep=n_pixel_maps > 0)
    how = explainer.preset.reduction
    grids = grids_by_reduction(explainer, seen, layer, tuple(dict.fromkeys((*_STORED, how))))
    finding = weigh(match(seen, layer, model.chip.size), grids[how]).ordered()
    cells = [side.cells[:n_pixel_maps] for side in finding.sides]
    pixels = explainer.all_pixel_maps(seen, layer, cells)
    starts = starts_of(explainer.preset, *(one.embedding for one in seen))
    a, b = (
        ExplainedPhoto(
            chip,
            as_array(one.embedding),
            as_array(start),
            {name: both[i] for name, both in grids.items()},
            as_array(maps),
            _account(explainer, one, start) if n_pixel_maps > 0 and accounts(explainer) else {},
        )
        for i, (chip, one, start, maps) in enumerate(zip(chips, seen, starts, pixels, strict=True))
    )
    return PairExplanation(
        explainer.preset.name, how, np.float32(cosine(*(one.embedding for one in seen))), finding, (a, b)
    )


def _account(explainer: LayerExplainer, seen: Seen, start: Tensor) -> dict[str, float]:
    pixels, elsewhere = account(explainer, seen, start[None])
    return {
        "pixels": float(pixels.sum(dtype=torch.float64)),
        **{kind: float(kept[0]) for kind, kept in sorted(elsewhere.items())},
    }
