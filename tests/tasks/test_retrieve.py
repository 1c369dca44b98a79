from __future__ import annotations

import itertools
import pickle
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pairx_engine.retrieval.rules import PairRule, PhotoKeys
from schemas.settings import Settings
from schemas.tables.registry import GALLERIES, TABLES
from tasks import vectors as vectors_module
from tasks.gallery import Gallery, kept_gallery
from tasks.job import Job
from tasks.retrieval import kept, plan
from tasks.retrieval.kept import commit_neighbours, commit_pairs, near_identical, new_neighbours, new_pairs
from tasks.retrieval.plan import ask_all
from tasks.retrieval.rules import pair_rules
from tasks.runs.remaining import look
from tasks.stages import retrieve
from tasks.stages.retrieve import retrieve_shard
from tasks.store.warehouse import Warehouse, pair_id
from tests.small_catalogue import Stages, views_of
from tests.tasks import choice_of_pairs as naive


def gallery_of(photos: list[dict[str, Any]]) -> Gallery:
    return Gallery(pa.Table.from_pylist([{"chip_id": "c"} | p for p in photos], schema=GALLERIES.schema))


def storing(**tables: pa.Table) -> duckdb.DuckDBPyConnection:
    """A connection to what is stored: these rows of tables, and none of the others."""
    connection = duckdb.connect(":memory:")
    for name in ("pairs", "neighbours"):
        connection.register(f"run_{name}", tables.get(name, TABLES[name].schema.empty_table()))
    return connection


def stored_vectors(done: Stages) -> dict[str, np.ndarray]:
    rows = views_of(done.warehouse, ("embeddings",), done.columns())["embeddings"]
    return {photo: np.array(row["embedding"]) for (photo, _), row in rows.items()}


def test_pairs_are_those_of_brute_force(done: Stages) -> None:
    vectors, chosen = stored_vectors(done), done.job.settings
    photos = [p for p in done.photos().values() if p["photo_id"] in vectors]
    assert any(a["encounter"] == b["encounter"] for a, b in itertools.combinations(photos, 2))
    cosine = naive.cosine_of(vectors)
    wanted = naive.pairs(photos, cosine, chosen)
    assert set().union(*(row["why"] for row in wanted.values())) >= {
        "top_k",
        "same_name",
        "other_name",
        "reference",
    }
    table = done.warehouse.read("pairs", done.job.prints.pairs).to_pylist()
    assert {(r["photo_a"], r["photo_b"]) for r in table} == wanted.keys()
    by_id = {p["photo_id"]: p for p in photos}
    for row in table:
        a, b = by_id[row["photo_a"]], by_id[row["photo_b"]]
        assert row["photo_a"] < row["photo_b"]
        assert row["cosine"] == pytest.approx(cosine(a, b), abs=1e-7)
        assert row["hash_distance"] == naive.bits(a, b)
        assert row["least_hash_distance"] == naive.least(a, b)
        assert (row["chip_a"], row["chip_b"]) == (a["chip_id"], b["chip_id"])
        assert row["pair_id"] == pair_id(a["photo_id"], a["chip_id"], b["photo_id"], b["chip_id"])


@pytest.mark.parametrize(
    "rules", [{"same_species": True}, {"same_viewpoint": True}], ids=lambda r: next(iter(r))
)
def test_the_current_view_ranks_what_brute_force_ranks(
    done: Stages, tmp_path: Any, rules: dict[str, bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With two tasks, small blocks and restrictions, the view shows the pairs of the definition."""
    monkeypatch.setattr(plan, "QUERIES_PER_TASK", 16)
    monkeypatch.setattr(vectors_module, "_BLOCK", 8)
    monkeypatch.setattr(kept, "PAIRS_PER_FILE", 20)
    assert done.gallery is not None
    settings = done.job.settings.model_copy(update=rules)
    job = Job(**{**vars(done.job), "settings": settings})
    asked = ask_all(done.gallery)
    shards = asked.shards()
    assert len(shards) > 1
    assert [s.first for s in shards] == [0, *(s.last for s in shards[:-1])]
    table = new_pairs(job, storing(), asked, [retrieve_shard(job, s) for s in shards])
    vectors = stored_vectors(done)
    photos = [p for p in done.photos().values() if p["photo_id"] in vectors]
    wanted = naive.pairs(photos, naive.cosine_of(vectors), settings)
    assert set(zip(table["photo_a"].to_pylist(), table["photo_b"].to_pylist(), strict=True)) == wanted.keys()

    elsewhere = Job(**{**vars(job), "warehouse": Warehouse(str(tmp_path / "w"))})
    assert commit_pairs(elsewhere, table) == len(wanted)
    assert len(elsewhere.warehouse.shards("pairs", job.prints.pairs)) == -(-len(wanted) // 20)
    assert elsewhere.warehouse.read("pairs", job.prints.pairs).num_rows == len(wanted)


def test_stored_pairs_are_not_found_again(done: Stages) -> None:
    assert done.gallery is not None
    asked = ask_all(done.gallery)
    found = [retrieve_shard(done.job, s) for s in asked.shards()]
    everything = new_pairs(done.job, storing(), asked, found)
    assert (
        new_pairs(done.job, storing(pairs=everything[3:]), asked, found)["pair_id"].to_pylist()
        == everything["pair_id"].to_pylist()[:3]
    )
    nothing = new_pairs(done.job, storing(pairs=everything), asked, found)
    assert (nothing.num_rows, commit_pairs(done.job, nothing)) == (0, 0)


def hashes_near_each_other() -> st.SearchStrategy[list[int]]:
    """Hashes a few bits away from a few centres, so that all distances around the limit occur.

    0 is one of the centres.
    """
    flips = st.lists(st.integers(0, 63), max_size=6)
    centres = st.sampled_from([0, 2**64 - 1, 0x0123456789ABCDEF])
    one = st.builds(lambda c, places: c ^ sum(1 << b for b in set(places)), centres, flips)
    return st.lists(one, min_size=2, max_size=14)


@settings(max_examples=200, deadline=None)
@given(hashes_near_each_other(), st.integers(1, 4), st.booleans(), st.data())
def test_near_identical_is_the_double_loop(
    hashes: list[int], limit: int, same_species: bool, data: st.DataObject
) -> None:
    def some(values: str) -> str | None:
        return data.draw(st.sampled_from([None, *values]))

    def orientations(upright: int) -> list[int] | None:
        others = data.draw(st.none() | st.lists(st.sampled_from([*hashes, 0, 7]), min_size=7, max_size=7))
        return None if others is None else [upright, *others]

    photos = [
        {
            "photo_id": f"p{i:02d}", "perceptual_hash": h, "orientation_hashes": orientations(h), "identity": some("AB"),
            "encounter": some("ef"), "species": some("st"), "viewpoint": None,
        }
        for i, h in enumerate(hashes)
    ]  # fmt: skip
    gallery = gallery_of(photos)
    found = near_identical(gallery, PairRule(same_species=same_species), limit)
    chosen = Settings(same_species=same_species, top_k=limit)
    named = [(gallery.photo_ids[a], gallery.photo_ids[b]) for a, b in found]
    assert named == sorted(naive.copies(photos, chosen))


def test_rules_follow_the_settings() -> None:
    rules = pair_rules(Settings(top_k=7, same_name_k=3, other_name_k=0, same_species=True))
    assert rules == {
        "top_k": (PairRule(same_species=True), 7),
        "same_name": (PairRule(same_species=True, same_name=True), 3),
        "other_name": (PairRule(same_species=True, other_name=True), 0),
    }


@pytest.mark.parametrize(
    "chosen", [{}, {"neighbours": 0}, {"neighbours": 2, "top_k": 4}, {"other_name_k": 0}], ids=str
)
def test_one_search_finds_pairs_and_neighbours(done: Stages, chosen: dict[str, int]) -> None:
    """By each rule the first k are pairs, and the first `neighbours` are neighbours.

    Either number may be the larger one.
    """
    assert done.gallery is not None
    settings = done.job.settings.model_copy(update=chosen)
    job = Job(**{**vars(done.job), "settings": settings})
    (shard,) = ask_all(done.gallery).shards()
    found = retrieve_shard(job, shard)
    rules = pair_rules(settings)
    for mask, limits in (
        (found.is_pair, [k for _, k in rules.values()]),
        (found.is_near, [settings.neighbours] * len(rules)),
    ):
        wanted = {name: (rule, k) for (name, (rule, _)), k in zip(rules.items(), limits, strict=True)}
        alone = retrieve.nearest(job, shard, wanted, retrieve.RETRIEVE)
        assert list(zip(found.query[mask], found.neighbour[mask], strict=True)) == list(
            zip(alone.query, alone.neighbour, strict=True)
        )


def test_stored_neighbours_are_not_found_again(
    done: Stages, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    assert done.gallery is not None
    asked = ask_all(done.gallery)
    found = [retrieve_shard(done.job, s) for s in asked.shards()]
    everything = new_neighbours(storing(), asked, found)
    with look(done.job, done.columns()) as (connection, _):
        assert new_neighbours(connection, asked, found).num_rows == 0
        assert connection.execute("SELECT count(*) FROM run_neighbours").fetchall() == [
            (everything.num_rows,)
        ]
    assert everything.num_rows > 60
    left = new_neighbours(storing(neighbours=everything[3:]), asked, found)
    assert left["code"].to_pylist() == everything["code"].to_pylist()[:3]
    monkeypatch.setattr(kept, "NEIGHBOURS_PER_FILE", 25)
    elsewhere = Job(**{**vars(done.job), "warehouse": Warehouse(str(tmp_path / "w"))})
    count = everything.num_rows
    for _ in range(2):  # a twin writes the same files
        assert commit_neighbours(elsewhere, done.gallery, everything) == count
        assert elsewhere.warehouse.read("neighbours", done.job.prints.embeddings).num_rows == count
    assert len(elsewhere.warehouse.shards("neighbours", done.job.prints.embeddings)) == -(-count // 25)


def test_a_kept_gallery_is_read_as_it_was_and_shards_do_not_carry_it(done: Stages) -> None:
    job, gallery = done.job, done.gallery
    assert gallery is not None
    assert job.warehouse.shards("galleries", job.prints.embeddings) == {gallery.state}
    kept = kept_gallery(job.warehouse, job.prints.embeddings, gallery.state)
    assert kept.state == gallery.state
    assert kept.hashes.tolist() == gallery.hashes.tolist()
    assert kept.only(set(gallery.photo_ids[3:])).photo_ids == gallery.photo_ids[3:]
    assert all(len(pickle.dumps(shard)) < 300 for shard in ask_all(gallery).shards())


STATE = [
    {
        "photo_id": "p",
        "identity": "A",
        "encounter": "e",
        "species": "s",
        "viewpoint": "v",
        "perceptual_hash": 1,
    },
    {
        "photo_id": "q",
        "identity": "B",
        "encounter": "f",
        "species": "s",
        "viewpoint": "w",
        "perceptual_hash": 2,
    },
]


@pytest.mark.parametrize(
    "change",
    [
        {"identity": "A"}, {"identity": None}, {"encounter": "e"}, {"encounter": None}, {"species": "t"}, {"viewpoint": "v"},
        {"chip_id": "d"}, {"photo_id": "r"},
        {"identity": "C"},
    ],
    ids=str,
)  # fmt: skip
def test_the_state_changes_with_all_that_is_ranked(change: dict[str, Any]) -> None:
    assert gallery_of([STATE[0], STATE[1] | change]).state != gallery_of(STATE).state


def test_the_state_is_the_same_for_the_same_catalogue() -> None:
    assert gallery_of([dict(p) for p in STATE]).state == gallery_of(STATE).state
    assert gallery_of([STATE[0]]).state != gallery_of(STATE).state


def test_unknown_names_are_not_one_name() -> None:
    gallery = gallery_of([STATE[0] | {"identity": None}, STATE[1] | {"identity": None}])
    assert gallery.keys.identity.tolist() == [-1, -1]
    assert isinstance(gallery.keys, PhotoKeys)
