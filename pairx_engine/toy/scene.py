"""Where and in what light a drawn animal is met.

Backdrop, plants in front, shadow, exposure, blur and sensor noise.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from pairx_engine.toy.body import Floats
from pairx_engine.toy.coat import Colour, smooth_noise

Pixels = NDArray[np.uint8]

HABITATS: dict[str, tuple[Colour, Colour, Colour]] = {
    "dry grass": ((0.66, 0.55, 0.34), (0.44, 0.42, 0.25), (0.74, 0.80, 0.86)),
    "green grass": ((0.38, 0.47, 0.22), (0.20, 0.30, 0.13), (0.70, 0.78, 0.84)),
    "bare soil": ((0.60, 0.44, 0.32), (0.36, 0.36, 0.22), (0.80, 0.82, 0.83)),
    "woodland": ((0.36, 0.30, 0.20), (0.16, 0.21, 0.11), (0.40, 0.46, 0.36)),
}
"""Name -> colours (RGB 0..1) of the ground, of the plants behind and of the sky."""


@dataclass(frozen=True)
class Scene:
    """One place and hour.

    Lengths are shares of the picture's height, colours RGB 0..1; `seed` fixes the place's texture.
    """

    seed: int
    size: tuple[int, int]
    ground: Colour
    plants: Colour
    sky: Colour
    horizon: float
    grass: float
    cast: Colour
    gamma: float
    gain: float
    gradient: tuple[float, float]
    dapple: float
    infrared: bool

    def __post_init__(self) -> None:
        width, height = self.size
        if width < 64 or height < 64:
            raise ValueError(f"scene size {self.size} is too small to draw; use at least 64 x 64 pixels")


def draw_scene(rng: np.random.Generator) -> Scene:
    """A random place, hour and camera."""
    name = str(rng.choice(list(HABITATS)))
    ground, plants, sky = (
        tuple(np.clip(np.array(c) * rng.normal(1, 0.04, 3), 0.03, 0.97)) for c in HABITATS[name]
    )
    width = int(rng.integers(40, 81)) * 8
    aspect = float(rng.choice([4 / 3, 3 / 2, 16 / 10]))
    warm = rng.normal(0, 0.07)
    return Scene(
        seed=int(rng.integers(1 << 31)),
        size=(width, round(width / aspect)),
        ground=ground,
        plants=plants,
        sky=sky,
        horizon=float(rng.uniform(0.05, 0.42)),
        grass=float(rng.choice([0.0, 0.25, 0.6, 1.0], p=[0.25, 0.35, 0.25, 0.15])),
        cast=(1 + warm, float(1 + rng.normal(0, 0.03)), 1 - warm),
        gamma=float(np.exp(rng.normal(0, 0.16))),
        gain=float(np.exp(rng.normal(0.0, 0.13))),
        gradient=(float(rng.normal(0, 0.18)), float(rng.normal(0, 0.14))),
        dapple=float(rng.choice([0.0, rng.uniform(0.15, 0.42)], p=[0.6, 0.4])),
        infrared=bool(rng.random() < 0.12),
    )


def _blades(
    rng: np.random.Generator, canvas: Pixels, roots: Floats, lengths: Floats, colour: Colour, thickness: int
) -> None:
    """Draw one curved blade per root (n, 2) of the given lengths (n,), in a dozen tones of one colour."""
    lean = rng.normal(0, 0.35, len(roots)).astype(np.float32)[:, None]
    t = np.array([0, 0.5, 1], np.float32)
    x = roots[:, :1] + lengths[:, None] * lean * t**2
    y = roots[:, 1:] - lengths[:, None] * t * (1 - 0.25 * np.abs(lean) * t)
    lines = np.round(np.stack([x, y], -1) * 8).astype(np.int32)
    for group in np.array_split(lines, 12):
        tone = np.clip(np.array(colour) * rng.uniform(0.55, 1.35) + rng.normal(0, 0.02, 3), 0, 1) * 255
        cv2.polylines(canvas, list(group), False, tuple(float(c) for c in tone), thickness, cv2.LINE_AA, 3)


def _leaves(
    rng: np.random.Generator, canvas: Pixels, centre: tuple[float, float], radius: float, colour: Colour
) -> None:
    for _ in range(int(np.clip(radius * 1.2, 24, 90))):
        x, y = rng.normal(0, 0.5 * radius, 2) + centre
        tone = np.clip(np.array(colour) * rng.uniform(0.45, 1.5), 0, 1) * 255
        axes = (int(8 * radius * rng.uniform(0.05, 0.14)) + 8, int(8 * radius * rng.uniform(0.03, 0.07)) + 6)
        cv2.ellipse(
            canvas,
            (int(x * 8), int(y * 8)),
            axes,
            float(rng.uniform(0, 180)),
            0,
            360,
            tuple(float(c) for c in tone),
            -1,
            cv2.LINE_AA,
            3,
        )


def backdrop(scene: Scene, drift: tuple[float, float]) -> Pixels:
    """The empty place (height, width, 3) uint8; `drift` moves the camera by that many pixels (x, y)."""
    rng = np.random.default_rng([scene.seed, 1])
    full_width, full_height = scene.size
    width, height = full_width // 2, full_height // 2
    ground, plants, sky = (np.array(c, np.float32) for c in (scene.ground, scene.plants, scene.sky))
    rough = smooth_noise(rng, 30, height, width) * 0.6 + smooth_noise(rng, 8.5, height, width) * 0.5
    rough += smooth_noise(rng, 2.5, height, width) * 0.5
    rows = np.arange(height, dtype=np.float32)[:, None] / height
    nearness = np.clip((rows - scene.horizon) / (1 - scene.horizon), 0, 1)
    picture = ground * (0.80 + 0.30 * nearness + 0.13 * rough)[..., None]
    skyline = scene.horizon + 0.02 * smooth_noise(rng, 45, 1, width) + 0.01 * smooth_noise(rng, 6, 1, width)
    treetop = scene.horizon * (0.45 + 0.30 * smooth_noise(rng, 35, 1, width)) + 0.03 * smooth_noise(
        rng, 4.5, 1, width
    )
    woods = plants * (0.85 + 0.30 * rough)[..., None]
    picture = np.where((rows < skyline)[..., None], woods, picture)
    picture = np.where((rows < treetop)[..., None], sky * (0.95 + 0.04 * rough)[..., None], picture)
    canvas = np.ascontiguousarray(np.clip(picture * 255, 0, 255).astype(np.uint8))
    for _ in range(int(rng.integers(0, 4))):
        spot = (float(rng.uniform(0, width)), float((scene.horizon + rng.uniform(-0.05, 0.2)) * height))
        _leaves(rng, canvas, spot, float(rng.uniform(0.10, 0.26) * height), scene.plants)
    # Half size is enough for what lies out of focus behind the animal. The blades in focus are drawn at full
    # size.
    canvas = cv2.GaussianBlur(canvas, (0, 0), float(rng.uniform(0.4, 1.1)))
    width, height = full_width, full_height
    canvas = cv2.resize(canvas, (width, height), interpolation=cv2.INTER_CUBIC)
    count = int(60 + 420 * scene.grass)
    depth = np.sort(rng.uniform(0.05, 1.05, count)).astype(np.float32)
    roots = np.stack(
        [rng.uniform(0, width, count), (scene.horizon + (1 - scene.horizon) * depth) * height], -1
    )
    _blades(rng, canvas, roots.astype(np.float32), (0.02 + 0.07 * depth) * height, scene.ground, 1)
    shift = np.array([[1, 0, drift[0]], [0, 1, drift[1]]], np.float32)
    return cv2.warpAffine(canvas, shift, (width, height), borderMode=cv2.BORDER_REFLECT)


def cast_shadow(picture: Pixels, feet: tuple[float, float], span: float, strength: float) -> Pixels:
    """Darken the ground under the animal: a soft ellipse `span` pixels wide around `feet` (x, y)."""
    height, width = picture.shape[:2]
    small = np.zeros((height // 4 + 1, width // 4 + 1), np.float32)
    centre = (int(feet[0] / 4), int(feet[1] / 4))
    cv2.ellipse(small, centre, (int(span / 8) + 1, int(span / 50) + 2), 0, 0, 360, strength, -1)
    soft = cv2.resize(cv2.GaussianBlur(small, (0, 0), 3), (width, height), interpolation=cv2.INTER_LINEAR)
    return np.asarray(cv2.multiply(picture, cv2.merge([1 - soft] * 3), dtype=cv2.CV_8U))


def plants_in_front(
    picture: Pixels, scene: Scene, box: tuple[float, float, float, float], rng: np.random.Generator
) -> Pixels:
    """Blades over the legs, and sometimes a branch or a bush over part of the body.

    Draws into `picture` and returns it.
    """
    x, y, w, h = box
    count = int(70 * scene.grass * rng.uniform(0.5, 1.3))
    if count:
        roots = np.stack(
            [rng.uniform(x - 0.1 * w, x + 1.1 * w, count), y + h * rng.uniform(0.95, 1.12, count)], -1
        )
        lengths = h * rng.uniform(0.10, 0.24 + 0.22 * scene.grass, count)
        _blades(
            rng, picture, roots.astype(np.float32), lengths.astype(np.float32), scene.ground, 1 + (h > 230)
        )
    if rng.random() < 0.16:
        start, end = (
            np.array([x - 0.15 * w, y + h * rng.uniform(-0.1, 0.6)]),
            np.array([x + w * rng.uniform(0.4, 1.1), y + h * 0.4]),
        )
        middle = (start + end) / 2 + rng.normal(0, 0.08 * h, 2)
        bark = tuple(float(c) * 255 for c in np.array([0.26, 0.20, 0.14]) * rng.uniform(0.6, 1.3))
        line = np.round(np.stack([start, middle, end]) * 8).astype(np.int32)
        cv2.polylines(picture, [line], False, bark, int(rng.integers(1, 4)), cv2.LINE_AA, 3)
        _leaves(rng, picture, (float(middle[0]), float(middle[1])), 0.12 * h, scene.plants)
    if rng.random() < 0.14:
        corner = (float(x + w * rng.choice([0.0, 0.12, 0.88, 1.0])), float(y + h * rng.uniform(0.7, 1.0)))
        _leaves(rng, picture, corner, float(h * rng.uniform(0.2, 0.34)), scene.plants)
    return picture


def _motion_kernel(length: int, angle: float) -> Floats:
    kernel = np.zeros((2 * length + 1, 2 * length + 1), np.float32)
    reach = np.array([np.cos(angle), np.sin(angle)]) * length
    start, end = np.round(length - reach / 2).astype(int), np.round(length + reach / 2).astype(int)
    cv2.line(kernel, (int(start[0]), int(start[1])), (int(end[0]), int(end[1])), 1.0, 1)
    return kernel / kernel.sum()


def expose(picture: Pixels, scene: Scene, rng: np.random.Generator) -> Pixels:
    """What the camera stores of the scene.

    It adds dapple, gradient, blur, colour cast, gain, gamma, infrared and sensor noise.
    """
    height, width = picture.shape[:2]
    blur = rng.random()
    if blur < 0.18:
        picture = cv2.filter2D(
            picture, -1, _motion_kernel(int(rng.integers(2, 5)), float(rng.uniform(0, np.pi)))
        )
    elif blur < 0.50:
        picture = cv2.GaussianBlur(picture, (0, 0), float(rng.uniform(0.5, 1.4)))
    rows, columns = (
        np.linspace(-0.5, 0.5, height, dtype=np.float32),
        np.linspace(-0.5, 0.5, width, dtype=np.float32),
    )
    light = 1 + np.float32(scene.gradient[0]) * columns[None] + np.float32(scene.gradient[1]) * rows[:, None]
    if scene.dapple:
        small = height // 4, width // 4
        shade = smooth_noise(rng, 0.022 * width, *small) + 0.5 * smooth_noise(rng, 0.01 * width, *small)
        dim = cv2.resize(cv2.GaussianBlur(np.clip(shade * 1.5 + 0.3, 0, 1), (0, 0), 1.5), (width, height))
        light = light * (1 - np.float32(scene.dapple) * dim)
    grain = float(rng.uniform(1.0, 5.0))
    if scene.infrared:
        picture = cv2.cvtColor(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
        light = light * (1.12 - 0.9 * (columns[None] ** 2 + rows[:, None] ** 2))
        grain *= 1.6
    cast = (1.0, 1.0, 1.0) if scene.infrared else scene.cast
    light = light.astype(np.float32) * np.float32(scene.gain)
    lit = cv2.multiply(picture, cv2.merge([light * np.float32(c) for c in cast]), dtype=cv2.CV_8U)
    exposed = cv2.LUT(lit, (255 * (np.arange(256) / 255) ** scene.gamma).astype(np.uint8))
    noise = rng.standard_normal((height, width), dtype=np.float32) * np.float32(grain)
    return np.asarray(cv2.add(exposed, cv2.merge([noise] * 3), dtype=cv2.CV_8U))
