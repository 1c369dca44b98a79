"""What a normalised chip holds for black and for white."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pairx_engine.photo.chips import ChipSpec, Pixels


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

    @classmethod
    def spanned_by(cls, chip: Tensor) -> ValueRange:
        """From the least to the greatest value of a chip (C, H, W), for all channels: a guess."""
        low, high = float(chip.min()), float(chip.max())
        return cls((low,) * len(chip), (high if high > low else low + 1,) * len(chip))

    def pixels(self, chip: Tensor) -> Pixels:
        """The picture (H, W, 3) uint8 that a normalised chip (3, H, W) was made of."""
        shown = self.brightness(chip) * 255
        return shown.round().clamp(0, 255).to(torch.uint8).permute(1, 2, 0).numpy().astype(np.uint8)

    def brightness(self, chip: Tensor) -> Tensor:
        """What a normalised chip (3, H, W) shows, from 0 for black to 1 for white, in float64 on the CPU.

        Values outside the range are not cut off.
        """
        low, high = (torch.tensor(v, dtype=torch.float64).view(-1, 1, 1) for v in (self.low, self.high))
        return (chip.detach().cpu().double() - low) / (high - low)
