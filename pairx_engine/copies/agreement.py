"""How well two registered pictures agree, pixel by pixel: the normalised correlation of their gradients.

Gradients do not see brightness, and their normalised correlation does not see contrast. Over a whole picture
it is ruled by the strongest edges, so that one background with two animals may correlate well: the picture is
therefore cut into tiles, and each of them has to agree.
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

What JPEG leaves is gone then, a moved ear is not: of
frames of one video and copies at JPEG quality 30 the latter agree better at 2 pixels, and are mixed up at 1.
"""
TILES, LEAST_TILE = 6, 20
"""Tiles along the long side of what is compared, and their least side in pixels: smaller ones hold too little
to tell noise by."""
FLOOR = 3.0
"""Gradients (grey levels per pixel) up to about this size are noise: a tile without stronger ones says
nothing, and agrees."""
FEWEST = 0.25
"""Share of a tile's pixels that must be compared for the tile to count."""
_TINY = 1e-6


def gradients(grey: Grey, mask: Mask, smoothing: float = SMOOTHING) -> Gradients:
    """Gradients (2, H, W), along x and along y, of a grey picture (H, W): half differences of the neighbours
    after a blur.

    The blur is over the pixels of the mask alone, blur(I m) / blur(m): nothing outside of it has an
    influence.
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

    `first` and `second` are gradients (2, H, W) in one frame. 0 where one of the two has none but what
    rounding leaves.
    """
    product, energy_a, energy_b = (float(s[mask].sum()) for s in _products(first, second))
    scale = np.sqrt(energy_a * energy_b)
    return float(np.clip(product / scale, -1, 1)) if scale > _TINY * int(mask.sum()) else 0.0


def tile_correlations(
    first: Gradients, second: Gradients, mask: Mask, tiles: int = TILES, floor: float = FLOOR
) -> NDArray[np.float64]:
    """The correlation within each tile of the mask's bounding box: (sum g0 . g1 + f) / (sqrt(sum |g0|^2 sum
    |g1|^2) + f).

    f = floor^2 * pixels; of the two gradients the weaker ones are first brought to the contrast of the
    others, so that the order does not matter. Tiles are about square, at most `tiles` of them along the
    longer side; one of whose pixels less than `FEWEST` are in the mask is left out. Returns one number in
    [-1, 1] for each tile that is left, row by row.
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
