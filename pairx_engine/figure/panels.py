"""The three panels of a figure: chips, relevance overlay with match lines, colour-coded pixel maps."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from pairx_engine.figure.marks import Colour, Layer, Point, composite
from pairx_engine.figure.values import FigureInput, Floats, Pixels

MATCH_COLOURS: tuple[Colour, ...] = (
    (255, 138, 0), (120, 195, 255), (180, 255, 120), (150, 60, 255), (210, 60, 30),
    (105, 255, 255), (60, 180, 105), (180, 90, 135), (105, 105, 195), (210, 255, 195),
)  # fmt: skip
"""Ten colours that stay distinct (CIE76 distance >= 25) for normal, deuteranopic, protanopic eyes."""
OTHER_COLOUR: Colour = (222, 226, 230)
BLACK: Colour = (0, 0, 0)
HEAT_OPACITY = 0.72
RING = 5.0
TAG_SIZE = 13
DIMMED = 0.42
SMOOTHING = 1.0
"""Standard deviation in chip pixels, since strided convolutions leave a lattice of empty pixels."""
MAP_POWER = 0.6
"""Display exponent of the pixel maps.

Relevance is so peaked that a linear scale shows only a few dots.
"""


def match_colour(index: int) -> Colour:
    """Colour of match `index` (from 0); colours repeat after ten, numbers do not."""
    return MATCH_COLOURS[index % len(MATCH_COLOURS)]


def side_by_side(given: FigureInput, pictures: Iterable[Pixels]) -> Pixels:
    """Two chip-sized pictures stretched into the panel, (height, width, 3), white between them."""
    frame = given.frame
    panel = np.full((frame.height, frame.width, 3), 255, dtype=np.uint8)
    for picture, span in zip(pictures, frame.spans, strict=True):
        panel[:, span.left : span.left + span.width] = _stretched(picture, span.height, span.width)
    return panel


def draw_chips(given: FigureInput) -> Pixels:
    """The two chips as they are, (height, width, 3)."""
    return side_by_side(given, (side.chip for side in given.sides))


def heat_colours(relevance: Floats) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Colour (..., 3) in [0, 255] and opacity (...) of relevance in [0, 1]; zero is clear."""
    # OpenCV gives colour maps in BGR order.
    inferno = cv2.applyColorMap(np.arange(256, dtype=np.uint8)[:, None], cv2.COLORMAP_INFERNO)[:, 0, ::-1]
    # The black end would darken the photo where there is little to show, and the pale end would vanish on
    # white coats.
    steps = np.rint(55 + 170 * np.asarray(relevance, dtype=np.float64)).astype(int)
    return inferno[steps].astype(np.float64), HEAT_OPACITY * np.asarray(relevance, dtype=np.float64)


def draw_overlay(given: FigureInput) -> Pixels:
    """Relevance as heat, match lines, rings and numbers; transparent elsewhere.

    (height, width, 4) RGBA.
    """
    frame = given.frame
    layer = Layer(frame.height, frame.width)
    for side, span in zip(given.sides, frame.spans, strict=True):
        grid = _relative(side.grid) if given.matched else _relative(smoothed(side.grid)) ** MAP_POWER
        relevance = _upsampled(grid, span.height, span.width)
        colours, opacity = heat_colours(relevance)
        layer.paint(opacity, colours, 0, span.left)
    _draw_matches(given, layer)
    return layer.pixels()


def draw_colours(given: FigureInput) -> Pixels:
    """Pixel maps of the first matches, coloured and numbered, on dimmed grey photos.

    (height, width, 3) RGB.
    """
    pictures = [_coloured(side.chip, side.maps) for side in given.sides]
    marks = Layer(given.frame.height, given.frame.width)
    _draw_rings(given, marks, given.n_maps)
    _draw_tags(given, marks, given.n_maps)
    return composite(side_by_side(given, pictures), marks.pixels())


def _draw_matches(given: FigureInput, layer: Layer) -> None:
    """Lines first, strongest on top, then rings, then tags: no line hides an endpoint."""
    starts, ends = _panel_points(given)
    drawn = min(given.n_lines, given.n_matches)
    strongest = max(given.shares[0], 1e-12) if given.n_matches else 1.0
    for i in reversed(range(drawn)):
        strength = given.shares[i] / strongest
        start, end = _between(starts[i], ends[i], _radius(given, i))
        if i < given.n_maps:
            layer.line(start, end, BLACK, 4, 0.15 + 0.25 * strength)
            layer.line(start, end, match_colour(i), 2, 0.4 + 0.6 * strength)
        else:
            if not given.n_maps:
                # Nothing else tells these lines from a pale coat.
                layer.line(start, end, BLACK, 3, 0.15 + 0.2 * strength)
            layer.line(start, end, OTHER_COLOUR, 1, 0.3 + 0.5 * strength)
    _draw_rings(given, layer, drawn)
    _draw_tags(given, layer, min(drawn, given.n_maps))


def _draw_rings(given: FigureInput, layer: Layer, count: int) -> None:
    """Open circles around both endpoints of the first `count` matches; the matched spot stays visible."""
    for points in _panel_points(given):
        for i in reversed(range(count)):
            centre = (float(points[i, 0]), float(points[i, 1]))
            colour, width = (match_colour(i), 2) if i < given.n_maps else (OTHER_COLOUR, 1)
            layer.ring(centre, _radius(given, i), BLACK, width + 2, 0.5)
            layer.ring(centre, _radius(given, i), colour, width)


def _draw_tags(given: FigureInput, layer: Layer, count: int) -> None:
    """Numbers 1..count beside the endpoints, away from the lines where there is room."""
    for points, outward, span in zip(_panel_points(given), (-1.0, 1.0), given.frame.spans, strict=True):
        columns = span.left, span.left + span.width
        for i, place in enumerate(_tag_places(points[:count], outward, columns, span.height)):
            layer.tag(place, str(i + 1), match_colour(i), TAG_SIZE)


def _panel_points(given: FigureInput) -> list[NDArray[np.float64]]:
    """Points of all matches in panel pixels, (n, 2) of either photo."""
    return [span.to_panel(side.points) for side, span in zip(given.sides, given.frame.spans, strict=True)]


def _radius(given: FigureInput, index: int) -> float:
    return RING if index < given.n_maps else RING - 1.5


def _tag_places(
    points: NDArray[np.float64], outward: float, span: tuple[int, int], height: int
) -> Sequence[Point]:
    """A place beside each point, (x, y), that covers as few rings and earlier tags as possible."""
    reach = RING + 10.0
    angles = np.pi / 4 * np.array([0, 1, -1, 2, -2, 3, -3, 4])
    directions = np.stack([outward * np.cos(angles), np.sin(angles)], axis=1)
    places: list[Point] = []
    for i, point in enumerate(points):
        candidates = point + directions * np.array([reach + 4.0 * (len(str(i + 1)) - 1), reach])
        taken = np.concatenate([points, np.array(places).reshape(-1, 2)])
        gaps = np.linalg.norm(candidates[:, None] - taken[None], axis=2)
        crowding = np.maximum(0.0, reach - gaps).sum(axis=1)
        low, high = np.array([span[0] + 9, 9]), np.array([span[1] - 9, height - 9])
        outside = np.maximum(low - candidates, 0).sum(axis=1) + np.maximum(candidates - high, 0).sum(axis=1)
        best = candidates[int(np.argmin(crowding + 4 * outside + 0.2 * np.arange(len(directions))))]
        places.append((float(best[0]), float(best[1])))
    return places


def _coloured(chip: Pixels, maps: Floats) -> Pixels:
    grey = cv2.cvtColor(chip, cv2.COLOR_RGB2GRAY).astype(np.float64)
    ground = np.repeat(grey[..., None] * DIMMED, 3, axis=2)
    if not len(maps):
        return np.rint(ground).astype(np.uint8)
    strength = np.stack([_relative(smoothed(m)) for m in maps]) ** MAP_POWER
    # Where maps overlap, the stronger one keeps its hue: plain addition would make colours that belong to no
    # match.
    weight = strength**3
    colours = np.array([match_colour(i) for i in range(len(maps))], dtype=np.float64)
    mixed = np.einsum("khw,kc->hwc", weight, colours) / np.maximum(weight.sum(axis=0), 1e-12)[..., None]
    cover = strength.max(axis=0)[..., None]
    return np.rint(mixed * cover + ground * (1.0 - cover)).astype(np.uint8)


def _relative(values: Floats) -> NDArray[np.float64]:
    """Positive part divided by its maximum, in [0, 1]; all zero when there is nothing positive."""
    positive = np.maximum(np.asarray(values, dtype=np.float64), 0.0)
    peak = positive.max()
    return positive / peak if peak > 0 else positive


def smoothed(pixel_map: Floats, deviation: float = SMOOTHING) -> NDArray[np.float64]:
    """A map (H, W) under a Gaussian of `deviation` chip pixels."""
    return np.asarray(
        cv2.GaussianBlur(np.asarray(pixel_map, dtype=np.float64), (0, 0), deviation), dtype=np.float64
    )


def _upsampled(values: NDArray[np.float64], height: int, width: int) -> NDArray[np.float64]:
    """Bilinear between cell centres, clipped to [0, 1].

    Column j of w has its centre at x = (j + 0.5) width / w; rows are treated alike.
    """
    return np.clip(cv2.resize(values, (width, height), interpolation=cv2.INTER_LINEAR), 0.0, 1.0)


def _stretched(picture: Pixels, height: int, width: int) -> Pixels:
    rows, columns = picture.shape[:2]
    smaller = height < rows or width < columns
    method = cv2.INTER_AREA if smaller else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(picture, (width, height), interpolation=method), dtype=np.uint8)


def _between(start: NDArray[np.float64], end: NDArray[np.float64], radius: float) -> tuple[Point, Point]:
    """The part of a line that lies outside the two rings."""
    way = end - start
    step = way / max(float(np.linalg.norm(way)), 1e-9) * radius
    a, b = start + step, end - step
    return (float(a[0]), float(a[1])), (float(b[0]), float(b[1]))
