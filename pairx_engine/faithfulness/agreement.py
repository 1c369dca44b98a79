"""How alike two maps order the places of a photo."""

from __future__ import annotations

import math

from scipy.stats import rankdata
from torch import Tensor

from pairx_engine.faithfulness.pixel_flipping import superpixel_sums

GRID = 16
"""Cells that the shorter side of a map is divided into: about as many as a late layer has.

Maps in pixels and maps of cells are compared alike, and a pixel here or there means nothing.
"""


def rank_correlation(a: Tensor, b: Tensor) -> float:
    """Spearman's rank correlation of two maps (H, W) of one photo, over square cells.

    NaN where either is the same everywhere.
    """
    side = max(1, min(a.shape[-2:]) // GRID)
    ranks = [rankdata(superpixel_sums(one, side).flatten().numpy()) for one in (a, b)]
    x, y = (each - each.mean() for each in ranks)
    spread = math.sqrt(float(x @ x) * float(y @ y))
    return max(-1.0, min(1.0, float(x @ y) / spread)) if spread else math.nan
