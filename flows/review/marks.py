"""What a run stored about why a pair matches, in shares of the cut, so that the page can draw it at any zoom.

Every place is a share (0-1) of the cut's width and height: chip and cut are plain stretches of each other, so
nothing has to know the model's input size. Drawing code is imported when it is first needed: it brings torch, which
takes seconds, and most cards need none.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from flows.review.catalogue import ReviewedCatalogue, Row
from schemas.errors import PairxError

MOST_MATCHES = 40
"""Matches that a card draws, most relevant first."""
_MARKS = """
SELECT m.column_a, m.row_a, m.column_b, m.row_b, m.relevance, m.residual, r.height, r.width, r.grid_a, r.grid_b
FROM matches AS m JOIN relevances AS r USING (pair_id, layer)
WHERE pair_id = ? AND layer = (SELECT layer FROM current_run)
"""
_MAPS = """
SELECT maps_a, maps_b, peak_a, peak_b FROM explanations
WHERE pair_id = ? AND layer = (SELECT layer FROM current_run)
"""


class NothingStored(PairxError):
    """The run stored nothing of this kind for the pair."""

    ends_the_run = False


def marks(catalogue: ReviewedCatalogue, pair_id: str) -> dict[str, object]:
    """Both relevance grids and the first mutual matches of a pair.

    Grids are lists of rows of values in [0, 1], relative to their maximum, what is below 0 being 0. A match is
    x and y of either side, its relevance relative to the first, and its residual in chip pixels or None.
    Raises `NothingStored` for a pair that was never matched.
    """
    rows = catalogue.query(_MARKS, [pair_id])
    if not rows:
        raise NothingStored("this pair was never matched, so there is nothing to show but the photos")
    row = rows[0]
    height, width = row["height"], row["width"]
    grids = {side: _relative(row[f"grid_{side}"]).reshape(height, width) for side in "ab"}
    strongest = max(row["relevance"][0], 1e-300) if row["relevance"] else 1.0
    residuals = row["residual"] or [None] * len(row["relevance"])
    listed = [
        {
            "a": [(row["column_a"][i] + 0.5) / width, (row["row_a"][i] + 0.5) / height],
            "b": [(row["column_b"][i] + 0.5) / width, (row["row_b"][i] + 0.5) / height],
            "share": max(0.0, row["relevance"][i] / strongest),
            "residual": residuals[i],
        }
        for i in range(min(MOST_MATCHES, len(row["relevance"])))
    ]
    return {
        "grids": {side: grid.round(4).tolist() for side, grid in grids.items()},
        "matches": listed,
        "n_matches": len(row["relevance"]),
    }


def colours(catalogue: ReviewedCatalogue, pair_id: str, side: str) -> bytes:
    """The stored pixel maps of one side, one colour a match, as a transparent WebP of the chip's shape.

    Raises `NothingStored` for a pair that was not drawn.
    """
    from pairx_engine.figure import decode_map, match_colour
    from pairx_engine.figure.panels import MAP_POWER, smoothed

    rows: list[Row] = catalogue.query(_MAPS, [pair_id])
    if not rows or not rows[0][f"maps_{side}"]:
        raise NothingStored("the run drew no pixel colours of this pair; ask for another explanation")
    maps = [decode_map(*each) for each in zip(rows[0][f"maps_{side}"], rows[0][f"peak_{side}"], strict=True)]
    strength = np.stack([_relative(smoothed(each)) for each in maps]) ** MAP_POWER
    # As in the figure: where maps overlap, the stronger one keeps its hue.
    weight = strength**3
    hues = np.array([match_colour(i) for i in range(len(maps))], dtype=np.float64)
    mixed = np.einsum("khw,kc->hwc", weight, hues) / np.maximum(weight.sum(axis=0), 1e-12)[..., None]
    return transparent(mixed, strength.max(axis=0))


def heat(values: NDArray[np.float64]) -> bytes:
    """Values (H, W) in [0, 1] as heat, transparent where they are 0: WebP of the same shape."""
    from pairx_engine.figure.panels import heat_colours

    return transparent(*heat_colours(values))


def transparent(colour: NDArray[np.float64], opacity: NDArray[np.float64]) -> bytes:
    """Colours (H, W, 3) in [0, 255] with opacity (H, W) in [0, 1] as WebP, twice as large so that it stays smooth."""
    from pairx_engine.figure import encode_webp

    pixels = np.concatenate([colour, 255.0 * opacity[..., None]], axis=2).clip(0, 255)
    height, width = opacity.shape
    large = cv2.resize(pixels, (2 * width, 2 * height), interpolation=cv2.INTER_LINEAR)
    return encode_webp(np.rint(large).astype(np.uint8))


def _relative(values: object) -> NDArray[np.float64]:
    positive = np.maximum(np.asarray(values, dtype=np.float64), 0.0)
    peak = positive.max() if positive.size else 0.0
    return positive / peak if peak > 0 else positive
