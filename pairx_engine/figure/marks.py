"""Anti-aliased lines, rings and numbered tags on a transparent layer."""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from pairx_engine.figure.values import Pixels

Colour = tuple[int, int, int]
Point = tuple[float, float]
FRACTION_BITS = 4
"""Fractional bits of coordinates, as OpenCV draws on a grid of 1/16 pixel."""


class Layer:
    """A transparent picture (height, width) on which marks are painted one above the other.

    Coordinates start at the top-left corner of the picture, not at the first pixel's centre.
    """

    def __init__(self, height: int, width: int) -> None:
        # Colour is held premultiplied: "over" is then one formula for colour and coverage alike.
        self._paint = np.zeros((height, width, 4), dtype=np.float32)

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self._paint.shape[0], self._paint.shape[1]

    def paint(
        self, coverage: NDArray[np.float64], colour: NDArray[np.float64] | Colour, top: int = 0, left: int = 0
    ) -> None:
        """Paint `colour`, one or (h, w, 3) in [0, 255], by `coverage` (h, w) in [0, 1].

        The top left corner of the painted part is at (top, left).
        """
        rows, columns = self.size
        height, width = coverage.shape
        inside = (
            slice(max(0, -top), min(height, rows - top)),
            slice(max(0, -left), min(width, columns - left)),
        )
        cover = coverage[inside][..., None].astype(np.float32)
        colours = np.broadcast_to(np.asarray(colour, dtype=np.float32), (height, width, 3))[inside]
        target = self._paint[max(0, top) : max(0, top + height), max(0, left) : max(0, left + width)]
        target *= 1.0 - cover
        target[..., :3] += cover * colours
        target[..., 3:] += cover

    def line(self, start: Point, end: Point, colour: Colour, thickness: int, opacity: float) -> None:
        """A straight stroke between two points."""
        left, top, window = self._window(np.array([start, end]), thickness + 2)
        cv2.line(
            window,
            _subpixel(start, left, top),
            _subpixel(end, left, top),
            255,
            thickness,
            cv2.LINE_AA,
            FRACTION_BITS,
        )
        self._paint_thinly(window, opacity, colour, top, left)

    def lines(
        self,
        starts: Sequence[Point],
        ends: Sequence[Point],
        colour: Colour,
        thickness: int,
        opacity: float,
    ) -> None:
        """Straight strokes of one colour; where they cross they are no more solid than alone."""
        mask = np.zeros(self.size, dtype=np.uint8)
        for start, end in zip(starts, ends, strict=True):
            cv2.line(
                mask, _subpixel(start, 0, 0), _subpixel(end, 0, 0), 255, thickness, cv2.LINE_AA, FRACTION_BITS
            )
        self._paint_thinly(mask, opacity, colour, 0, 0)

    def dots(self, centres: Sequence[Point], radius: float, colour: Colour) -> None:
        """Filled circles of one colour."""
        mask = np.zeros(self.size, dtype=np.uint8)
        grown = round(radius * (1 << FRACTION_BITS))
        for centre in centres:
            cv2.circle(mask, _subpixel(centre, 0, 0), grown, 255, cv2.FILLED, cv2.LINE_AA, FRACTION_BITS)
        self._paint_thinly(mask, 1.0, colour, 0, 0)

    def ring(
        self, centre: Point, radius: float, colour: Colour, thickness: int, opacity: float = 1.0
    ) -> None:
        """A circle whose inside stays clear."""
        left, top, window = self._window(np.array([centre]), radius + thickness + 2)
        grown = round(radius * (1 << FRACTION_BITS))
        cv2.circle(window, _subpixel(centre, left, top), grown, 255, thickness, cv2.LINE_AA, FRACTION_BITS)
        self._paint_thinly(window, opacity, colour, top, left)

    def tag(self, centre: Point, text: str, colour: Colour, size: int) -> None:
        """A short text on a rounded patch of `colour`, centred on a point."""
        half_width, half_height = size * (0.2 + 0.33 * len(text)), size * 0.62
        left, top = int(centre[0] - half_width) - 3, int(centre[1] - half_height) - 3
        extent = (int(2 * half_width) + 8, int(2 * half_height) + 8)
        middle = np.array([centre[0] - left, centre[1] - top])
        half = np.array([half_width, half_height])
        for grown, ink, opacity in ((1.0, (0, 0, 0), 0.6), (0.0, colour, 1.0)):
            patch = _rounded(extent, middle - half - grown, middle + half + grown, size * 0.3)
            self.paint(patch * opacity, ink, top, left)
        mask = Image.new("L", extent, 0)
        pen = ImageDraw.Draw(mask)
        pen.text(tuple(middle), text, 255, font_for(text, size), anchor="mm", stroke_width=0.3)
        self.paint(np.asarray(mask, dtype=np.float64) / 255.0, readable_on(colour), top, left)

    def pixels(self) -> Pixels:
        """The layer as (height, width, 4) uint8 RGBA with straight (not premultiplied) colour."""
        alpha = self._paint[..., 3:]
        straight = np.divide(
            self._paint[..., :3], alpha, out=np.zeros_like(self._paint[..., :3]), where=alpha > 0
        )
        pixels = np.rint(np.concatenate([straight, alpha * 255.0], axis=2)).clip(0, 255).astype(np.uint8)
        pixels[pixels[..., 3] == 0] = 0
        return pixels

    def _paint_thinly(self, mask: Pixels, opacity: float, colour: Colour, top: int, left: int) -> None:
        """Paint a mask (h, w) of 0 to 255 that is empty nearly everywhere, with its corner at (top, left)."""
        rows, columns = np.nonzero(mask)
        cover = mask[rows, columns, None].astype(np.float32) * np.float32(opacity / 255.0)
        rows, columns = rows + top, columns + left
        inside = (rows >= 0) & (rows < self.size[0]) & (columns >= 0) & (columns < self.size[1])
        rows, columns, cover = rows[inside], columns[inside], cover[inside]
        ink = np.array([*colour, 1.0], dtype=np.float32)
        self._paint[rows, columns] = self._paint[rows, columns] * (1.0 - cover) + cover * ink

    def _window(self, points: NDArray[np.float64], margin: float) -> tuple[int, int, Pixels]:
        """Left, top and an empty mask that holds a mark around the points."""
        low = np.floor(points.min(axis=0) - margin).astype(int)
        high = np.ceil(points.max(axis=0) + margin).astype(int)
        return (
            int(low[0]),
            int(low[1]),
            np.zeros((int(high[1] - low[1]), int(high[0] - low[0])), dtype=np.uint8),
        )


def composite(base: Pixels, overlay: Pixels) -> Pixels:
    """`overlay` (H, W, 4) laid above `base` (H, W, 3), as every browser does it."""
    alpha = overlay[..., 3:].astype(np.float32) / 255.0
    return np.rint(overlay[..., :3] * alpha + base * (1.0 - alpha)).astype(np.uint8)


@functools.lru_cache(maxsize=64)
def _font(size: int, wide: bool) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    matplotlib = importlib.util.find_spec("matplotlib") if wide else None
    for folder in (matplotlib.submodule_search_locations or []) if matplotlib else []:
        path = Path(folder) / "mpl-data" / "fonts" / "ttf" / "DejaVuSans.ttf"
        if path.is_file():
            return ImageFont.truetype(str(path), size)
    return ImageFont.load_default(size=size)


def font_for(text: str, size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """A font that has the text's letters.

    Pillow's own font has little more than ASCII. Names of animals may contain other letters; for them the
    font that comes with matplotlib is used. Both fonts come with packages, so a figure is the same on every
    machine.
    """
    return _font(size, not text.replace("·", "").isascii())


def readable_on(colour: Colour) -> Colour:
    """Black or white, whichever stands out more from `colour` (luma above or below 55 %)."""
    luma = 0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2]
    return (0, 0, 0) if luma > 140 else (255, 255, 255)


def _rounded(
    size: tuple[int, int], low: NDArray[np.float64], high: NDArray[np.float64], radius: float
) -> NDArray[np.float64]:
    """Coverage (height, width) of a rounded rectangle from its signed distance, anti-aliased."""
    x, y = np.meshgrid(np.arange(size[0]) + 0.5, np.arange(size[1]) + 0.5)
    centre, half = (low + high) / 2, (high - low) / 2 - radius
    away = np.stack([np.abs(x - centre[0]) - half[0], np.abs(y - centre[1]) - half[1]])
    distance = np.hypot(*np.maximum(away, 0.0)) + np.minimum(away.max(axis=0), 0.0) - radius
    return np.clip(0.5 - distance, 0.0, 1.0)


def _subpixel(point: Point, left: int, top: int) -> tuple[int, int]:
    scale = 1 << FRACTION_BITS
    return round((point[0] - left - 0.5) * scale), round((point[1] - top - 0.5) * scale)
