"""Pixel flipping against a loop over single photos in NumPy, and against curves known in advance."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from pairx_engine.errors import EngineError
from pairx_engine.faithfulness.pixel_flipping import (
    Flipping,
    FlippingCurve,
    flip,
    superpixel_ranks,
    superpixel_sums,
)
from pairx_engine.photo.chips import ChipSpec
from pairx_engine.photo.fills import FILLS, fill_chip, gaussian_blur
from pairx_engine.photo.value_range import ValueRange
from tests.pairx_engine.small_networks import random_chip, small_network

VALUES = ValueRange((-2.0, -1.0, -1.5), (2.0, 3.0, 2.5))
SIZE = (16, 23)
"""No multiple of five either way."""


@pytest.fixture(scope="module")
def network():
    return small_network("conv + batch norm + SiLU", 3, pool="average", neck="linear")


def pair(seed=0, size=SIZE, dtype=torch.float64):
    chips = [random_chip(seed + side, size, dtype) for side in (0, 1)]
    draw = torch.Generator().manual_seed(seed)
    return *chips, *(torch.randn(size, generator=draw) for _ in range(2))


def patches_of(size, side):
    """Superpixels as slices, row by row."""
    return [
        (slice(top, min(top + side, size[0])), slice(left, min(left + side, size[1])))
        for top in range(0, size[0], side)
        for left in range(0, size[1], side)
    ]


def naive_curve(network, chip_a, chip_b, relevance_a, relevance_b, how, similar):
    """One superpixel after the other, one photo at a time; ties must not occur."""
    chips = [chip_a.numpy().copy(), chip_b.numpy().copy()]
    patches = patches_of(chips[0].shape[1:], how.superpixel)
    flipped = (0,) if similar else (0, 1)
    fills, orders = {}, {}
    for side in flipped:
        draw = np.random.default_rng([how.seed, side, 1])
        fills[side] = fill_chip((chip_a, chip_b)[side], how.fill, VALUES, draw).numpy()
        relevance = (relevance_a, relevance_b)[side].double().numpy()
        sums = [sum(relevance[patch].ravel().tolist()) for patch in patches]
        assert len(set(sums)) == len(sums)
        orders[side] = sorted(range(len(patches)), key=lambda i: sums[i], reverse=how.order == "most")
    found, done = [], 0
    for step in range(how.n_steps + 1):
        until = math.floor(step / how.n_steps * how.share * len(patches) + 0.5)
        for place in range(done, until):
            for side in flipped:
                rows, columns = patches[orders[side][place]]
                chips[side][:, rows, columns] = fills[side][:, rows, columns]
        done = until
        e0, e1 = (network(torch.from_numpy(chip)[None])[0].numpy() for chip in chips)
        found.append(e0 @ e1 / np.linalg.norm(e0) / np.linalg.norm(e1))
    return np.array(found)


@pytest.mark.parametrize("similar", [True, False])
@pytest.mark.parametrize("order", ["most", "least"])
@pytest.mark.parametrize("fill", FILLS)
def test_a_curve_equals_the_naive_loop(network, fill, order, similar):
    how = Flipping(superpixel=5, n_steps=7, share=0.8, fill=fill, seed=4, order=order)
    chips_and_maps = pair(5)
    wanted = naive_curve(network, *chips_and_maps, how, similar)
    found = flip(network, *chips_and_maps, how, similar, VALUES, batch_size=3)
    np.testing.assert_allclose(found.similarity, wanted, rtol=0, atol=1e-12)
    assert np.ptp(wanted) > 1e-3


@pytest.mark.parametrize("similar", [True, False])
def test_batches_do_not_change_a_curve(similar):
    network = small_network(
        "timm InvertedResidual with gate", 1, torch.float32, pool="average", neck="linear"
    )
    chips_and_maps = pair(1, dtype=torch.float32)
    curves = [
        flip(network, *chips_and_maps, Flipping(), similar, VALUES, size).similarity for size in (1, 4, 8, 50)
    ]
    for curve in curves[1:]:
        np.testing.assert_allclose(curve, curves[0], rtol=0, atol=1e-5)


def test_no_batch_is_larger_than_asked_for(network):
    sizes = []

    def embed(chips):
        sizes.append(len(chips))
        assert not torch.is_grad_enabled()
        return network(chips)

    flip(embed, *pair(), Flipping(n_steps=9), False, VALUES, batch_size=4)
    assert sizes == [4, 4, 2] * 2
    sizes.clear()
    flip(embed, *pair(), Flipping(n_steps=9), True, VALUES, batch_size=4)
    assert sizes == [4, 4, 2, 1]


class PatchSums(nn.Module):
    """Embeds a chip (N, 3, H, W) as the sums of its patches.

    It is linear, and each superpixel has an element of its own.
    """

    def __init__(self, side):
        super().__init__()
        self.side = side

    def forward(self, chips):
        return nn.functional.avg_pool2d(chips.sum(dim=1, keepdim=True), self.side).flatten(1) * self.side**2


@pytest.fixture
def patches():
    """A chip of 6 x 8 patches of one value each.

    Their mean is zero, so that the fill `mean` removes a patch from the embedding.
    """
    weights = torch.randn(24, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    values = torch.cat([weights, -weights])[torch.randperm(48, generator=torch.Generator().manual_seed(1))]
    chip = values.view(1, 6, 8).expand(3, -1, -1).repeat_interleave(5, 1).repeat_interleave(5, 2).contiguous()
    return chip, values


def spread(relevance, rows=6, columns=8, side=5):
    return relevance.view(rows, columns).repeat_interleave(side, 0).repeat_interleave(side, 1)


@pytest.mark.parametrize("order", ["most", "least"])
def test_the_right_order_gives_the_curve_known_in_closed_form(patches, order):
    # With both photos the same e, flipping the set S leaves cos = sqrt(1 - sum_S e^2 / sum e^2).
    chip, values = patches
    shares = (values.square() / values.square().sum()).sort(descending=order == "most").values
    how = Flipping(n_steps=48, share=1, fill="mean", order=order)
    found = flip(PatchSums(5), chip, chip, spread(values.square()), spread(values), how, True, VALUES)
    left = (1 - torch.cat([torch.zeros(1).double(), shares.cumsum(0)])).clamp(min=0).sqrt()
    np.testing.assert_allclose(found.similarity[:-1], left[:-1], rtol=0, atol=1e-7)
    assert found.similarity[0] == pytest.approx(1)
    assert found.similarity[-1] == pytest.approx(0, abs=1e-7)


def test_the_true_relevance_beats_random_ones_and_the_opposite_order_is_worst(patches):
    chip, values = patches
    how = Flipping(fill="mean")

    def auc(relevance, order):
        maps = spread(relevance), spread(relevance)
        return flip(PatchSums(5), chip, chip, *maps, replace(how, order=order), True, VALUES).auc

    true = values.square()
    best, worst = auc(true, "most"), auc(true, "least")
    assert auc(-true, "most") == pytest.approx(worst, abs=1e-9)
    draw = torch.Generator().manual_seed(0)
    for _ in range(20):
        assert best + 0.1 < auc(torch.rand(48, generator=draw), "most") < worst - 0.02


def test_both_photos_of_a_dissimilar_pair_are_flipped(patches):
    # Both lose the same patches, so the photos stay equal until nothing is left; noise of its own makes them
    # differ.
    chip, values = patches
    without_ties = values.square() + 1e-3 * torch.arange(48)
    maps = spread(without_ties), spread(without_ties)
    same = flip(PatchSums(5), chip, chip, *maps, Flipping(fill="mean"), False, VALUES)
    np.testing.assert_allclose(same.similarity, 1, rtol=0, atol=1e-9)
    noisy = flip(PatchSums(5), chip, chip, *maps, Flipping(fill="noise"), False, VALUES)
    assert noisy.similarity[-1] < 0.99
    one = flip(PatchSums(5), chip, chip, *maps, Flipping(fill="mean"), True, VALUES)
    assert one.similarity[-1] < 0.9


def test_the_second_map_of_a_similar_pair_takes_no_part(network):
    chip_a, chip_b, relevance_a, relevance_b = pair()
    curves = [
        flip(network, chip_a, chip_b, relevance_a, other, Flipping(), True, VALUES).similarity
        for other in (relevance_b, -relevance_b)
    ]
    np.testing.assert_array_equal(*curves)


def test_a_seed_repeats_a_curve_and_another_seed_does_not(network):
    curves = [flip(network, *pair(), Flipping(seed=s), False, VALUES).similarity for s in (1, 1, 2)]
    np.testing.assert_array_equal(curves[0], curves[1])
    assert curves[0][0] == curves[2][0]
    assert np.abs(curves[0] - curves[2]).max() > 1e-4


def test_area_and_mean_drop_of_a_known_curve():
    curve = FlippingCurve(np.array([1.0, 0.5, 0.2]))
    assert curve.auc == pytest.approx((0.75 + 0.35) / 2)
    assert curve.aopc == pytest.approx((0 + 0.5 + 0.8) / 3)


def test_shares_of_superpixels_per_step():
    assert Flipping(n_steps=4, share=0.5).counts(40) == [0, 5, 10, 15, 20]
    assert Flipping(n_steps=20, share=20 / 1024).counts(1024) == list(range(21))
    assert Flipping(n_steps=4, share=1).counts(2) == [0, 1, 1, 2, 2]


@given(
    st.integers(1, 30),
    st.integers(1, 30),
    st.integers(1, 9),
    st.integers(0, 9),
    st.sampled_from(["most", "least"]),
)
@settings(deadline=None, max_examples=50)
def test_every_pixel_has_the_rank_of_its_superpixel(height, width, side, seed, order):
    relevance = torch.from_numpy(np.random.default_rng(seed).integers(-1, 2, (height, width)))
    patches = patches_of((height, width), side)
    ranks = superpixel_ranks(relevance, Flipping(superpixel=side, seed=seed, order=order)).numpy()
    assert ranks.shape == (height, width)
    own = [int(ranks[patch].flat[0]) for patch in patches]
    assert all((ranks[patch] == rank).all() for patch, rank in zip(patches, own, strict=True))
    assert sorted(own) == list(range(len(patches)))
    sums = [int(relevance[patch].sum()) for patch in patches]
    assert superpixel_sums(relevance, side).flatten().tolist() == sums
    in_order = [total for _, total in sorted(zip(own, sums, strict=True))]
    assert in_order == sorted(sums, reverse=order == "most")


def test_ties_come_in_one_drawn_order_for_both_directions():
    constant = torch.zeros(30, 30)
    most, least = (superpixel_ranks(constant, Flipping(order=order)) for order in ("most", "least"))
    assert torch.equal(most, least)
    assert torch.equal(most, superpixel_ranks(constant, Flipping()))
    assert not torch.equal(most, superpixel_ranks(constant, Flipping(seed=1)))
    assert not torch.equal(most[::5, ::5].flatten(), torch.arange(36))
    # A single superpixel that stands out goes to the front, and the others keep their order.
    constant[12, 12] = 1
    first = superpixel_ranks(constant, Flipping())
    assert first[12, 12] == 0
    others = [(m, f) for m, f in zip(most[::5, ::5].flatten(), first[::5, ::5].flatten(), strict=True) if f]
    assert [m for m, _ in sorted(others)] == [m for m, _ in sorted(others, key=lambda both: both[1])]


def test_a_constant_map_has_no_gap(network):
    chip_a, chip_b, *_ = pair(size=(20, 25))
    constant = torch.ones(20, 25)
    most, least = (
        flip(network, chip_a, chip_b, constant, constant, Flipping(order=order), True, VALUES)
        for order in ("most", "least")
    )
    np.testing.assert_array_equal(most.similarity, least.similarity)


def test_noise_are_the_photos_256_values_under_the_models_normalisation():
    spec = ChipSpec((64, 64))
    values = ValueRange.of(spec)
    noise = fill_chip(torch.zeros(3, 64, 64, dtype=torch.float64), "noise", values, np.random.default_rng(0))
    mean, std = (torch.tensor(v).double().view(3, 1, 1) for v in (spec.mean, spec.std))
    levels = (noise * std + mean) * 255
    np.testing.assert_allclose(levels, levels.round(), rtol=0, atol=1e-4)
    assert (levels.amin(dim=(1, 2)).round() == 0).all()
    assert (levels.amax(dim=(1, 2)).round() == 255).all()
    assert levels.mean(dim=(1, 2)).sub(127.5).abs().max() < 5
    assert not torch.equal(levels[0], levels[1])


def test_mean_and_blur_keep_the_chips_mean_and_blur_its_coarse_colours():
    chip = random_chip(0, (40, 48))
    chip[:, :, 24:] += 5
    draw = np.random.default_rng(0)
    mean, blur = (fill_chip(chip, fill, VALUES, draw) for fill in ("mean", "blur"))
    assert torch.allclose(mean, chip.mean(dim=(1, 2)).view(3, 1, 1).expand(3, 40, 48))
    assert float(blur[:, :, 40:].mean() - blur[:, :, :8].mean()) > 4
    assert blur.shape == chip.shape
    assert torch.allclose(gaussian_blur(mean, 3.0), mean)
    assert float(blur[:, :, :8].std()) < 0.3


@pytest.mark.parametrize(
    "wrong",
    [
        {"superpixel": 0},
        {"n_steps": 0},
        {"share": 0},
        {"share": 1.1},
        {"fill": "black"},
        {"order": "x"},
        {"seed": -1},
    ],
)
def test_senseless_settings_are_refused(wrong):
    with pytest.raises(ValueError, match=r"superpixel|share|fill"):
        Flipping(**wrong)


def test_maps_that_do_not_fit_are_refused(network):
    chip_a, chip_b, relevance_a, relevance_b = pair()
    with pytest.raises(EngineError, match="needs a map"):
        flip(network, chip_a, chip_b, relevance_a.T, relevance_b, Flipping(), True, VALUES)
    with pytest.raises(EngineError, match="not finite"):
        flip(network, chip_a, chip_b, relevance_a, relevance_b * torch.nan, Flipping(), True, VALUES)
    with pytest.raises(EngineError, match="batch size"):
        flip(network, chip_a, chip_b, relevance_a, relevance_b, Flipping(), True, VALUES, 0)
    with pytest.raises(EngineError, match="value range"):
        flip(network, chip_a, chip_b, relevance_a, relevance_b, Flipping(), True, ValueRange((0.0,), (1.0,)))
    with pytest.raises(ValueError, match="below high"):
        ValueRange((0.0,), (0.0,))


def test_a_value_range_gives_back_the_picture_that_a_chip_was_made_of():
    values = ValueRange.of(ChipSpec((16, 24)))
    picture = np.random.default_rng(0).integers(0, 256, (16, 24, 3), dtype=np.uint8)
    low, high = (torch.tensor(v).view(3, 1, 1) for v in (values.low, values.high))
    chip = low + (high - low) * torch.from_numpy(picture).permute(2, 0, 1) / 255
    np.testing.assert_array_equal(values.pixels(chip), picture)
