"""What a figure is drawn from, what comes out, and the frame that places both photos in one panel."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pairx_engine.photo.chips import PICTURE_SIDE

Pixels = NDArray[np.uint8]
Floats = NDArray[np.floating]

GAP = 12
"""Pixels between the two photos of a panel."""
READABLE_AREA = 440 * 440
"""Pixels that a photo's picture takes at least: lines and numbers need room. Only smaller ones are enlarged."""
ALIKE = 1.25
"""Two pictures whose heights differ by less than this factor are shown equally high."""
SCREEN = (1240, 560)
"""The (width, height) of a panel whose marks and letters have their plain size."""
MOST_SCALE = 1.75
MOST_ASPECT = 20.0
"""A picture that is longer than so many times its other side is stretched, or it would be a line."""


@dataclass(frozen=True)
class Span:
    """Where one photo lies in a panel: (H, W) of its chip, and the panel's columns and rows that it takes.

    This is the one place in which points move from the chip, where they are measured, to the picture. Points
    have their origin at the top-left corner, x to the right and y down.
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
    """Where both photos lie in a panel of two, with their upper edges on one line."""

    spans: tuple[Span, Span]
    scale: float
    """How much larger than their plain size marks and letters are."""

    @property
    def width(self) -> int:
        """Width of the whole panel in pixels."""
        return self.spans[1].left + self.spans[1].width

    @property
    def height(self) -> int:
        """Height of the whole panel in pixels."""
        return max(span.height for span in self.spans)


@dataclass(frozen=True)
class Room:
    """The most that a panel may take, in pixels, and how much larger than plain its marks are."""

    width: int
    height: int
    scale: float


@dataclass(frozen=True)
class FigureSide:
    """What a figure shows of one photo.

    `picture`: (h, w, 3) RGB uint8, the cut as people see it. `chip`: (H, W) of the same cut as the model saw
    it; points and maps are measured in its pixels. `grid`: (h, w) relevance of the layer's cells or of the
    pixels; negative values are not shown. `points`: (n, 2) x, y of all matches, 0 <= x <= W. `maps`:
    (k, H, W) pixel relevance of the first k matches.
    """

    picture: Pixels
    chip: tuple[int, int]
    grid: Floats
    points: Floats
    maps: Floats
    title: str

    @property
    def natural(self) -> tuple[float, float]:
        """The (width, height) in pixels at which the picture is best shown.

        These are its own pixels, but at most `PICTURE_SIDE` on the longer side. Only a picture smaller than
        `READABLE_AREA` is enlarged, to that area.
        """
        rows, columns = self.picture.shape[:2]
        width, height = max(columns, rows / MOST_ASPECT), max(rows, columns / MOST_ASPECT)
        roomy = math.sqrt(READABLE_AREA / (width * height))
        factor = min(max(1.0, roomy), PICTURE_SIDE / max(width, height))
        return width * factor, height * factor


@dataclass(frozen=True)
class LocalMatches:
    """Matches of local features, which know nothing of the model.

    `points` (n, 2) of either photo are (x, y) in chip pixels. `inliers` (n,) marks those that the homography
    explains, each repeat of one too, and `distinct` counts them without repeats; None where there is no
    homography, for `reason`.
    """

    points: tuple[Floats, Floats]
    inliers: NDArray[np.bool_] | None
    distinct: int | None
    matcher: str
    reason: str = ""

    @property
    def carrying(self) -> NDArray[np.bool_]:
        """Which matches carry the homography, (n,)."""
        return np.zeros(len(self.points[0]), dtype=bool) if self.inliers is None else self.inliers


@dataclass(frozen=True)
class FigureInput:
    """Everything that one figure shows.

    `relevance` is (n,), that of the matches, descending; `n_lines` of them get a line. `matched` is false
    where the explanation knows of no matches: then the `grid` of each side is a map of the photo's pixels.
    `room` is what the two photos side by side may take, equally high; None shows each at its own resolution. `local` are matches of local features, for a panel of their own.
    Raises ValueError when the parts do not fit together.
    """

    sides: tuple[FigureSide, FigureSide]
    relevance: Floats
    subtitle: str = ""
    n_lines: int = 20
    matched: bool = True
    room: Room | None = None
    local: LocalMatches | None = None

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
        """The panel of both photos."""
        (width_a, height_a), (width_b, height_b) = (side.natural for side in self.sides)
        aspects = width_a / height_a, width_b / height_b
        if self.room is not None:
            height_a = height_b = max(1.0, min(self.room.height, (self.room.width - GAP) / sum(aspects)))
        elif max(height_a, height_b) <= ALIKE * min(height_a, height_b):
            height_a = height_b = min(height_a, height_b)
        whole = round if self.room is None else math.floor
        heights = whole(height_a), whole(height_b)
        widths = [max(1, whole(h * aspect)) for h, aspect in zip(heights, aspects, strict=True)]
        lefts = (0, widths[0] + GAP)
        a, b = (
            Span(side.chip, *parts) for side, *parts in zip(self.sides, lefts, widths, heights, strict=True)
        )
        if self.room is not None:
            return PanelFrame((a, b), self.room.scale)
        # A larger panel is mostly looked at as small as a screen is.
        wide, high = (lefts[1] + widths[1]) / SCREEN[0], max(heights) / SCREEN[1]
        return PanelFrame((a, b), min(MOST_SCALE, max(1.0, wide, high)))


@dataclass(frozen=True)
class Figure:
    """A drawn figure and its parts; all arrays are uint8 in RGB order.

    `figure` (H, W, 3) is the composed sheet. `photos`, `overlay` and `colours` share one size. `photos` are
    the two photos and nothing else, `overlay` (h, w, 4) is transparent and holds the relevance and match
    lines that lie exactly above them, `colours` holds the coloured pixel maps, and `local` the local matches,
    if they are wanted. `legend` (., w, 3) explains them. `top` is the row and column of the sheet at which
    `photos` and `overlay` begin.
    """

    figure: Pixels
    photos: Pixels
    overlay: Pixels
    colours: Pixels
    legend: Pixels
    top: tuple[int, int]
    local: Pixels | None = None


def _check_side(name: str, side: FigureSide, n_matches: int) -> None:
    picture, grid, points, maps = side.picture, side.grid, side.points, side.maps
    if picture.ndim != 3 or picture.shape[2] != 3 or picture.dtype != np.uint8 or 0 in picture.shape:
        raise ValueError(f"picture_{name} must be (h, w, 3) uint8 RGB, not {picture.shape} {picture.dtype}")
    rows, columns = side.chip
    if rows < 1 or columns < 1:
        raise ValueError(f"chip_{name} must be (height, width) in pixels, not {side.chip}")
    if grid.ndim != 2 or 0 in grid.shape or not np.isfinite(grid).all():
        raise ValueError(f"grid_{name} must be a finite (h, w) array, not {grid.shape}")
    if np.shape(points) != (n_matches, 2) and not (n_matches == 0 and np.size(points) == 0):
        raise ValueError(f"points_{name} must be ({n_matches}, 2), one per match, not {np.shape(points)}")
    inside = np.asarray(points).reshape(-1, 2)
    if not ((inside >= 0) & (inside <= np.array([columns, rows]))).all():
        raise ValueError(f"points_{name} must lie on the chip of {columns} x {rows} pixels")
    if len(maps) and (maps.shape[1:] != (rows, columns) or not np.isfinite(maps).all()):
        raise ValueError(f"maps_{name} must be finite (k, {rows}, {columns}) like the chip, not {maps.shape}")
