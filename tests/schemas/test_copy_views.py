"""The views of copies: who is looked at closely, and verdicts of current chips with today's names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import duckdb
import pytest

from schemas.thresholds import FEW_COPIES, MANY_INLIERS, NEAR_IDENTICAL_BITS
from schemas.views.install import install_views
from tasks.check.findings import check
from tasks.store.warehouse import Warehouse
from tests.toy_warehouse import FINGERPRINTS, Pair, Photo, Toy, pair_key

OTHERS = 5


def ask(warehouse: Warehouse, query: str) -> list[tuple[Any, ...]]:
    with duckdb.connect() as connection:
        install_views(connection, warehouse)
        return connection.execute(query).fetchall()


def verdict(a: Photo, b: Photo, **changes: Any) -> dict[str, Any]:
    return {
        **pair_key(a, b), "hash_distance": 3, "transform": "mirrored, cropped", "mirrored": True,
        "matrix": [1.0, 0, 0, 0, 1, 0], "agreement": 0.99, "weakest": 0.97, "overlap": 1.0, "inliers": 40,
        "same_picture": True, **changes,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("pair", "looked_at"),
    [
        ({"cosine": 0.9}, True),
        ({"cosine": 0.1}, False),
        ({"cosine": 0.1, "hash_distance": NEAR_IDENTICAL_BITS}, True),
        ({"cosine": 0.1, "n_inliers": MANY_INLIERS}, True),
        ({"cosine": 0.1, "n_inliers": MANY_INLIERS - 1}, False),
    ],
    ids=str,
)
def test_nearest_near_identical_or_well_matched_pairs_are_looked_at(
    tmp_path: Path, pair: dict[str, Any], looked_at: bool
) -> None:
    assert OTHERS > FEW_COPIES
    photos = [Photo("a", "A"), Photo("b", "B")] + [Photo(f"x{i}", "C") for i in range(OTHERS)]
    pairs = [Pair("a", "b", **pair)] + [Pair(p, f"x{i}", 0.5 + i / 100) for p in "ab" for i in range(OTHERS)]
    toy = Toy(photos, pairs, top_k=2 * OTHERS).write(Warehouse(str(tmp_path)))
    found = ask(toy, "SELECT photo_a, photo_b FROM copy_candidates")
    assert (("a", "b") in found) is looked_at
    renamed = [Photo(p.photo_id, "D") for p in photos]
    again = Toy(renamed, pairs, top_k=2 * OTHERS).write(Warehouse(str(tmp_path / "renamed")))
    assert sorted(ask(again, "SELECT photo_a, photo_b FROM copy_candidates")) == sorted(found)


def test_the_view_has_names_of_today_and_chips_of_today(tmp_path: Path) -> None:
    a, b, c = Photo("a", "A"), Photo("b", "B"), Photo("c", None)
    pairs = [Pair("a", "b", 0.9), Pair("b", "c", 0.8)]
    warehouse = Toy([a, b, c], pairs).write(Warehouse(str(tmp_path)))
    old = Photo("c", None, content="before")
    rows = [verdict(a, b), verdict(b, c, same_picture=False), verdict(a, old)]
    # A killed run may leave a pair twice.
    warehouse.write("copies", FINGERPRINTS["copies"], "s1", rows)
    warehouse.write("copies", FINGERPRINTS["copies"], "s2", rows[:1])
    columns = "photo_a, photo_b, identity_a, identity_b, same_identity, transform, mirrored, same_picture"
    assert ask(warehouse, f"SELECT {columns} FROM copies ORDER BY photo_a") == [
        ("a", "b", "A", "B", False, "mirrored, cropped", True, True),
        ("b", "c", "B", None, None, "mirrored, cropped", True, False),
    ]
    assert not check(warehouse, quick=True).problems


def test_a_mirrored_copy_beyond_every_rank_is_a_current_pair(tmp_path: Path) -> None:
    photos = [Photo("a", "A"), Photo("b", "B"), *(Photo(f"x{i}", "C") for i in range(3))]
    pairs = [Pair("a", "b", 0.1)] + [Pair(p, f"x{i}", 0.9) for p in "ab" for i in range(3)]
    toy = Toy(photos, pairs, top_k=1, same_name_k=1)
    warehouse = toy.write(Warehouse(str(tmp_path / "far")))
    assert ("a", "b") not in ask(warehouse, "SELECT photo_a, photo_b FROM pairs")
    near = Warehouse(str(tmp_path / "near"))
    toy.write(near)
    (shard,) = near.shards("pairs", FINGERPRINTS["pairs"])
    rows = near.read("pairs", FINGERPRINTS["pairs"]).to_pylist()
    changed = [r | {"least_hash_distance": 2 if r["photo_b"] == "b" else 30} for r in rows]
    near.write("pairs", FINGERPRINTS["pairs"], shard, changed)
    assert ("a", "b", ["copy"]) in ask(near, "SELECT photo_a, photo_b, why FROM pairs")
    assert ask(near, "SELECT photo_a FROM copy_candidates WHERE photo_a = 'a' AND photo_b = 'b'")
