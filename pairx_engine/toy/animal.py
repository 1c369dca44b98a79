"""Drawn animals: four species, any number of animals, and photos of them.

Everything follows from integers: the numbers of the animal, the encounter and the shot. The animals on which
the shipped model was trained and those that a catalogue shows never share a number.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

import cv2
import numpy as np

from pairx_engine.toy.body import Build, Floats, draw_pose
from pairx_engine.toy.coat import Colour, paint
from pairx_engine.toy.figure import Figure, draw_figure, mark_face_and_hooves
from pairx_engine.toy.scene import Pixels, Scene, backdrop, cast_shadow, draw_scene, expose, plants_in_front

CATALOGUE_ANIMALS = range(0, 1_000_000)
"""Numbers of animals that drawn catalogues may show."""
TRAINING_ANIMALS = range(1_000_000, 2_000_000)
"""Numbers of animals that models may be trained on."""

FLANKS = ("left", "right")


@dataclass(frozen=True)
class Species:
    """One species: body, coat pattern and colours (RGB 0..1).

    `underside` (0..1) is how far the pattern fades there.
    """

    name: str
    code: str
    build: Build
    pattern: str
    light: Colour
    dark: Colour
    underside: float


_Joints = dict[str, tuple[float, float, float]]

_HORSE: _Joints = {
    "chest": (186, 178, 56),
    "belly": (258, 184, 59),
    "rump": (334, 174, 56),
    "withers": (176, 158, 44),
    "poll": (100, 92, 25),
    "brow": (96, 90, 25),
    "muzzle": (52, 134, 15),
    "shoulder": (184, 208, 26),
    "knee": (178, 284, 12),
    "fore_hoof": (178, 352, 8),
    "hip": (344, 200, 38),
    "hock": (358, 282, 13),
    "hind_hoof": (350, 352, 8),
    "dock": (386, 152, 6),
    "tail_mid": (404, 205, 5),
    "tail_tip": (404, 250, 5),
}
_CAT: _Joints = _HORSE | {
    "chest": (176, 186, 52),
    "belly": (262, 188, 47),
    "rump": (352, 182, 48),
    "withers": (160, 168, 38),
    "poll": (104, 128, 27),
    "brow": (94, 122, 26),
    "muzzle": (68, 142, 14),
    "shoulder": (174, 210, 28),
    "knee": (172, 282, 15),
    "fore_hoof": (166, 346, 11),
    "hip": (358, 202, 38),
    "hock": (374, 284, 14),
    "hind_hoof": (362, 346, 11),
    "dock": (396, 166, 8),
    "tail_mid": (444, 206, 7),
    "tail_tip": (470, 262, 6),
}
_TALL: _Joints = _HORSE | {
    "chest": (204, 200, 56),
    "belly": (264, 200, 54),
    "rump": (326, 194, 52),
    "withers": (196, 176, 46),
    "poll": (118, 52, 22),
    "brow": (112, 50, 22),
    "muzzle": (66, 78, 13),
    "shoulder": (200, 226, 28),
    "knee": (196, 298, 13),
    "fore_hoof": (196, 362, 9),
    "hip": (336, 216, 36),
    "hock": (346, 298, 13),
    "hind_hoof": (340, 362, 9),
    "dock": (374, 176, 6),
    "tail_mid": (388, 226, 4),
    "tail_tip": (388, 270, 4),
}
_DEER: _Joints = _HORSE | {
    "chest": (190, 182, 50),
    "belly": (258, 186, 51),
    "rump": (334, 176, 49),
    "withers": (180, 166, 36),
    "poll": (124, 104, 21),
    "brow": (118, 100, 22),
    "muzzle": (78, 126, 12),
    "shoulder": (186, 208, 24),
    "knee": (182, 288, 10),
    "fore_hoof": (182, 356, 6),
    "hip": (342, 198, 34),
    "hock": (356, 286, 10),
    "hind_hoof": (348, 356, 6),
    "dock": (378, 156, 7),
    "tail_mid": (390, 180, 6),
    "tail_tip": (392, 200, 4),
}

SPECIES: dict[str, Species] = {
    species.pattern: species
    for species in (
        Species(
            "spotted cat",
            "SP",
            Build(_CAT, ear_px=13, tail_px=7, tuft_px=7),
            "spots",
            (0.80, 0.64, 0.40),
            (0.14, 0.10, 0.08),
            0.35,
        ),
        Species(
            "striped horse",
            "ST",
            Build(_HORSE, mane=True, ear_px=19),
            "stripes",
            (0.86, 0.82, 0.75),
            (0.13, 0.11, 0.11),
            0.35,
        ),
        Species(
            "blotched giraffe",
            "BL",
            Build(_TALL, mane=True, ear_px=17),
            "blotches",
            (0.87, 0.78, 0.61),
            (0.43, 0.24, 0.12),
            0.25,
        ),
        Species(
            "plain antelope",
            "PL",
            Build(_DEER, horns=True, ear_px=20),
            "plain",
            (0.80, 0.66, 0.47),
            (0.44, 0.29, 0.18),
            0.9,
        ),
    )
}
"""Coat pattern -> the species that has it."""


@dataclass(frozen=True)
class Animal:
    """One animal; its number seeds its coats (each flank has its own), its colours and its proportions."""

    number: int
    pattern: str

    def __post_init__(self) -> None:
        if self.pattern not in SPECIES:
            raise ValueError(f"unknown coat pattern {self.pattern!r}; known are {sorted(SPECIES)}")
        if self.number not in CATALOGUE_ANIMALS and self.number not in TRAINING_ANIMALS:
            raise ValueError(f"animal number {self.number} is outside 0..{TRAINING_ANIMALS.stop - 1}")

    @property
    def species(self) -> Species:
        """The species that has this animal's pattern."""
        return SPECIES[self.pattern]


@dataclass(frozen=True)
class Encounter:
    """One meeting with an animal: a date, a place, a light. Numbers count per animal."""

    number: int


@dataclass(frozen=True)
class Shot:
    """One press of the shutter in an encounter.

    `flank` is the flank that it shows; at "left" the head is at the photo's left.
    """

    number: int
    flank: str

    def __post_init__(self) -> None:
        if self.flank not in FLANKS:
            raise ValueError(f"unknown flank {self.flank!r}; use 'left' or 'right'")


@dataclass(frozen=True)
class DrawnPhoto:
    """A drawn photo, and the box of its animal.

    `pixels` (height, width, 3) uint8 RGB; `box` = (x, y, w, h) in whole pixels, loose as a detector's; `cover`
    (height, width) uint8 is 255 on the animal, plants in front of it included, and 0 elsewhere; None of a photo
    that was changed since.
    """

    pixels: Pixels
    box: tuple[int, int, int, int]
    cover: Pixels | None = None


def _build(animal: Animal) -> Build:
    rng = np.random.default_rng([animal.number, 11])
    build = animal.species.build
    joints = {
        joint: (x + float(rng.normal(0, 1.5)), y + float(rng.normal(0, 1.5)), r * float(rng.normal(1, 0.03)))
        for joint, (x, y, r) in build.joints.items()
    }
    return replace(build, joints=joints)


@lru_cache(maxsize=16)
def skin(animal: Animal, flank: str) -> Pixels:
    """The animal's coat on one flank (384, 512, 3), uint8 RGB, on the coat plane; read-only."""
    tones = np.random.default_rng([animal.number, 12])
    light, dark = (
        tuple(np.clip(np.array(c) * tones.normal(1, 0.02, 3) * tones.normal(1, 0.06), 0.02, 0.95))
        for c in (animal.species.light, animal.species.dark)
    )
    rng = np.random.default_rng([animal.number, 13, FLANKS.index(flank)])
    build = _build(animal)
    painted = mark_face_and_hooves(
        paint(animal.pattern, build, light, dark, rng, animal.species.underside), build
    )
    pixels = np.round(painted * 255).astype(np.uint8)
    pixels.flags.writeable = False
    return pixels


def _camera(figure: Figure, scene: Scene, mirror: bool, rng: np.random.Generator) -> Floats:
    """Homography (3, 3) from the coat plane to the photo.

    It holds size, foreshortening, tilt, perspective and placement.
    """
    width, height = scene.size
    columns, rows = np.flatnonzero(figure.cover.max(0) > 127), np.flatnonzero(figure.cover.max(1) > 127)
    left, right, top, bottom = columns[0], columns[-1] + 1, rows[0], rows[-1] + 1
    squeeze = rng.uniform(0.86, 1.0)
    scale = rng.uniform(0.72, 0.97) * min(width / ((right - left) * squeeze), height / (bottom - top))
    centre = np.array([[1, 0, -(left + right) / 2], [0, 1, -(top + bottom) / 2], [0, 0, 1]])
    size = np.diag([scale * squeeze * (-1 if mirror else 1), scale, 1])
    tilt = rng.normal(0, 0.06)
    turn = np.array([[np.cos(tilt), -np.sin(tilt), 0], [np.sin(tilt), np.cos(tilt), 0], [0, 0, 1]])
    shear = np.array([[1, rng.normal(0, 0.05), 0], [rng.normal(0, 0.03), 1, 0], [0, 0, 1]])
    reach = 0.5 * max(width, height)
    perspective = np.array(
        [[1, 0, 0], [0, 1, 0], [rng.normal(0, 0.07) / reach, rng.normal(0, 0.04) / reach, 1]]
    )
    spare_x, spare_y = width - (right - left) * scale * squeeze, height - (bottom - top) * scale
    x, y = width / 2 + rng.uniform(-0.5, 0.5) * spare_x, height / 2 + rng.uniform(-0.15, 0.5) * spare_y
    place = np.array([[1, 0, x], [0, 1, y], [0, 0, 1]])
    return (place @ perspective @ turn @ shear @ size @ centre).astype(np.float32)


def _loose(
    box: tuple[float, float, float, float], size: tuple[int, int], rng: np.random.Generator
) -> tuple[int, int, int, int]:
    x, y, w, h = box
    slack = rng.normal(0.015, 0.02, 4)
    x0, y0 = max(0, int(x - slack[0] * w)), max(0, int(y - slack[1] * h))
    x1, y1 = (
        min(size[0], int(np.ceil(x + w + slack[2] * w))),
        min(size[1], int(np.ceil(y + h + slack[3] * h))),
    )
    return x0, y0, x1 - x0, y1 - y0


def draw_photo(animal: Animal, encounter: Encounter, shot: Shot) -> DrawnPhoto:
    """The photo that this shot of this encounter took of this animal.

    The same arguments give the same pixels.
    """
    place = np.random.default_rng([animal.number, encounter.number, 21])
    scene = draw_scene(place)
    rng = np.random.default_rng([animal.number, encounter.number, shot.number, 22])
    figure = draw_figure(_build(animal), draw_pose(rng), skin(animal, shot.flank))
    width, height = scene.size
    to_photo = _camera(figure, scene, shot.flank == "right", rng)
    layer = cv2.warpPerspective(figure.rgba, to_photo, (width, height), flags=cv2.INTER_LINEAR)
    cover = layer[..., 3]
    columns, rows = np.flatnonzero(cover.max(0) > 127), np.flatnonzero(cover.max(1) > 127)
    box = (
        float(columns[0]),
        float(rows[0]),
        float(columns[-1] + 1 - columns[0]),
        float(rows[-1] + 1 - rows[0]),
    )
    drift = (float(rng.normal(0, 0.03) * width), float(rng.normal(0, 0.01) * height))
    behind = cast_shadow(
        backdrop(scene, drift),
        (box[0] + 0.58 * box[2], box[1] + 0.98 * box[3]),
        0.8 * box[2],
        float(rng.uniform(0.2, 0.55)),
    )
    window = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    share = cover[window].astype(np.float32)[..., None] / 255
    behind[window] = layer[window][..., :3] * share + behind[window] * (1 - share)
    picture = plants_in_front(behind, scene, box, rng)
    return DrawnPhoto(expose(picture, scene, rng), _loose(box, scene.size, rng), cover)
