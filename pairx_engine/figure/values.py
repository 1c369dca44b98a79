"""What a figure is drawn from, what comes out, and the frame that places both chips in one panel."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray

Pixels = NDArray[np.uint8]
Floats = NDArray[np.floating]

PANEL_WIDTH = 1240
"""Pixels that two chips side by side may take; fits a laptop screen."""
CHIP_HEIGHT = 480
LEAST_HEIGHT = 200
READABLE = range(400, 561)
"""Chip sides that are shown pixel for pixel: large enough to read, small enough to stand side by side."""
GAP = 12


@dataclass(frozen=True)
class PanelFrame:
    """Where the chips lie in a panel of two, and how chip pixels become panel pixels.

    `chip_a` and `chip_b` are (H, W) of the chips; both are shown `height` panel pixels high, `width_a` and `width_b`
    wide, with `gap` pixels between. Points have their origin at the top-left corner, x to the right and y down.
    """

    chip_a: tuple[int, int]
    chip_b: tuple[int, int]
    height: int
    width_a: int
    width_b: int
    gap: int = GAP

    @property
    def width(self) -> int:
        """Width of the whole panel in pixels."""
        return self.width_a + self.gap + self.width_b

    @property
    def left_b(self) -> int:
        """Panel column where the second chip begins."""
        return self.width_a + self.gap

    def to_panel_a(self, points: ArrayLike) -> NDArray[np.float64]:
        """Points (n, 2) in pixels of the first chip, in panel pixels."""
        return self._scaled(points, self.chip_a, self.width_a)

    def to_panel_b(self, points: ArrayLike) -> NDArray[np.float64]:
        """Points (n, 2) in pixels of the second chip, in panel pixels."""
        return self._scaled(points, self.chip_b, self.width_b) + np.array([self.left_b, 0.0])

    def _scaled(self, points: ArrayLike, chip: tuple[int, int], width: int) -> NDArray[np.float64]:
        rows, columns = chip
        return np.asarray(points, dtype=np.float64).reshape(-1, 2) * np.array(
            [width / columns, self.height / rows]
        )


@dataclass(frozen=True)
class FigureInput:
    """Everything that one figure shows, measured in the pixels of the two chips.

    `chip_a`, `chip_b`: (H, W, 3) RGB uint8. `grid_a`, `grid_b`: (h, w) relevance of the layer's cells; negative
    values of signed presets are not shown. `points_a`, `points_b`: (n, 2) x, y of all matches in chip pixels,
    0 <= x <= W. `relevance`: (n,), descending. `maps_a`, `maps_b`: (k, H, W) pixel relevance of the first k matches.
    `n_lines` of the matches get a line. `aspect_a`, `aspect_b`: width / height of the cut that the chip was stretched
    from; None shows the chip as the model saw it. Raises ValueError when the parts do not fit together.
    """

    chip_a: Pixels
    chip_b: Pixels
    grid_a: Floats
    grid_b: Floats
    points_a: Floats
    points_b: Floats
    relevance: Floats
    maps_a: Floats
    maps_b: Floats
    title_a: str
    title_b: str
    subtitle: str = ""
    n_lines: int = 20
    aspect_a: float | None = None
    aspect_b: float | None = None

    def __post_init__(self) -> None:
        relevance = np.asarray(self.relevance)
        if relevance.ndim != 1 or not np.isfinite(relevance).all() or (np.diff(relevance) > 0).any():
            raise ValueError(
                "relevance must be one finite list in descending order; sort matches before drawing"
            )
        if self.n_lines < 0:
            raise ValueError(f"n_lines must not be negative, not {self.n_lines}")
        if len(self.maps_a) != len(self.maps_b) or len(self.maps_a) > len(relevance):
            raise ValueError(
                f"pixel maps must be of the same first matches, "
                f"not {len(self.maps_a)} and {len(self.maps_b)} maps for {len(relevance)} matches"
            )
        _check_photo("a", self.chip_a, self.grid_a, self.points_a, self.maps_a, len(relevance), self.aspect_a)
        _check_photo("b", self.chip_b, self.grid_b, self.points_b, self.maps_b, len(relevance), self.aspect_b)

    @property
    def n_matches(self) -> int:
        """How many matches there are, drawn or not."""
        return len(self.relevance)

    @property
    def n_maps(self) -> int:
        """How many matches have pixel maps, a colour and a number."""
        return len(self.maps_a)

    @cached_property
    def shares(self) -> NDArray[np.float64]:
        """Each match's part of the positive relevance of all matches, (n,)."""
        positive = np.maximum(np.asarray(self.relevance, dtype=np.float64), 0.0)
        total = positive.sum()
        return positive / total if total > 0 else positive

    @cached_property
    def frame(self) -> PanelFrame:
        """The panel in which both chips are equally high."""
        (rows_a, columns_a), (rows_b, columns_b) = self.chip_a.shape[:2], self.chip_b.shape[:2]
        aspect_a = self.aspect_a or columns_a / rows_a
        aspect_b = self.aspect_b or columns_b / rows_b
        wanted = rows_a if rows_a == rows_b and rows_a in READABLE else CHIP_HEIGHT
        height = round(max(LEAST_HEIGHT, min(wanted, (PANEL_WIDTH - GAP) / (aspect_a + aspect_b))))
        return PanelFrame(
            (rows_a, columns_a),
            (rows_b, columns_b),
            height,
            max(1, round(height * aspect_a)),
            max(1, round(height * aspect_b)),
        )


@dataclass(frozen=True)
class Figure:
    """A drawn figure and its parts; all arrays are uint8 in RGB order.

    `figure` (H, W, 3) is the composed sheet. `chips`, `overlay` and `colours` share one size: the two chips, the
    transparent (h, w, 4) relevance and match lines that lie exactly above them, and the coloured pixel maps.
    `legend` (., w, 3) explains them. `top` is the row and column of the sheet at which `chips` and `overlay` begin.
    """

    figure: Pixels
    chips: Pixels
    overlay: Pixels
    colours: Pixels
    legend: Pixels
    top: tuple[int, int]


def _check_photo(
    name: str, chip: Pixels, grid: Floats, points: Floats, maps: Floats, n_matches: int, aspect: float | None
) -> None:
    if chip.ndim != 3 or chip.shape[2] != 3 or chip.dtype != np.uint8 or 0 in chip.shape:
        raise ValueError(f"chip_{name} must be (H, W, 3) uint8 RGB, not {chip.shape} {chip.dtype}")
    rows, columns = chip.shape[:2]
    if grid.ndim != 2 or 0 in grid.shape or not np.isfinite(grid).all():
        raise ValueError(f"grid_{name} must be a finite (h, w) array, not {grid.shape}")
    if np.shape(points) != (n_matches, 2) and not (n_matches == 0 and np.size(points) == 0):
        raise ValueError(f"points_{name} must be ({n_matches}, 2), one per match, not {np.shape(points)}")
    inside = np.asarray(points).reshape(-1, 2)
    if not ((inside >= 0) & (inside <= np.array([columns, rows]))).all():
        raise ValueError(f"points_{name} must lie on the chip of {columns} x {rows} pixels")
    if len(maps) and (maps.shape[1:] != (rows, columns) or not np.isfinite(maps).all()):
        raise ValueError(f"maps_{name} must be finite (k, {rows}, {columns}) like the chip, not {maps.shape}")
    if aspect is not None and not (math.isfinite(aspect) and 0.05 <= aspect <= 20):
        raise ValueError(f"aspect_{name} is width / height of the cut, between 0.05 and 20, not {aspect}")
