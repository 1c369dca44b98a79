"""The pair list of an evaluation against a naive double loop over all photos."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pairx_engine.retrieval.rules import PairRule, PhotoKeys
from tasks.evaluation.listing import list_fingerprint, list_rules, list_shard, listed_pairs, plan_list
from tasks.gallery import Gallery
from tests.small_catalogue import Stages


def naive_list(gallery: Gallery, cosine: np.ndarray, per_photo: int) -> dict[tuple[str, str], tuple]:
    """{(a, b): (correct, rank_a, rank_b)} by sorting every photo's admissible partners."""
    keys, count, found = gallery.keys, len(gallery.photo_ids), {}
    for i in range(count):
        for correct in (True, False):
            partners = [
                j
                for j in range(count)
                if j != i
                and -1 not in (keys.identity[i], keys.identity[j])
                and (keys.identity[i] == keys.identity[j]) is np.bool_(correct)
                and (keys.encounter[i] == -1 or keys.encounter[i] != keys.encounter[j])
            ]
            partners.sort(key=lambda j: (-cosine[i, j], j))
            for place, j in enumerate(partners[:per_photo], start=1):
                a, b = sorted((i, j))
                entry = found.setdefault((gallery.photo_ids[a], gallery.photo_ids[b]), [correct, None, None])
                entry[1 if i == a else 2] = place
    return {pair: tuple(entry) for pair, entry in found.items()}


@pytest.mark.parametrize("per_photo", [1, 3])
def test_the_list_is_what_a_double_loop_finds(done: Stages, per_photo: int) -> None:
    job, gallery = done.job, done.gallery
    rows_of = done.photos()
    photos = [rows_of[i] for i in gallery.photo_ids]
    stored = job.warehouse.read("embeddings", job.prints.embeddings)
    vectors = dict(zip(stored["photo_id"].to_pylist(), stored["embedding"].to_pylist(), strict=True))
    matrix = torch.tensor([vectors[i] for i in gallery.photo_ids], dtype=torch.float64)
    unit = matrix / matrix.norm(dim=1, keepdim=True)
    cosine = (unit @ unit.T).float().numpy()
    rows = listed_pairs(
        gallery, photos, [list_shard(job, s) for s in plan_list(gallery, per_photo)]
    ).to_pylist()
    found = {(r["photo_a"], r["photo_b"]): (r["correct"], r["rank_a"], r["rank_b"]) for r in rows}
    assert found == naive_list(gallery, cosine, per_photo)
    assert {r["correct"] for r in rows} == {True, False}
    assert all((r["identity_a"] == r["identity_b"]) is r["correct"] for r in rows)
    assert [(r["photo_a"], r["photo_b"]) for r in rows] == sorted(found)
    assert all(r["photo_a"] < r["photo_b"] for r in rows)


def test_the_list_does_not_depend_on_how_queries_are_cut(
    done: Stages, monkeypatch: pytest.MonkeyPatch
) -> None:
    job, gallery = done.job, done.gallery
    rows_of = done.photos()
    photos = [rows_of[i] for i in gallery.photo_ids]
    whole = listed_pairs(gallery, photos, [list_shard(job, s) for s in plan_list(gallery, 2)])
    monkeypatch.setattr("tasks.retrieval.plan.QUERIES_PER_TASK", 7)
    parts = plan_list(gallery, 2)
    assert len(parts) > 1
    assert listed_pairs(gallery, photos, [list_shard(job, s) for s in parts]).equals(whole)


def test_the_partition_follows_what_the_list_depends_on(done: Stages) -> None:
    assert list_fingerprint(done.job, 1) != list_fingerprint(done.job, 2)
    assert list_fingerprint(done.job, 1) == list_fingerprint(done.job, 1)
    assert {name: k for name, (_, k) in list_rules(done.job, 4).items()} == {"correct": 4, "incorrect": 4}


def test_other_names_are_two_known_ones() -> None:
    codes = np.array([0, 0, 1, -1, -1], dtype=np.int32)
    none = np.full(5, -1, dtype=np.int32)
    rows = np.arange(5)
    mask = PairRule(other_name=True).admissible(PhotoKeys(codes, none, none, none), rows, rows)
    wanted = [
        [a != b and -1 not in (codes[a], codes[b]) and codes[a] != codes[b] for b in rows] for a in rows
    ]
    assert mask.tolist() == wanted
