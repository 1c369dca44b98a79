"""Planted files: distorted copies under other names, and bursts of nearly equal frames.

One frame of each burst is misnamed. The choice of photos, kinds and names is a pure function of the photos
and a seed. Files hold the cut that the model would see.
"""

from __future__ import annotations

import csv
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pairx_engine.photo.chips import cut_photo, decode_photo
from schemas.catalogue.boxes import Box
from tests.benchmarks.suspects.photos import words
from tests.benchmarks.suspects.planting import another_name, swappable

Pixels = NDArray[np.uint8]
Change = Callable[[Pixels, random.Random], Pixels]
FRAMES = 3
"""New frames of a burst, beside the photo that they are made of."""
_COLUMNS = ("image_id", "identity", "path", "species", "encounter", "viewpoint")
_FULL_QUALITY = 90


def turned(pixels: Pixels, degrees: float) -> Pixels:
    """Turned about its centre in a frame of the same size, edges reflected."""
    height, width = pixels.shape[:2]
    turn = cv2.getRotationMatrix2D((width / 2, height / 2), degrees, 1.0)
    return np.asarray(cv2.warpAffine(pixels, turn, (width, height), borderMode=cv2.BORDER_REFLECT), np.uint8)


def cropped(pixels: Pixels, share: float, rng: random.Random) -> Pixels:
    """A part of `share` of either side, somewhere."""
    height, width = pixels.shape[:2]
    h, w = max(1, round(share * height)), max(1, round(share * width))
    top, left = rng.randint(0, height - h), rng.randint(0, width - w)
    return pixels[top : top + h, left : left + w]


def halved(pixels: Pixels) -> Pixels:
    """Half as wide and high."""
    height, width = pixels.shape[:2]
    size = (max(1, width // 2), max(1, height // 2))
    return np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA), np.uint8)


def saved(pixels: Pixels, quality: int) -> bytes:
    """As a JPEG."""
    buffer = BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def recompressed(pixels: Pixels, quality: int) -> Pixels:
    """As it comes back from a JPEG."""
    return np.asarray(Image.open(BytesIO(saved(pixels, quality))), np.uint8)


def brightened(pixels: Pixels, factor: float) -> Pixels:
    """Every value times `factor`."""
    return np.clip(pixels.astype(np.float32) * factor, 0, 255).astype(np.uint8)


KINDS: dict[str, Change] = {
    "turned 90": lambda p, _: np.ascontiguousarray(np.rot90(p)),
    "turned 180": lambda p, _: np.ascontiguousarray(np.rot90(p, 2)),
    "turned 10": lambda p, rng: turned(p, rng.choice([-10, 10])),
    "cropped 80": lambda p, rng: cropped(p, 0.8, rng),
    "mirrored": lambda p, _: np.ascontiguousarray(p[:, ::-1]),
    "halved": lambda p, _: halved(p),
    "JPEG 30": lambda p, _: recompressed(p, 30),
    "brightness 30": lambda p, rng: brightened(p, rng.choice([0.7, 1.3])),
}
TWO = "two together"


def distorted(pixels: Pixels, kind: str, rng: random.Random) -> Pixels:
    """A copy of one kind; of `TWO`, two different kinds one after the other."""
    for one in sorted(rng.sample(sorted(KINDS), 2)) if kind == TWO else [kind]:
        pixels = KINDS[one](pixels, rng)
    return pixels


def frame(pixels: Pixels, rng: random.Random) -> Pixels:
    """The next frame of a burst.

    It is shifted by up to 3 % of either side, a little brighter or darker, and compressed again.
    """
    height, width = pixels.shape[:2]
    dx, dy = (rng.uniform(-0.03, 0.03) * side for side in (width, height))
    shift = np.array([[1, 0, dx], [0, 1, dy]], dtype=np.float32)
    moved = cv2.warpAffine(pixels, shift, (width, height), borderMode=cv2.BORDER_REFLECT)
    bright = brightened(np.asarray(moved, np.uint8), rng.uniform(0.95, 1.05))
    return recompressed(bright, rng.randint(60, 90))


@dataclass(frozen=True)
class Source:
    """A photo that copies are made of, with its trusted name."""

    photo_id: str
    root: str
    path: str
    box: Box | None
    theta: float
    name: str
    species: str | None
    viewpoint: str | None


@dataclass(frozen=True)
class Extra:
    """A planted file: of which photo, of what kind, and the name that it bears."""

    photo_id: str
    source: Source
    kind: str
    name: str
    encounter: str | None = None

    @property
    def wrong(self) -> bool:
        """Whether it is misnamed."""
        return self.name != self.source.name


def planted_copies(sources: Sequence[Source], seed: int, each: int = 2) -> list[Extra]:
    """`each` copies of every kind, each of another photo and under another name of its species."""
    rng = random.Random(f"copies-{seed}")
    chosen, name = _chosen(sources, rng, each * (len(KINDS) + 1))
    kinds = [kind for kind in (*KINDS, TWO) for _ in range(each)]
    return [
        Extra(f"copy-{seed}-{i:02d}", source, kind, name(source))
        for i, (kind, source) in enumerate(zip(kinds, chosen, strict=True))
    ]


def planted_bursts(sources: Sequence[Source], seed: int, count: int = 6) -> list[Extra]:
    """Bursts of `FRAMES` new frames, the last under another name.

    The frames of every second burst are of one encounter.
    """
    rng = random.Random(f"bursts-{seed}")
    chosen, name = _chosen(sources, rng, count)
    return [
        Extra(
            f"burst-{seed}-{i:02d}-{k}",
            source,
            "frame",
            name(source) if k == FRAMES - 1 else source.name,
            f"burst-{seed}-{i}" if i % 2 else None,
        )
        for i, source in enumerate(chosen)
        for k in range(FRAMES)
    ]


def _chosen(
    sources: Sequence[Source], rng: random.Random, count: int
) -> tuple[list[Source], Callable[[Source], str]]:
    """`count` photos of animals with three photos, and what gives each the name of another animal.

    A photo comes more than once where there are fewer.
    """
    animals = swappable(words([s.name for s in sources]))
    species_of = {s.name: s.species for s in sources}
    lonely = {a for a in animals if sum(species_of[b] == species_of[a] for b in animals) < 2}
    able = sorted(
        (s for s in sources if s.name in animals and s.name not in lonely), key=lambda s: s.photo_id
    )
    drawn = rng.sample(able, min(count, len(able)))
    repeated = [drawn[i % len(drawn)] for i in range(count)]
    return repeated, lambda source: another_name(source.name, animals, species_of, rng)


def write_extras(folder: Path, extras: Sequence[Extra], max_pixels: int) -> Path:
    """Write files of the extras and their `metadata.csv` into a folder, each once.

    Returns the catalogue.
    """
    metadata = folder / "metadata.csv"
    if metadata.exists():
        return metadata
    (folder / "images").mkdir(parents=True, exist_ok=True)
    for extra in extras:
        (folder / f"images/{extra.photo_id}.jpg").write_bytes(_file(extra, max_pixels))
    rows = [
        (e.photo_id, e.name, f"images/{e.photo_id}.jpg", e.source.species, e.encounter, e.source.viewpoint)
        for e in extras
    ]
    part = metadata.with_suffix(".part")
    with part.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(_COLUMNS)
        writer.writerows(["" if cell is None else cell for cell in row] for row in rows)
    part.replace(metadata)
    return metadata


def _file(extra: Extra, max_pixels: int) -> bytes:
    source, rng = extra.source, random.Random(extra.photo_id)
    photo = decode_photo(Path(source.root, source.path).read_bytes(), max_pixels)
    pixels = np.asarray(cut_photo(photo, source.box, source.theta), np.uint8)
    changed = frame(pixels, rng) if extra.kind == "frame" else distorted(pixels, extra.kind, rng)
    return saved(changed, 30 if extra.kind == "JPEG 30" else _FULL_QUALITY)


def source_of(row: Mapping[str, object], name: str) -> Source:
    """The source that a row of table `photos` is, under its trusted name."""
    lean = {key: row[key] for key in ("photo_id", "root", "path", "theta", "species", "viewpoint")}
    box = row["box"]
    return replace(Source(**lean, box=None, name=name), box=None if box is None else tuple(box))  # type: ignore[arg-type]
