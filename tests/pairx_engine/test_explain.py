"""One pair explained in full, on a small network."""

import numpy as np
import pytest
import torch
from torch import nn

from pairx_engine.models import ReIdModel
from pairx_engine.pair.explain import explain_pair
from pairx_engine.photo.chips import ChipSpec
from pairx_engine.relevance.explainer import LayerExplainer
from pairx_engine.relevance.presets import REDUCTIONS
from pairx_engine.relevance.starts import cosine_start


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Sequential(nn.Conv2d(3, 6, 3, stride=2, padding=1), nn.ReLU()),
        nn.Sequential(nn.Conv2d(6, 8, 3, stride=2, padding=1), nn.SiLU()),
        nn.Sequential(nn.Conv2d(8, 10, 3, padding=1), nn.SiLU()),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(10, 7),
    )
    return ReIdModel("test", network.eval().requires_grad_(False), ChipSpec((20, 24)), "small", "0" * 64, "1")


@pytest.fixture(scope="module")
def chips():
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (20, 24, 3), dtype=np.uint8) for _ in range(2)]


def test_arrays_are_complete_and_consistent(model, chips):
    found = explain_pair(model, *chips, n_pixel_maps=3)
    arrays = found.arrays()
    assert arrays["chip0"] is chips[0]
    assert arrays["relevance_signed_sum0"].shape == (5, 6)
    assert arrays["pixel_relevance1"].shape == (3, 20, 24)
    n = len(found.finding.distance)
    assert n > 3
    assert arrays["match_cell0"].shape == arrays["match_point1"].shape == (n, 2)
    assert arrays["cosine"].shape == ()
    e0, e1 = found.photos[0].embedding.astype(float), found.photos[1].embedding.astype(float)
    assert float(found.cosine) == pytest.approx(e0 @ e1 / np.linalg.norm(e0) / np.linalg.norm(e1), abs=1e-6)
    np.testing.assert_array_equal(
        found.photos[0].relevance["abs_of_sum"], np.abs(found.photos[0].relevance["signed_sum"])
    )
    assert (
        found.photos[0].relevance["sum_of_abs"] >= found.photos[0].relevance["abs_of_sum"] * (1 - 1e-5)
    ).all()
    np.testing.assert_allclose(
        found.finding.sides[0].points, (found.finding.sides[0].cells + 0.5) * 4, rtol=1e-6
    )


def test_parts_equal_the_explainers(model, chips):
    found = explain_pair(model, *chips, n_pixel_maps=2)
    explainer = LayerExplainer(model.network, ["1"])
    tensors = model.normalise(chips)
    seen = [explainer.see(chip) for chip in tensors]
    starts = cosine_start(*(one.embedding for one in seen))
    for side in (0, 1):
        relevance = explainer.relevance(seen[side], starts[side][None])["1"][0].numpy()
        shown = (found.finding.sides[0].grid, found.finding.sides[1].grid)[side]
        np.testing.assert_allclose(shown, relevance, rtol=0, atol=1e-5 * relevance.max())
        cells = found.arrays()[f"match_cell{side}"][:2]
        maps = explainer.pixel_maps(tensors[side], "1", cells).numpy()
        np.testing.assert_allclose(
            found.arrays()[f"pixel_relevance{side}"], maps, rtol=0, atol=1e-5 * maps.max()
        )


@pytest.mark.parametrize("preset", ["published", "paper"])
def test_matches_come_most_relevant_first(model, chips, preset):
    found = explain_pair(model, *chips, preset=preset, n_pixel_maps=0)
    assert (np.diff(found.finding.relevance) <= 0).all()
    (c0, r0), (c1, r1) = found.finding.sides[0].cells.T, found.finding.sides[1].cells.T
    product = found.finding.sides[0].grid[r0, c0].astype(float) * found.finding.sides[1].grid[r1, c1]
    np.testing.assert_allclose(found.finding.relevance, product, rtol=1e-12)
    grid = (
        found.photos[0].relevance["abs_of_sum"]
        if preset == "published"
        else found.photos[0].relevance["signed_sum"]
    )
    assert found.finding.sides[0].grid is grid


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_a_reduction_given_ranks_the_matches(model, chips, reduction):
    found = explain_pair(model, *chips, preset="paper", n_pixel_maps=0, reduction=reduction)
    plain = explain_pair(model, *chips, preset="paper", n_pixel_maps=0)
    assert (found.preset, found.reduction, plain.reduction) == ("paper", reduction, "signed_sum")
    assert found.arrays().keys() == plain.arrays().keys()
    explainer = LayerExplainer(model.network, ["1"], "paper", reduction=reduction)
    seen = [explainer.see(chip) for chip in model.normalise(chips)]
    starts = cosine_start(*(one.embedding for one in seen))
    grids = [
        explainer.relevance(s, start[None])["1"][0].numpy() for s, start in zip(seen, starts, strict=True)
    ]
    np.testing.assert_array_equal(found.finding.sides[0].grid, grids[0])
    np.testing.assert_array_equal(found.finding.sides[1].grid, grids[1])
    (c0, r0), (c1, r1) = found.finding.sides[0].cells.T, found.finding.sides[1].cells.T
    np.testing.assert_array_equal(found.finding.relevance, grids[0][r0, c0].astype(float) * grids[1][r1, c1])


def test_exchanging_the_chips_exchanges_the_sides(model, chips):
    one, other = (
        explain_pair(model, *chips, n_pixel_maps=1),
        explain_pair(model, *chips[::-1], n_pixel_maps=1),
    )
    assert one.cosine == other.cosine
    np.testing.assert_array_equal(one.finding.sides[0].grid, other.finding.sides[1].grid)
    assert {
        (*a, *b)
        for a, b in zip(one.finding.sides[0].cells.tolist(), one.finding.sides[1].cells.tolist(), strict=True)
    } == {
        (*a, *b)
        for a, b in zip(
            other.finding.sides[1].cells.tolist(), other.finding.sides[0].cells.tolist(), strict=True
        )
    }


def test_fewer_matches_than_maps_give_fewer_maps(model, chips):
    found = explain_pair(model, *chips, n_pixel_maps=1000)
    assert len(found.photos[0].pixels) == len(found.photos[1].pixels) == len(found.finding.distance)


def test_what_cannot_be_explained_is_refused(model, chips):
    with pytest.raises(ValueError, match="no layer"):
        explain_pair(model, *chips, layer="blocks")
    with pytest.raises(ValueError, match="published, paper"):
        explain_pair(model, *chips, preset="none")
    with pytest.raises(ValueError, match="abs_of_sum"):
        explain_pair(model, *chips, reduction="none")
    with pytest.raises(ValueError, match="chips must be"):
        explain_pair(model, chips[0], chips[1][:-1])
    with pytest.raises(ValueError, match="chips must be"):
        explain_pair(model, chips[0], chips[1].astype(np.float32))
    with pytest.raises(ValueError, match="negative"):
        explain_pair(model, *chips, n_pixel_maps=-1)
    without = ReIdModel("test", model.network, model.chip, "small", "0" * 64, None)
    with pytest.raises(ValueError, match="names no layer"):
        explain_pair(without, *chips)
