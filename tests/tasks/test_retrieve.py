from __future__ import annotations

import itertools
import pickle
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pairx_engine.topk import PairRule, PhotoKeys
from schemas.settings import Settings
from schemas.tables import GALLERIES
from schemas.thresholds import NEAR_IDENTICAL_BITS
from tasks import retrieve
from tasks.job import Job
from tasks.retrieve import (
    Gallery,
    commit_pairs,
    near_identical,
    new_pairs,
    pair_rules,
    plan_retrieve,
    retrieve_shard,
)
from tasks.warehouse import Warehouse, pair_id
from tests.small_catalogue import Stages, views_of


def gallery_of(photos: list[dict[str, Any]]) -> Gallery:
    return Gallery(pa.Table.from_pylist([{"chip_id": "c"} | p for p in photos], schema=GALLERIES.schema))


def least(p: dict[str, Any], q: dict[str, Any]) -> int:
    """Differing bits in the orientation that suits best; orientations without any contrast do not count."""

    def one_way(a: dict[str, Any], b: dict[str, Any]) -> int:
        turned = [h for h in (b["orientation_hashes"] or [])[1:] if h]
        return min(bin(a["perceptual_hash"] ^ h).count("1") for h in [b["perceptual_hash"], *turned])

    return min(one_way(p, q), one_way(q, p))


def bits(p: dict[str, Any], q: dict[str, Any]) -> int:
    return bin(p["perceptual_hash"] ^ q["perceptual_hash"]).count("1")


def allowed(p: dict[str, Any], q: dict[str, Any], rules: dict[str, bool]) -> bool:
    """May two photos be paired: not with itself, not within an encounter, not against the restrictions."""
    if p["photo_id"] == q["photo_id"] or (p["encounter"] is not None and p["encounter"] == q["encounter"]):
        return False
    wanted = [name for name in ("species", "viewpoint") if rules.get(f"same_{name}")]
    return all(None in (p[n], q[n]) or p[n] == q[n] for n in wanted)


def copies(photos: list[dict[str, Any]], limit: int, rules: dict[str, bool]) -> set[tuple[str, str]]:
    """Near-identical pictures, however turned, without one known name: of each photo the `limit` nearest, ties by id."""
    found = set()
    for p in photos:
        alike = [
            (least(p, q), q["photo_id"])
            for q in photos
            if allowed(p, q, rules)
            and least(p, q) <= NEAR_IDENTICAL_BITS
            and p["perceptual_hash"]
            and q["perceptual_hash"]
            and (p["identity"] is None or p["identity"] != q["identity"])
        ]
        found |= {tuple(sorted((p["photo_id"], other))) for _, other in sorted(alike)[:limit]}
    return found  # type: ignore[return-value]


def brute_force(
    photos: list[dict[str, Any]], vectors: dict[str, np.ndarray], top_k: int, same_name_k: int, **rules: bool
) -> dict[tuple[str, str], float]:
    """Pairs by definition: for each photo all others, sorted; then near-identical pictures."""

    def cosine(p: str, q: str) -> np.float32:
        a, b = (vectors[x].astype(np.float64) for x in (p, q))
        return np.float32(a @ b / (np.linalg.norm(a) * np.linalg.norm(b)))

    chosen = copies(photos, top_k, rules)
    for p in photos:
        key = p["photo_id"]
        others = [q for q in photos if allowed(p, q, rules)]
        others.sort(key=lambda q: (-cosine(key, q["photo_id"]), q["photo_id"]))  # used at once
        one_name = [q for q in others if p["identity"] is not None and q["identity"] == p["identity"]]
        chosen |= {tuple(sorted((key, q["photo_id"]))) for q in others[:top_k] + one_name[:same_name_k]}  # type: ignore[misc]
    return {pair: float(cosine(*pair)) for pair in chosen}


def stored_vectors(done: Stages) -> dict[str, np.ndarray]:
    rows = views_of(done.warehouse, ("embeddings",), done.columns())["embeddings"]
    return {photo: np.array(row["embedding"]) for (photo, _), row in rows.items()}


def test_pairs_are_those_of_brute_force(done: Stages) -> None:
    vectors, chosen = stored_vectors(done), done.job.settings
    photos = [p for p in done.photos().values() if p["photo_id"] in vectors]
    assert any(a["encounter"] == b["encounter"] for a, b in itertools.combinations(photos, 2))
    wanted = brute_force(photos, vectors, chosen.top_k, chosen.same_name_k)
    table = done.warehouse.read("pairs", done.job.prints.pairs).to_pylist()
    assert {(r["photo_a"], r["photo_b"]) for r in table} == wanted.keys()
    by_id = {p["photo_id"]: p for p in photos}
    for row in table:
        a, b = by_id[row["photo_a"]], by_id[row["photo_b"]]
        assert row["photo_a"] < row["photo_b"]
        assert row["cosine"] == pytest.approx(wanted[row["photo_a"], row["photo_b"]], abs=1e-7)
        assert row["hash_distance"] == bits(a, b)
        assert row["least_hash_distance"] == least(a, b)
        assert (row["chip_a"], row["chip_b"]) == (a["chip_id"], b["chip_id"])
        assert row["pair_id"] == pair_id(a["photo_id"], a["chip_id"], b["photo_id"], b["chip_id"])


@pytest.mark.parametrize(
    "rules", [{"same_species": True}, {"same_viewpoint": True}], ids=lambda r: next(iter(r))
)
def test_the_current_view_ranks_what_brute_force_ranks(
    done: Stages, tmp_path: Any, rules: dict[str, bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two tasks, small blocks, restrictions: through retrieval and the view, pairs are those of the definition."""
    monkeypatch.setattr(retrieve, "_QUERIES_PER_TASK", 16)
    monkeypatch.setattr(retrieve, "_BLOCK", 8)
    monkeypatch.setattr(retrieve, "_PAIRS_PER_FILE", 20)
    assert done.gallery is not None
    settings = done.job.settings.model_copy(update=rules)
    job = Job(**{**vars(done.job), "settings": settings})
    shards = plan_retrieve(done.gallery)
    assert len(shards) > 1
    assert [s.first for s in shards] == [0, *(s.last for s in shards[:-1])]
    table = new_pairs(job, done.gallery, [retrieve_shard(job, s) for s in shards], set())
    vectors = stored_vectors(done)
    photos = [p for p in done.photos().values() if p["photo_id"] in vectors]
    wanted = brute_force(photos, vectors, settings.top_k, settings.same_name_k, **rules)
    assert set(zip(table["photo_a"].to_pylist(), table["photo_b"].to_pylist(), strict=True)) == wanted.keys()

    elsewhere = Job(**{**vars(job), "warehouse": Warehouse(str(tmp_path / "w"))})
    assert commit_pairs(elsewhere, table) == len(wanted)
    assert len(elsewhere.warehouse.shards("pairs", job.prints.pairs)) == -(-len(wanted) // 20)
    assert elsewhere.warehouse.read("pairs", job.prints.pairs).num_rows == len(wanted)


def test_stored_pairs_are_not_found_again(done: Stages) -> None:
    assert done.gallery is not None
    found = [retrieve_shard(done.job, s) for s in plan_retrieve(done.gallery)]
    everything = new_pairs(done.job, done.gallery, found, set())
    stored = set(everything["pair_id"].to_pylist()[3:])
    assert (
        new_pairs(done.job, done.gallery, found, stored)["pair_id"].to_pylist()
        == everything["pair_id"].to_pylist()[:3]
    )
    nothing = new_pairs(done.job, done.gallery, found, set(everything["pair_id"].to_pylist()))
    assert (nothing.num_rows, commit_pairs(done.job, nothing)) == (0, 0)


def hashes_near_each_other() -> st.SearchStrategy[list[int]]:
    """Hashes a few bits away from a few centres, so that all distances around the limit occur; 0 is one of them."""
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
    named = [(gallery.photo_ids[a], gallery.photo_ids[b]) for a, b in found]
    assert named == sorted(copies(photos, limit, {"same_species": same_species}))


def test_rules_follow_the_settings() -> None:
    rules = pair_rules(Settings(top_k=7, same_name_k=3, same_species=True))
    assert {name: (rule.same_name, rule.same_species, rule.same_viewpoint, k) for name, (rule, k) in rules.items()} == {
        "top_k": (False, True, False, 7), "same_name": (True, True, False, 3)
    }  # fmt: skip
    assert pair_rules(Settings(same_name_k=0)).keys() == {"top_k"}


def test_the_plan_covers_every_query_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retrieve, "_QUERIES_PER_TASK", 4)
    gallery = gallery_of([{"photo_id": f"p{i:02d}", "perceptual_hash": i} for i in range(11)])
    shards = plan_retrieve(gallery)
    assert [i for s in shards for i in range(s.first, s.last)] == list(range(11))
    assert len({s.name for s in shards}) == len(shards) == 3


def test_a_kept_gallery_is_read_as_it_was_and_shards_do_not_carry_it(done: Stages) -> None:
    job, gallery = done.job, done.gallery
    assert gallery is not None
    assert job.warehouse.shards("galleries", job.prints.embeddings) == {gallery.state}
    kept = retrieve._kept_gallery(job.warehouse, job.prints.embeddings, gallery.state)
    assert kept.state == gallery.state
    assert kept.hashes.tolist() == gallery.hashes.tolist()
    assert kept.only(set(gallery.photo_ids[3:])).photo_ids == gallery.photo_ids[3:]
    assert all(len(pickle.dumps(shard)) < 300 for shard in plan_retrieve(gallery))


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
