"""The faithfulness stage: which pairs and photos are taken, and what a shard stores."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
import torch

from pairx_engine.explanations import Subject, explanation_named
from pairx_engine.faithfulness import ChipPair, Flipping, Protocol, Translation, ValueRange, measure_pairs
from pairx_engine.local.features import MissingWeightsError
from pairx_engine.photo.chips import chip_of
from tasks.evaluation.faithfulness import (
    choose_others,
    choose_pairs,
    faithfulness_fingerprint,
    faithfulness_shard,
    forward_passes,
    pairs_of,
    plan_faithfulness,
)
from tasks.evaluation.listing import list_shard, listed_pairs, plan_list
from tasks.job import model_of
from tasks.photo_files import read_cut
from tests.small_catalogue import Stages

PROTOCOL = Protocol((Flipping(n_steps=3),), checks=("partner", "localisation", "randomisation", "witness"))


@pytest.fixture(scope="module")
def listed(done: Stages) -> list[Mapping[str, Any]]:
    photos = done.photos()
    found = [list_shard(done.job, s) for s in plan_list(done.gallery, 1)]
    rows: list[Mapping[str, Any]] = listed_pairs(
        done.gallery, [photos[i] for i in done.gallery.photo_ids], found
    ).to_pylist()
    return rows


def test_half_of_the_pairs_are_of_one_name_and_more_pairs_hold_the_fewer(
    listed: list[Mapping[str, Any]],
) -> None:
    taken = [choose_pairs(listed, count) for count in (2, 5, 8)]
    for rows, count in zip(taken, (2, 5, 8), strict=True):
        assert len(rows) == count
        assert sum(row["correct"] for row in rows) == math.ceil(count / 2)
        assert choose_pairs(taken[-1], count) == rows
    for fewer, more in pairwise(taken):
        assert {r["pair_id"] for r in fewer} <= {r["pair_id"] for r in more}
    assert len(choose_pairs(listed, 10**6)) == len(listed)


def test_dear_methods_are_measured_on_fewer_pairs() -> None:
    assert pairs_of("gradient", 30) == 30
    assert explanation_named("score_cam").cost > explanation_named("gradient").cost
    assert pairs_of("score_cam", 30) == 10
    assert (pairs_of("score_cam", 4), pairs_of("score_cam", 1)) == (2, 1)


def test_the_cost_of_a_pair_counts_explanations_and_flips() -> None:
    cost = explanation_named("gradient").cost
    bare = Protocol((Flipping(n_steps=9),), checks=())
    assert forward_passes("gradient", bare) == cost + 4 * 10
    moved = replace(bare, translation=Translation(n_steps=2), checks=("partner", "seconds"))
    assert forward_passes("gradient", moved) == cost * (2 + 7) + 4 * 10
    assert forward_passes("gradient", replace(bare, checks=("randomisation",))) == 3 * cost + 4 * 10


def test_others_are_of_other_animals_and_depend_on_nothing_but_the_list(
    listed: list[Mapping[str, Any]],
) -> None:
    pairs = choose_pairs(listed, 6)
    others = choose_others(pairs, listed)
    names = {row[f"photo_{s}"]: row[f"identity_{s}"] for row in listed for s in ("a", "b")}
    for pair in pairs:
        own = {pair["identity_a"], pair["identity_b"]}
        chosen = others[pair["pair_id"]]
        assert len({*chosen}) == min(3, sum(name not in own for name in names.values()))
        assert not own & {names[photo] for photo in chosen}
    assert choose_others(pairs[::-1], listed[::-1]) == others
    assert len({*others.values()}) > 1


def test_a_shard_stores_what_the_engine_measures(done: Stages, listed: list[Mapping[str, Any]]) -> None:
    photos, pairs = done.photos(), choose_pairs(listed, 2)
    others = choose_others(pairs, listed)
    model = model_of(done.job)
    subject = Subject(model.network, done.job.layers[0], done.job.settings.n_pixel_maps)

    def chip(photo: str) -> torch.Tensor:
        return model.normalise([chip_of(read_cut(photos[photo], 10**8), model.chip)])[0]

    for method in ("pairx_conserving", "gradient"):
        (shard,) = plan_faithfulness(pairs, others, photos, method, PROTOCOL)
        result = faithfulness_shard(done.job, shard)
        partition = faithfulness_fingerprint(done.job, method, PROTOCOL)
        stored = done.warehouse.read("faithfulness", partition, [shard.name])
        assert (result.rows, result.failed) == (stored.num_rows, 0)
        found = {(r["pair_id"], r["method"], r["measure"]): r["value"] for r in stored.to_pylist()}
        for pair in pairs:
            company = tuple(chip(photo) for photo in others[pair["pair_id"]])
            chips = chip(pair["photo_a"]), chip(pair["photo_b"])
            given = ChipPair(pair["pair_id"], *chips, similar=pair["correct"], others=company)
            for row in measure_pairs(subject, [given], ValueRange.of(model.chip), [method], PROTOCOL):
                assert found.pop((row.pair, row.method, row.measure)) == pytest.approx(row.value, abs=1e-6)
        assert not found


def test_a_photo_that_cannot_be_read_loses_its_pair_only(
    done: Stages, listed: list[Mapping[str, Any]]
) -> None:
    photos = dict(done.photos())
    pairs = choose_pairs(listed, 2)
    lost = pairs[0]["photo_a"]
    photos[lost] = {**photos[lost], "path": "gone.jpg", "chip_id": "gone"}
    protocol = Protocol((Flipping(n_steps=2),), checks=())
    nobody: dict[str, tuple[str, ...]] = {p["pair_id"]: () for p in pairs}
    (shard,) = plan_faithfulness(pairs, nobody, photos, "gradient", protocol)
    result = faithfulness_shard(done.job, shard)
    concerned = [p for p in pairs if lost in (p["photo_a"], p["photo_b"])]
    partition = faithfulness_fingerprint(done.job, "gradient", protocol)
    kept = done.warehouse.read("faithfulness", partition, [shard.name])["pair_id"].to_pylist()
    assert set(kept) == {p["pair_id"] for p in pairs if p not in concerned}
    assert (result.rows, result.failed) == (len(kept), len(concerned))
    failures = done.warehouse.read("failures", partition, [shard.name]).to_pylist()
    assert [(f["stage"], f["item"]) for f in failures] == [("faithfulness", p["pair_id"]) for p in concerned]


def test_what_changes_the_numbers_changes_the_partition_and_other_methods_do_not(done: Stages) -> None:
    prints = {
        faithfulness_fingerprint(done.job, method, protocol)
        for method, protocol in (
            ("gradient", PROTOCOL),
            ("random", PROTOCOL),
            ("gradient", replace(PROTOCOL, flippings=(Flipping(n_steps=4),))),
            ("gradient", replace(PROTOCOL, translation=Translation(n_steps=2))),
            ("gradient", replace(PROTOCOL, checks=())),
        )
    }
    assert len(prints) == 5
    reduced = replace(done.job, settings=done.job.settings.model_copy(update={"reduction": "signed_sum"}))
    assert faithfulness_fingerprint(reduced, "gradient", PROTOCOL) not in prints
    assert torch.is_grad_enabled()


def test_what_changes_a_local_matcher_changes_the_partition_of_its_matches(done: Stages) -> None:
    settings = done.job.settings.model_copy(update={"max_keypoints": 77})
    jobs = (done.job, replace(done.job, settings=settings))
    for method, same in (("matches_sift", False), ("gradient", True)):
        assert (len({faithfulness_fingerprint(job, method, PROTOCOL) for job in jobs}) == 1) is same
    with pytest.raises(MissingWeightsError, match="aliked"):
        faithfulness_fingerprint(done.job, "matches_aliked+lightglue", PROTOCOL)


def test_local_matches_are_those_of_the_runs_matcher(done: Stages, listed: list[Mapping[str, Any]]) -> None:
    photos, pairs = done.photos(), choose_pairs(listed, 1)
    nobody: dict[str, tuple[str, ...]] = {p["pair_id"]: () for p in pairs}
    protocol = Protocol((Flipping(n_steps=3),), checks=())
    found = []
    for most in (done.job.settings.max_keypoints, 16):
        job = replace(done.job, settings=done.job.settings.model_copy(update={"max_keypoints": most}))
        (shard,) = plan_faithfulness(pairs, nobody, photos, "matches_sift", protocol)
        assert faithfulness_shard(job, shard).failed == 0
        partition = faithfulness_fingerprint(job, "matches_sift", protocol)
        stored = done.warehouse.read("faithfulness", partition, [shard.name])
        found.append({row["measure"]: row["value"] for row in stored.to_pylist()})
    assert found[0].keys() == found[1].keys()
    assert found[0] != found[1]
