"""The panels of a figure: photos, relevance with match lines, coloured pixel maps, local matches."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from pairx_engine.figure.marks import Colour, Layer, Point, composite
from pairx_engine.figure.values import FigureInput, Floats, LocalMatches, PanelFrame, Pixels, Span

MATCH_COLOURS: tuple[Colour, ...] = (
    (255, 138, 0), (120, 195, 255), (180, 255, 120), (150, 60, 255), (210, 60, 30),
    (105, 255, 255), (60, 180, 105), (180, 90, 135), (105, 105, 195), (210, 255, 195),
)  # fmt: skip
"""Ten colours that stay distinct (CIE76 distance >= 25) for normal, deuteranopic, protanopic eyes."""
OTHER_COLOUR: Colour = (222, 226, 230)
BLACK: Colour = (0, 0, 0)
CARRYING: Colour = (70, 230, 190)
"""Colour of the local matches that carry the homography."""
MOST_LOCAL_LINES = 250
LOCAL_DIMMED = 0.7
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


def draw_photos(given: FigureInput) -> Pixels:
    """The two photos as they are, (height, width, 3)."""
    frame = given.frame
    panel = np.full((frame.height, frame.width, 3), 255, dtype=np.uint8)
    for side, span in zip(given.sides, frame.spans, strict=True):
        _part(panel, span)[:] = _stretched(side.picture, span.height, span.width)
    return panel


def _part(panel: Pixels, span: Span) -> Pixels:
    """The part of a panel in which a photo lies."""
    return panel[: span.height, span.left : span.left + span.width]


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


def draw_colours(given: FigureInput, photos: Pixels) -> Pixels:
    """Pixel maps of the first matches, coloured and numbered, on dimmed grey `photos`.

    (height, width, 3) RGB, as `photos` is.
    """
    panel = np.full_like(photos, 255)
    for side, span in zip(given.sides, given.frame.spans, strict=True):
        _part(panel, span)[:] = _coloured(_part(photos, span), side.maps)
    marks = Layer(given.frame.height, given.frame.width)
    _draw_rings(given, marks, given.n_maps)
    _draw_tags(given, marks, given.n_maps)
    return composite(panel, marks.pixels())


def draw_local(local: LocalMatches, frame: PanelFrame, photos: Pixels) -> Pixels:
    """Local matches as lines above dimmed grey `photos`: those that carry the homography, and the others.

    (height, width, 3) RGB, as `photos` is. Of either kind at most `MOST_LOCAL_LINES` get a line, evenly chosen
    in the order given.
    """
    panel = np.full_like(photos, 255)
    for span in frame.spans:
        _part(panel, span)[:] = np.rint(_grey(_part(photos, span)) * LOCAL_DIMMED).astype(np.uint8)
    layer = Layer(frame.height, frame.width)
    starts, ends = (
        [(float(x), float(y)) for x, y in span.to_panel(points)]
        for points, span in zip(local.points, frame.spans, strict=True)
    )
    thin, scale = max(1, round(frame.scale)), frame.scale
    for carrying, colour, opacity, radius in ((False, OTHER_COLOUR, 0.3, 1.6), (True, CARRYING, 0.75, 2.4)):
        chosen = np.flatnonzero(local.carrying == carrying)
        chosen = chosen[:: max(1, -(-len(chosen) // MOST_LOCAL_LINES))]
        first, second = [starts[i] for i in chosen], [ends[i] for i in chosen]
        layer.lines(first, second, colour, thin, opacity)
        for points in (first, second):
            layer.dots(points, (radius + 0.8) * scale, BLACK)
            layer.dots(points, radius * scale, colour)
    return composite(panel, layer.pixels())


def _draw_matches(given: FigureInput, layer: Layer) -> None:
    """Lines first, strongest on top, then rings, then tags: no line hides an endpoint."""
    starts, ends = _panel_points(given)
    drawn, scale = min(given.n_lines, given.n_matches), given.frame.scale
    strongest = max(given.shares[0], 1e-12) if given.n_matches else 1.0
    one, two, three, four = (max(1, round(width * scale)) for width in (1, 2, 3, 4))
    for i in reversed(range(drawn)):
        strength = given.shares[i] / strongest
        start, end = _between(starts[i], ends[i], _radius(given, i))
        if i < given.n_maps:
            layer.line(start, end, BLACK, four, 0.15 + 0.25 * strength)
            layer.line(start, end, match_colour(i), two, 0.4 + 0.6 * strength)
        else:
            if not given.n_maps:
                # Nothing else tells these lines from a pale coat.
                layer.line(start, end, BLACK, three, 0.15 + 0.2 * strength)
            layer.line(start, end, OTHER_COLOUR, one, 0.3 + 0.5 * strength)
    _draw_rings(given, layer, drawn)
    _draw_tags(given, layer, min(drawn, given.n_maps))


def _draw_rings(given: FigureInput, layer: Layer, count: int) -> None:
    """Open circles around both endpoints of the first `count` matches; the matched spot stays visible."""
    for points in _panel_points(given):
        for i in reversed(range(count)):
            centre = (float(points[i, 0]), float(points[i, 1]))
            colour, plain = (match_colour(i), 2) if i < given.n_maps else (OTHER_COLOUR, 1)
            width, around = (max(1, round(plain * given.frame.scale)) for plain in (plain, plain + 2))
            layer.ring(centre, _radius(given, i), BLACK, around, 0.5)
            layer.ring(centre, _radius(given, i), colour, width)


def _draw_tags(given: FigureInput, layer: Layer, count: int) -> None:
    """Numbers 1..count beside the endpoints, away from the lines where there is room."""
    scale = given.frame.scale
    for points, outward, span in zip(_panel_points(given), (-1.0, 1.0), given.frame.spans, strict=True):
        columns = span.left, span.left + span.width
        for i, place in enumerate(_tag_places(points[:count], outward, columns, span.height, scale)):
            layer.tag(place, str(i + 1), match_colour(i), round(TAG_SIZE * scale))


def _panel_points(given: FigureInput) -> list[NDArray[np.float64]]:
    """Points of all matches in panel pixels, (n, 2) of either photo."""
    return [span.to_panel(side.points) for side, span in zip(given.sides, given.frame.spans, strict=True)]


def _radius(given: FigureInput, index: int) -> float:
    return (RING if index < given.n_maps else RING - 1.5) * given.frame.scale


def _tag_places(
    points: NDArray[np.float64], outward: float, span: tuple[int, int], height: int, scale: float
) -> Sequence[Point]:
    """A place beside each point, (x, y), that covers as few rings and earlier tags as possible."""
    reach, margin = (RING + 10.0) * scale, 9 * scale
    angles = np.pi / 4 * np.array([0, 1, -1, 2, -2, 3, -3, 4])
    directions = np.stack([outward * np.cos(angles), np.sin(angles)], axis=1)
    places: list[Point] = []
    for i, point in enumerate(points):
        candidates = point + directions * np.array([reach + 4.0 * scale * (len(str(i + 1)) - 1), reach])
        taken = np.concatenate([points, np.array(places).reshape(-1, 2)])
        gaps = np.linalg.norm(candidates[:, None] - taken[None], axis=2)
        crowding = np.maximum(0.0, reach - gaps).sum(axis=1)
        low, high = np.array([span[0] + margin, margin]), np.array([span[1] - margin, height - margin])
        outside = np.maximum(low - candidates, 0).sum(axis=1) + np.maximum(candidates - high, 0).sum(axis=1)
        best = candidates[int(np.argmin(crowding + 4 * outside + 0.2 * scale * np.arange(len(directions))))]
        places.append((float(best[0]), float(best[1])))
    return places


def _coloured(photo: Pixels, maps: Floats) -> Pixels:
    """Maps (k, H, W) in the matches' colours above a photo (h, w, 3) that is grey and dimmed."""
    ground = _grey(photo) * DIMMED
    if not len(maps):
        return np.rint(ground).astype(np.uint8)
    strength = np.stack([_relative(smoothed(m)) for m in maps]) ** MAP_POWER
    # Where maps overlap, the stronger one keeps its hue: plain addition would make colours that belong to no
    # match.
    weight = strength**3
    colours = np.array([match_colour(i) for i in range(len(maps))], dtype=np.float64)
    mixed = np.einsum("khw,kc->hwc", weight, colours) / np.maximum(weight.sum(axis=0), 1e-12)[..., None]
    cover = strength.max(axis=0)
    size = photo.shape[1], photo.shape[0]
    # Maps have the chip's few pixels: colour, weighed by its cover, and cover are stretched to the photo's.
    paint = cv2.resize((mixed * cover[..., None]).astype(np.float32), size, interpolation=cv2.INTER_LINEAR)
    cover = np.clip(cv2.resize(cover.astype(np.float32), size, interpolation=cv2.INTER_LINEAR), 0.0, 1.0)
    return np.rint(np.clip(paint + ground * (1.0 - cover[..., None]), 0, 255)).astype(np.uint8)


def _grey(photo: Pixels) -> NDArray[np.float32]:
    """A photo (h, w, 3) without its colours, in three channels."""
    grey = cv2.cvtColor(photo, cv2.COLOR_RGB2GRAY).astype(np.float32)
    return np.repeat(grey[..., None], 3, axis=2)


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
