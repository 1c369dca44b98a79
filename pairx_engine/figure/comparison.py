"""Several explanations of one pair on one sheet: the two photos once, then a panel of both per method.

Every panel has the frame of the two photos and shows the method's map as heat, so that the same place of a
photo is at the same place of each panel. Where a method knows correspondences, they are lines.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from pairx_engine.figure.assembly import FigurePhoto, chip_size
from pairx_engine.figure.marks import composite
from pairx_engine.figure.panels import SMOOTHING, draw_overlay, draw_photos, smoothed
from pairx_engine.figure.paper import Paper, Place
from pairx_engine.figure.sheet import BAR_WIDTH, MARGIN, draw_heat_bar
from pairx_engine.figure.values import FigureInput, FigureSide, Floats, Pixels, Room
from pairx_engine.figure.writing import INK, QUIET, WARNING, fitted, width_of, wrapped

SCALE = 1.5
"""Pixels of a unit of the sheet: on a screen a sheet of two panels is mostly made smaller."""
ROOM = Room(round(572 * SCALE), round(300 * SCALE), SCALE)
"""A panel where two stand side by side."""
WIDE_ROOM = Room(round(1180 * SCALE), round(300 * SCALE), SCALE)
"""The same where wide photos give each row one panel only."""
LEAST_HEIGHT = 150
"""Two panels stand side by side unless their pictures were lower than so many units."""
LEAST_WIDTH = 430
"""Units that a panel's text needs, however narrow the photos are."""
SMOOTHED_SHARE = 0.01
"""Standard deviation of the smoothing, as a share of a chip's shorter side.

It is more than that of a single figure: panels are small, and maps of single pixels vanish in them.
"""
LOW, HIGH = 50, 99
"""Percentiles of a map that are shown clear and full."""
GUTTER = 36
LINE = 17
_PHOTOS_ABOUT = "a on the left, b on the right; the same in every panel"


@dataclass(frozen=True)
class MethodPanel:
    """What one method has to show, or why it shows nothing.

    `maps` are pixel maps of both chips, (H, W) each, of which what is above 0 is shown; None where the method
    failed for `reason`. `points` (n, 2) of either chip are its correspondences as (x, y) in chip pixels, and
    `relevance` (n,) theirs, descending. `remarks` are what a reader should know before believing the picture.
    """

    name: str
    about: str
    cost: str = ""
    remarks: Sequence[str] = ()
    maps: tuple[Floats, Floats] | None = None
    points: tuple[Floats, Floats] = field(default_factory=lambda: (np.zeros((0, 2)), np.zeros((0, 2))))
    relevance: Floats = field(default_factory=lambda: np.zeros(0))
    reason: str = ""


@dataclass(frozen=True)
class ComparisonInput:
    """Everything that a comparison shows; of each method `n_lines` correspondences get a line.

    Raises ValueError where maps or points do not fit the chips, and without any method.
    """

    photos: tuple[FigurePhoto, FigurePhoto]
    subtitle: str
    methods: Sequence[MethodPanel]
    n_lines: int = 10

    def __post_init__(self) -> None:
        if not self.methods:
            raise ValueError("a comparison needs a method; name one")
        for method in self.methods:
            if method.maps is None and not method.reason:
                raise ValueError(f"{method.name} has neither maps nor a reason why not")

    @cached_property
    def plain(self) -> FigureInput:
        """The photos alone; its frame is that of all panels."""
        a, b = (np.zeros(photo.chip.shape[:2]) for photo in self.photos)
        nothing = MethodPanel("", "", maps=(a, b))
        beside = self._input(nothing, (a, b), ROOM)
        return (
            beside if beside.frame.height >= LEAST_HEIGHT * SCALE else self._input(nothing, (a, b), WIDE_ROOM)
        )

    @property
    def columns(self) -> int:
        """How many panels stand side by side."""
        return 2 if self.plain.room == ROOM else 1

    def of(self, method: MethodPanel) -> FigureInput:
        """What the panel of a method that has maps shows."""
        assert method.maps is not None
        return self._input(method, (strength(method.maps[0]), strength(method.maps[1])), self.plain.room)

    def _input(self, method: MethodPanel, grids: tuple[Floats, Floats], room: Room | None) -> FigureInput:
        a, b = (
            FigureSide(
                photo.picture,
                chip_size(photo),
                grid,
                points,
                np.zeros((0, *photo.chip.shape[:2])),
                photo.title,
            )
            for photo, grid, points in zip(self.photos, grids, method.points, strict=True)
        )
        return FigureInput((a, b), method.relevance, n_lines=self.n_lines, room=room)


@dataclass(frozen=True)
class Comparison:
    """A drawn comparison; all pictures are (., ., 3) uint8 RGB.

    `sheet` is the whole. `photos` and `panels` share one size; a panel is None where its method failed.
    """

    sheet: Pixels
    photos: Pixels
    panels: tuple[Pixels | None, ...]


def draw_comparison(given: ComparisonInput) -> Comparison:
    """Draw the comparison of one pair. Deterministic. See `ComparisonInput` for shapes."""
    photos = draw_photos(given.plain)
    panels = tuple(None if method.maps is None else _panel(given.of(method)) for method in given.methods)
    return Comparison(_compose(given, photos, panels), photos, panels)


def _panel(given: FigureInput) -> Pixels:
    return composite(draw_photos(given), draw_overlay(given))


def strength(pixel_map: Floats) -> Floats:
    """How strongly each pixel of a map (H, W) is shown, in [0, 1].

    0 is the median of the smoothed map, but at least the value 0, and 1 its highest hundredth. So half of a
    photo stays clear also under a method whose values are high everywhere, and a few outliers do not make the
    rest vanish. Maps of different methods are thus compared by places, not by sizes.
    """
    values = smoothed(pixel_map, max(SMOOTHING, SMOOTHED_SHARE * min(pixel_map.shape)))
    low, high = max(0.0, float(np.percentile(values, LOW))), float(np.percentile(values, HIGH))
    if high <= low:
        high = float(values.max())
    return np.clip((values - low) / (high - low), 0.0, 1.0) if high > low else np.zeros(values.shape)


@dataclass(frozen=True)
class _Cell:
    """A place of the sheet: a heading, lines of text below it, a picture or a reason for having none."""

    heading: str
    beside: str
    about: Sequence[str]
    remarks: Sequence[str]
    picture: Pixels | None
    reason: str = ""

    @property
    def text_height(self) -> int:
        """Units that the text above the picture takes."""
        return 24 + LINE * (len(self.about) + len(self.remarks)) + 6


def _cells(
    given: ComparisonInput, photos: Pixels, panels: Sequence[Pixels | None], width: int
) -> list[_Cell]:
    def lines(text: str) -> list[str]:
        return wrapped(text, 13, width, 2)

    plain = _Cell("photos", "", lines(_PHOTOS_ABOUT), (), photos)
    return [plain] + [
        _Cell(
            method.name,
            method.cost,
            lines(method.about),
            [line for remark in method.remarks for line in lines(remark)],
            panel,
            method.reason,
        )
        for method, panel in zip(given.methods, panels, strict=True)
    ]


def _compose(given: ComparisonInput, photos: Pixels, panels: Sequence[Pixels | None]) -> Pixels:
    """The sheet: titles, the grid of cells, the legend."""
    height, columns = photos.shape[0] / SCALE, given.columns
    width = max(photos.shape[1] / SCALE, LEAST_WIDTH)
    cells = _cells(given, photos, panels, int(width))
    rows = [cells[i : i + columns] for i in range(0, len(cells), columns)]
    heights = [max(cell.text_height for cell in row) + height + 26 for row in rows]
    inner = columns * width + (columns - 1) * GUTTER
    top: float = MARGIN + 84
    paper = Paper(inner + 2 * MARGIN, top + sum(heights) + 130, SCALE)
    _write_titles(paper, given, int(inner))
    for row, taken in zip(rows, heights, strict=True):
        for column, cell in enumerate(row):
            below = top + taken - height - 26
            _paste(paper, cell, (MARGIN + column * (width + GUTTER), top), below, (width, height))
        top += taken
    _write_legend(paper, given, (MARGIN, top + 12), int(inner))
    return paper.pixels()


def _write_titles(paper: Paper, given: ComparisonInput, width: int) -> None:
    for line, (letter, photo) in enumerate(zip("ab", given.photos, strict=True)):
        y = MARGIN - 6 + 24 * line
        paper.write((MARGIN, y), letter, 16, QUIET)
        paper.write((MARGIN + 22, y), fitted(photo.title, 16, width - 22), 16, INK, 0.35)
    paper.write((MARGIN, MARGIN + 44), fitted(given.subtitle, 14, width), 14, QUIET)


def _paste(paper: Paper, cell: _Cell, place: Place, below: float, size: tuple[float, float]) -> None:
    """Draw a cell whose text begins at `place` and whose picture begins at row `below`."""
    (left, top), (width, height) = place, size
    beside = width_of(cell.beside, 13)
    paper.write((left, top), fitted(cell.heading, 16, round(width - beside - 16)), 16, INK, 0.35)
    paper.write((left + width - beside, top + 2), cell.beside, 13, QUIET)
    for i, line in enumerate([*cell.about, *cell.remarks]):
        paper.write((left, top + 24 + LINE * i), line, 13, QUIET if i < len(cell.about) else WARNING)
    if cell.picture is not None:
        paper.paste(cell.picture, (left, below))
        return
    paper.box((left, below), (left + width - 1, below + height - 1), (246, 247, 248), (214, 218, 223))
    room = max(1, int(height - 40) // LINE)
    paper.write((left + 16, below + 12), "not explained", 13, WARNING, 0.35)
    for i, line in enumerate(wrapped(cell.reason, 13, int(width - 32), room)):
        paper.write((left + 16, below + 12 + LINE * (i + 1)), line, 13, INK)


def _write_legend(paper: Paper, given: ComparisonInput, place: Place, width: int) -> None:
    """What heat and lines mean."""
    scale = ("clear: below the map's median in this photo, or below 0;", "full: its highest hundredth")
    draw_heat_bar(paper, place, scale)
    left, top = place[0] + BAR_WIDTH + 110, place[1]
    notes = ["each photo and method has a scale of its own: compare places, not strengths"]
    if any(len(method.relevance) for method in given.methods):
        notes.append(f"lines: the {given.n_lines} strongest correspondences at most; stronger is more solid")
    paper.write((left, top), "Reading", 14, INK, 0.35)
    for i, note in enumerate(notes):
        paper.write((left, top + 24 + LINE * i), fitted(note, 12, width - BAR_WIDTH - 110), 12, QUIET)
