"""A night and an evaluation with models that have attention: every stage, and what is stored."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import timm
import torch
from safetensors.torch import save_file

from pairx_engine.faithfulness import Flipping, Protocol
from schemas.settings import Settings
from tasks.evaluation.candidates import neighbouring_layers, sweep_of
from tasks.evaluation.faithfulness import faithfulness_shard, plan_faithfulness
from tasks.evaluation.sweep import plan_sweep, sweep_partition, sweep_shard
from tasks.job import prepare_job
from tasks.pairs import Pair
from tasks.store.warehouse import Warehouse
from tests.small_catalogue import Stages, read_small, views_of

SIZE = 64
MODELS = {
    "vit": ("vit_tiny_patch16_224", {"patch_size": 8, "embed_dim": 48, "depth": 4, "num_heads": 3}, "backbone.blocks.2"),
    "swin": (
        "swin_tiny_patch4_window7_224",
        {"patch_size": 4, "window_size": 4, "embed_dim": 24, "depths": [1, 1, 2], "num_heads": [2, 2, 4]},
        "backbone.layers.2",
    ),
}  # fmt: skip


@pytest.fixture(scope="module", params=["vit", pytest.param("swin", marks=pytest.mark.slow)])
def night(
    request: pytest.FixtureRequest, small: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Stages, str]:
    name, kwargs, layer = MODELS[request.param]
    kwargs = {**kwargs, "img_size": SIZE}
    folder = tmp_path_factory.mktemp(request.param)
    torch.manual_seed(0)
    network = timm.create_model(name, pretrained=False, num_classes=0, **kwargs)
    save_file(network.state_dict(), folder / "model.safetensors")
    config = {
        "architecture": "timm",
        "timm_name": name,
        "timm_kwargs": kwargs,
        "input": {"size": [SIZE, SIZE]},
    }
    (folder / "config.json").write_text(json.dumps(config))
    done = Stages.run(read_small(small), Warehouse(str(folder / "w")), model=str(folder))
    return done, layer


def test_all_that_is_stored_is_of_the_networks_own_layer_and_preset(night: tuple[Stages, str]) -> None:
    done, layer = night
    assert (done.job.settings.preset, done.job.layers) == ("cp", (layer,))
    found = views_of(
        done.warehouse,
        ("pairs", "scores", "matches", "relevances", "failures"),
        done.columns(),
    )
    assert len(found["scores"]) == len(found["pairs"]) > 20
    assert not [row for row in found["failures"].values() if row["stage"] not in ("ingest",)]
    coverage = [row["match_coverage"] for row in found["scores"].values()]
    assert all(row["layer"] == layer for row in found["scores"].values())
    assert np.isfinite(coverage).all()
    assert len(set(coverage)) > 10


def test_an_evaluation_tries_what_suits_the_network(night: tuple[Stages, str], tmp_path: Path) -> None:
    done, layer = night
    job, photos = done.job, done.photos()
    sweep = sweep_of(job, (), {})
    assert sweep.presets == ("cp", "attnlrp")
    assert sweep.layers[0] == layer
    assert neighbouring_layers(job), "blocks and stages beside it have cells, too"
    rows = job.warehouse.read("pairs", job.prints.pairs).to_pylist()[:4]
    pairs = [Pair(row["pair_id"], row["photo_a"], row["photo_b"]) for row in rows]
    (shard,) = plan_sweep(pairs, photos, sweep, 10)
    sweep_shard(job, shard)
    measured = job.warehouse.read("measurements", sweep_partition(job, sweep)).to_pylist()
    covered = {(row["preset"], row["layer"]) for row in measured if row["score"] == "match_coverage"}
    assert {("cp", layer), ("attnlrp", layer)} <= covered
    protocol = Protocol((Flipping(8, 2),), checks=("partner",))
    for method in ("pairx_cp", "lrp_attnlrp", "pairx_published"):
        for part in plan_faithfulness(
            [{**vars(pair), "correct": True} for pair in pairs[:1]],
            {pairs[0].pair_id: ()},
            photos,
            method,
            protocol,
        ):
            faithfulness_shard(job, part)
    files = job.warehouse.files("faithfulness")
    stored = {row["method"] for file in files for row in pq.read_table(file).to_pylist()}
    assert stored == {"pairx_cp", "lrp_attnlrp"}, "published has no rule for attention"


def test_the_same_model_under_another_preset_is_scored_anew(night: tuple[Stages, str]) -> None:
    done, _ = night
    other = Settings(**{**done.job.settings.model_dump(), "preset": "attnlrp"})
    prints = prepare_job(done.warehouse, other).prints
    assert prints.embeddings == done.job.prints.embeddings
    assert prints.scores != done.job.prints.scores
