"""How maps lie in memory: the layout of the first map decides the kernels of a chain of steps.

Channels last means that a cell's channels are neighbours. A map of one cell, or of one item, leaves its
strides partly open. torch takes such a map for contiguous unless its strides are exactly those of channels
last. The wrong layout then spreads to every map after it, and each product reorders its operands.
"""

from __future__ import annotations

import torch
from torch import Tensor

from pairx_engine.device.tuning import Layout


def is_channels_last(maps: Tensor) -> bool:
    """Whether a cell's channels are neighbours in maps (N, C, H, W) of several channels."""
    return maps.shape[1] > 1 and maps.stride(1) == 1


def channels_last(maps: Tensor) -> Tensor:
    """The maps (N, C, H, W) with exactly the strides of channels last.

    They are copied only where their order in memory differs.
    """
    _, channels, height, width = maps.shape
    strides = (height * width * channels, 1, width * channels, channels)
    if maps.stride() == strides:
        return maps
    if maps.is_contiguous(memory_format=torch.channels_last):
        return maps.as_strided(maps.shape, strides)
    return torch.empty_strided(maps.shape, strides, dtype=maps.dtype, device=maps.device).copy_(maps)


def laid_out_like(model: Tensor, maps: Tensor) -> Tensor:
    """The maps as channels last if the model is."""
    return channels_last(maps) if is_channels_last(model) else maps


def laid_out(maps: Tensor, layout: Layout | None) -> Tensor:
    """The maps in a layout, copied only if they lie otherwise; unchanged for None."""
    if layout is None:
        return maps
    return channels_last(maps) if layout == "channels_last" else maps.contiguous()


def converted(maps: Tensor, dtype: torch.dtype, layout: Layout | None) -> Tensor:
    """The maps in a format and a layout (None: as they lie), by at most one copy."""
    if layout is None:
        return maps.to(dtype)
    last = layout == "channels_last"
    return laid_out(
        maps.to(dtype, memory_format=torch.channels_last if last else torch.contiguous_format), layout
    )
