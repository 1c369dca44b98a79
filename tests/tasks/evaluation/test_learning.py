"""What a method must learn is learned once, kept in the warehouse, and used wherever it explains."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from pairx_engine.faithfulness import Flipping, Protocol
from tasks.evaluation.faithfulness import (
    choose_others,
    choose_pairs,
    faithfulness_fingerprint,
    faithfulness_shard,
    plan_faithfulness,
)
from tasks.evaluation.learning import LEARN, LearnShard, learn_shard, newest_state, plan_learning, state_of
from tasks.evaluation.listing import list_shard, listed_pairs, plan_list
from tasks.job import Job, model_of
from tasks.photo_files import VIEWS
from tasks.store.warehouse import Warehouse
from tests.seams.toy_explanation import Unusual, registered  # noqa: F401  # a fixture
from tests.small_catalogue import Stages


@pytest.fixture
def shard(done: Stages) -> LearnShard:
    (shard,) = plan_learning(["gradient", "unusual"], list(done.photos().values()))
    return shard


@pytest.fixture
def elsewhere(done: Stages, tmp_path: Path) -> Job:
    return replace(done.job, warehouse=Warehouse(str(tmp_path / "w")))


def test_only_those_that_must_learn_do_and_from_as_many_photos_as_they_say(shard: LearnShard) -> None:
    assert (shard.method, LEARN.size(shard)) == ("unusual", Unusual.photos)
    ids = [p["chip_id"] for p in shard.photos]
    assert ids == sorted(ids)


def test_what_is_learned_comes_back_as_it_was(done: Stages, shard: LearnShard, elsewhere: Job) -> None:
    assert newest_state(elsewhere, "unusual") is None
    result = learn_shard(elsewhere, shard)
    assert (result.stage, result.rows, result.failed) == ("learn", 1, 0)
    model = model_of(elsewhere)
    chips = [model.normalise([VIEWS.chip(p, 10**8, model.chip)])[0].numpy() for p in shard.photos]
    for state in (state_of(elsewhere, "unusual", shard.name), newest_state(elsewhere, "unusual")):
        assert state is not None
        np.testing.assert_allclose(state["mean"], np.mean(chips, axis=0), rtol=0, atol=1e-6)


def test_a_photo_that_cannot_be_read_is_left_out(shard: LearnShard, elsewhere: Job) -> None:
    lost = tuple(
        {**p, "path": "gone.jpg", "chip_id": "gone"} if i == 0 else p for i, p in enumerate(shard.photos)
    )
    learn_shard(elsewhere, replace(shard, photos=lost))
    model = model_of(elsewhere)
    chips = [model.normalise([VIEWS.chip(p, 10**8, model.chip)])[0].numpy() for p in shard.photos[1:]]
    found = newest_state(elsewhere, "unusual")
    assert found is not None
    np.testing.assert_allclose(found["mean"], np.mean(chips, axis=0), rtol=0, atol=1e-6)


def test_its_faithfulness_is_stored_with_the_others(done: Stages, shard: LearnShard, elsewhere: Job) -> None:
    learn_shard(elsewhere, shard)
    photos = done.photos()
    listed: pa.Table = listed_pairs(
        done.gallery,
        [photos[i] for i in done.gallery.photo_ids],
        [list_shard(done.job, s) for s in plan_list(done.gallery, 1)],
    )
    protocol = Protocol((Flipping(n_steps=2),), checks=("seconds",))
    learned = ((shard.method, shard.name),)
    rows = listed.to_pylist()
    pairs = choose_pairs(rows, 1)
    others = choose_others(pairs, rows)
    (part,) = plan_faithfulness(pairs, others, photos, "unusual", protocol, learned)
    assert part.learned == shard.name
    assert faithfulness_shard(elsewhere, part).failed == 0
    partition = faithfulness_fingerprint(elsewhere, "unusual", protocol, shard.name)
    stored = elsewhere.warehouse.read("faithfulness", partition, [part.name]).to_pylist()
    assert {row["method"] for row in stored} == {"unusual"}
    assert partition != faithfulness_fingerprint(elsewhere, "unusual", protocol)
