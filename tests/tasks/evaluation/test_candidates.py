"""What a sweep tries by default."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pairx_engine.local.features import MissingWeightsError
from pairx_engine.relevance.presets import PRESETS, REDUCTIONS
from tasks.evaluation.candidates import FEWEST_CELLS, default_candidate, neighbouring_layers, sweep_of
from tasks.job import model_of
from tests.small_catalogue import Stages


@pytest.fixture(autouse=True)
def any_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights of a matcher are there, wherever they are said to be."""
    monkeypatch.setattr(
        "tasks.evaluation.candidates.matcher_identity", lambda name, weights, keypoints: {"name": name}
    )


def test_weights_that_are_not_there_show_at_once(done: Stages, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    with pytest.raises(MissingWeightsError):
        sweep_of(done.job, ["backbone.blocks.2"], {"xfeat+lighterglue": "nowhere"})


def test_layers_beside_the_models_own_with_useful_maps_are_tried(done: Stages) -> None:
    job = done.job
    found = neighbouring_layers(job)
    assert job.layers[0] in found
    stages = [f"backbone.blocks.{n}" for n, _ in enumerate(model_of(job).network.backbone.blocks)]
    assert set(found) <= set(stages)
    assert len(found) > 2
    assert FEWEST_CELLS > 1


def test_the_jobs_own_settings_are_always_among_the_candidates(done: Stages) -> None:
    job = done.job
    sweep = sweep_of(job, ["backbone.blocks.2"], {"xfeat+lighterglue": "weights"})
    assert sweep.layers == (job.layers[0], "backbone.blocks.2")
    assert sweep.matchers == (("sift", None), ("xfeat+lighterglue", "weights"))
    assert set(sweep.presets) == set(PRESETS) - {"attnlrp"}, "without attention it computes what cp computes"
    assert set(sweep.reductions) < set(REDUCTIONS)
    for preset in sweep.presets:
        for reduction in (None, *REDUCTIONS):
            chosen = job.settings.model_copy(update={"preset": preset, "reduction": reduction})
            default = default_candidate(chosen, job.layers[0])
            assert default["reduction"] in sweep.reductions
            assert default["preset"] in sweep.presets
            assert default["matcher"] in dict(sweep.matchers)
            assert default["homography"] in sweep.homographies


def test_weights_of_the_jobs_own_matcher_win(done: Stages) -> None:
    settings = done.job.settings.model_copy(update={"matcher": "xfeat+lighterglue", "matcher_weights": "own"})
    sweep = sweep_of(
        replace(done.job, settings=settings), ["backbone.blocks.2"], {"xfeat+lighterglue": "other"}
    )
    assert dict(sweep.matchers)["xfeat+lighterglue"] == "own"


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_a_reduction_that_was_given_is_kept(done: Stages, reduction: str) -> None:
    chosen = done.job.settings.model_copy(update={"reduction": reduction})
    wanted = "abs_of_sum" if reduction == "signed_sum" else reduction
    assert default_candidate(chosen, "l")["reduction"] == wanted
