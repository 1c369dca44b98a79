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
"""Chip sides that are shown pixel for pixel: readable, yet small enough to stand side by side."""
GAP = 12


@dataclass(frozen=True)
class Span:
    """Where one chip lies in a panel: its (H, W), and the panel's columns and rows that it takes.

    Points have their origin at the top-left corner, x to the right and y down.
    """

    chip: tuple[int, int]
    left: int
    width: int
    height: int

    def to_panel(self, points: ArrayLike) -> NDArray[np.float64]:
        """Points (n, 2) in pixels of the chip, in panel pixels."""
        rows, columns = self.chip
        scale = np.array([self.width / columns, self.height / rows])
        return np.asarray(points, dtype=np.float64).reshape(-1, 2) * scale + np.array([self.left, 0.0])


@dataclass(frozen=True)
class PanelFrame:
    """Where both chips lie in a panel of two, equally high."""

    spans: tuple[Span, Span]

    @property
    def width(self) -> int:
        """Width of the whole panel in pixels."""
        return self.spans[1].left + self.spans[1].width

    @property
    def height(self) -> int:
        """Height of the whole panel in pixels."""
        return self.spans[0].height


@dataclass(frozen=True)
class FigureSide:
    """What a figure shows of one photo, measured in the pixels of its chip.

    `chip`: (H, W, 3) RGB uint8. `grid`: (h, w) relevance of the layer's cells or of the pixels; negative
    values are not shown. `points`: (n, 2) x, y of all matches, 0 <= x <= W. `maps`: (k, H, W) pixel relevance
    of the first k matches. `aspect`: width / height of the cut that the chip was stretched from; None shows
    the chip as the model saw it.
    """

    chip: Pixels
    grid: Floats
    points: Floats
    maps: Floats
    title: str
    aspect: float | None = None


@dataclass(frozen=True)
class FigureInput:
    """Everything that one figure shows.

    `relevance` is (n,), that of the matches, descending; `n_lines` of them get a line. `matched` is false
    where the explanation knows of no matches: then the `grid` of each side is a map of the photo's pixels.
    `room` is the largest (width, height) in pixels that the two chips side by side may take; None takes what
    suits a figure of its own. Raises ValueError when the parts do not fit together.
    """

    sides: tuple[FigureSide, FigureSide]
    relevance: Floats
    subtitle: str = ""
    n_lines: int = 20
    matched: bool = True
    room: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        relevance = np.asarray(self.relevance)
        if relevance.ndim != 1 or not np.isfinite(relevance).all() or (np.diff(relevance) > 0).any():
            raise ValueError(
                "relevance must be one finite list in descending order; sort matches before drawing"
            )
        if self.n_lines < 0:
            raise ValueError(f"n_lines must not be negative, not {self.n_lines}")
        counts = [len(side.maps) for side in self.sides]
        if counts[0] != counts[1] or counts[0] > len(relevance):
            raise ValueError(
                f"pixel maps must be of the same first matches, "
                f"not {counts[0]} and {counts[1]} maps for {len(relevance)} matches"
            )
        for name, side in zip("ab", self.sides, strict=True):
            _check_side(name, side, len(relevance))

    @property
    def n_matches(self) -> int:
        """How many matches there are, drawn or not."""
        return len(self.relevance)

    @property
    def n_maps(self) -> int:
        """How many matches have pixel maps, a colour and a number."""
        return len(self.sides[0].maps)

    @cached_property
    def shares(self) -> NDArray[np.float64]:
        """Each match's part of the positive relevance of all matches, (n,)."""
        positive = np.maximum(np.asarray(self.relevance, dtype=np.float64), 0.0)
        total = positive.sum()
        return positive / total if total > 0 else positive

    @cached_property
    def frame(self) -> PanelFrame:
        """The panel in which both chips are equally high."""
        chips = [side.chip.shape[:2] for side in self.sides]
        aspects = [side.aspect or w / h for side, (h, w) in zip(self.sides, chips, strict=True)]
        (rows, _), (rows_b, _) = chips
        wanted = rows if rows == rows_b and rows in READABLE else CHIP_HEIGHT
        width, wanted, least = (*self.room, 1) if self.room else (PANEL_WIDTH, wanted, LEAST_HEIGHT)
        height = round(max(least, min(wanted, (width - GAP) / sum(aspects))))
        widths = [max(1, round(height * aspect)) for aspect in aspects]
        lefts = (0, widths[0] + GAP)
        a, b = (Span(*parts, height) for parts in zip(chips, lefts, widths, strict=True))
        return PanelFrame((a, b))


@dataclass(frozen=True)
class Figure:
    """A drawn figure and its parts; all arrays are uint8 in RGB order.

    `figure` (H, W, 3) is the composed sheet. `chips`, `overlay` and `colours` share one size. `chips` are the
    two chips, `overlay` (h, w, 4) is transparent and holds the relevance and match lines that lie exactly
    above them, and `colours` holds the coloured pixel maps. `legend` (., w, 3) explains them. `top` is the
    row and column of the sheet at which `chips` and `overlay` begin.
    """

    figure: Pixels
    chips: Pixels
    overlay: Pixels
    colours: Pixels
    legend: Pixels
    top: tuple[int, int]


def _check_side(name: str, side: FigureSide, n_matches: int) -> None:
    chip, grid, points, maps, aspect = side.chip, side.grid, side.points, side.maps, side.aspect
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
