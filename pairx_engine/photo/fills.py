"""What replaces a photo's pixels when they are flipped, in the units of normalised chips."""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor

from pairx_engine.errors import EngineError
from pairx_engine.photo.blur import gaussian_blur
from pairx_engine.photo.value_range import ValueRange

Fill = Literal["noise", "mean", "blur"]
FILLS: tuple[Fill, ...] = get_args(Fill)
BLUR_SHARE = 1 / 8
"""Standard deviation of the fill `blur`, as a share of the chip's shorter side.

With this value colours stay in place, and patterns vanish.
"""


def fill_chip(chip: Tensor, fill: Fill, values: ValueRange, draw: np.random.Generator) -> Tensor:
    """A chip (C, H, W) of nothing but fill, on the device and in the type of the given one.

    `noise` draws each pixel and channel uniformly from the photo's 256 values, in the order of the array, on
    the CPU, so that a seed means the same on every device. `mean` is the chip's mean colour. `blur` is the
    chip under a Gaussian of `BLUR_SHARE` of its shorter side. Raises `EngineError` for a range with other
    channels than the chip and for an unknown fill.
    """
    if len(values.low) != len(chip):
        raise EngineError(
            f"a chip of {len(chip)} channels needs a value range of as many, not {len(values.low)}"
        )
    if fill == "noise":
        low, high = (torch.tensor(v, dtype=torch.float64).view(-1, 1, 1) for v in (values.low, values.high))
        levels = torch.from_numpy(draw.integers(0, 256, chip.shape))
        return (low + (high - low) * levels / 255).to(chip)
    if fill == "mean":
        return chip.mean(dim=(1, 2), keepdim=True).expand_as(chip)
    if fill == "blur":
        return gaussian_blur(chip, BLUR_SHARE * min(chip.shape[-2:]))
    raise EngineError(f"unknown fill {fill!r}; choose one of {', '.join(FILLS)}")
