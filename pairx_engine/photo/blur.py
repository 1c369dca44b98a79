"""A Gaussian blur of pictures as tensors."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional


def gaussian_blur(picture: Tensor, sigma: float) -> Tensor:
    """A picture (C, H, W) under a Gaussian of `sigma` pixels.

    The Gaussian is cut off at 3 sigma; the picture's edges are repeated outwards.
    """
    radius = max(1, math.ceil(3 * sigma))
    offsets = torch.arange(-radius, radius + 1, dtype=torch.float64)
    kernel = torch.exp(-0.5 * (offsets / sigma) ** 2)
    kernel = (kernel / kernel.sum()).to(picture)
    padded = functional.pad(picture[:, None], (radius,) * 4, mode="replicate")
    return functional.conv2d(functional.conv2d(padded, kernel.view(1, 1, -1, 1)), kernel.view(1, 1, 1, -1))[
        :, 0
    ]
