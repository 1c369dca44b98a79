from __future__ import annotations

import itertools
from collections.abc import Collection, Iterable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import duckdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.errors import WarehouseError
from schemas.failures import Failure, FailureCode
from schemas.sql.files import view_files
from schemas.tables.registry import TABLES
from schemas.views.descriptions import describe_column, describe_view, view_sentences
from schemas.views.install import RUN_COLUMNS, install_views, partitions
from tasks.store.warehouse import Warehouse
from tests.toy_warehouse import (
    FINGERPRINTS,
    LAYER,
    Pair,
    Photo,
    Toy,
    pair_key,
    run_row,
    write_pairs,
    write_photos,
)

RUN = {f"{stage}_fingerprint": f for stage, f in FINGERPRINTS.items()} | {"layer": LAYER}


@pytest.fixture
def warehouse(tmp_path: Any) -> Warehouse:
    return Warehouse(str(tmp_path / "w"))


def look(
    warehouse: Warehouse, run: Any = None, materialise: bool = False, wanted: Collection[str] | None = None
) -> duckdb.DuckDBPyConnection:
    connection = duckdb.connect(":memory:", config={"threads": 1})
    install_views(connection, warehouse, run, materialise, wanted)
    return connection


def rows(connection: duckdb.DuckDBPyConnection, sql: str) -> list[tuple[Any, ...]]:
    return connection.sql(sql).fetchall()


def contents(connection: duckdb.DuckDBPyConnection, views: Iterable[str]) -> dict[str, list[str]]:
    """Every row of some views as text, in an order of its own."""
    return {name: sorted(map(str, rows(connection, f"FROM {name}"))) for name in views}


def herd(*names: str, photos: int = 3) -> list[Photo]:
    """Photos A0, A1, ... of animal A in encounters of their own, and so on."""
    return [Photo(f"{name}{i}", name, f"e{name}{i}") for name in names for i in range(photos)]


def all_pairs(photos: list[Photo], cosine: float = 0.5) -> list[Pair]:
    return [Pair(a.photo_id, b.photo_id, cosine) for a, b in itertools.combinations(photos, 2)]


def test_views_of_an_empty_warehouse_are_empty_and_typed(warehouse: Warehouse) -> None:
    connection = look(warehouse)
    assert all(rows(connection, f"FROM {name}") == [] for name in view_files() if name != "typical")
    full = look(Toy(herd("A", "B"), all_pairs(herd("A", "B"))).write(Warehouse(f"{warehouse.url}-full")))
    for name in view_files():
        assert connection.sql(f"FROM {name}").types == full.sql(f"FROM {name}").types, name


def test_every_view_and_column_is_described(warehouse: Warehouse) -> None:
    connection = look(warehouse)
    stored = [
        f"{level}_{table}" for level, tables in (("all", TABLES), ("run", partitions())) for table in tables
    ]
    for view in [*view_sentences(), *stored]:
        assert describe_view(view), view
        for column in connection.sql(f"FROM {view}").columns:
            assert describe_column(view, column), f"{view}.{column}"


def test_a_fingerprint_of_digits_stays_text(warehouse: Warehouse) -> None:
    Toy(herd("A"), all_pairs(herd("A"))).write(warehouse)
    assert rows(look(warehouse), "SELECT DISTINCT fingerprint FROM pairs") == [(FINGERPRINTS["pairs"],)]


def test_only_the_runs_fingerprints_count(warehouse: Warehouse) -> None:
    Toy(herd("A"), all_pairs(herd("A"))).write(warehouse)
    stranger = Photo("Z", "Z").row()
    warehouse.write("photos", "0ther", "s", [stranger])
    connection = look(warehouse)
    assert rows(connection, "SELECT count(*) FROM photos") == [(3,)]
    assert rows(connection, "SELECT count(*) FROM all_photos") == [(4,)]
    assert rows(look(warehouse, {**RUN, "photos_fingerprint": "0ther"}), "SELECT photo_id FROM photos") == [
        ("Z",)
    ]


def test_the_newest_finished_run_is_current_or_else_the_newest_started(warehouse: Warehouse) -> None:
    toy = Toy([], [])
    at = datetime(2026, 5, 1, tzinfo=UTC)

    def commit(run_id: str, status: str, day: int) -> None:
        warehouse.write(
            "runs", "all", f"{run_id}-{status}", [run_row(run_id, status, at.replace(day=day), toy)]
        )

    def current(run: str | None = None) -> Any:
        return rows(look(warehouse, run), "SELECT run_id, status FROM current_run")

    assert current() == []
    commit("r1", "started", 1)
    commit("r2", "started", 2)
    assert current() == [("r2", "started")]
    commit("r1", "finished", 3)
    commit("r3", "started", 4)
    commit("r3", "failed", 5)
    assert current() == [("r1", "finished")]
    assert current("r2") == [("r2", "started")]
    with pytest.raises(WarehouseError, match="no run 'r9'"):
        current("r9")
    statuses = rows(look(warehouse), "SELECT run_id, status, seconds FROM runs")
    assert statuses == [("r3", "failed", 86400.0), ("r2", "started", 0.0), ("r1", "finished", 2 * 86400.0)]


def test_a_run_can_be_given_before_it_is_written(warehouse: Warehouse) -> None:
    photos = herd("A", "B")
    write_photos(warehouse, photos)
    write_pairs(warehouse, photos, all_pairs(photos))
    connection = look(warehouse, {**RUN, "top_k": 5, "same_name_k": 2})
    assert rows(connection, "SELECT count(*) FROM pair_scores") == [(15,)]
    assert rows(connection, "SELECT same_species FROM current_run") == [(False,)]
    with pytest.raises(WarehouseError, match="no column topk"):
        look(warehouse, {"topk": 5})
    assert set(RUN) <= set(RUN_COLUMNS)


def test_materialised_views_hold_the_same_rows_and_can_be_installed_again(warehouse: Warehouse) -> None:
    Toy(herd("A", "B"), all_pairs(herd("A", "B"))).write(warehouse)
    plain, stored = look(warehouse), look(warehouse, materialise=True)
    kinds = dict(rows(stored, "SELECT table_name, table_type FROM information_schema.tables"))
    assert {kinds[name] for name, view in view_files().items() if view.narrow} == {"BASE TABLE"}
    assert contents(plain, view_files()) == contents(stored, view_files())
    install_views(stored, warehouse)
    assert (
        dict(rows(stored, "SELECT table_name, table_type FROM information_schema.tables"))["pairs"] == "VIEW"
    )


def test_a_corrected_name_takes_effect_everywhere_without_new_pairs(warehouse: Warehouse) -> None:
    photos = herd("A", "B")
    Toy(photos, all_pairs(photos)).write(warehouse)
    connection = look(warehouse)
    same = "SELECT count(*) FROM pairs WHERE same_identity"
    assert rows(connection, same) == [(6,)]
    write_photos(warehouse, [replace(photos[0], identity="B", revision=1)])
    connection = look(warehouse)
    assert rows(connection, "SELECT identity, revision FROM photos WHERE photo_id = 'A0'") == [("B", 1)]
    assert rows(connection, same) == [(1 + 6,)]
    assert rows(connection, "SELECT photos FROM identities ORDER BY identity") == [(2,), (4,)]
    write_photos(warehouse, [replace(photos[0], identity=None, revision=2)])
    assert rows(look(warehouse), "SELECT count(*) FROM pairs WHERE same_identity IS NULL") == [(5,)]


def test_a_withdrawn_photo_takes_its_rows_along_and_frees_their_ranks(warehouse: Warehouse) -> None:
    photos = [Photo(name) for name in "pqrs"]
    pairs = [Pair("p", "q", 0.9), Pair("p", "r", 0.8), Pair("p", "s", 0.7)]
    Toy(photos, pairs, top_k=1).write(warehouse)
    rank = "SELECT photo_b, rank_a FROM pairs WHERE photo_a = 'p' ORDER BY photo_b"
    assert rows(look(warehouse), rank) == [("q", 1), ("r", None), ("s", None)]
    write_photos(warehouse, [replace(photos[1], present=False, revision=1)])
    connection = look(warehouse)
    assert rows(connection, rank) == [("r", 1), ("s", None)]
    for table in ("photos", "embeddings", "keypoints"):
        assert rows(connection, f"SELECT count(*) FROM {table} WHERE photo_id = 'q'") == [(0,)]
    for table in ("scores", "matches", "relevances", "pair_scores", "evidence"):
        assert rows(connection, f"SELECT count(*) FROM {table} WHERE 'q' IN (photo_a, photo_b)") == [(0,)], (
            table
        )


def test_a_photo_with_a_new_file_loses_its_old_rows(warehouse: Warehouse) -> None:
    photos = herd("A")
    Toy(photos, all_pairs(photos)).write(warehouse)
    changed = replace(photos[0], content="new", revision=1)
    write_photos(warehouse, [changed])
    connection = look(warehouse)
    assert rows(connection, "SELECT photo_a, photo_b FROM pairs") == [("A1", "A2")]
    assert rows(connection, "SELECT chip_id FROM embeddings WHERE photo_id = 'A0'") == [("chip-new",)]
    write_pairs(warehouse, [changed, photos[1]], [Pair("A0", "A1", 0.6)])
    assert rows(look(warehouse), "SELECT count(*) FROM scores") == [(2,)]


def test_photos_of_one_encounter_are_never_paired_and_take_no_rank(warehouse: Warehouse) -> None:
    photos = [Photo("p", "A", "e1"), Photo("q", "A", "e1"), Photo("r", "A", None), Photo("s", "A", None)]
    Toy(
        photos, [Pair("p", "q", 0.9, hash_distance=0), Pair("p", "r", 0.8), Pair("r", "s", 0.7)], top_k=1
    ).write(warehouse)
    ranked = rows(
        look(warehouse), "SELECT photo_a, photo_b, rank_a, same_name_rank_a FROM pairs ORDER BY ALL"
    )
    assert ranked == [("p", "r", 1, 1), ("r", "s", None, 2)]


@pytest.mark.parametrize(("rule", "left"), [("same_species", 2), ("same_viewpoint", 2), ("", 3)])
def test_restrictions_hold_for_todays_entries_and_unknown_fits_all(
    warehouse: Warehouse, rule: str, left: int
) -> None:
    photos = [
        Photo("p", species="zebra", viewpoint="left"),
        Photo("q", species="lion", viewpoint="right"),
        Photo("r", species=None, viewpoint=None),
    ]
    Toy(photos, all_pairs(photos), settings={rule: True} if rule else {}).write(warehouse)
    assert rows(look(warehouse), "SELECT count(*) FROM pairs") == [(left,)]


def test_a_near_identical_hash_keeps_a_pair_beyond_every_rank(warehouse: Warehouse) -> None:
    photos = [Photo(name) for name in "pqrst"]
    near = [Pair(a, b, 0.9) for a, b in itertools.combinations("qrst", 2)]
    far = [Pair("p", "q", 0.1, hash_distance=4), Pair("p", "r", 0.2, hash_distance=5), Pair("p", "s", 0.3)]
    Toy(photos, [*near, *far], top_k=1).write(warehouse)
    chosen = rows(look(warehouse), "SELECT photo_b, why FROM pairs WHERE photo_a = 'p' ORDER BY photo_b")
    assert chosen == [("q", ["copy"]), ("s", ["top_k"])]


def test_near_identical_pictures_of_one_name_are_neighbours_or_nothing(warehouse: Warehouse) -> None:
    photos = [replace(Photo(name), identity="A") for name in "pqr"]
    pairs = [Pair("p", "q", 0.1, hash_distance=0), Pair("p", "r", 0.5), Pair("q", "r", 0.6)]
    Toy(photos, pairs, top_k=1, same_name_k=0).write(warehouse)
    assert rows(look(warehouse), "SELECT photo_a, photo_b FROM pairs ORDER BY ALL") == [
        ("p", "r"),
        ("q", "r"),
    ]


def test_ties_are_broken_by_the_other_photos_id(warehouse: Warehouse) -> None:
    photos = [Photo(name) for name in "zyxé"]
    Toy(photos, [Pair("z", name, 0.5) for name in "yxé"], top_k=3).write(warehouse)
    connection = look(warehouse)
    ranks = {**dict(rows(connection, "SELECT photo_a, rank_b FROM pairs WHERE photo_b = 'z'")),
             **dict(rows(connection, "SELECT photo_b, rank_a FROM pairs WHERE photo_a = 'z'"))}  # fmt: skip
    assert ranks == {"x": 1, "y": 2, "é": 3}


def test_rows_computed_twice_count_once(warehouse: Warehouse) -> None:
    photos = herd("A")
    Toy(photos, all_pairs(photos)).write(warehouse)
    before = contents(look(warehouse), view_files())
    write_photos(warehouse, photos[:2], shard="twin")
    write_pairs(warehouse, photos, all_pairs(photos)[1:], shard="twin")
    assert contents(look(warehouse), view_files()) == before


def test_failures_stand_as_long_as_what_failed_is_current(warehouse: Warehouse) -> None:
    photos = [*herd("A"), Photo("bad", "A", readable=False)]
    pair, other = (pair_key(photos[0], photos[i])["pair_id"] for i in (1, 2))
    failures = [
        Failure("ingest", "bad", FailureCode.TRUNCATED, "it breaks off", revision=0),
        Failure("embed", "late", FailureCode.EMBEDDING_NOT_FINITE, "NaN", chip_id="chip-late"),
        Failure("embed", "A0", FailureCode.EMBEDDING_NOT_FINITE, "embedded since", chip_id="chip-A0"),
        Failure("embed", "A1", FailureCode.EMBEDDING_NOT_FINITE, "NaN", chip_id="chip-of-yesterday"),
        Failure("score", pair, FailureCode.SCORE_NOT_FINITE, "NaN", layer="another"),
        Failure("score", other, FailureCode.SCORE_NOT_FINITE, "scored since", layer=LAYER),
        Failure("score", "pair-of-yesterday", FailureCode.SCORE_NOT_FINITE, "NaN", layer=LAYER),
        Failure("draw", pair, FailureCode.INTERNAL_ERROR, "x", layer="another"),
    ]
    Toy(photos, all_pairs(photos[:3]), failures=[f.row() for f in failures]).write(warehouse)
    warehouse.write("photos", FINGERPRINTS["photos"], "late", [Photo("late", "A").row()])
    standing = "SELECT stage, item FROM failures ORDER BY stage"
    assert rows(look(warehouse), standing) == [
        ("draw", pair),
        ("embed", "late"),
        ("ingest", "bad"),
        ("score", pair),
    ]
    warehouse.write("failures", FINGERPRINTS["scores"], "again", [failures[3].row()])
    assert len(rows(look(warehouse), standing)) == 4
    gone = [replace(photo, present=False, revision=1) for photo in (photos[0], Photo("late", "A"))]
    write_photos(warehouse, [Photo("bad", "A", revision=1), *gone])
    assert rows(look(warehouse), standing) == []


def test_pair_scores_are_those_of_the_layer_that_ranks(warehouse: Warehouse) -> None:
    photos = herd("A")
    Toy(photos, all_pairs(photos)).write(warehouse)
    scores = warehouse.read("scores", FINGERPRINTS["scores"]).to_pylist()
    warehouse.write(
        "scores", FINGERPRINTS["scores"], "deeper", [row | {"layer": "blocks.5"} for row in scores]
    )
    connection = look(warehouse)
    assert rows(connection, "SELECT layer, count(*) FROM scores GROUP BY layer ORDER BY layer") == [
        (LAYER, 3),
        ("blocks.5", 3),
    ]
    assert rows(connection, "SELECT DISTINCT layer, count(*) FROM pair_scores GROUP BY layer") == [(LAYER, 3)]


def test_duplicates_are_found_by_chip_and_by_hash_but_not_by_file_alone(warehouse: Warehouse) -> None:
    photos = [
        Photo("a", "A", "e", content="same"),
        Photo("b", "A", "e", content="same"),
        Photo("c", "B", content="other"),
        Photo("d", "B", content="resaved"),
        Photo("two", None, content="x"),
    ]
    Toy(photos, [Pair("c", "d", 0.9, hash_distance=3), Pair("c", "two", 0.9, hash_distance=9)]).write(
        warehouse
    )
    box = photos[4].row() | {"photo_id": "animals", "chip_id": "chip-other-box"}
    warehouse.write("photos", FINGERPRINTS["photos"], "two-boxes", [box])
    found = rows(
        look(warehouse),
        "SELECT photo_a, photo_b, same_identity, same_file, hash_distance FROM duplicates ORDER BY 1",
    )
    assert found == [("a", "b", True, True, 0), ("c", "d", True, False, 3)]


# A naive catalogue: what a fresh retrieval would store, and what is current, each by its definition.

_names = st.sampled_from([None, "A", "B"])
_encounters = st.sampled_from([None, "e1", "e2", "e3"])


@st.composite
def catalogues(draw: st.DrawFn) -> tuple[list[Photo], list[Photo], dict[frozenset[str], float], int, int]:
    photos = [
        Photo(f"p{i}", draw(_names), draw(_encounters))
        for i in draw(st.permutations(range(draw(st.integers(2, 7)))))
    ]
    grid = st.sampled_from([0.25, 0.5, 0.75, 1.0])
    cosines = {frozenset({a.photo_id, b.photo_id}): draw(grid) for a, b in itertools.combinations(photos, 2)}
    first = photos[: draw(st.integers(0, len(photos)))]
    return photos, first, cosines, draw(st.integers(1, 3)), draw(st.integers(0, 2))


def neighbours(
    photo: Photo, among: list[Photo], cosines: dict[frozenset[str], float], same_name: bool
) -> list[str]:
    def allowed(other: Photo) -> bool:
        together = photo.encounter is not None and photo.encounter == other.encounter
        named = photo.identity is not None and photo.identity == other.identity
        return other.photo_id != photo.photo_id and not together and (named or not same_name)

    others = [o.photo_id for o in among if allowed(o)]
    return sorted(others, key=lambda o: (-cosines[frozenset({photo.photo_id, o})], o))


def naive_ranks(
    photos: list[Photo], cosines: dict[frozenset[str], float], k: int, same_k: int
) -> dict[Any, list[Any]]:
    found: dict[Any, list[Any]] = {}
    for place, (same_name, count) in enumerate([(False, k), (True, same_k)]):
        for photo in photos:
            for rank, other in enumerate(neighbours(photo, photos, cosines, same_name)[:count], 1):
                a, b = sorted((photo.photo_id, other))
                found.setdefault((a, b), [None] * 4)[2 * place + (photo.photo_id != a)] = rank
    return found


def retrieve(
    warehouse: Warehouse, photos: list[Photo], cosines: dict[frozenset[str], float], k: int, same_k: int
) -> None:
    stored = set(warehouse.read("pairs", FINGERPRINTS["pairs"], columns=["pair_id"])["pair_id"].to_pylist())
    by_id = {p.photo_id: p for p in photos}
    new = [
        Pair(a, b, cosines[frozenset({a, b})])
        for a, b in sorted(naive_ranks(photos, cosines, k, same_k))
        if pair_key(by_id[a], by_id[b])["pair_id"] not in stored
    ]
    write_pairs(warehouse, photos, new)


@pytest.mark.slow
@settings(max_examples=6, deadline=None)
@given(case=catalogues())
def test_ranks_equal_the_naive_ones_and_two_steps_equal_one(
    case: Any, tmp_path_factory: pytest.TempPathFactory
) -> None:
    photos, first, cosines, k, same_k = case
    run = {**RUN, "top_k": k, "same_name_k": same_k}
    found = []
    for steps in ([photos], [first, photos]):
        warehouse = Warehouse(str(tmp_path_factory.mktemp("w")))
        known: list[Photo] = []
        for step in steps:
            write_photos(warehouse, [p for p in step if p not in known])
            known = step
            retrieve(warehouse, step, cosines, k, same_k)
        compared = ("photos", "embeddings", "pairs", "scores", "matches")
        connection = look(warehouse, run, wanted=compared)
        ranks = "SELECT photo_a, photo_b, rank_a, rank_b, same_name_rank_a, same_name_rank_b FROM pairs"
        assert {(r[0], r[1]): list(r[2:]) for r in rows(connection, ranks)} == naive_ranks(
            photos, cosines, k, same_k
        )
        found.append(contents(connection, compared))
    assert found[0] == found[1]
