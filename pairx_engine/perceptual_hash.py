"""A 64-bit difference hash: near-identical pictures differ in few bits, whatever their size or JPEG quality."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pairx_engine.chips import Pixels, resize


def difference_hash(cut: Pixels) -> int:
    """Hash a cut (h, w, 3): the signs of horizontal grey differences on a 9 x 8 grid, as one unsigned 64-bit number."""
    # In whole numbers: equal greys must compare as equal on every machine, or flat coats hash to noise.
    small = resize(cut, (8, 9), "pil").astype(np.int64) @ np.array([299, 587, 114])
    bits = small[:, 1:] > small[:, :-1]
    return int.from_bytes(np.packbits(bits.ravel()).tobytes(), "big")


def hash_distances(first: NDArray[np.uint64], second: NDArray[np.uint64]) -> NDArray[np.uint8]:
    """Differing bits (0-64) of two arrays of hashes of one shape, or of shapes that broadcast."""
    return np.bitwise_count(np.bitwise_xor(first, second))
