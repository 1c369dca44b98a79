"""A white sheet on which text, boxes and pictures are laid out in units of a given number of pixels."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw

from pairx_engine.figure.marks import Colour, font_for
from pairx_engine.figure.values import Pixels

Place = tuple[float, float]


class Paper:
    """A sheet of `width` x `height` units, each of `scale` pixels, so that letters grow with the pictures.

    Places are (x, y) in units from the top-left corner, and so are sizes of letters. Pictures are pasted
    pixel for pixel.
    """

    def __init__(self, width: float, height: float, scale: float) -> None:
        self.scale = scale
        self._image = Image.new("RGB", self.pixel((width, height)), (255, 255, 255))
        self._pen = ImageDraw.Draw(self._image)

    def pixel(self, place: Place) -> tuple[int, int]:
        """A place in pixels."""
        return round(place[0] * self.scale), round(place[1] * self.scale)

    def write(
        self, place: Place, text: str, size: float, colour: Colour, weight: float = 0.0, anchor: str = "la"
    ) -> None:
        """Text whose capital letters begin at `place`; `weight` thickens the strokes by that many units."""
        font = font_for(text, round(size * self.scale))
        self._pen.text(self.pixel(place), text, colour, font, anchor=anchor, stroke_width=weight * self.scale)

    def line(self, start: Place, end: Place, colour: Colour) -> None:
        """A thin straight line."""
        self._pen.line((*self.pixel(start), *self.pixel(end)), colour, max(1, round(self.scale)))

    def box(self, start: Place, end: Place, fill: Colour, outline: Colour, radius: float = 0.0) -> None:
        """A filled rectangle, both corners included."""
        corners = (*self.pixel(start), *self.pixel(end))
        self._pen.rounded_rectangle(corners, radius * self.scale, fill, outline, max(1, round(self.scale)))

    def paste(self, picture: Pixels, place: Place) -> tuple[int, int]:
        """Put a picture (h, w, 3) with its corner at a place; returns the row and column of its corner."""
        left, top = self.pixel(place)
        self._image.paste(Image.fromarray(picture), (left, top))
        return top, left

    def pixels(self) -> Pixels:
        """The sheet as (H, W, 3) uint8 RGB."""
        return np.asarray(self._image, dtype=np.uint8)
