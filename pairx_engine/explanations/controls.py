"""Maps that know nothing of the photos.

Smooth maps flip connected areas and scattered ones do not, and animals stand in the middle of their photos.
So an explanation should beat all three controls.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pairx_engine.explanations.seam import Explained, State, Subject
from pairx_engine.photo.blur import gaussian_blur

SMOOTH_SHARE = 1 / 16
"""Standard deviation of `random_smooth`, as a share of the chip's shorter side.

Patches are then as large as a few cells of a late layer.
"""
CENTRE_SHARE = 1 / 4
_MAPS = 2
"""Keeps these random draws apart from those of pixel flipping under the same seed."""


@dataclass(frozen=True)
class Control:
    """A map made from the chip's size, the seed and the photo's place in its pair."""

    name: str
    about: str
    draw: Callable[[Tensor, list[int]], Tensor]
    cost: float = 0
    sees_partner: bool = False

    def identity(self) -> Mapping[str, Any]:
        """Nothing besides the name."""
        return {}

    def explain(
        self, subject: Subject, chip_a: Tensor, chip_b: Tensor, state: State | None = None
    ) -> Explained:
        """Draw both maps."""
        return Explained.of_maps(
            *(self.draw(chip, [subject.seed, side, _MAPS]) for side, chip in enumerate((chip_a, chip_b)))
        )


def controls() -> Sequence[Control]:
    """All three."""
    return [
        Control("random", "noise, for comparison", _noise),
        Control("random_smooth", "smooth noise, for comparison", _smooth_noise, 2),
        Control("centre", "the middle of the photo, for comparison", _centre),
    ]


def _noise(chip: Tensor, seed: list[int]) -> Tensor:
    """Uniform noise in [0, 1) per pixel, drawn on the CPU."""
    return torch.from_numpy(np.random.default_rng(seed).random(chip.shape[-2:])).to(chip)


def _smooth_noise(chip: Tensor, seed: list[int]) -> Tensor:
    """Uniform noise under a Gaussian of `SMOOTH_SHARE` of the shorter side."""
    noise = torch.from_numpy(np.random.default_rng(seed).random(chip.shape[-2:]))
    return gaussian_blur(noise[None], SMOOTH_SHARE * min(noise.shape))[0].to(chip)


def _centre(chip: Tensor, seed: list[int]) -> Tensor:
    """A Gaussian about the chip's middle, its standard deviation `CENTRE_SHARE` of either side."""
    height, width = chip.shape[-2:]
    rows, columns = (
        torch.exp(-0.5 * (((torch.arange(n, dtype=torch.float64) + 0.5) / n - 0.5) / CENTRE_SHARE) ** 2)
        for n in (height, width)
    )
    return torch.outer(rows, columns).to(chip)
