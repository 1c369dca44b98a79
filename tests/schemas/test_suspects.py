from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import duckdb
import pytest

from schemas.tables import TABLES
from schemas.views import install_views
from tasks.warehouse import Warehouse
from tests.toy_warehouse import FINGERPRINTS, Pair, Photo, Toy

DIFFERENT, SAME, COPY = "different_name_same_animal", "same_name_different_animal", "copy"
Animal = Callable[[Photo], str]


def alike(a: str, b: str) -> Pair:
    return Pair(a, b, 0.8, coverage=0.5, residual=4.0, n_inliers=30)


def unlike(a: str, b: str) -> Pair:
    return Pair(a, b, 0.4, coverage=0.1, residual=20.0, n_inliers=6)


def copied(a: str, b: str) -> Pair:
    return Pair(a, b, 0.97, coverage=0.9, residual=1.5, n_inliers=190, n_local_matches=200)


def herd(*names: str, photos: int = 3) -> list[Photo]:
    return [Photo(f"{name}{i}", name, f"e{name}{i}") for name in names for i in range(photos)]


def true_animals(**misfiled: str) -> Animal:
    return lambda photo: misfiled.get(photo.photo_id) or str(photo.identity)


def scored(photos: list[Photo], animal: Animal, *special: Pair) -> list[Pair]:
    """Every pair, looking alike when the animals are the same and on the same side; special pairs replace these."""
    pairs = {}
    for a, b in itertools.combinations(photos, 2):
        one = animal(a) == animal(b) and a.viewpoint == b.viewpoint
        pairs[frozenset({a.photo_id, b.photo_id})] = (alike if one else unlike)(a.photo_id, b.photo_id)
    pairs.update({frozenset({p.a, p.b}): p for p in special})
    return list(pairs.values())


@pytest.fixture
def suspects(tmp_path: Path) -> Callable[..., list[dict[str, Any]]]:
    def rank(photos: list[Photo], pairs: list[Pair]) -> list[dict[str, Any]]:
        warehouse = Toy(photos, pairs, top_k=20, same_name_k=5).write(Warehouse(str(tmp_path / "w")))
        connection = duckdb.connect(":memory:", config={"threads": 1})
        install_views(connection, warehouse)
        return list(connection.sql("FROM suspects").to_arrow_table().to_pylist())

    return rank


def who(rows: list[dict[str, Any]]) -> list[tuple[str, str, str]]:
    return [(row["kind"], row["photo_a"], row["photo_b"]) for row in rows]


def test_true_re_sightings_are_no_suspects(suspects: Any) -> None:
    photos = herd("A", "B", "C", "D")
    assert suspects(photos, scored(photos, true_animals())) == []


def test_one_misfiled_photo_is_all_that_is_listed_once_per_kind(suspects: Any) -> None:
    photos = [*herd("A", "B", "C", "D"), Photo("W", "B", "eW")]
    rows = suspects(photos, scored(photos, true_animals(W="A")))
    assert [row["kind"] for row in rows] == [DIFFERENT, SAME]
    assert all("W" in (row["photo_a"], row["photo_b"]) for row in rows)
    assert {rows[0]["identity_a"], rows[0]["identity_b"]} == {"A", "B"}
    assert rows[1]["identity_a"] == rows[1]["identity_b"] == "B"
    assert "2 more pairs tie W to A" in rows[0]["reason"]
    assert rows[0]["score"] > 0.8


def test_a_lonely_wrong_name_ranks_first(suspects: Any) -> None:
    photos = [*herd("A", "B", "C", "D"), Photo("W", "E", "eW")]
    rows = suspects(photos, scored(photos, true_animals(W="A")))
    assert [row["kind"] for row in rows] == [DIFFERENT]
    assert "W" in (rows[0]["photo_a"], rows[0]["photo_b"])
    assert "No other photo of E" in rows[0]["reason"]


def test_a_photo_that_fits_its_own_name_as_well_is_less_suspect(suspects: Any) -> None:
    photos = [*herd("A", "B", "C", "D"), Photo("W", "E", "eW")]
    lookalike = alike("A0", "B0")
    rows = suspects(photos, scored(photos, true_animals(W="A"), lookalike))
    assert "W" in (rows[0]["photo_a"], rows[0]["photo_b"])
    twins = [row for row in rows if (row["photo_a"], row["photo_b"]) == ("A0", "B0")]
    assert [row["kind"] for row in twins] == [DIFFERENT]
    assert twins[0]["score"] < 0.7 * rows[0]["score"]


def test_unknown_names_contradict_nobody(suspects: Any) -> None:
    photos = [*herd("A", "B", "C"), Photo("U", None, "eU")]
    assert suspects(photos, scored(photos, true_animals(U="A"))) == []


def test_the_other_flank_is_no_reason_to_doubt_a_name(suspects: Any) -> None:
    photos = [*herd("A", "B", "C", "D"), Photo("R", "A", "eR", viewpoint="right")]
    assert suspects(photos, scored(photos, true_animals())) == []
    stranger = replace(photos[-1], viewpoint="left")
    rows = suspects([*photos[:-1], stranger], scored([*photos[:-1], stranger], true_animals(R="D")))
    assert (SAME, True) in [(row["kind"], "R" in (row["photo_a"], row["photo_b"])) for row in rows]


def test_photos_of_two_flanks_are_not_held_against_each_other(suspects: Any) -> None:
    photos = [
        *herd("A", "B", "C", "D"),
        *(Photo(f"{name}right", name, f"e{name}", viewpoint="right") for name in "AB"),
    ]
    lookalike = replace(alike("Aright", "Bright"), cosine=0.7, coverage=0.3)
    rows = suspects(photos, scored(photos, true_animals(), lookalike))
    assert [row["kind"] for row in rows] == [DIFFERENT]


def test_a_photo_without_a_partner_of_its_name_is_not_judged_by_the_second_kind(suspects: Any) -> None:
    photos = [*herd("A", "B", "C"), Photo("W", "E", "eW")]
    assert SAME not in [row["kind"] for row in suspects(photos, scored(photos, true_animals(W="A")))]


def test_a_distorted_copy_under_another_name_is_a_copy(suspects: Any) -> None:
    photos = [*herd("A", "B", "C", "D"), Photo("K", "C", "eK")]
    rows = suspects(photos, scored(photos, true_animals(K="A"), copied("A1", "K")))
    assert who(rows)[0] == (COPY, "A1", "K")
    assert rows[0]["score"] == max(row["score"] for row in rows)
    assert [kind for kind, a, b in who(rows) if {a, b} == {"A1", "K"}] == [COPY]
    assert "A1" not in {p for kind, a, b in who(rows) if kind == SAME for p in (a, b)}


def test_a_near_identical_hash_under_another_name_is_a_copy_whatever_the_geometry(suspects: Any) -> None:
    photos = [*herd("A", "B"), Photo("K", "B", "eK")]
    rows = suspects(
        photos, scored(photos, true_animals(), replace(unlike("A1", "K"), hash_distance=4, n_inliers=None))
    )
    assert who(rows) == [(COPY, "A1", "K")]
    assert rows[0]["score"] == 1.0
    assert "no homography" in rows[0]["reason"]


def test_duplicates_under_one_name_are_told_apart(suspects: Any) -> None:
    photos = [*herd("A", "B"), Photo("K", "B", "eK", content="B1")]
    assert suspects(photos, scored(photos, true_animals(), replace(copied("B1", "K"), hash_distance=0))) == []


def test_a_duplicate_does_not_vouch_for_a_wrong_name(suspects: Any) -> None:
    photos = [*herd("A", "B", "C", "D"), Photo("W", "B", "eW"), Photo("X", "B", "eX", content="W")]
    pairs = scored(photos, true_animals(W="A", X="A"), replace(copied("W", "X"), hash_distance=0))
    named = {p for row in suspects(photos, pairs)[:2] for p in (row["photo_a"], row["photo_b"])}
    assert {"W", "X"} <= named


def test_one_photo_does_not_flood_the_list(suspects: Any) -> None:
    photos = [*herd("A", photos=7), *herd("B", "C"), Photo("W", "B", "eW")]
    rows = suspects(photos, scored(photos, true_animals(W="A")))
    assert [row["kind"] for row in rows] == [DIFFERENT, SAME]
    assert "6 more pairs tie W to A" in rows[0]["reason"]


def test_a_photo_is_not_blamed_for_resembling_a_misfiled_one(suspects: Any) -> None:
    photos = [*herd("A", "B", "C", "D"), Photo("W", "B", "eW")]
    middling = [
        replace(alike(a, b), cosine=0.6, coverage=0.3) for a, b in (("A0", "A1"), ("A0", "A2"), ("A1", "A2"))
    ]
    rows = suspects(photos, scored(photos, true_animals(W="A"), *middling))
    assert [row["kind"] for row in rows] == [DIFFERENT, SAME]
    assert all("W" in (row["photo_a"], row["photo_b"]) for row in rows)


def test_a_species_whose_animals_look_alike_raises_no_suspicion(suspects: Any) -> None:
    plain = [replace(photo, species="plain") for photo in herd("P", "Q", "R", "S", photos=6)]
    patterned = [*herd("A", "B", "C", "D", photos=6), Photo("W", "B", "eW")]
    blurred = [
        Pair(a.photo_id, b.photo_id, 0.7 + 0.001 * (i % 5), coverage=0.45, n_inliers=None)
        for i, (a, b) in enumerate(itertools.combinations(plain, 2))
    ]
    rows = suspects([*plain, *patterned], [*blurred, *scored(patterned, true_animals(W="A"))])
    assert [row["kind"] for row in rows] == [DIFFERENT, SAME]
    assert all("W" in (row["photo_a"], row["photo_b"]) for row in rows)


def test_inliers_of_a_rejected_homography_do_not_count(suspects: Any, tmp_path: Path) -> None:
    photos = herd("A", "B")
    warehouse = Toy(photos, scored(photos, true_animals())).write(Warehouse(str(tmp_path / "rejected")))
    scores = warehouse.read("scores", FINGERPRINTS["scores"]).to_pylist()
    rejected = [row | {"no_homography_reason": "degenerate", "n_inliers": 50} for row in scores]
    warehouse.write(
        "scores",
        FINGERPRINTS["scores"],
        next(iter(warehouse.shards("scores", FINGERPRINTS["scores"]))),
        rejected,
    )
    connection = duckdb.connect(":memory:")
    install_views(connection, warehouse)
    assert connection.sql("SELECT max(geometry), max(sameness) FROM evidence").fetchall() == [(0.0, 0.0)]


def test_no_homography_anywhere_is_no_error(suspects: Any) -> None:
    photos = [*herd("A", "B", "C"), Photo("W", "B", "eW")]
    bare = [replace(p, n_inliers=None) for p in scored(photos, true_animals(W="A"))]
    rows = suspects(photos, bare)
    assert rows
    assert "W" in (rows[0]["photo_a"], rows[0]["photo_b"])


@pytest.mark.parametrize("names", [("A",), ("A", "B", "C", "D")])
def test_catalogues_with_one_class_only_are_no_error(suspects: Any, names: tuple[str, ...]) -> None:
    photos = herd(*names, photos=1 if len(names) > 1 else 4)
    assert (
        suspects(photos, [unlike(a.photo_id, b.photo_id) for a, b in itertools.combinations(photos, 2)]) == []
    )


def test_rows_fit_the_table_and_are_ranked_by_score_then_kind_then_pair(
    suspects: Any, tmp_path: Path
) -> None:
    photos = [*herd("A", "B", "C", "D"), Photo("W", "B", "eW"), Photo("X", "C", "eX")]
    rows = suspects(photos, scored(photos, true_animals(W="A", X="D")))
    assert [row["rank"] for row in rows] == list(range(1, len(rows) + 1))
    keys = [(-row["score"], row["kind"], row["pair_id"]) for row in rows]
    assert keys == sorted(keys)
    assert all(0 <= row["score"] <= 1 for row in rows)
    assert len({(row["pair_id"], row["kind"]) for row in rows}) == len(rows)
    assert list(rows[0]) == [name for name in TABLES["suspects"].schema.names if name != "state"]
    warehouse = Warehouse(str(tmp_path / "stored"))
    assert warehouse.write("suspects", "f", "s", [{"state": "s", **row} for row in rows]) == len(rows)
