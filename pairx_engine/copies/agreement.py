"""How well two registered pictures agree, pixel by pixel.

The measure is the normalised correlation of their gradients. Gradients do not depend on brightness, and their
normalised correlation does not depend on contrast. Over a whole picture the strongest edges decide it: one
background with two different animals may correlate well. So the picture is cut into tiles, and each tile has
to agree.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

Grey = NDArray[np.float32]
Gradients = NDArray[np.float32]
Mask = NDArray[np.bool_]

SMOOTHING = 2.0
"""Standard deviation (pixels) of the blur before differences are taken.

The blur removes what JPEG leaves, but not a moved ear. Copies at JPEG quality 30 agree better than frames of
one video at 2 pixels; at 1 pixel the two are mixed up.
"""
TILES, LEAST_TILE = 6, 20
"""Tiles along the long side of what is compared, and their least side in pixels.

A smaller tile holds too few pixels to tell a difference from noise.
"""
FLOOR = 3.0
"""Gradients (grey levels per pixel) up to about this size are noise.

A tile without stronger gradients says nothing, and counts as agreeing.
"""
FEWEST = 0.25
"""Share of a tile's pixels that must be compared for the tile to count."""
_TINY = 1e-6


def gradients(grey: Grey, mask: Mask, smoothing: float = SMOOTHING) -> Gradients:
    """Gradients (2, H, W), along x and along y, of a grey picture (H, W).

    They are half differences of the neighbours after a blur. The blur is over the pixels of the mask alone,
    blur(I m) / blur(m): pixels outside the mask have no influence.
    """
    weight, smooth = (
        cv2.GaussianBlur(values, (0, 0), smoothing, borderType=cv2.BORDER_REFLECT_101)
        for values in (mask.astype(np.float32), np.where(mask, grey, np.float32(0)))
    )
    smooth = smooth / np.maximum(weight, _TINY)
    along = np.array([[-0.5, 0.0, 0.5]])
    return np.stack(
        [
            cv2.filter2D(smooth, cv2.CV_32F, kernel, borderType=cv2.BORDER_REFLECT_101)
            for kernel in (along, along.T)
        ]
    )


def gradient_correlation(first: Gradients, second: Gradients, mask: Mask) -> float:
    """sum g0 . g1 / sqrt(sum |g0|^2 * sum |g1|^2) over the pixels of the mask (H, W), in [-1, 1].

    `first` and `second` are gradients (2, H, W) in one frame. 0 where one of the two has no gradients beyond
    rounding.
    """
    product, energy_a, energy_b = (float(s[mask].sum()) for s in _products(first, second))
    scale = np.sqrt(energy_a * energy_b)
    return float(np.clip(product / scale, -1, 1)) if scale > _TINY * int(mask.sum()) else 0.0


def tile_correlations(
    first: Gradients, second: Gradients, mask: Mask, tiles: int = TILES, floor: float = FLOOR
) -> NDArray[np.float64]:
    """The correlation of the gradients within each tile of the mask's bounding box.

    It is (sum g0 . g1 + f) / (sqrt(sum |g0|^2 sum |g1|^2) + f) with f = floor^2 * pixels. The weaker
    gradients are first brought to the contrast of the stronger ones, so that the order does not matter. Tiles
    are about square, at most `tiles` of them along the longer side. A tile is left out if less than the share
    `FEWEST` of its pixels are in the mask. Returns one number in [-1, 1] for each tile that is left, row by
    row.
    """
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(rows):
        return np.empty(0)
    box = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
    inside = mask[box]
    product, energy_a, energy_b = (np.where(inside, s[box], 0.0) for s in _products(first, second))
    total_a, total_b = float(energy_a.sum()), float(energy_b.sum())
    # The factor sqrt(high / low) on the weaker gradients is a factor on both sums.
    gain = np.sqrt(max(total_a, total_b) / min(total_a, total_b)) if min(total_a, total_b) > 0 else 1.0
    side = max(max(inside.shape) / tiles, LEAST_TILE)
    edges = [np.linspace(0, n, max(1, round(n / side)) + 1).astype(int)[:-1] for n in inside.shape]

    def sums(values: NDArray[np.float64]) -> NDArray[np.float64]:
        found: NDArray[np.float64] = np.add.reduceat(
            np.add.reduceat(values, edges[0], axis=0), edges[1], axis=1
        )
        return found

    count, area = sums(inside.astype(np.float64)), sums(np.ones(inside.shape))
    counts = count >= FEWEST * area
    noise = floor**2 * count[counts]
    both = gain * np.sqrt(sums(energy_a) * sums(energy_b))[counts]
    return np.clip((gain * sums(product)[counts] + noise) / (both + noise), -1, 1)


def _products(
    first: Gradients, second: Gradients
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """g0 . g1, |g0|^2 and |g1|^2 at every pixel."""
    one, other = first.astype(np.float64), second.astype(np.float64)
    return (one * other).sum(axis=0), (one**2).sum(axis=0), (other**2).sum(axis=0)
