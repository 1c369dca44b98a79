"""A posed animal as a picture with transparency, on the coat plane.

It has legs, tail, mane, ears, face and shading.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from pairx_engine.toy.body import (
    GRID,
    HEIGHT,
    WIDTH,
    Build,
    Floats,
    Pose,
    Surface,
    bend_at,
    motions,
    solve,
    turned,
)

Pixels = NDArray[np.uint8]

_SUBPIXEL = 8


@dataclass(frozen=True)
class Figure:
    """A posed animal on the coat plane.

    `rgba` (384, 512, 4) uint8 is colour and cover (255 = wholly the animal).
    """

    rgba: Pixels

    @property
    def cover(self) -> Pixels:
        """Cover (384, 512) uint8."""
        return self.rgba[..., 3]


def mark_face_and_hooves(skin: Floats, build: Build) -> Floats:
    """The skin (384, 512, 3) with a dark muzzle, an eye and dark hooves, where the build has them."""
    marked = skin.copy()
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH].astype(np.float32)
    mx, my, mr = build.joints["muzzle"]
    veil = (
        np.clip(1.25 - np.hypot(x - (mx - 0.3 * mr), y - (my + 0.3 * mr)) / np.float32(1.15 * mr), 0, 1)
        * 0.75
    )
    for hoof in ("fore_hoof", "hind_hoof"):
        hx, hy, hr = build.joints[hoof]
        veil = np.maximum(veil, np.clip((y - hy) / 4, 0, 1) * (np.abs(x - hx) < 5 * hr) * 0.85)
    marked += (np.float32(0.07) - marked) * veil[..., None].astype(np.float32)
    bx, by, br = build.joints["brow"]
    eye = (int((bx * 0.72 + mx * 0.28) * _SUBPIXEL), int((by * 0.8 + my * 0.2 - 0.12 * br) * _SUBPIXEL))
    for radius, tone in ((0.24, 0.16), (0.16, 0.03)):
        cv2.circle(marked, eye, int(radius * br * _SUBPIXEL), (tone, tone, tone), -1, cv2.LINE_AA, 3)
    return marked


def _placed(points: Floats, motion: Floats, pose: Pose) -> NDArray[np.int32]:
    moved = points @ motion[:2, :2].T + motion[:2, 2]
    dx, dy = bend_at(pose.bend, moved[:, 0], moved[:, 1])
    return np.round((moved - np.stack([dx, dy], -1)) * _SUBPIXEL).astype(np.int32)


def _upper_edge(build: Build, start: str, end: str, steps: int) -> tuple[Floats, Floats]:
    a, b = np.array(build.joints[start], np.float32), np.array(build.joints[end], np.float32)
    t = np.linspace(0, 1, steps, dtype=np.float32)[:, None]
    spine = a + t * (b - a)
    axis = (b - a)[:2] / np.linalg.norm((b - a)[:2])
    normal = np.array([-axis[1], axis[0]], np.float32)
    normal = -normal if normal[1] > 0 else normal
    return spine[:, :2] + normal * spine[:, 2:], normal


def _tail(build: Build) -> Floats:
    """Outline (n, 2) of the tail: a quadratic Bezier curve from dock to tip, tapering."""
    t = np.linspace(0, 1, 9, dtype=np.float32)[:, None]
    dock, middle, tip = build.at("dock"), build.at("tail_mid"), build.at("tail_tip")
    curve = (1 - t) ** 2 * dock + 2 * t * (1 - t) * middle + t**2 * tip
    along = np.gradient(curve, axis=0)
    across = np.stack([-along[:, 1], along[:, 0]], -1) / np.linalg.norm(along, axis=1, keepdims=True)
    width = np.float32(build.tail_px) * (1 - np.float32(0.45) * t)
    return np.concatenate([curve + across * width, (curve - across * width)[::-1]]).astype(np.float32)


def _draw_extras(canvas: Pixels, build: Build, pose: Pose, colour: Floats) -> None:
    """Draw tail, mane, ears and horns into an RGBA canvas.

    They stick out of the outline and lie behind it.
    """
    hair = tuple(int(c * 255) for c in colour * 0.8)
    dark = tuple(int(c * 110) for c in colour)
    moves = motions(build, pose, "near")

    def fill(points: Floats, motion: Floats, tone: tuple[int, ...]) -> None:
        cv2.fillPoly(canvas, [_placed(points, motion, pose)], (*tone, 255), cv2.LINE_AA, 3)

    swing = turned(build.at("dock"), pose.tail)
    strand = _tail(build)
    fill(strand, swing, hair)
    tuft = np.array([[-1, -2], [1, -2], [1.2, 1.5], [0, 3], [-1.2, 1.5]], np.float32) * np.float32(
        build.tuft_px
    )
    fill(build.at("tail_tip") + tuft, swing, dark)
    if build.mane:
        edge, normal = _upper_edge(build, "withers", "poll", 12)
        comb = edge + normal * np.where(np.arange(12) % 2 == 0, 7, 12)[:, None].astype(np.float32)
        fill(np.concatenate([edge - normal * 6, comb[::-1]]).astype(np.float32), moves["neck"], dark)
    bx, by, br = build.joints["brow"]
    ear, crown = np.float32(build.ear_px), np.array([bx + 0.2 * br, by - 0.5 * br], np.float32)
    if build.horns:
        horn = np.array([[-6, 0], [2, 2], [12, -38], [26, -62], [16, -60], [2, -36]], np.float32)
        fill(crown + horn, moves["head"], (48, 42, 38))
    for shift, tone in ((0.35, dark), (0.0, hair)):
        shape = np.array([[0, 0.3], [0.55, 0.2], [1.0, -0.9], [0.5, -1.0], [-0.1, -0.4]], np.float32)
        fill((crown + (shape + np.array([shift, 0])) * ear).astype(np.float32), moves["head"], tone)


def _shade(depth: Floats) -> Floats:
    """Brightness factor on the coarse grid, as on a rounded body under the sky.

    Backs are lit, undersides and rims are dark.
    """
    slope = cv2.Sobel(cv2.GaussianBlur(depth, (0, 0), 2), cv2.CV_32F, 0, 1, ksize=3) / np.float32(8 * GRID)
    inside = np.maximum(depth, 0)
    return (0.94 + 0.26 * slope * np.exp(-inside / 22) - 0.30 * np.exp(-inside / 4)).astype(np.float32)


def _draw_layer(canvas: Pixels, surface: Surface, skin: Pixels, dim: float) -> None:
    """Draw one posed layer over an RGBA canvas, its skin shaded and dimmed by the factor `dim`."""
    near = surface.depth > -2 * GRID
    rows, columns = np.flatnonzero(near.any(1)), np.flatnonzero(near.any(0))
    window = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    shade = _shade(surface.depth) * np.float32(dim)
    size = (GRID * (columns[-1] + 1 - columns[0]), GRID * (rows[-1] + 1 - rows[0]))
    x, y, depth, shade = (
        cv2.resize(field[window], size, interpolation=cv2.INTER_LINEAR)
        for field in (surface.x, surface.y, surface.depth, shade)
    )
    cover = np.clip(depth / 1.6 + 0.5, 0, 1)
    layer = cv2.remap(skin, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    below = canvas[GRID * rows[0] : GRID * rows[0] + size[1], GRID * columns[0] : GRID * columns[0] + size[0]]
    own, rest = shade * cover, 1 - cover
    for channel in range(3):
        below[..., channel] = np.clip(layer[..., channel] * own + below[..., channel] * rest, 0, 255)
    np.maximum(below[..., 3], (255 * cover).astype(np.uint8), out=below[..., 3])


def draw_figure(build: Build, pose: Pose, skin: Pixels) -> Figure:
    """The animal with this skin (384, 512, 3) uint8 in this pose, seen from the side (head at the left)."""
    middle = int(build.at("belly")[1])
    colour = skin[middle - 40 : middle, 220:320].mean((0, 1)).astype(np.float32) / 255
    canvas = np.zeros((HEIGHT, WIDTH, 4), np.uint8)
    _draw_layer(canvas, solve(build, pose, "far"), skin, 0.58)
    _draw_extras(canvas, build, pose, colour)
    _draw_layer(canvas, solve(build, pose, "near"), skin, 1.0)
    return Figure(canvas)
