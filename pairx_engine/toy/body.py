"""The shape of a drawn animal.

It consists of joints and bones, poses, and the map from a posed picture back to the coat.

Frame: the coat plane is 512 x 384 pixels, x to the right, y down, the animal seen from its left side (head at
the left) in its rest pose. A bone is a tapered capsule between two joints. A posed body is the smooth union
of its bones' signed distance fields. Each pixel of it knows which point of the coat plane it shows, by the
bones' inverse motions, blended by nearness. So a mark on the coat moves with the skin, and local features of
two photos of one flank truly correspond.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

WIDTH, HEIGHT = 512, 384
GRID = 2
"""Pixels of the coat plane per cell of the coarse grid on which the body is solved."""
_UNION_PX = 5.0
_BLEND_PX = 9.0

BONES: tuple[tuple[str, str, str], ...] = (
    ("trunk_fore", "chest", "belly"),
    ("trunk_hind", "belly", "rump"),
    ("neck", "withers", "poll"),
    ("head", "brow", "muzzle"),
    ("fore_upper", "shoulder", "knee"),
    ("fore_lower", "knee", "fore_hoof"),
    ("hind_upper", "hip", "hock"),
    ("hind_lower", "hock", "hind_hoof"),
)
"""(bone, joint at its start, joint at its end) of the near side; the far legs reuse the leg bones."""


@dataclass(frozen=True)
class Build:
    """The joints of one kind of body at rest, and its extras.

    `joints`: name -> (x, y, radius), in pixels of the coat plane.
    """

    joints: dict[str, tuple[float, float, float]]
    mane: bool = False
    horns: bool = False
    ear_px: float = 20.0
    tail_px: float = 4.0
    tuft_px: float = 6.0

    def __post_init__(self) -> None:
        needed = {joint for _, a, b in BONES for joint in (a, b)} | {"dock", "tail_mid", "tail_tip"}
        if missing := sorted(needed - set(self.joints)):
            raise ValueError(f"body build lacks the joints {missing}; name each one with (x, y, radius)")

    def at(self, joint: str) -> Floats:
        """Position (2,) of a joint at rest."""
        return np.array(self.joints[joint][:2], np.float32)


@dataclass(frozen=True)
class Pose:
    """Angles in radians (positive turns clockwise on screen) and the bend of the whole body.

    `legs` maps near_fore, near_hind, far_fore, far_hind to (upper, lower) angles. `bend` holds (dx, dy,
    phase): the amplitude in pixels and the phase of a slow wave that displaces the skin.
    """

    neck: float = 0.0
    head: float = 0.0
    tail: float = 0.0
    legs: dict[str, tuple[float, float]] = field(default_factory=dict)
    bend: tuple[float, float, float] = (0.0, 0.0, 0.0)


def draw_pose(rng: np.random.Generator) -> Pose:
    """A random plausible pose: standing or walking, head up, level or lowered."""
    stride = rng.uniform(-0.30, 0.30)
    legs = {
        "near_fore": (stride + rng.normal(0, 0.04), rng.uniform(-0.12, 0.04)),
        "near_hind": (-stride + rng.normal(0, 0.04), rng.uniform(-0.04, 0.12)),
        "far_fore": (-stride + rng.normal(0, 0.07), rng.uniform(-0.12, 0.04)),
        "far_hind": (stride + rng.normal(0, 0.07), rng.uniform(-0.04, 0.12)),
    }
    return Pose(
        neck=float(rng.uniform(-0.40, 0.22)),
        head=float(rng.uniform(-0.25, 0.20)),
        tail=float(rng.uniform(-0.35, 0.25)),
        legs=legs,
        bend=(float(rng.normal(0, 3.0)), float(rng.normal(0, 4.5)), float(rng.uniform(0, 2 * np.pi))),
    )


@dataclass(frozen=True)
class Surface:
    """A posed layer on the coat plane's own grid, each (384, 512) float32.

    `x`, `y`: the point of the coat plane shown here. `depth`: distance in pixels inside the outline (negative
    outside).
    """

    x: Floats
    y: Floats
    depth: Floats


def bend_at(bend: tuple[float, float, float], x: Floats, y: Floats) -> tuple[Floats, Floats]:
    """Displacement (dx, dy) in pixels that the bend adds at (x, y): one slow wave along the body."""
    turn = np.float32(2 * np.pi / WIDTH)
    along, across = turn * x + np.float32(bend[2]), turn * y - np.float32(bend[2])
    return np.float32(bend[0]) * np.sin(across * 1.5), np.float32(bend[1]) * np.sin(along * 1.3)


def turned(pivot: Floats, angle: float) -> Floats:
    """The (3, 3) rotation by `angle` radians about `pivot` (x, y)."""
    cos, sin = np.cos(angle), np.sin(angle)
    x, y = pivot
    return np.array(
        [[cos, -sin, x - cos * x + sin * y], [sin, cos, y - sin * x - cos * y], [0, 0, 1]], np.float32
    )


def motions(build: Build, pose: Pose, side: str) -> dict[str, Floats]:
    """Each bone's motion (3, 3) from rest to the pose; `side` is "near" or "far" and picks the legs."""
    still = np.eye(3, dtype=np.float32)
    neck = turned(build.at("withers"), pose.neck)
    moves = {
        "trunk_fore": still,
        "trunk_hind": still,
        "neck": neck,
        "head": neck @ turned(build.at("poll"), pose.head),
    }
    for leg, top, joint in (("fore", "shoulder", "knee"), ("hind", "hip", "hock")):
        upper, lower = pose.legs.get(f"{side}_{leg}", (0.0, 0.0))
        moves[f"{leg}_upper"] = turned(build.at(top), upper)
        moves[f"{leg}_lower"] = moves[f"{leg}_upper"] @ turned(build.at(joint), lower)
    return moves


def _capsule(
    x: Floats, y: Floats, start: tuple[float, float, float], end: tuple[float, float, float]
) -> Floats:
    (ax, ay, ar), (bx, by, br) = start, end
    dx, dy = np.float32(bx - ax), np.float32(by - ay)
    rx, ry = x - np.float32(ax), y - np.float32(ay)
    t = np.clip((rx * dx + ry * dy) / (dx * dx + dy * dy), np.float32(0), np.float32(1))
    rx -= t * dx
    ry -= t * dy
    return np.sqrt(rx * rx + ry * ry) - (np.float32(ar) + t * np.float32(br - ar))


def _grid() -> tuple[Floats, Floats]:
    xs = np.arange(WIDTH // GRID, dtype=np.float32) * GRID + (GRID - 1) / 2
    ys = np.arange(HEIGHT // GRID, dtype=np.float32) * GRID + (GRID - 1) / 2
    x, y = np.meshgrid(xs, ys)
    return x, y


def solve(build: Build, pose: Pose, side: str) -> Surface:
    """The posed layer of one side on the coarse grid (192, 256).

    The near side is the whole body, the far side the two far legs.
    """
    x, y = _grid()
    dx, dy = bend_at(pose.bend, x, y)
    x, y = x + dx, y + dy
    moves = motions(build, pose, side)
    union, weight, u, v = (np.zeros_like(x) for _ in range(4))
    for bone, start, end in BONES:
        if side == "far" and not bone.startswith(("fore", "hind")):
            continue
        back = np.linalg.inv(moves[bone]).astype(np.float32)
        rest_x = back[0, 0] * x + back[0, 1] * y + back[0, 2]
        rest_y = back[1, 0] * x + back[1, 1] * y + back[1, 2]
        distance = np.minimum(
            _capsule(rest_x, rest_y, build.joints[start], build.joints[end]), np.float32(200)
        )
        union += np.exp(-distance / np.float32(_UNION_PX))
        share = np.exp(-distance / np.float32(_BLEND_PX))
        weight += share
        u += share * rest_x
        v += share * rest_y
    return Surface(u / weight, v / weight, np.float32(_UNION_PX) * np.log(union))


def rest_shares(build: Build) -> tuple[list[str], Floats]:
    """Names of the bones and their blend shares (bones, 384, 512) on the body at rest.

    The shares sum to one.
    """
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH].astype(np.float32)
    shares = np.stack(
        [
            np.exp(
                -np.minimum(_capsule(x, y, build.joints[a], build.joints[b]), np.float32(300))
                / np.float32(2 * _BLEND_PX)
            )
            for _, a, b in BONES
        ]
    )
    return [bone for bone, _, _ in BONES], shares / shares.sum(0)
