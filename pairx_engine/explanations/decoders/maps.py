"""From a decoder's pictures to the maps of an explanation."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pairx_engine.explanations.decoders.decoder import Decoder
from pairx_engine.explanations.seam import Explained, Shown, stretched
from pairx_engine.pair.finding import as_array

Floats = NDArray[np.floating]
Channels = Literal["mean_of_abs", "abs_of_mean", "max_of_abs", "brighter"]
CHANNELS: Mapping[Channels, Callable[[Floats], Floats]] = {
    "mean_of_abs": lambda change: np.abs(change).mean(axis=-3),
    "abs_of_mean": lambda change: np.abs(change.mean(axis=-3)),
    "max_of_abs": lambda change: np.abs(change).max(axis=-3),
    "brighter": lambda change: np.clip(change, 0, None).mean(axis=-3),
}
"""How the change of a picture (..., 3, h, w) becomes one number per pixel."""


def scaled(values: Floats) -> Floats:
    """Values mapped onto 0 to 1 by their least and largest; all 0 where these are the same."""
    least, largest = float(values.min()), float(values.max())
    return (values - least) / (largest - least) if largest > least else np.zeros_like(values)


def decoded(
    chips: tuple[Tensor, Tensor],
    decoder: Decoder,
    embeddings: Sequence[Floats],
    before: Sequence[Floats],
    after: Sequence[Floats],
    more: Mapping[str, Floats],
) -> Explained:
    """An explanation by maps (h, w) of a decoder's size, stretched to the chips.

    Those `before` a threshold are its maps, those `after` it are drawn.
    """
    maps, drawn = (
        [stretched(torch.from_numpy(one), chip) for one, chip in zip(grids, chips, strict=True)]
        for grids in (before, after)
    )
    pictures = decoder.decode(np.stack(embeddings)).clip(0, 1).transpose(0, 2, 3, 1)
    arrays: dict[str, Floats] = {}
    for side in (0, 1):
        arrays |= {f"map{side}": as_array(maps[side]), f"before{side}": before[side]}
        arrays |= {f"after{side}": after[side], f"reconstruction{side}": pictures[side]}
    return Explained((maps[0], maps[1]), Shown.of_maps((drawn[0], drawn[1])), arrays=arrays | dict(more))
