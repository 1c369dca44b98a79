"""Pixel maps of pairs against what they are made of, and the network left as it was found."""

import numpy as np
import pytest
import torch

from pairx_engine.errors import EngineError
from pairx_engine.explanations import Matching, Subject, explanation_named, explanations, needs
from pairx_engine.models import ReIdModel
from pairx_engine.pair.explain import explain_pair
from pairx_engine.pair.finding import grids_by_reduction
from pairx_engine.photo.chips import ChipSpec
from pairx_engine.photo.value_range import ValueRange
from pairx_engine.relevance.explainer import LayerExplainer
from pairx_engine.relevance.presets import PRESETS
from pairx_engine.relevance.starts import starts_of
from tests.pairx_engine.explanations.learning import learned
from tests.pairx_engine.small_networks import CHIP, random_chip, small_network

BLOCK = "timm InvertedResidual with gate"


def make(dtype=torch.float64, seed=2):
    return small_network(BLOCK, seed, dtype, stem="conv", pool="average", neck="linear")


METHODS = tuple(
    name
    for name, each in explanations().items()
    # Noise has nothing to match, and teaches a decoder nothing.
    if not needs(each) and not isinstance(each, Matching) and not name.startswith(("explain_lfs", "utkin"))
)
VALUES = ValueRange((-2.0,) * 3, (2.0,) * 3)


def maps_of(network, layer, chips, method, **how):
    subject = Subject(network, layer, values=VALUES, **how)
    return explanation_named(method).explain(subject, *chips, learned(method, subject)).maps


@pytest.fixture(scope="module")
def network():
    return make()


@pytest.fixture(scope="module")
def chips():
    return random_chip(0), random_chip(1)


@pytest.mark.parametrize("method", METHODS)
def test_every_method_gives_a_finite_map_of_each_chip_and_the_same_again(network, chips, method):
    maps, again = (maps_of(network, "first", chips, method) for _ in range(2))
    for found, same, chip in zip(maps, again, chips, strict=True):
        assert found.shape == CHIP
        assert found.dtype == chip.dtype
        assert not found.requires_grad
        assert found.isfinite().all()
        assert float(found.std()) > 0
        assert torch.equal(found, same)


@pytest.mark.parametrize("preset", PRESETS)
def test_pairx_maps_weigh_what_explain_pair_shows(preset):
    network = make(torch.float32)
    model = ReIdModel("test", network, ChipSpec(CHIP), "small", "0" * 64, "first")
    rng = np.random.default_rng(0)
    photos = [rng.integers(0, 256, (*CHIP, 3), dtype=np.uint8) for _ in range(2)]
    shown = explain_pair(model, *photos, preset=preset, n_pixel_maps=4)
    maps = maps_of(network, "first", model.normalise(photos), f"pairx_{preset}", k=4)
    weights = np.clip(shown.finding.relevance[:4], 0, None)
    assert weights.sum() > 0
    for found, pixels in zip(maps, [photo.pixels for photo in shown.photos], strict=True):
        wanted = sum(
            weight / weights.sum() * match / match.sum()
            for weight, match in zip(weights, pixels, strict=True)
            if weight
        )
        np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-4 * wanted.max())
        assert float(found.sum()) == pytest.approx(1, abs=1e-4)


def test_pairx_maps_take_in_the_first_k_matches(network, chips):
    one, few, all_ = (maps_of(network, "first", chips, "pairx_published", k=k)[0] for k in (1, 3, 999))
    assert int((one > 0).sum()) <= int((few > 0).sum()) <= int((all_ > 0).sum())
    assert not torch.allclose(few, all_)


@pytest.mark.parametrize("preset", PRESETS)
def test_relevance_maps_stretch_the_layers_grid(network, chips, preset):
    explainer = LayerExplainer(network, ["first"], preset)
    seen = [explainer.see(chip) for chip in chips]
    starts = starts_of(explainer.preset, *(one.embedding for one in seen))
    maps = maps_of(network, "first", chips, f"relevance_{preset}")
    for found, one, start in zip(maps, seen, starts, strict=True):
        grid = explainer.relevance(one, start[None])["first"][0]
        (h, w), (height, width) = grid.shape, CHIP
        for row, column in ((0, 0), (4, 9), (15, 22)):
            # Bilinear between cell centres, the grid's edge repeated outwards.
            y, x = ((at + 0.5) * n / size - 0.5 for at, n, size in ((row, h, height), (column, w, width)))
            y, x = min(max(y, 0), h - 1), min(max(x, 0), w - 1)
            r, c = min(int(y), h - 2), min(int(x), w - 2)
            upper, lower = (grid[i, c] + (x - c) * (grid[i, c + 1] - grid[i, c]) for i in (r, r + 1))
            wanted = float(upper + (y - r) * (lower - upper))
            assert float(found[row, column]) == pytest.approx(wanted, abs=1e-9 * float(grid.abs().max()))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_relevance_maps_are_the_grid_stretched_bit_for_bit(dtype):
    network, chips = make(dtype), [random_chip(seed, dtype=dtype) for seed in (0, 1)]
    explainer = LayerExplainer(network, ["first"])
    seen = [explainer.see(chip) for chip in chips]
    how = explainer.preset.reduction
    grids = grids_by_reduction(explainer, seen, "first", [how])[how]
    maps = maps_of(network, "first", chips, "relevance_published")
    for found, grid in zip(maps, grids, strict=True):
        given = torch.from_numpy(grid)[None, None]
        wanted = torch.nn.functional.interpolate(given, CHIP, mode="bilinear", align_corners=False)[0, 0]
        assert torch.equal(found, wanted)


def test_conserving_relevance_in_pixels_does_not_depend_on_the_layer_it_passes(network, chips):
    # All relevance passes through each of these layers, so the sum over pixels is the cosine whatever the
    # way.
    found = [maps_of(network, layer, chips, "lrp_conserving") for layer in ("stem", "first", "second")]
    for maps in found[1:]:
        for side in (0, 1):
            assert torch.allclose(
                maps[side], found[0][side], rtol=0, atol=1e-9 * float(found[0][side].abs().max())
            )
    with torch.no_grad():
        cosine = torch.nn.functional.cosine_similarity(*(network(chip[None]) for chip in chips))
    for side in (0, 1):
        assert float(found[0][side].sum()) == pytest.approx(float(cosine), abs=1e-6)


def test_full_propagation_needs_the_fast_path(network, chips):
    general = LayerExplainer(network, ["first"], path="general")
    subject = Subject(network, "first", _explainers={"published": general})
    with pytest.raises(EngineError, match="fast path"):
        explanation_named("lrp_published").explain(subject, *chips)


@pytest.mark.parametrize("times_input", [False, True])
def test_gradients_equal_finite_differences(network, chips, times_input):
    maps = maps_of(network, "first", chips, "gradient_x_input" if times_input else "gradient")

    def cosine(chip_a, chip_b):
        with torch.no_grad():
            return float(torch.nn.functional.cosine_similarity(network(chip_a[None]), network(chip_b[None])))

    for side in (0, 1):
        for row, column in ((0, 0), (7, 11), (15, 22)):
            slopes = []
            for channel in range(3):
                ends = []
                for step in (1e-5, -1e-5):
                    moved = [chip.clone() for chip in chips]
                    moved[side][channel, row, column] += step
                    ends.append(cosine(*moved))
                slopes.append((ends[0] - ends[1]) / 2e-5)
            values = chips[side][:, row, column].tolist()
            wanted = (
                sum(s * v for s, v in zip(slopes, values, strict=True))
                if times_input
                else sum(map(abs, slopes))
            )
            assert float(maps[side][row, column]) == pytest.approx(wanted, rel=1e-4, abs=1e-9)


@pytest.mark.parametrize("method", METHODS)
def test_the_network_is_left_as_it_was_found(chips, method):
    network = make()
    network.train()
    for parameter in list(network.parameters())[::2]:
        parameter.requires_grad_(True)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    wanted = [parameter.requires_grad for parameter in network.parameters()]
    maps_of(network, "first", chips, method, k=2)
    assert all(parameter.grad is None for parameter in network.parameters())
    assert [parameter.requires_grad for parameter in network.parameters()] == wanted
    assert all(module.training for module in network.modules())
    assert all(not module._forward_hooks and not module._backward_hooks for module in network.modules())
    assert all(torch.equal(before[name], tensor) for name, tensor in network.state_dict().items())
    assert all(chip.grad is None and not chip.requires_grad for chip in chips)


def test_random_maps_follow_the_seed_and_differ_between_photos(network, chips):
    def maps(seed, method="random"):
        return maps_of(network, "first", chips, method, seed=seed)

    assert torch.equal(maps(1)[0], maps(1)[0])
    assert not torch.equal(maps(1)[0], maps(2)[0])
    assert not torch.equal(*maps(1))
    rough, smooth = maps(1)[0], maps(1, "random_smooth")[0]
    assert float(smooth.diff(dim=1).abs().mean() / smooth.std()) < float(
        rough.diff(dim=1).abs().mean() / rough.std()
    )


def test_the_centre_map_is_largest_in_the_middle_and_symmetric(network, chips):
    found, _ = maps_of(network, "first", chips, "centre")
    assert torch.allclose(found, found.flip(0, 1))
    assert divmod(int(found.argmax()), CHIP[1]) in {(7, 11), (8, 11)}


def test_what_is_unknown_is_refused(network, chips):
    with pytest.raises(EngineError, match="unknown method 'pairx'"):
        maps_of(network, "first", chips, "pairx")
    with pytest.raises(EngineError, match="no layer"):
        Subject(network, "frist")
    with pytest.raises(EngineError, match="at least one match"):
        Subject(network, "first", k=0)
