"""Hand-made warehouses with real pictures: one question of each kind, or ten thousand."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from schemas.tables.registry import TABLES
from tasks.reviews.opened import opened
from tasks.store.warehouse import Warehouse
from tests.toy_warehouse import FINGERPRINTS, Pair, Photo, Toy, pair_key, run_row, write_judgement

NAMES = {"A": "A", "B": "B", "C": "C", "D": "D"}
TWO_NAMES, TWO_ANIMALS = "two_names_one_animal", "one_name_two_animals"


@dataclass(frozen=True)
class Shot(Photo):
    """A photo whose file is really there: picture `number` in `folder`."""

    folder: str = ""
    number: int = 0

    def row(self) -> dict[str, Any]:
        path = f"{self.number}.jpg"
        data = _drawn(self.folder, path, self.number)
        box = [10.0, 20.0, 80.0, 60.0]
        return super().row() | {
            "root": self.folder, "path": path, "sha256": data, "width": 120, "height": 100, "box": box, "theta": 0.3,
        }  # fmt: skip


@cache
def _drawn(folder: str, name: str, number: int) -> str:
    """Draw a picture that is like no other and return the hash of its file."""
    values = np.random.default_rng(number).integers(0, 255, (10, 12, 3), dtype=np.uint8)
    place = Path(folder, name)
    place.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).resize((120, 100), Image.Resampling.BICUBIC).save(place, quality=90)
    return hashlib.sha256(place.read_bytes()).hexdigest()


def reviewed(folder: Path, names: Mapping[str, str] | None = None) -> Warehouse:
    """Twelve photos of four names, and questions in this order.

    c1: is C two animals (.98; c1 c2 against c0); a0 (.9), named A, B's by b1; names B and C (.8); b2 (.7), named B,
    C's by c2: an echo of the names; a0 as a partner of d0 (.6), named D, A's; and a copy a1, c1 (.995), which leads.
    """
    called = {**NAMES, **(names or {})}
    ids = [f"{letter.lower()}{i}" for letter in NAMES for i in range(3)]
    shots = {
        photo: Shot(photo, called[photo[0].upper()], folder=str(folder / "photos"), number=n)
        for n, photo in enumerate(ids)
    }
    alike_pictures = Pair("a1", "c1", 0.95, n_inliers=60, hash_distance=3)
    pairs = [Pair(a, b, 0.8 if a[0] == b[0] else 0.4) for a, b in itertools.combinations(ids, 2)]
    pairs = [alike_pictures if (pair.a, pair.b) == ("a1", "c1") else pair for pair in pairs]
    made = Toy(list(shots.values()), pairs, top_k=20, same_name_k=5).write(Warehouse(str(folder / "w")))
    doubts = {
        "a0": {"probability": 0.9, "proposed_name": called["B"]},
        "b2": {"probability": 0.7, "proposed_name": called["C"]},
        "d0": {"probability": 0.6, "proposed_name": called["A"]},
    }
    alike = {(a, b): 0.95 if a[0] == b[0] else 0.02 for a, b in itertools.combinations(ids, 2)}
    alike |= {("a0", "b1"): 0.8, ("b2", "c2"): 0.75, ("a0", "d0"): 0.7}
    told = [
        _judged(TWO_NAMES, called["B"], called["C"], "b0 b1 b2", "c0 c1 c2", 0.8),
        _judged(TWO_ANIMALS, called["C"], called["B"], "c1 c2", "c0", 0.98),
    ]
    write_judgement(made, shots.values(), doubts, alike, told, 60)
    copy = {
        **pair_key(shots["a1"], shots["c1"]), "hash_distance": 3, "transform": "mirrored,cropped", "mirrored": True,
        "matrix": None, "agreement": 0.995, "weakest": 0.9, "overlap": 1.0, "inliers": 40, "same_picture": True,
    }  # fmt: skip
    made.write("copies", FINGERPRINTS["copies"], "basis60", [copy])
    return made


def earlier_runs(warehouse: Warehouse, *known: Collection[str]) -> list[str]:
    """Give a warehouse of `reviewed` runs before its own, each with the suspects of some kinds; ids, the last first.

    Each is a day before the one given before it.
    """
    with opened(warehouse, ["suspects"]) as connection:
        rows = connection.sql("FROM suspects").to_arrow_table().to_pylist()
    columns = set(TABLES["suspects"].schema.names)
    stored = [{name: value for name, value in row.items() if name in columns} for row in rows]
    ids = []
    for number, kinds in enumerate([None, *known]):
        state = f"s{number}" if number else "s"
        of_run = [row | {"state": state} for row in stored if kinds is None or row["kind"] in kinds]
        warehouse.write("suspects", FINGERPRINTS["suspects"], f"state{number}", of_run)
        if kinds is not None:
            ids.append(f"r0-{number}")
            at = datetime(2026, 1, 9, 3, tzinfo=UTC) - timedelta(days=number)
            row = run_row(ids[-1], "finished", at, Toy([], [])) | {"state": state}
            warehouse.write("runs", "all", f"{ids[-1]}-finished", [row])
    return ids


def many(folder: Path, count: int) -> Warehouse:
    """`count` photos under a wrong name, in names of ten, each with a pair of the proposed name and of its own."""
    shots = [
        Shot(f"p{i:05}", f"name {i // 10:04}", f"e{i}", folder=str(folder / "photos"), number=i % 60)
        for i in range(count)
    ]
    others = [(i, (i * 7 + 13) % count) for i in range(count)]
    pairs, alike = {}, {}
    for i, j in others:
        own = i + 1 if i % 10 < 9 else i - 1
        for a, b, cosine, probability in ((i, j, 0.7, 0.8), (i, own, 0.5, 0.1)):
            low, high = sorted((shots[a].photo_id, shots[b].photo_id))
            if low != high:
                pairs[low, high], alike[low, high] = Pair(low, high, cosine), probability
    made = Toy(shots, list(pairs.values()), top_k=20, same_name_k=5).write(Warehouse(str(folder / "w")))
    doubts = {
        shots[i].photo_id: {
            "probability": 0.5 + 0.49 * (i * 31 % count) / count,
            "proposed_name": shots[j].identity,
        }
        for i, j in others
    }
    write_judgement(made, shots, doubts, alike, (), 1)
    return made


def _judged(kind: str, a: str, b: str, photos_a: str, photos_b: str, probability: float) -> dict[str, Any]:
    one, two = photos_a.split(), photos_b.split()
    return {
        "kind": kind, "name_a": a, "name_b": b, "photos_a": one, "photos_b": two, "log_odds": 1.0, "pairs": 9,
        "probability": probability, "supporting_photos_a": one[:1], "supporting_photos_b": two[:1],
        "supporting_pairs": ["never scored"],
    }  # fmt: skip
