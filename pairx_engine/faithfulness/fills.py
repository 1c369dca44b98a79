"""What replaces a photo's pixels when they are flipped, in the units of normalised chips."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor

from pairx_engine.errors import EngineError
from pairx_engine.explanations.blur import gaussian_blur
from pairx_engine.photo.chips import ChipSpec

Fill = Literal["noise", "mean", "blur"]
FILLS: tuple[Fill, ...] = get_args(Fill)
BLUR_SHARE = 1 / 8
"""Standard deviation of the fill `blur`, as a share of the chip's shorter side.

With this value colours stay in place, and patterns vanish.
"""


@dataclass(frozen=True)
class ValueRange:
    """What a normalised chip holds for the photo's 0 (`low`) and 255 (`high`), one number per channel."""

    low: tuple[float, ...]
    high: tuple[float, ...]

    def __post_init__(self) -> None:
        if not self.low or len(self.low) != len(self.high):
            raise ValueError(f"low and high need one number per channel each, not {self.low} and {self.high}")
        if any(not low < high for low, high in zip(self.low, self.high, strict=True)):
            raise ValueError(f"low must lie below high in every channel, not {self.low} and {self.high}")

    @classmethod
    def of(cls, spec: ChipSpec) -> ValueRange:
        """The range of a model's chips, (0 - mean) / std to (1 - mean) / std."""
        channels = list(zip(spec.mean, spec.std, strict=True))
        return cls(
            tuple(-mean / std for mean, std in channels), tuple((1 - mean) / std for mean, std in channels)
        )


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
