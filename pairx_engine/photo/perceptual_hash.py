"""A 64-bit difference hash, in which near-identical pictures differ in few bits.

Size and JPEG quality hardly matter. A turned or mirrored copy has another hash; it is found by the hashes of
a picture's eight orientations.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from pairx_engine.photo.chips import Pixels, resize, view_of

ORIENTATIONS = 8
"""Four quarter turns of the picture, and of its mirror image."""
_SIDE = 256
"""Long side (pixels) of the picture that is turned.

A hash looks at only 9 x 8 cells, and photos have millions of pixels.
"""


def difference_hash(cut: Pixels) -> int:
    """Hash a cut (h, w, 3) to one unsigned 64-bit number.

    Its bits are the signs of horizontal grey differences on a 9 x 8 grid.
    """
    # In whole numbers: equal greys must be equal on every machine, or the hashes of flat coats are noise.
    small = resize(cut, (8, 9), "pil").astype(np.int64) @ np.array([299, 587, 114])
    bits = small[:, 1:] > small[:, :-1]
    return int.from_bytes(np.packbits(bits.ravel()).tobytes(), "big")


def oriented(picture: Pixels, orientation: int) -> Pixels:
    """The picture (h, w, 3) in one of its orientations.

    0 is the picture as it is; 1 to 3 are turned counter-clockwise by so many quarters. 4 to 7 are mirrored
    (left and right change places) and then turned likewise. Raises `ValueError` for another number.
    """
    if not 0 <= orientation < ORIENTATIONS:
        raise ValueError(f"an orientation is one of 0 to {ORIENTATIONS - 1}, not {orientation}")
    return np.ascontiguousarray(np.rot90(picture[:, ::-1] if orientation >= 4 else picture, orientation % 4))


def orientation_hashes(cut: Pixels) -> tuple[int, ...]:
    """The difference hashes of a cut's eight orientations, first that of the cut as it is.

    The others are hashes of the turned cut after it was brought to a long side of 256 pixels, if it was
    longer.
    """
    small = view_of(cut, _SIDE) if max(cut.shape[:2]) > _SIDE else cut
    return (difference_hash(cut), *(difference_hash(oriented(small, o)) for o in range(1, ORIENTATIONS)))


def orientations_or_upright(
    upright: NDArray[np.uint64], hashes: Sequence[Sequence[int] | None]
) -> NDArray[np.uint64]:
    """Orientation hashes (N, 8) of photos with upright hashes (N,).

    Where they are None, the upright hash stands eight times.
    """
    found = np.repeat(upright[:, None], ORIENTATIONS, axis=1)
    for row, known in enumerate(hashes):
        if known is not None:
            found[row] = known
    return found


def hash_distances(first: NDArray[np.uint64], second: NDArray[np.uint64]) -> NDArray[np.uint8]:
    """Differing bits (0-64) of two arrays of hashes of one shape, or of shapes that broadcast."""
    return np.bitwise_count(np.bitwise_xor(first, second))


def least_distances(first: NDArray[np.uint64], second: NDArray[np.uint64]) -> NDArray[np.uint8]:
    """Differing bits of pictures in the orientation that fits best.

    Both arrays (..., 8) are of orientation hashes. One picture as it is is compared with the other in all
    orientations, and the other way round, so the order does not matter. An orientation without any contrast
    (hash 0) would equal every other such orientation, and does not count.
    """
    both = [hash_distances(a[..., :1], b) for a, b in ((first, second), (second, first))]
    for distances, turned in zip(both, (second, first), strict=True):
        distances[..., 1:][turned[..., 1:] == 0] = 64
    least: NDArray[np.uint8] = np.minimum(*both).min(axis=-1)
    return least
