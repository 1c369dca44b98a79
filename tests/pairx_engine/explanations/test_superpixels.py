"""Superpixels taken away: against loops over chips with single segments filled, and a library."""

from dataclasses import replace
from itertools import permutations

import numpy as np
import pytest
import torch

from pairx_engine.errors import EngineError
from pairx_engine.explanations import Subject, explanations, needs, usual
from pairx_engine.explanations import superpixels as module
from pairx_engine.explanations.superpixels import KernelShap, OneOut, Superpixels, superpixel_methods
from pairx_engine.photo.blur import gaussian_blur
from pairx_engine.photo.fills import FILLS
from pairx_engine.photo.value_range import ValueRange
from tests.pairx_engine.small_networks import CHIP, random_chip, small_network

pytest.importorskip("skimage")

FEW = Superpixels(count=6)
SMALL = (OneOut(FEW), KernelShap(FEW, samples=30))


@pytest.fixture(scope="module")
def network():
    return small_network(
        "timm InvertedResidual with gate", 2, torch.float64, stem="conv", pool="average", neck="linear"
    )


@pytest.fixture(scope="module")
def subject(network):
    return Subject(network, "first")


def patchy_chip(seed):
    """A chip of six patches of colours, with some noise."""
    draw = torch.Generator().manual_seed(seed)
    patches = torch.randn(3, 2, 3, generator=draw, dtype=torch.float64)
    rows, columns = (torch.arange(side) * n // side for side, n in zip(CHIP, (2, 3), strict=True))
    return patches[:, rows][:, :, columns] + 0.1 * random_chip(seed)


@pytest.fixture(scope="module")
def chips():
    return [patchy_chip(seed) for seed in (0, 1)]


def cosine(network, chip, partner):
    with torch.no_grad():
        return float(torch.nn.functional.cosine_similarity(network(chip[None]), network(partner[None])))


def filled(chip, segments, kept, colour):
    """A chip of the kept segments, pixel by pixel."""
    made = chip.clone()
    for y in range(chip.shape[1]):
        for x in range(chip.shape[2]):
            if segments[y, x] not in kept:
                made[:, y, x] = colour
    return made


def played(network, chips, side, found):
    """What each set of segments of a photo reaches under the fill `mean`."""
    chip, partner = chips[side], chips[1 - side]
    segments = found.arrays[f"segments{side}"]
    colour = chip.mean(dim=(1, 2))
    known = {}

    def of(kept):
        kept = frozenset(kept)
        if kept not in known:
            known[kept] = cosine(network, filled(chip, segments, kept, colour), partner)
        return known[kept]

    return of, int(segments.max()) + 1


def test_patches_of_colour_are_the_segments(subject, chips):
    segments = FEW.of(subject, chips[0])
    assert segments.shape == CHIP
    numbers = np.unique(segments)
    assert np.array_equal(numbers, np.arange(len(numbers)))
    assert 4 <= len(numbers) <= 8
    # The middle of a patch is of one segment, and no two patches share one.
    middles = [segments[y, x] for y in (4, 12) for x in (3, 11, 19)]
    assert len(set(middles)) == 6


@pytest.mark.parametrize("side", [0, 1])
def test_kernel_shap_of_all_coalitions_gives_the_shapley_values(network, subject, chips, side):
    found = KernelShap(FEW, samples=2**8).explain(subject, *chips)
    reached, n = played(network, chips, side, found)
    wanted = np.zeros(n)
    orders = list(permutations(range(n)))
    for order in orders:
        for place, player in enumerate(order):
            wanted[player] += reached(order[: place + 1]) - reached(order[:place])
    np.testing.assert_allclose(found.arrays[f"segment_values{side}"], wanted / len(orders), rtol=0, atol=1e-9)
    assert found.arrays["half_agreement"][side] == found.arrays["seed_agreement"][side] == 1


@pytest.mark.parametrize("how", [KernelShap(FEW, samples=2**8), KernelShap(FEW, samples=30)])
def test_maps_of_kernel_shap_sum_to_what_the_segments_are_worth_together(network, subject, chips, how):
    found = how.explain(subject, *chips)
    for side in (0, 1):
        reached, n = played(network, chips, side, found)
        worth = reached(range(n)) - reached(())
        assert abs(worth) > 1e-3
        assert float(found.maps[side].sum()) == pytest.approx(worth, abs=1e-9)


@pytest.mark.parametrize("side", [0, 1])
def test_one_out_is_what_is_lost_without_a_segment(network, subject, chips, side):
    found = OneOut(FEW).explain(subject, *chips)
    reached, n = played(network, chips, side, found)
    segments = found.arrays[f"segments{side}"]
    for segment in range(n):
        lost = reached(range(n)) - reached(set(range(n)) - {segment})
        assert found.arrays[f"segment_values{side}"][segment] == pytest.approx(lost, abs=1e-9)
        of_segment = found.maps[side][torch.from_numpy(segments == segment)]
        np.testing.assert_allclose(of_segment, lost / len(of_segment), rtol=0, atol=1e-9)
    assert found.remarks == ()


@pytest.mark.slow
def test_the_library_says_the_same(network, subject, chips):
    """captum, where it is installed: exact Shapley values over all orders, and ablation of features."""
    captum = pytest.importorskip("captum.attr")
    with torch.no_grad():
        partner = network(chips[1][None])

    def forward(given):
        return torch.nn.functional.cosine_similarity(network(given), partner)

    ours = KernelShap(replace(FEW, count=3), samples=2**8).explain(subject, *chips)
    segments = torch.from_numpy(ours.arrays["segments0"])
    assert 2 <= int(segments.max()) + 1 <= 5
    given = {
        "inputs": chips[0][None],
        "baselines": chips[0].mean(dim=(1, 2), keepdim=True).expand_as(chips[0])[None],
        "feature_mask": segments[None, None].expand(1, 3, -1, -1).contiguous(),
    }
    pixels = np.bincount(segments.ravel())[segments]
    with torch.no_grad():
        shapley = captum.ShapleyValues(forward).attribute(**given)[0, 0] / pixels
        ablated = captum.FeatureAblation(forward).attribute(**given)[0, 0] / pixels
    np.testing.assert_allclose(ours.maps[0], shapley, rtol=0, atol=1e-8)
    one_out = OneOut(replace(FEW, count=3)).explain(subject, *chips)
    np.testing.assert_allclose(one_out.maps[0], ablated, rtol=0, atol=1e-8)


def test_the_draw_follows_the_seed_and_says_how_far_it_can_be_trusted(network, chips):
    how = KernelShap(Superpixels(count=20), samples=120)
    one, same, other = (how.explain(Subject(network, "first", seed=seed), *chips) for seed in (0, 0, 1))
    assert torch.equal(one.maps[0], same.maps[0])
    assert not torch.equal(one.maps[0], other.maps[0])
    halves, seeds = one.arrays["half_agreement"], one.arrays["seed_agreement"]
    assert ((halves >= -1) & (halves < 1)).all()
    assert (seeds >= halves).all()
    (remark,) = one.remarks
    assert f"r = {halves[0]:.2f}, two seeds to about {seeds[0]:.2f}" in remark
    assert remark.startswith(f"a: {one.arrays['segments0'].max() + 1} superpixels")


@pytest.mark.parametrize("method", SMALL, ids=lambda each: each.name)
def test_the_partner_counts_and_the_order_of_the_photos_does_not(subject, chips, method):
    one, other = method.explain(subject, *chips), method.explain(subject, *reversed(chips))
    for found, wanted in zip(one.maps, reversed(other.maps), strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-12)
    elsewhere = method.explain(subject, chips[0], patchy_chip(2))
    assert not torch.allclose(one.maps[0], elsewhere.maps[0], rtol=1e-6, atol=0)
    assert method.sees_partner


@pytest.mark.parametrize("method", SMALL, ids=lambda each: each.name)
def test_every_parameter_changes_maps_and_identity(subject, method):
    chips = [10 * gaussian_blur(random_chip(seed, (48, 60)), 3) for seed in (0, 1)]
    twelve = Superpixels(count=12)
    method = replace(method, superpixels=twelve)
    if isinstance(method, KernelShap):
        method = replace(method, samples=80)
    others = [
        replace(method, superpixels=replace(twelve, **change))
        for change in ({"count": 6}, {"compactness": 0.01}, *({"fill": f} for f in FILLS if f != "mean"))
    ]
    others += [replace(method, samples=70)] if isinstance(method, KernelShap) else []
    maps, identity = method.explain(subject, *chips).maps[0], method.identity()
    for changed in others:
        assert changed.identity() != identity
        assert not torch.allclose(changed.explain(subject, *chips).maps[0], maps, rtol=1e-6, atol=0), changed
    assert "scikit_image" in identity


def test_noise_follows_the_seed(network, chips):
    how = OneOut(replace(FEW, fill="noise"))
    one, other = (how.explain(Subject(network, "first", seed=seed), *chips).maps[0] for seed in (0, 1))
    assert not torch.equal(one, other)


def test_the_picture_is_what_the_values_say(network, chips):
    chip = chips[0]
    known = ValueRange((float(chip.min()),) * 3, (float(chip.max()),) * 3)
    guessed = FEW.of(Subject(network, "first"), chip)
    assert np.array_equal(FEW.of(Subject(network, "first", values=known), chip), guessed)
    dark = ValueRange((-1000.0,) * 3, (1000.0,) * 3)
    assert not np.array_equal(FEW.of(Subject(network, "first", values=dark), chip), guessed)


def test_a_photo_of_one_segment_has_a_map_of_one_value(network, subject, chips):
    one = Superpixels(count=1)
    for method in (OneOut(one), KernelShap(one)):
        found = method.explain(subject, *chips)
        worth = cosine(network, *chips) - cosine(
            network, chips[0].mean(dim=(1, 2), keepdim=True).expand_as(chips[0]), chips[1]
        )
        np.testing.assert_allclose(found.maps[0], worth / np.prod(CHIP), rtol=0, atol=1e-9)


def test_too_few_samples_are_refused(subject, chips):
    with pytest.raises(EngineError, match=r"superpixels need at least \d+ samples, not 5"):
        KernelShap(samples=5).explain(subject, *chips)
    for wrong in ({"count": 0}, {"compactness": 0.0}, {"fill": "black"}):
        with pytest.raises(ValueError, match="superpixels need a count"):
            Superpixels(**wrong)


def test_without_the_library_the_cure_is_named(subject, chips, monkeypatch):
    assert {needs(each) for each in superpixel_methods()} == {""}
    monkeypatch.setattr(module, "find_spec", lambda name: None)
    module._version.cache_clear()
    for method in superpixel_methods():
        for attempt in (method.identity, lambda m=method: m.explain(subject, *chips)):
            with pytest.raises(EngineError, match=r"not installed\s+cure: pip install '\.\[shap\]'"):
                attempt()
        assert needs(method) == "needs scikit-image: pip install '.[shap]'"
        assert method.name in explanations()
        assert method.name not in usual()


def test_they_cost_what_they_evaluate(network, chips):
    passes = 0

    def count(module, given, output):
        nonlocal passes
        passes += len(output)

    handle = network.neck.register_forward_hook(count)
    try:
        for method in (OneOut(Superpixels(30)), KernelShap(Superpixels(30), samples=400)):
            passes = 0
            method.explain(Subject(network, "first"), *chips)
            assert passes == pytest.approx(method.cost, rel=0.3)
    finally:
        handle.remove()
