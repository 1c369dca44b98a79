"""Pictures as they are compared, and how one is laid onto the other."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property

import cv2
import numpy as np
from numpy.typing import NDArray

from pairx_engine.copies.agreement import Grey, Mask
from pairx_engine.copies.similarity import (
    Candidate,
    Matrix,
    Size,
    after,
    by_local_features,
    in_centres,
    in_edges,
    inverse,
    scale_of,
    whole_onto_whole,
)
from pairx_engine.local.features import LocalFeatures
from pairx_engine.local.sift import SiftMatcher
from pairx_engine.photo.chips import Pixels, view_of
from pairx_engine.photo.perceptual_hash import hash_distances, least_distances, orientation_hashes

SIDE = 256
"""Long side (pixels) at which pictures are compared, at most.

A smaller picture is compared as it is, and enlarged for SIFT.
"""
KEYPOINTS = 400
ORIENTATION_BITS = 14
"""Most differing bits, of 64, for an orientation to be tried on the whole picture.

The trial lays the whole first picture onto the whole second one.
"""
FILL_LEVELS = 6
"""Levels of each colour by which a fill may differ from its corner's colour.

JPEG changes an even colour by about as much.
"""
LEAST_CONTENT = 0.5
"""Least share of a picture that must be left when its even corners count as fill.

If less is left, the picture is taken to be even, without any fill.
"""
CLIPPED = 254
"""Level of any colour from which the pixel may have been brighter before it was stored."""
ECC_STEPS, ECC_PRECISION, ECC_BLUR = 40, 1e-4, 5
FEWEST_PIXELS = 256
"""Pixels in common under which there is nothing to compare."""
_SOLID = 0.99


@dataclass(frozen=True, eq=False)
class Picture:
    """A photo's cut at most `SIDE` pixels long, which is what is compared.

    What is computed from it is kept.
    """

    pixels: Pixels
    view: Pixels
    cut_size: Size
    hashes: NDArray[np.uint64]
    """Hashes (8,) of the orientations."""

    @classmethod
    def of(cls, cut: Pixels) -> Picture:
        """Of a cut (H, W, 3) uint8 RGB of any size."""
        view = view_of(cut, SIDE)
        hashes = np.array(orientation_hashes(cut), dtype=np.uint64)
        height, width = cut.shape[:2]
        return cls(view if max(height, width) > SIDE else cut, view, (width, height), hashes)

    @property
    def size(self) -> Size:
        """(W, H) of the picture that is compared."""
        return self.pixels.shape[1], self.pixels.shape[0]

    @cached_property
    def grey(self) -> Grey:
        """Luminance (H, W), 0 to 255."""
        return cv2.cvtColor(self.pixels, cv2.COLOR_RGB2GRAY).astype(np.float32)

    @cached_property
    def content(self) -> Mask:
        """Which pixels (H, W) belong to the photo, not to the even fill that turning leaves in corners."""
        width, height = self.size
        filled = np.zeros((height + 2, width + 2), np.uint8)
        how = 4 | cv2.FLOODFILL_MASK_ONLY | cv2.FLOODFILL_FIXED_RANGE | (1 << 8)
        levels = (FILL_LEVELS,) * 3
        for x, y in ((0, 0), (width - 1, 0), (0, height - 1), (width - 1, height - 1)):
            if not filled[y + 1, x + 1]:
                cv2.floodFill(self.pixels.copy(), filled, (x, y), (0, 0, 0), levels, levels, how)
        content: Mask = filled[1:-1, 1:-1] == 0
        return content if content.mean() >= LEAST_CONTENT else np.ones_like(content)

    @cached_property
    def clipped(self) -> Mask:
        """Which pixels (H, W) are as bright as can be stored."""
        clipped: Mask = np.any(self.pixels >= CLIPPED, axis=2)
        return clipped

    @cached_property
    def features(self) -> LocalFeatures:
        """SIFT features of the view."""
        return SiftMatcher(KEYPOINTS).extract(self.view)

    def from_view(self) -> Matrix:
        """The map (2, 3) of points of the view to those of the picture."""
        height, width = self.view.shape[:2]
        return np.diag([self.size[0] / width, self.size[1] / height, 1.0])[:2]

    def from_cut(self) -> Matrix:
        """The map (2, 3) of points of the cut to those of the picture."""
        return np.diag([self.size[0] / self.cut_size[0], self.size[1] / self.cut_size[1], 1.0])[:2]


@dataclass(frozen=True, eq=False)
class Registered:
    """Two pictures in the frame of the coarser one.

    `first` and `second` are their greys (H, W). `common` marks the pixels that both show, `unclipped` those
    of them that can be compared. `matrix` (2, 3) maps the first picture's points to the second's. `smaller`
    and `larger` are the numbers of pixels, in this frame, that the two pictures have.
    """

    matrix: Matrix
    first: Grey
    second: Grey
    common: Mask
    unclipped: Mask
    smaller: float
    larger: float


def candidates(first: Picture, second: Picture) -> Iterator[Candidate]:
    """Transforms that may bring the first picture onto the second, the cheap ones first."""
    distances = hash_distances(first.hashes, second.hashes[0])
    for orientation in np.flatnonzero(distances <= ORIENTATION_BITS):
        yield Candidate(whole_onto_whole(int(orientation), first.size, second.size))
    for mirrored in (False, True):
        found = by_local_features(first.features, second.features, mirrored)
        if found is not None:
            matrix = after(after(inverse(first.from_view()), found.matrix), second.from_view())
            yield replace(found, matrix=matrix)


def least_hash_distance(first: Picture, second: Picture) -> int:
    """Differing bits of the two pictures' hashes in the orientation that fits best."""
    return int(least_distances(first.hashes, second.hashes))


def register(first: Picture, second: Picture, matrix: Matrix) -> Registered | None:
    """Refine a map (2, 3) of the first picture's points to the second's and lay one onto the other.

    The finer picture is brought to the scale of the coarser one. The refined affine map is the one of highest
    correlation (Evangelidis and Psarakis 2008). Returns None where fewer than `FEWEST_PIXELS` pixels meet.
    """
    if scale_of(matrix) > 1:
        turned = register(second, first, inverse(matrix))
        return turned and replace(
            turned, matrix=inverse(turned.matrix), first=turned.second, second=turned.first
        )
    warped, common, unclipped = _laid(first, second, matrix)
    refined = _refined(warped, second.grey, common, matrix)
    if refined is not None:
        matrix = refined
        warped, common, unclipped = _laid(first, second, matrix)
    if common.sum() < FEWEST_PIXELS:
        return None
    areas = sorted([float(first.content.sum()) * scale_of(matrix) ** 2, float(second.content.sum())])
    return Registered(matrix, warped, second.grey, common, unclipped, *areas)


def _refined(warped: Grey, still: Grey, common: Mask, matrix: Matrix) -> Matrix | None:
    """The map, corrected by comparing the two greys in one frame; None if no correction is found."""
    inside = _eroded(common).astype(np.uint8)
    if inside.sum() < FEWEST_PIXELS:
        return None
    criteria = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, ECC_STEPS, ECC_PRECISION)
    start = np.eye(2, 3, dtype=np.float32)
    try:
        _, step = cv2.findTransformECC(still, warped, start, cv2.MOTION_AFFINE, criteria, inside, ECC_BLUR)
    except cv2.error:  # it raises where it does not converge
        return None
    step = in_edges(np.asarray(step, dtype=np.float64))
    if not np.isfinite(step).all() or not 0.5 < scale_of(step) < 2:
        return None
    return after(matrix, inverse(step))


def _laid(picture: Picture, onto: Picture, matrix: Matrix) -> tuple[Grey, Mask, Mask]:
    """A picture laid into the frame of a coarser one.

    Returns its grey, which pixels both pictures show, and which pixels neither picture clips.
    """
    scale, source = scale_of(matrix), picture.grey
    if scale < 1:
        # A pixel of the coarser picture is the mean of 1 / scale pixels along each side. Without as much
        # blur, fine stripes would turn into coarse ones.
        source = cv2.GaussianBlur(source, (0, 0), max(0.1, 0.5 * math.sqrt(1 / scale**2 - 1)))

    def warp(values: NDArray[np.float32], border: int) -> NDArray[np.float32]:
        return np.asarray(
            cv2.warpAffine(
                values,
                in_centres(matrix),
                onto.size,
                flags=cv2.INTER_LINEAR,
                borderMode=border,
                borderValue=0,
            ),
            dtype=np.float32,
        )

    shown = warp(picture.content.astype(np.float32), cv2.BORDER_CONSTANT) > _SOLID
    clipped = (warp(picture.clipped.astype(np.float32), cv2.BORDER_CONSTANT) > 1 - _SOLID) | onto.clipped
    return warp(source, cv2.BORDER_REPLICATE), shown & onto.content, _eroded(~clipped)


def _eroded(mask: Mask) -> Mask:
    """The mask without the pixels that touch a pixel outside it."""
    return cv2.erode(mask.astype(np.uint8), np.ones((3, 3), np.uint8)).astype(bool)
