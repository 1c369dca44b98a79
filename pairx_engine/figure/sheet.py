"""The whole figure on one sheet: titles, the panels, the legend."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from pairx_engine.figure.marks import composite
from pairx_engine.figure.panels import (
    CARRYING,
    MAP_POWER,
    MOST_LOCAL_LINES,
    OTHER_COLOUR,
    SMOOTHING,
    draw_colours,
    draw_local,
    draw_overlay,
    draw_photos,
    heat_colours,
    match_colour,
)
from pairx_engine.figure.paper import Paper, Place
from pairx_engine.figure.values import Figure, FigureInput, LocalMatches, Pixels
from pairx_engine.figure.writing import INK, QUIET, fitted
from pairx_engine.photo.chips import PICTURE_SIDE

DRAWING_VERSION = 2
"""Raised whenever pictures of the same pair change."""
MARGIN = 28
LEAST_WIDTH = 760
BAR_WIDTH, BAR_HEIGHT = 250, 14
ENTRY = 64
ENTRY_HEIGHT = 26
MID_GREY = 128.0
_AS_MAPS_ARE_SHOWN = f"smoothed by {SMOOTHING:g} chip pixel, shown as relevance to the power {MAP_POWER:g}"


def identity() -> dict[str, Any]:
    """What changes stored pictures besides settings: they are kept beside those of another drawing."""
    return {"drawing": DRAWING_VERSION, "picture": PICTURE_SIDE}


def draw_figure(given: FigureInput) -> Figure:
    """Draw the figure of one explained pair.

    Above are the two photos with relevance, match lines and numbers. Below are the pixels behind each numbered
    match in its colour, unless there are no pixel maps, then the local matches, if they are given. Then comes
    the legend. Letters and lines grow with the panels. Deterministic. See `FigureInput` for shapes and frames.
    """
    photos = draw_photos(given)
    overlay, colours = draw_overlay(given), draw_colours(given, photos)
    local = None if given.local is None else draw_local(given.local, given.frame, photos)
    legend = draw_legend(given)
    sheet, top = _compose(given, composite(photos, overlay), colours, local, legend)
    return Figure(sheet, photos, overlay, colours, legend, top, local)


def draw_legend(given: FigureInput) -> Pixels:
    """What heat, lines, numbers and colours mean, (height, width, 3)."""
    width = max(given.frame.width / given.frame.scale, LEAST_WIDTH)
    per_row = max(1, int(width - BAR_WIDTH - 60) // ENTRY)
    rows = -(-given.n_maps // per_row)
    paper = Paper(width, max(118, 62 + rows * ENTRY_HEIGHT + 53), given.frame.scale)
    how = "between cells bilinear, shown on mid grey" if given.matched else _AS_MAPS_ARE_SHOWN
    draw_heat_bar(paper, (0, 0), ("relative to this photo's maximum,", how))
    if not given.matched:
        return paper.pixels()
    left = BAR_WIDTH + 60
    paper.write((left, 0), "Matches", 14, INK, 0.35)
    paper.write((left, 21), _lines_caption(given), 12, QUIET)
    for i in range(given.n_maps):
        x, y = left + i % per_row * ENTRY, 46 + i // per_row * ENTRY_HEIGHT
        paper.box((x, y + 1), (x + 13, y + 14), match_colour(i), QUIET, 3)
        paper.write((x + 20, y), str(i + 1), 13, INK, 0.35)
        paper.write((x + (28 if i < 9 else 36) + 4, y + 1), f"{given.shares[i]:.0%}", 12, QUIET)
    if given.n_maps:
        y = 46 + rows * ENTRY_HEIGHT + 4
        for line, note in enumerate(
            (
                f"share of the relevance of all {given.n_matches} matches",
                "each match's pixels are scaled to their own maximum: compare places, not strengths",
                _AS_MAPS_ARE_SHOWN,
            )
        ):
            paper.write((left, y + 17 * line), note, 12, QUIET)
    return paper.pixels()


def _lines_caption(given: FigureInput) -> str:
    drawn = min(given.n_lines, given.n_matches)
    if not given.n_matches:
        return "the two photos have no match"
    parts = f"{drawn} strongest of {given.n_matches} matches; more relevant lines are more solid"
    return f"{parts}; grey lines have no pixel map" if 0 < given.n_maps < drawn else parts


def _local_caption(local: LocalMatches) -> str:
    """What the panel of local matches shows, in a line."""
    carrying, n_matches = int(local.carrying.sum()), len(local.carrying)
    said = f"Local matches ({local.matcher}): "
    if not n_matches:
        return f"{said}none"
    if local.inliers is None:
        return f"{said}{n_matches}, and no homography ({local.reason.replace('_', ' ')})"
    said += f"{carrying} of {n_matches} carry the homography"
    if local.distinct is not None and local.distinct < carrying:
        said += f", {local.distinct} of them distinct"
    crowded = max(carrying, n_matches - carrying) > MOST_LOCAL_LINES
    return f"{said}; at most {MOST_LOCAL_LINES} of a kind are drawn" if crowded else said


def draw_heat_bar(paper: Paper, place: Place, notes: Sequence[str]) -> None:
    """What the heat means, with its corner at `place`, and lines of notes below."""
    left, top = place
    paper.write(place, "Relevance", 14, INK, 0.35)
    wide, high = paper.pixel((BAR_WIDTH, BAR_HEIGHT))
    colours, opacity = heat_colours(np.linspace(0.0, 1.0, wide))
    bar = colours * opacity[:, None] + MID_GREY * (1.0 - opacity[:, None])
    paper.paste(np.repeat(np.rint(bar).astype(np.uint8)[None], high, axis=0), (left, top + 24))
    for value, anchor in ((0.0, "la"), (0.5, "ma"), (1.0, "ra")):
        x = left + value * (BAR_WIDTH - 1)
        paper.line((x, top + 24 + BAR_HEIGHT), (x, top + 28 + BAR_HEIGHT), QUIET)
        paper.write((x, top + 31 + BAR_HEIGHT), f"{value:g}", 12, QUIET, anchor=anchor)
    for i, note in enumerate(notes):
        paper.write((left, top + 64 + 17 * i), note, 12, QUIET)


def _compose(
    given: FigureInput, top_panel: Pixels, colours: Pixels, local: Pixels | None, legend: Pixels
) -> tuple[Pixels, tuple[int, int]]:
    scale = given.frame.scale
    height, width = (side / scale for side in top_panel.shape[:2])
    inner = max(width, legend.shape[1] / scale)
    left = MARGIN + (inner - width) / 2
    top = MARGIN + (30 if given.subtitle else 0) + 26
    below = [(f"Pixels behind the first {given.n_maps} matches", colours)] if given.n_maps else []
    if local is not None and given.local is not None:
        below.append((_local_caption(given.local), local))
    bottom = top + height + len(below) * (height + 34) + (24 if below else 34)
    paper = Paper(inner + 2 * MARGIN, bottom + legend.shape[0] / scale + MARGIN - 8, scale)
    if given.subtitle:
        paper.write((left, MARGIN - 4), fitted(given.subtitle, 15, round(inner)), 15, QUIET)
    for side, span in zip(given.sides, given.frame.spans, strict=True):
        title = fitted(side.title, 16, round(span.width / scale - 8))
        paper.write((left + span.left / scale, top - 24), title, 16, INK, 0.35)
    corner = paper.paste(top_panel, (left, top))
    for row, (caption, panel) in enumerate(below, 1):
        y = top + row * (height + 34)
        paper.write((left, y - 24), caption, 14, QUIET)
        if panel is local and given.local is not None and given.local.inliers is not None:
            _local_key(paper, left + width, y - 24)
        paper.paste(panel, (left, y))
    paper.paste(legend, (MARGIN + (inner - legend.shape[1] / scale) / 2, bottom))
    return paper.pixels(), corner


def _local_key(paper: Paper, right: float, y: float) -> None:
    """What the two colours of local matches mean, ending at `right`."""
    for colour, meaning, x in ((CARRYING, "carry the homography", 240), (OTHER_COLOUR, "others", 70)):
        paper.box((right - x, y + 1), (right - x + 13, y + 14), colour, QUIET, 3)
        paper.write((right - x + 20, y), meaning, 13, QUIET)
