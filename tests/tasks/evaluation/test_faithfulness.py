"""The faithfulness stage: which pairs are taken, what a shard stores, and means against naive ones."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise
from statistics import fmean, stdev

import pyarrow as pa
import pytest
import torch

from pairx_engine.explanations import Subject
from pairx_engine.faithfulness import ChipPair, Flipping, Translation, ValueRange, measure_pairs
from pairx_engine.local.features import MissingWeightsError
from pairx_engine.photo.chips import chip_of
from tasks.evaluation.faithfulness import (
    Protocol,
    choose_pairs,
    faithfulness_fingerprint,
    faithfulness_shard,
    plan_faithfulness,
    summarise,
)
from tasks.evaluation.listing import list_shard, listed_pairs, plan_list
from tasks.job import model_of
from tasks.photo_files import read_cut
from tests.small_catalogue import Stages

PROTOCOL = Protocol(("pairx_conserving", "gradient", "random"), Flipping(n_steps=3))


@pytest.fixture(scope="module")
def listed(done: Stages) -> pa.Table:
    photos = done.photos()
    found = [list_shard(done.job, s) for s in plan_list(done.gallery, 1)]
    return listed_pairs(done.gallery, [photos[i] for i in done.gallery.photo_ids], found)


def test_half_of_the_pairs_are_of_one_name_and_more_pairs_hold_the_fewer(listed: pa.Table) -> None:
    taken = [choose_pairs(listed, count) for count in (2, 5, 8)]
    for rows, count in zip(taken, (2, 5, 8), strict=True):
        assert len(rows) == count
        assert sum(row["correct"] for row in rows) == math.ceil(count / 2)
    for fewer, more in pairwise(taken):
        assert {r["pair_id"] for r in fewer} <= {r["pair_id"] for r in more}
    assert len(choose_pairs(listed, 10**6)) == listed.num_rows


def test_a_shard_stores_what_the_engine_measures(done: Stages, listed: pa.Table) -> None:
    photos, pairs = done.photos(), choose_pairs(listed, 2)
    (shard,) = plan_faithfulness(pairs, photos, PROTOCOL)
    result = faithfulness_shard(done.job, shard)
    stored = done.warehouse.read("faithfulness", faithfulness_fingerprint(done.job, PROTOCOL), [shard.name])
    assert (result.rows, result.failed) == (stored.num_rows, 0)
    found = {(r["pair_id"], r["method"], r["measure"]): r["value"] for r in stored.to_pylist()}
    model = model_of(done.job)
    subject = Subject(model.network, done.job.layers[0], done.job.settings.n_pixel_maps)
    for pair in pairs:
        chips = [
            model.normalise([chip_of(read_cut(photos[pair[side]], 10**8), model.chip)])[0]
            for side in ("photo_a", "photo_b")
        ]
        given = ChipPair(pair["pair_id"], *chips, similar=pair["correct"])
        for row in measure_pairs(
            subject, [given], ValueRange.of(model.chip), PROTOCOL.methods, PROTOCOL.flipping
        ):
            assert found.pop((row.pair, row.method, row.measure)) == pytest.approx(row.value, abs=1e-6)
    assert not found


def test_a_photo_that_cannot_be_read_loses_its_pair_only(done: Stages, listed: pa.Table) -> None:
    photos = dict(done.photos())
    pairs = choose_pairs(listed, 2)
    lost = pairs[0]["photo_a"]
    photos[lost] = {**photos[lost], "path": "gone.jpg", "chip_id": "gone"}
    protocol = replace(PROTOCOL, flipping=Flipping(n_steps=2))
    (shard,) = plan_faithfulness(pairs, photos, protocol)
    result = faithfulness_shard(done.job, shard)
    concerned = [p for p in pairs if lost in (p["photo_a"], p["photo_b"])]
    partition = faithfulness_fingerprint(done.job, protocol)
    kept = done.warehouse.read("faithfulness", partition, [shard.name])["pair_id"].to_pylist()
    assert set(kept) == {p["pair_id"] for p in pairs if p not in concerned}
    assert (result.rows, result.failed) == (len(kept), len(concerned))
    failures = done.warehouse.read("failures", partition, [shard.name]).to_pylist()
    assert [(f["stage"], f["item"]) for f in failures] == [("faithfulness", p["pair_id"]) for p in concerned]


def test_what_changes_the_numbers_changes_the_partition(done: Stages) -> None:
    prints = {
        faithfulness_fingerprint(done.job, protocol)
        for protocol in (
            PROTOCOL,
            replace(PROTOCOL, methods=("random",)),
            replace(PROTOCOL, flipping=Flipping(n_steps=4)),
            replace(PROTOCOL, translation=Translation(n_steps=2)),
        )
    }
    assert len(prints) == 4
    assert torch.is_grad_enabled()


def test_what_changes_a_local_matcher_changes_the_partition_of_its_matches(done: Stages) -> None:
    settings = done.job.settings.model_copy(update={"max_keypoints": 77})
    jobs = (done.job, replace(done.job, settings=settings))
    for method, same in (("matches_sift", False), ("gradient", True)):
        prints = {faithfulness_fingerprint(job, replace(PROTOCOL, methods=(method,))) for job in jobs}
        assert (len(prints) == 1) is same
    with pytest.raises(MissingWeightsError, match="aliked"):
        faithfulness_fingerprint(done.job, replace(PROTOCOL, methods=("matches_aliked+lightglue",)))


def test_local_matches_are_those_of_the_runs_matcher(done: Stages, listed: pa.Table) -> None:
    photos, pairs = done.photos(), choose_pairs(listed, 1)
    protocol = replace(PROTOCOL, methods=("matches_sift",))
    found = []
    for most in (done.job.settings.max_keypoints, 16):
        job = replace(done.job, settings=done.job.settings.model_copy(update={"max_keypoints": most}))
        (shard,) = plan_faithfulness(pairs, photos, protocol)
        assert faithfulness_shard(job, shard).failed == 0
        stored = done.warehouse.read("faithfulness", faithfulness_fingerprint(job, protocol), [shard.name])
        found.append({row["measure"]: row["value"] for row in stored.to_pylist()})
    assert found[0].keys() == found[1].keys()
    assert found[0] != found[1]


def test_means_and_standard_errors_equal_naive_ones() -> None:
    values = {"a": 0.1, "b": 0.4, "c": 0.25, "d": None}
    rows = [
        {"pair_id": key, "method": "random", "measure": "gap", "similar": key != "c", "value": value}
        for key, value in values.items()
    ]
    rows.append({"pair_id": "other", "method": "random", "measure": "gap", "similar": True, "value": 9.0})
    same, other = summarise(pa.Table.from_pylist(rows), [{"pair_id": key} for key in values])
    assert (same.similar, same.n_pairs, same.mean) == (True, 2, pytest.approx(fmean([0.1, 0.4])))
    assert same.standard_error == pytest.approx(stdev([0.1, 0.4]) / math.sqrt(2))
    assert (other.similar, other.n_pairs, other.mean, other.standard_error) == (False, 1, 0.25, None)
