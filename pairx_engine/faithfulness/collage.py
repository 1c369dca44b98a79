"""A photo among others: does an explanation find the animal that the partner shows?"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

Place = tuple[slice, slice]
"""Rows and columns of a quarter of a chip."""


def collage_of(chip: Tensor, others: Sequence[Tensor], name: str) -> tuple[Tensor, Place]:
    """A chip (3, H, W) of four chips at half their size, and the place of the first among them.

    The place follows from `name` alone. Three others are taken, in reading order.
    """
    height, width = chip.shape[-2:]
    rows = slice(0, height // 2), slice(height // 2, height)
    columns = slice(0, width // 2), slice(width // 2, width)
    places = [(row, column) for row in rows for column in columns]
    own = hashlib.sha256(name.encode()).digest()[0] % len(places)
    parts = list(others[: len(places) - 1])
    parts.insert(own, chip)
    made = torch.empty_like(chip)
    for part, (row, column) in zip(parts, places, strict=True):
        size = (row.stop - row.start, column.stop - column.start)
        made[:, row, column] = functional.interpolate(
            part[None].to(chip), size, mode="bilinear", antialias=True, align_corners=False
        )[0]
    return made, places[own]


def share_inside(relevance: Tensor, place: Place) -> float:
    """The share of a map's positive relevance (H, W) at a place; NaN where nothing is positive."""
    positive = relevance.detach().double().clamp(min=0)
    total = float(positive.sum())
    return float(positive[place].sum()) / total if total > 0 else math.nan
