"""Integrated gradients: complete, the closer the more steps, and equal to a long sum of single steps."""

from dataclasses import replace

import pytest
import torch
from torch.nn import functional

from pairx_engine.errors import EngineError
from pairx_engine.explanations import Subject, explanation_named
from pairx_engine.photo.blur import gaussian_blur
from pairx_engine.photo.value_range import ValueRange
from tests.pairx_engine.small_networks import CHIP, random_chip, small_network

METHODS = ["integrated_gradients", "integrated_gradients_blur", "integrated_gradients_black"]
VALUES = ValueRange((-2.0, -1.5, -1.0), (2.0, 2.0, 2.0))


@pytest.fixture(scope="module")
def smooth():
    return small_network("conv + batch norm + SiLU", 2, stem="conv", pool="average", neck="linear")


@pytest.fixture(scope="module")
def kinked():
    return small_network("conv + batch norm + ReLU", 2, stem="conv + max pooling", pool="mean", neck="linear")


@pytest.fixture(scope="module")
def chips():
    return random_chip(0), random_chip(1)


def subject(network):
    return Subject(network, "first", values=VALUES)


def cosine(network, chip, other):
    return functional.cosine_similarity(network(chip[None]), network(other[None]))[0]


def baseline_of(method, chip):
    if method.endswith("black"):
        return torch.tensor(VALUES.low, dtype=chip.dtype)[:, None, None].expand_as(chip)
    if method.endswith("blur"):
        return gaussian_blur(chip, 2.0)
    return torch.stack([channel.mean().expand(CHIP) for channel in chip])


@pytest.mark.parametrize("method", METHODS)
def test_maps_sum_to_what_the_baseline_lacks(smooth, chips, method):
    found = explanation_named(method).explain(subject(smooth), *chips)
    for side, (chip, other) in enumerate((chips, chips[::-1])):
        start = float(cosine(smooth, baseline_of(method, chip), other))
        assert found.arrays["cosine_of_baseline"][side] == pytest.approx(start, abs=1e-12)
        wanted = float(cosine(smooth, chip, other)) - start
        gap = float(found.maps[side].sum()) - wanted
        assert abs(wanted) > 1e-2
        assert abs(gap) < 1e-6
        assert found.arrays["completeness_gap"][side] == pytest.approx(gap, abs=1e-12)


def test_the_gap_shrinks_with_the_steps(kinked, chips):
    explanation = explanation_named("integrated_gradients")
    gaps = [
        abs(replace(explanation, steps=n).explain(subject(kinked), *chips).arrays["completeness_gap"]).max()
        for n in (2, 16, 128)
    ]
    assert gaps[0] > gaps[1] > gaps[2]
    assert gaps[2] < 1e-3


@pytest.mark.parametrize("method", METHODS)
def test_maps_equal_a_long_sum_of_single_steps(smooth, chips, method):
    chip, other = chips
    start, steps = baseline_of(method, chip), 400
    total = torch.zeros_like(chip)
    for step in range(steps):
        at = (start + (step + 0.5) / steps * (chip - start)).requires_grad_()
        (slope,) = torch.autograd.grad(cosine(smooth, at, other), at)
        total += slope / steps
    wanted = ((chip - start) * total).sum(0)
    found = explanation_named(method).explain(subject(smooth), *chips).maps[0]
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-4 * float(wanted.abs().max()))


def test_black_must_be_known(smooth, chips):
    with pytest.raises(EngineError, match="what black is"):
        explanation_named("integrated_gradients_black").explain(Subject(smooth, "first"), *chips)


def test_steps_and_blur_are_part_of_the_identity():
    explanation = explanation_named("integrated_gradients_blur")
    assert explanation.identity() == {"steps": 32, "blur": 1 / 8}
    assert replace(explanation, steps=5).identity() == {"steps": 5, "blur": 1 / 8}
    assert explanation_named("integrated_gradients").identity() == {"steps": 32}
