"""The whole figure on one sheet: titles, the two panels, the legend."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from pairx_engine.figure.marks import composite, font_for
from pairx_engine.figure.panels import (
    MAP_POWER,
    SMOOTHING,
    draw_chips,
    draw_colours,
    draw_overlay,
    heat_colours,
    match_colour,
)
from pairx_engine.figure.values import Figure, FigureInput, Pixels
from pairx_engine.figure.writing import INK, QUIET, fitted, write

MARGIN = 28
LEAST_WIDTH = 760
BAR_WIDTH, BAR_HEIGHT = 250, 14
ENTRY = 64
ENTRY_HEIGHT = 26
MID_GREY = 128.0
_AS_MAPS_ARE_SHOWN = f"smoothed by {SMOOTHING:g} chip pixel, shown as relevance to the power {MAP_POWER:g}"


def draw_figure(given: FigureInput) -> Figure:
    """Draw the figure of one explained pair.

    Above are the two chips with relevance, match lines and numbers. Below are the pixels behind each numbered
    match in its colour, unless there are no pixel maps. Then comes the legend. Deterministic. See
    `FigureInput` for shapes and frames.
    """
    chips, overlay, colours = draw_chips(given), draw_overlay(given), draw_colours(given)
    legend = draw_legend(given, max(given.frame.width, LEAST_WIDTH))
    sheet, top = _compose(given, composite(chips, overlay), colours, legend)
    return Figure(sheet, chips, overlay, colours, legend, top)


def draw_legend(given: FigureInput, width: int) -> Pixels:
    """What heat, lines, numbers and colours mean, (height, width, 3)."""
    per_row = max(1, (width - BAR_WIDTH - 60) // ENTRY)
    rows = -(-given.n_maps // per_row)
    image = Image.new("RGB", (width, max(118, 62 + rows * ENTRY_HEIGHT + 53)), (255, 255, 255))
    pen = ImageDraw.Draw(image)
    how = "between cells bilinear, shown on mid grey" if given.matched else _AS_MAPS_ARE_SHOWN
    draw_heat_bar(image, pen, ("relative to this photo's maximum,", how))
    if not given.matched:
        return np.asarray(image, dtype=np.uint8)
    left = BAR_WIDTH + 60
    write(pen, (left, 0), "Matches", 14, INK, 0.35)
    write(pen, (left, 21), _lines_caption(given), 12, QUIET)
    for i in range(given.n_maps):
        x, y = left + i % per_row * ENTRY, 46 + i // per_row * ENTRY_HEIGHT
        pen.rounded_rectangle((x, y + 1, x + 13, y + 14), 3, fill=match_colour(i), outline=QUIET)
        write(pen, (x + 20, y), str(i + 1), 13, INK, 0.35)
        write(pen, (x + (28 if i < 9 else 36) + 4, y + 1), f"{given.shares[i]:.0%}", 12, QUIET)
    if given.n_maps:
        y = 46 + rows * ENTRY_HEIGHT + 4
        for line, note in enumerate(
            (
                f"share of the relevance of all {given.n_matches} matches",
                "each match's pixels are scaled to their own maximum: compare places, not strengths",
                _AS_MAPS_ARE_SHOWN,
            )
        ):
            write(pen, (left, y + 17 * line), note, 12, QUIET)
    return np.asarray(image, dtype=np.uint8)


def _lines_caption(given: FigureInput) -> str:
    drawn = min(given.n_lines, given.n_matches)
    if not given.n_matches:
        return "the two photos have no match"
    parts = f"{drawn} strongest of {given.n_matches} matches; more relevant lines are more solid"
    return f"{parts}; grey lines have no pixel map" if 0 < given.n_maps < drawn else parts


def draw_heat_bar(image: Image.Image, pen: ImageDraw.ImageDraw, notes: Sequence[str]) -> None:
    """What the heat means, at the top left corner of `image`, with lines of notes below."""
    write(pen, (0, 0), "Relevance", 14, INK, 0.35)
    colours, opacity = heat_colours(np.linspace(0.0, 1.0, BAR_WIDTH))
    bar = colours * opacity[:, None] + MID_GREY * (1.0 - opacity[:, None])
    strip = np.repeat(np.rint(bar).astype(np.uint8)[None], BAR_HEIGHT, axis=0)
    image.paste(Image.fromarray(strip), (0, 24))
    for value in (0.0, 0.5, 1.0):
        x = round(value * (BAR_WIDTH - 1))
        pen.line((x, 24 + BAR_HEIGHT, x, 28 + BAR_HEIGHT), fill=QUIET)
        anchor = {0.0: "la", 0.5: "ma", 1.0: "ra"}[value]
        pen.text((x, 31 + BAR_HEIGHT), f"{value:g}", QUIET, font_for("0", 12), anchor=anchor)
    for i, note in enumerate(notes):
        write(pen, (0, 64 + 17 * i), note, 12, QUIET)


def _compose(
    given: FigureInput, top_panel: Pixels, colours: Pixels, legend: Pixels
) -> tuple[Pixels, tuple[int, int]]:
    height, width = top_panel.shape[:2]
    inner = max(width, legend.shape[1])
    left = MARGIN + (inner - width) // 2
    heading = 30 if given.subtitle else 0
    top = MARGIN + heading + 26
    below = top + height + 34
    bottom = below + height + 24 if given.n_maps else below
    image = Image.new("RGB", (inner + 2 * MARGIN, bottom + legend.shape[0] + MARGIN - 8), (255, 255, 255))
    pen = ImageDraw.Draw(image)
    if given.subtitle:
        write(pen, (left, MARGIN - 4), fitted(given.subtitle, 15, inner), 15, QUIET)
    for side, span in zip(given.sides, given.frame.spans, strict=True):
        write(pen, (left + span.left, top - 24), fitted(side.title, 16, span.width - 8), 16, INK, 0.35)
    image.paste(Image.fromarray(top_panel), (left, top))
    if given.n_maps:
        write(pen, (left, below - 24), f"Pixels behind the first {given.n_maps} matches", 14, QUIET)
        image.paste(Image.fromarray(colours), (left, below))
    image.paste(Image.fromarray(legend), (MARGIN + (inner - legend.shape[1]) // 2, bottom))
    return np.asarray(image, dtype=np.uint8), (top, left)
