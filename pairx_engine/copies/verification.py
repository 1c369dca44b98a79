"""Verification that two photos are one picture, saved again.

The transform between them is found, then every part is compared pixel by pixel.

A copy is the other picture turned, mirrored, cropped, resized, recompressed or brightened. A similarity
transform brings one onto the other, over nearly all of the smaller one, and there the gradients agree in
every tile. Two animals before one background, twins, and frames of a burst do not pass, because some part of
the picture differs. Frames of a video in which nothing has moved do pass: nothing distinguishes them from a
copy at a low JPEG quality.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np

from pairx_engine.copies import agreement, registration
from pairx_engine.copies.agreement import gradient_correlation, gradients, tile_correlations
from pairx_engine.copies.registration import Picture, Registered, candidates, least_hash_distance, register
from pairx_engine.copies.similarity import Candidate, Matrix, after, inverse, shape_of

MIN_AGREEMENT = 0.97
"""Least correlation of the gradients over all that both pictures show.

Planted copies of dogs: .99 and more; of two lions: .86 at most.
"""
MIN_WEAKEST = 0.9
"""The same in the tile where it is lowest.

Dogs that are no copies reach .2, lions .84.
"""
MIN_OVERLAP = 0.75
"""Least share of the smaller picture that is in the larger one.

A picture of two to one that was turned by 10 degrees keeps .82.
"""
MAX_STRETCH = 1.05
"""How much longer one direction may become than another; halving 31 pixels to 15 makes 1.03."""
_LARGEST_SCALE, _LARGEST_STRETCH = 8.0, 1.3
_LEAST_COMPARED = 0.1
"""Least unclipped share of what both show; below it the clipped pixels are compared too."""
_STEP, _TURN = 0.02, 1.5
_WHOLE, _WHOLE_TURNED = 0.95, 0.8


@dataclass(frozen=True, eq=False)
class CopyVerdict:
    """What the comparison of two pictures found.

    `transform` says in words what was done to the first picture to get the second, comma-separated:

    * mirrored: left and right changed places
    * turned_90, turned_180 or turned_270 (clockwise), or turned (by another angle)
    * cropped: either of the two
    * resized

    Three words stand alone: identical (the same pixels), resaved (none of the above, yet other pixels) and
    none (no transform was found).

    `matrix` (2, 3) maps points of the first cut to the second's, None where no transform was found.
    `agreement` in [-1, 1] is the correlation of the gradients, `weakest` that of the tile where it is lowest,
    `overlap` the share of the smaller picture that both show. `inliers` is the number of local matches that
    led to the transform (0 where the whole pictures were laid onto each other).
    """

    transform: str
    mirrored: bool
    matrix: Matrix | None
    agreement: float
    weakest: float
    overlap: float
    hash_distance: int
    inliers: int
    same_picture: bool


def identity() -> dict[str, Any]:
    """Everything that changes a verdict."""
    names = {
        agreement: ("SMOOTHING", "TILES", "LEAST_TILE", "FLOOR", "FEWEST"),
        registration: ("SIDE", "KEYPOINTS", "ORIENTATION_BITS", "FILL_LEVELS", "LEAST_CONTENT", "CLIPPED"),
    }
    constants = {name.lower(): getattr(module, name) for module, listed in names.items() for name in listed}
    thresholds = [MIN_AGREEMENT, MIN_WEAKEST, MIN_OVERLAP, MAX_STRETCH]
    return {
        "verifier": "similarity.v1",
        "opencv": int(cv2.__version__.split(".")[0]),
        "thresholds": thresholds,
        **constants,
    }


def verify_copy(first: Picture, second: Picture) -> CopyVerdict:
    """Whether two pictures are one, saved again.

    If the pictures change places, the verdict stays the same and its transform is inverted.
    """
    if _rank(first) > _rank(second):
        found = verify_copy(second, first)
        if found.matrix is None:
            return found
        matrix = inverse(found.matrix)
        return replace(found, matrix=matrix, transform=_turned_round(found.transform))
    distance = least_hash_distance(first, second)
    if first.pixels.shape == second.pixels.shape and np.array_equal(first.pixels, second.pixels):
        return CopyVerdict("identical", False, np.eye(2, 3), 1.0, 1.0, 1.0, distance, 0, True)
    best = CopyVerdict("none", False, None, 0.0, 0.0, 0.0, distance, 0, False)
    for candidate in candidates(first, second):
        verdict = _judged(first, second, candidate, distance)
        if verdict and (verdict.same_picture, verdict.agreement) > (best.same_picture, best.agreement):
            best = verdict
        if best.same_picture:
            break
    return best


def _rank(picture: Picture) -> tuple[int, int, bytes]:
    return (*picture.size, picture.pixels.tobytes())


def _judged(first: Picture, second: Picture, candidate: Candidate, distance: int) -> CopyVerdict | None:
    _, _, scale, stretch = shape_of(candidate.matrix)
    if not 1 / _LARGEST_SCALE <= scale <= _LARGEST_SCALE or stretch > _LARGEST_STRETCH:
        return None
    laid = register(first, second, candidate.matrix)
    if laid is None:
        return None
    whole, weakest = _agreement(laid)
    matrix = after(after(first.from_cut(), laid.matrix), inverse(second.from_cut()))
    mirrored, _, _, stretch = shape_of(matrix)
    overlap = min(1.0, float(laid.common.sum()) / laid.smaller)
    same = (
        whole >= MIN_AGREEMENT
        and weakest >= MIN_WEAKEST
        and overlap >= MIN_OVERLAP
        and stretch <= MAX_STRETCH
    )
    words = _words(matrix, float(laid.common.sum()) / laid.larger)
    return CopyVerdict(words, mirrored, matrix, whole, weakest, overlap, distance, candidate.inliers, same)


def _agreement(laid: Registered) -> tuple[float, float]:
    """Over all that both show, and in the weakest tile."""
    compared = laid.common & laid.unclipped
    # Where brightening has clipped much of the picture, the rest still tells. If hardly anything is left, the
    # clipped pixels are compared as well.
    if compared.sum() < _LEAST_COMPARED * laid.common.sum():
        compared = laid.common
    both = gradients(laid.first, compared), gradients(laid.second, compared)
    tiles = tile_correlations(*both, compared)
    return gradient_correlation(*both, compared), float(tiles.min()) if len(tiles) else 0.0


def _words(matrix: Matrix, share_of_larger: float) -> str:
    """The transform in words; `share_of_larger` is what both show of the larger picture."""
    mirrored, angle, scale, _ = shape_of(matrix)
    quarters = round(angle / 90) % 4
    off = abs((angle + 45) % 90 - 45)
    turned = off > _TURN
    found = ["mirrored"] if mirrored else []
    if turned:
        found.append("turned")
    elif quarters:
        found.append(f"turned_{90 * quarters}")
    if share_of_larger < (_WHOLE_TURNED if turned else _WHOLE):
        found.append("cropped")
    if abs(scale - 1) > _STEP:
        found.append("resized")
    return ", ".join(found) or "resaved"


def _turned_round(words: str) -> str:
    """The words for the inverse transform.

    The words of a mirrored picture stay: the same turn leads back to the first one.
    """
    if "mirrored" in words:
        return words
    swap = {"turned_90": "turned_270", "turned_270": "turned_90"}
    return ", ".join(swap.get(word, word) for word in words.split(", "))
