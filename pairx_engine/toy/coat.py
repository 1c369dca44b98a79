"""Coats: the skin of one flank, painted on the coat plane (384, 512, 3), float32 RGB in 0..1.

Four patterns: spots (jittered grid of irregular marks), stripes (a phase field with fork points), blotches
(warped Voronoi cells with mortar lines) and plain (shading, a few scars and tone differences, by which nobody
can tell animals apart at a distance).
"""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np

from pairx_engine.toy.body import BONES, HEIGHT, WIDTH, Build, Floats, rest_shares

Colour = tuple[float, float, float]


def smooth_noise(rng: np.random.Generator, cell: float, height: int = HEIGHT, width: int = WIDTH) -> Floats:
    """Noise (height, width) of about unit variance whose features are `cell` pixels wide."""
    rows, columns = int(np.ceil(height / cell)) + 3, int(np.ceil(width / cell)) + 3
    coarse = rng.standard_normal((rows, columns), dtype=np.float32)
    size = (int(np.ceil(columns * cell)), int(np.ceil(rows * cell)))
    fine = cv2.resize(coarse, size, interpolation=cv2.INTER_CUBIC)
    top, left = (fine.shape[0] - height) // 2, (fine.shape[1] - width) // 2
    return fine[top : top + height, left : left + width] * np.float32(1.3)


def _ramp(field: Floats, soft: float) -> Floats:
    return np.clip(field / np.float32(2 * soft) + np.float32(0.5), 0, 1)


def _warped(rng: np.random.Generator, picture: Floats, cell: float, reach: float) -> Floats:
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH].astype(np.float32)
    dx, dy = smooth_noise(rng, cell) * np.float32(reach), smooth_noise(rng, cell) * np.float32(reach)
    return cv2.remap(picture, x + dx, y + dy, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)


def _jittered(rng: np.random.Generator, spacing: float, jitter: float) -> Floats:
    """Points (n, 2) of a hexagonal grid, each moved at random by up to `jitter` spacings."""
    rows, columns = int(HEIGHT / (spacing * 0.87)) + 3, int(WIDTH / spacing) + 3
    row, column = np.mgrid[0:rows, 0:columns].astype(np.float32)
    points = np.stack([(column + 0.5 * (row % 2) - 1) * spacing, (row - 1) * spacing * 0.87], -1).reshape(
        -1, 2
    )
    return (points + rng.uniform(-jitter, jitter, points.shape) * spacing).astype(np.float32)


def spots(rng: np.random.Generator, build: Build) -> Floats:
    """Share of dark pigment (384, 512): irregular spots of sizes that change over the body.

    Some are merged, some are open rosettes.
    """
    spacing = rng.uniform(23, 34)
    size_map = smooth_noise(rng, 90)
    fill = rng.uniform(0.24, 0.34)
    ink = np.zeros((HEIGHT, WIDTH), np.uint8)
    for x, y in _jittered(rng, spacing, 0.48):
        local = size_map[int(np.clip(y, 0, HEIGHT - 1)), int(np.clip(x, 0, WIDTH - 1))]
        radius = spacing * fill * float(np.clip(1 + 0.28 * local + rng.normal(0, 0.34), 0.2, 2.0))
        if rng.random() < 0.14:
            continue
        stretch, angle = rng.uniform(0.55, 1.0), rng.uniform(0, 180)
        centre, axes = (int(x * 8), int(y * 8)), (int(radius * 8), int(radius * stretch * 8))
        cv2.ellipse(ink, centre, axes, angle, 0, 360, 255, -1, cv2.LINE_AA, 3)
        if radius > spacing * 0.34:
            cv2.ellipse(ink, centre, (axes[0] // 2, axes[1] // 2), angle, 0, 360, 70, -1, cv2.LINE_AA, 3)
    return _warped(rng, cv2.GaussianBlur(ink, (0, 0), 1.2).astype(np.float32) / 255, 13, 2.6)


def _flow(build: Build, period: float) -> Floats:
    """Stripe phase in turns.

    Stripes run across the trunk; at neck and legs they are at right angles to each bone. All are joined
    smoothly.
    """
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH].astype(np.float32)
    names, shares = rest_shares(build)
    phase = np.zeros_like(x)
    for share, name, (_, start, end) in zip(shares, names, BONES, strict=True):
        a, axis = build.at(start), build.at(end) - build.at(start)
        if name.startswith("trunk"):
            phase += share * (x - build.joints["chest"][0])
            continue
        axis = axis / np.linalg.norm(axis)
        sign = np.float32(-1 if name in ("neck", "head", "fore_upper", "fore_lower") else 1)
        offset = np.float32(a[0] - build.joints["chest"][0])
        phase += share * (offset + sign * ((x - a[0]) * axis[0] + (y - a[1]) * axis[1]))
    return phase / np.float32(period)


def stripes(rng: np.random.Generator, build: Build) -> Floats:
    """Share of dark pigment (384, 512): stripes that wander, change width and fork.

    A fork is a point around which the phase makes a full turn: phase += s * atan2(y - y0, x - x0), s = +-1.
    """
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH].astype(np.float32)
    phase = _flow(build, rng.uniform(21, 28)) * np.float32(2 * np.pi)
    phase += (
        smooth_noise(rng, 120) * np.float32(2.6)
        + smooth_noise(rng, 45) * np.float32(0.8)
        + rng.uniform(0, 2 * np.pi)
    )
    for _ in range(int(rng.integers(14, 24))):
        x0, y0 = rng.uniform(60, 420), rng.uniform(80, 262)
        phase += np.float32(rng.choice([-1.0, 1.0])) * np.arctan2(y - np.float32(y0), x - np.float32(x0))
    width = np.float32(rng.uniform(-0.2, 0.2)) + smooth_noise(rng, 70) * np.float32(0.28)
    return _ramp(np.cos(phase) + width, 0.28)


def blotches(rng: np.random.Generator, build: Build) -> Floats:
    """Share of dark pigment (384, 512): patches of differing tone between pale mortar lines.

    The lines are of uneven width.
    """
    spacing = rng.uniform(38, 56)
    points = _jittered(rng, spacing, 0.42)
    points = points[rng.random(len(points)) > 0.12]
    points = points[((points > -2 * spacing) & (points < [WIDTH + 2 * spacing, HEIGHT + 2 * spacing])).all(1)]
    y, x = np.mgrid[0:HEIGHT:2, 0:WIDTH:2].astype(np.float32)
    reach = np.float32(spacing * 0.12)
    x, y = x + smooth_noise(rng, 14)[::2, ::2] * reach, y + smooth_noise(rng, 14)[::2, ::2] * reach
    first, second = np.full_like(x, 1e9), np.full_like(x, 1e9)
    owner = np.zeros(x.shape, np.int32)
    for index, (px, py) in enumerate(points):
        distance = (x - px) ** 2 + (y - py) ** 2
        nearer = distance < first
        second = np.where(nearer, first, np.minimum(second, distance))
        first = np.where(nearer, distance, first)
        owner[nearer] = index
    gap = np.sqrt(second) - np.sqrt(first)
    mortar = np.float32(rng.uniform(5, 9)) * (1 + np.float32(0.35) * smooth_noise(rng, 60)[::2, ::2])
    tone = np.clip(rng.normal(0.86, 0.13, len(points)), 0.45, 1).astype(np.float32)[owner]
    return cv2.resize(_ramp(gap - mortar, 2.0) * tone, (WIDTH, HEIGHT), interpolation=cv2.INTER_LINEAR)


def plain(rng: np.random.Generator, build: Build) -> Floats:
    """Share of dark pigment (384, 512): faint tone differences only."""
    return np.clip(0.25 + 0.07 * smooth_noise(rng, 90) + 0.03 * smooth_noise(rng, 30), 0, 1).astype(
        np.float32
    )


PATTERNS: dict[str, Callable[[np.random.Generator, Build], Floats]] = {
    "spots": spots,
    "stripes": stripes,
    "blotches": blotches,
    "plain": plain,
}


def _scars(rng: np.random.Generator, skin: Floats, count: int) -> None:
    for _ in range(count):
        start = np.array([rng.uniform(150, 370), rng.uniform(130, 230)])
        end = start + rng.normal(0, 16, 2)
        bent = (start + end) / 2 + rng.normal(0, 4, 2)
        line = (np.stack([start, bent, end]) * 8).astype(np.int32)
        mark = np.zeros((HEIGHT, WIDTH), np.float32)
        cv2.polylines(mark, [line], False, 1.0, int(rng.integers(1, 4)), cv2.LINE_AA, 3)
        skin += cv2.GaussianBlur(mark, (0, 0), 0.8)[..., None] * np.float32(rng.choice([-0.16, 0.20]))


def paint(
    pattern: str, build: Build, light: Colour, dark: Colour, rng: np.random.Generator, underside: float = 0.5
) -> Floats:
    """One flank's skin (384, 512, 3), float32 RGB 0..1.

    It has a `light` ground, `dark` pigment, a paler underside, hair and scars. `underside` is how far pigment
    fades on the belly (0 = not at all, 1 = wholly). Raises ValueError for an unknown pattern.
    """
    if pattern not in PATTERNS:
        raise ValueError(f"unknown coat pattern {pattern!r}; known are {sorted(PATTERNS)}")
    pigment = PATTERNS[pattern](rng, build)
    y = np.arange(HEIGHT, dtype=np.float32)[:, None]
    belly = build.joints["belly"]
    names, shares = rest_shares(build)
    trunk = shares[[name.startswith("trunk") for name in names]].sum(0)
    below = np.clip((y - (belly[1] + 0.45 * belly[2])) / np.float32(0.5 * belly[2]), 0, 1) * trunk
    pigment = pigment * (1 - np.float32(underside) * below)
    ground, ink = np.array(light, np.float32), np.array(dark, np.float32)
    skin = ground + (ink - ground) * pigment[..., None]
    skin = skin + (np.float32(0.10) * below * (1 - pigment))[..., None]
    hair = cv2.blur(rng.standard_normal((HEIGHT, WIDTH), dtype=np.float32), (7, 1))
    skin = skin * (1 + np.float32(0.07) * hair + np.float32(0.035) * smooth_noise(rng, 50))[..., None]
    _scars(rng, skin, int(rng.integers(2, 6)) if pattern == "plain" else int(rng.integers(0, 2)))
    return np.clip(skin, 0.01, 1).astype(np.float32)
