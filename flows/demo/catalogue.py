"""Writes a catalogue of drawn animals with planted errors, for `pairx demo` and for tests.

`metadata.csv` is an ordinary catalogue. `truth.csv` says what was planted where; only the scoring of the
demonstration reads it.
"""

from __future__ import annotations

import csv
import os
import struct
import zlib
from collections import defaultdict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import date, timedelta
from io import BytesIO
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from pairx_engine.toy.animal import (
    CATALOGUE_ANIMALS,
    FLANKS,
    SPECIES,
    Animal,
    DrawnPhoto,
    Encounter,
    Shot,
    draw_photo,
)

DEFAULT_ANIMALS = {"spots": 18, "stripes": 18, "blotches": 18, "plain": 10}
"""Coat pattern -> animals in the catalogue."""
METADATA_COLUMNS = (
    "image_id",
    "identity",
    "path",
    "species",
    "date",
    "encounter",
    "viewpoint",
    "x",
    "y",
    "w",
    "h",
)
TRUTH_COLUMNS = ("image_id", "true_identity", "planted", "detail")
BROKEN_KINDS = ("zero bytes", "truncated JPEG", "HTML page", "missing file", "box outside", "huge PNG header")
_ANIMALS_PER_SEED = 1000
_FIRST_DAY = date(2024, 3, 1)


@dataclass(frozen=True)
class Planting:
    """How much is planted: shares of all photos for wrong names and unknown animals, else counts."""

    wrong_name_share: float = 0.05
    unknown_share: float = 0.05
    copies: int = 6
    duplicates: int = 4
    broken: int = len(BROKEN_KINDS)

    def __post_init__(self) -> None:
        if not (0 <= self.wrong_name_share <= 0.3 and 0 <= self.unknown_share <= 0.5):
            raise ValueError(f"planting shares out of range in {self}; wrong names 0..0.3, unknown 0..0.5")
        if min(self.copies, self.duplicates, self.broken) < 0 or self.broken > len(BROKEN_KINDS):
            raise ValueError(f"planting counts out of range in {self}; broken is at most {len(BROKEN_KINDS)}")


@dataclass(frozen=True)
class DrawnCatalogue:
    """A written catalogue: its folder and tables, and its counts of animals, rows and planted rows."""

    root: Path
    metadata: Path
    truth: Path
    animals: int
    photos: int
    planted: dict[str, int]


@dataclass(frozen=True)
class _Sighting:
    """A row to write: the animal, the name it is filed under, date, encounter, and what is planted."""

    animal: Animal
    encounter: Encounter
    shot: Shot
    true_identity: str
    identity: str
    day: date
    label: str
    image_id: str = ""
    planted: str = ""
    detail: str = ""
    source_id: str = ""

    @property
    def path(self) -> str:
        return f"images/{self.image_id}.{'png' if self.detail == 'huge PNG header' else 'jpg'}"

    @property
    def encounter_key(self) -> tuple[int, str]:
        return self.animal.number, self.label


def _herd(seed: int, animals: dict[str, int], rng: np.random.Generator) -> list[tuple[Animal, str]]:
    """Every animal with its name; names are codes whose numbers carry no order."""
    first = CATALOGUE_ANIMALS.start + seed * _ANIMALS_PER_SEED
    herd: list[tuple[Animal, str]] = []
    for pattern, count in animals.items():
        codes = rng.permutation(np.arange(1, max(100, 2 * count)))[:count]
        herd += [
            (Animal(first + len(herd) + i, pattern), f"{SPECIES[pattern].code}-{code:03d}")
            for i, code in enumerate(codes)
        ]
    return herd


def _sightings(herd: list[tuple[Animal, str]], rng: np.random.Generator) -> list[_Sighting]:
    """2-4 encounters of 1-3 photos per animal; one flank is seen in at least two encounters."""
    sightings = []
    for animal, name in herd:
        usual = int(rng.integers(2))
        days = np.sort(rng.choice(700, int(rng.choice([2, 3, 4], p=[0.25, 0.5, 0.25])), replace=False))
        for number, offset in enumerate(days):
            seen = usual if number < 2 or rng.random() < 0.6 else 1 - usual
            for shot in range(int(rng.choice([1, 2, 3], p=[0.25, 0.5, 0.25]))):
                flank = FLANKS[1 - seen if shot and rng.random() < 0.12 else seen]
                sightings.append(
                    _Sighting(
                        animal,
                        Encounter(number),
                        Shot(shot, flank),
                        name,
                        name,
                        _FIRST_DAY + timedelta(days=int(offset)),
                        f"{animal.number}/{number}",
                    )
                )
    return sightings


def _findable(sightings: Sequence[_Sighting]) -> list[int]:
    """Indices of sightings whose animal also shows this flank in another encounter."""
    encounters = defaultdict(set)
    for s in sightings:
        encounters[s.animal, s.shot.flank].add(s.label)
    return [i for i, s in enumerate(sightings) if len(encounters[s.animal, s.shot.flank]) > 1]


def _another_name(s: _Sighting, herd: list[tuple[Animal, str]], rng: np.random.Generator) -> str:
    names = [name for animal, name in herd if animal.pattern == s.animal.pattern and name != s.true_identity]
    if not names:
        raise ValueError(
            f"only one animal of {s.animal.species.name}: no other name to misfile under; draw at least two"
        )
    return str(rng.choice(names))


def _plant_names(
    sightings: list[_Sighting], herd: list[tuple[Animal, str]], planting: Planting, rng: np.random.Generator
) -> list[_Sighting]:
    """File some photos under another name, mostly of patterned species; leave some unnamed."""
    planted = list(sightings)
    order = [int(i) for i in rng.permutation(_findable(sightings))]
    patterned = [i for i in order if sightings[i].animal.pattern != "plain"]
    count = round(planting.wrong_name_share * len(sightings))
    unpatterned = [i for i in order if sightings[i].animal.pattern == "plain"][: round(0.1 * count)]
    wrong: list[int] = []
    used: set[tuple[int, str]] = set()
    for i in unpatterned + patterned:
        if len(wrong) < count and sightings[i].encounter_key not in used:
            wrong.append(i)
            used.add(sightings[i].encounter_key)
    for i in wrong:
        planted[i] = replace(planted[i], identity=_another_name(planted[i], herd, rng), planted="wrong_name")
    free = [int(i) for i in rng.permutation(len(planted)) if not planted[i].planted]
    for i in free[: round(planting.unknown_share * len(planted))]:
        planted[i] = replace(planted[i], identity="")
    return planted


def _plant_files(
    sightings: list[_Sighting], herd: list[tuple[Animal, str]], planting: Planting, rng: np.random.Generator
) -> list[_Sighting]:
    """Add distorted copies under other names, exact duplicates under the same name, and broken files."""
    clean = [s for s in sightings if not s.planted and s.identity]
    patterned = [s for s in clean if s.animal.pattern != "plain"]
    if len(patterned) < planting.copies + planting.duplicates or len(clean) < planting.broken:
        raise ValueError(
            f"{len(clean)} clean photos are too few to plant {planting}; draw more animals or plant less"
        )
    chosen = [
        patterned[int(i)] for i in rng.permutation(len(patterned))[: planting.copies + planting.duplicates]
    ]
    added = []
    for n, source in enumerate(chosen):
        later = source.day + timedelta(days=int(rng.integers(20, 200)))
        copy = replace(
            source,
            day=later,
            label=f"{source.label}/again{n}",
            source_id=source.image_id,
            detail=source.image_id,
        )
        if n < planting.copies:
            added.append(replace(copy, planted="copy", identity=_another_name(source, herd, rng)))
        else:
            added.append(replace(copy, planted="duplicate"))
    for n, i in enumerate(rng.permutation(len(clean))[: planting.broken]):
        shot = replace(clean[int(i)].shot, number=90 + n)
        added.append(replace(clean[int(i)], shot=shot, planted="broken", detail=BROKEN_KINDS[n]))
    return sightings + added


def _numbered(sightings: list[_Sighting], rng: np.random.Generator, first: int) -> list[_Sighting]:
    numbers = rng.permutation(np.arange(first, first + len(sightings)))
    return [replace(s, image_id=f"D{int(n):05d}") for s, n in zip(sightings, numbers, strict=True)]


def _relabelled(sightings: list[_Sighting]) -> list[_Sighting]:
    """Number ids and encounters by date, so that neither shows which rows were added."""
    days = {s.label: s.day for s in sightings}
    labels = {
        label: f"E{i:04d}"
        for i, (_, label) in enumerate(sorted((day, label) for label, day in days.items()), 1)
    }
    ordered = sorted(sightings, key=lambda s: (s.day, labels[s.label], s.image_id))
    ids = {s.image_id: f"D{i:05d}" for i, s in enumerate(ordered, 1)}
    return [
        replace(
            s,
            image_id=ids[s.image_id],
            label=labels[s.label],
            source_id=ids.get(s.source_id, ""),
            detail=ids.get(s.detail, s.detail),
        )
        for s in ordered
    ]


def plan(seed: int, animals: dict[str, int], planting: Planting) -> tuple[_Sighting, ...]:
    """Every row of the catalogue, before anything is drawn; a pure function of its arguments."""
    if not 0 <= seed < len(CATALOGUE_ANIMALS) // _ANIMALS_PER_SEED:
        raise ValueError(f"seed {seed} is outside 0..{len(CATALOGUE_ANIMALS) // _ANIMALS_PER_SEED - 1}")
    if sum(animals.values()) > _ANIMALS_PER_SEED or min(animals.values(), default=0) < 0:
        raise ValueError(
            f"animals {animals}: counts must not be negative and sum to at most {_ANIMALS_PER_SEED}"
        )
    rng = np.random.default_rng([seed, 31])
    herd = _herd(seed, animals, rng)
    sightings = _numbered(_plant_names(_sightings(herd, rng), herd, planting, rng), rng, 0)
    everything = _plant_files(sightings, herd, planting, rng)
    added = _numbered(everything[len(sightings) :], rng, len(sightings))
    return tuple(_relabelled(everything[: len(sightings)] + added))


def _jpeg(photo: DrawnPhoto, quality: int) -> bytes:
    buffer = BytesIO()
    Image.fromarray(photo.pixels).save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def distorted(photo: DrawnPhoto, rng: np.random.Generator) -> DrawnPhoto:
    """An edited copy: turned by 3-15 degrees, cropped, recoloured; its box is changed along with it."""
    height, width = photo.pixels.shape[:2]
    x, y, w, h = photo.box
    angle = float(rng.uniform(3, 15) * rng.choice([-1, 1]))
    turn = cv2.getRotationMatrix2D((x + w / 2, y + h / 2), angle, float(rng.uniform(0.95, 1.15)))
    pixels = cv2.warpAffine(photo.pixels, turn, (width, height), borderMode=cv2.BORDER_REFLECT)
    margin = rng.uniform(-0.02, 0.06, 4)
    x0, y0 = max(0, int(x - margin[0] * w)), max(0, int(y - margin[1] * h))
    x1, y1 = min(width, int(x + w + margin[2] * w)), min(height, int(y + h + margin[3] * h))
    colour = rng.normal(1, 0.10, 3) * rng.uniform(0.75, 1.25)
    recoloured = np.clip(pixels[y0:y1, x0:x1] * colour + rng.uniform(-15, 15), 0, 255).astype(np.uint8)
    return DrawnPhoto(recoloured, (0, 0, x1 - x0, y1 - y0))


def _png_claiming(side: int) -> bytes:
    """A PNG whose header claims side x side RGB pixels; its data hold almost none."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(bytes(1000)))
        + chunk(b"IEND", b"")
    )


def _broken(kind: str, whole: bytes) -> bytes | None:
    """The bytes that a broken file holds instead of the `whole` JPEG; None = the file is not written."""
    makers: dict[str, Callable[[], bytes | None]] = {
        "zero bytes": lambda: b"",
        "truncated JPEG": lambda: whole[: len(whole) // 3],
        "HTML page": lambda: b"<!DOCTYPE html><html><body><h1>404 Not Found</h1></body></html>\n",
        "missing file": lambda: None,
        "box outside": lambda: whole,
        "huge PNG header": lambda: _png_claiming(30_000),
    }
    return makers[kind]()


def _drawn(s: _Sighting, quality_seed: int) -> tuple[bytes, tuple[int, int, int, int]]:
    photo = draw_photo(s.animal, s.encounter, s.shot)
    rng = np.random.default_rng([quality_seed, 33, s.animal.number, s.encounter.number, s.shot.number])
    quality = int(rng.integers(55, 96))
    if s.planted == "copy":
        photo, quality = distorted(photo, rng), int(rng.integers(45, 80))
    return _jpeg(photo, quality), photo.box


def _write_photo(root: Path, s: _Sighting, seed: int) -> tuple[int, int, int, int]:
    content, box = _drawn(s, seed)
    kept = _broken(s.detail, content) if s.planted == "broken" else content
    if kept is not None:
        (root / s.path).write_bytes(kept)
    return (5000, 5000, box[2], box[3]) if s.detail == "box outside" else box


def _write_csv(path: Path, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(rows)


def write_drawn_catalogue(
    out: Path,
    seed: int = 0,
    animals: dict[str, int] | None = None,
    planting: Planting | None = None,
    workers: int | None = None,
) -> DrawnCatalogue:
    """Draw a catalogue into the folder `out`: `images/`, `metadata.csv`, `truth.csv`.

    `animals` maps coat pattern to count (default 64 animals, about 380 photos); boxes are x, y, w, h in
    pixels of the photo. The same arguments give the same bytes. Raises ValueError for counts that cannot
    be met and FileExistsError when `out` already holds a catalogue.
    """
    out = Path(out)
    if (out / "metadata.csv").exists():
        raise FileExistsError(
            f"{out / 'metadata.csv'} exists; remove it or choose another folder for the drawn catalogue"
        )
    sightings = plan(seed, DEFAULT_ANIMALS if animals is None else animals, planting or Planting())
    (out / "images").mkdir(parents=True, exist_ok=True)
    by_animal = sorted(sightings, key=lambda s: (s.animal.number, s.shot.flank, s.image_id))
    with ThreadPoolExecutor(workers or os.cpu_count() or 1) as pool:
        drawn = pool.map(lambda s: _write_photo(out, s, seed), by_animal)
        boxes = {s.image_id: box for s, box in zip(by_animal, drawn, strict=True)}
    metadata, truth = out / "metadata.csv", out / "truth.csv"
    _write_csv(truth, TRUTH_COLUMNS, [(s.image_id, s.true_identity, s.planted, s.detail) for s in sightings])
    _write_csv(
        metadata,
        METADATA_COLUMNS,
        [
            (
                s.image_id,
                s.identity,
                s.path,
                s.animal.species.name,
                s.day.isoformat(),
                s.label,
                s.shot.flank,
                *boxes[s.image_id],
            )
            for s in sightings
        ],
    )
    counts = {
        kind: sum(s.planted == kind for s in sightings)
        for kind in ("wrong_name", "copy", "duplicate", "broken")
    }
    return DrawnCatalogue(out, metadata, truth, len({s.animal for s in sightings}), len(sightings), counts)
