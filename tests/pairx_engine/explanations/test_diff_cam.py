"""DiffCAM: Fisher's direction from the catalogue to the pair, against loops and a library."""

import numpy as np
import pytest
import torch

from pairx_engine.errors import EngineError
from pairx_engine.explanations import NamedChip, Subject, Trained, explain, explanation_named
from pairx_engine.explanations.diff_cam import LEAST_SHRINKAGE, shrunk
from pairx_engine.explanations.recorded import activation_of
from tests.pairx_engine.small_networks import CHIP, random_chip, small_network


@pytest.fixture(scope="module")
def subject():
    network = small_network("conv + batch norm + SiLU", 2, stem="conv", pool="average", neck="linear")
    return Subject(network, "first")


@pytest.fixture(scope="module")
def chips():
    return random_chip(0), random_chip(1)


@pytest.fixture(scope="module")
def photos():
    return [NamedChip(random_chip(seed), None) for seed in range(20, 29)]


@pytest.fixture(scope="module")
def state(subject, photos):
    return explanation_named("diff_cam").train(subject, photos)


@pytest.mark.parametrize(("n", "channels"), [(9, 8), (5, 12), (400, 3)])
def test_the_covariance_is_shrunk_as_by_ledoit_and_wolf(n, channels):
    library = pytest.importorskip("sklearn.covariance")
    rng = np.random.default_rng(n)
    features = rng.normal(size=(n, channels)) @ rng.normal(size=(channels, channels)) + rng.normal(
        size=channels
    )
    wanted, share = library.ledoit_wolf(features)
    assert LEAST_SHRINKAGE < share < 1
    mean, covariance = shrunk(features)
    np.testing.assert_allclose(mean, features.mean(0))
    np.testing.assert_allclose(covariance, wanted, rtol=1e-9, atol=1e-12)


def test_a_channel_that_never_varies_does_no_harm():
    features = np.random.default_rng(0).normal(size=(1000, 3)) * [1, 1, 0]
    _, covariance = shrunk(features)
    assert covariance[2, 2] > 0
    assert np.isfinite(np.linalg.inv(covariance)).all()


def test_it_learns_mean_and_covariance_of_the_layers_means(subject, photos, state):
    features = []
    for photo in photos:
        activation = activation_of(subject, photo.chip)
        features.append(
            [float(sum(cell for row in channel for cell in row) / channel.numel()) for channel in activation]
        )
    mean, covariance = shrunk(np.array(features))
    np.testing.assert_allclose(state["mean"], mean, rtol=1e-9)
    np.testing.assert_allclose(state["covariance"], covariance, rtol=1e-7, atol=1e-12)


def test_maps_equal_the_loops(subject, chips, state):
    both = [activation_of(subject, chip).numpy() for chip in chips]
    pair = np.mean([activation.mean((1, 2)) for activation in both], axis=0)
    weights = np.linalg.inv(state["covariance"]) @ (pair - state["mean"])
    found = explain("diff_cam", subject, *chips, state)
    for activation, made in zip(both, found.maps, strict=True):
        channels, height, width = activation.shape
        grid = np.array(
            [
                [
                    max(0.0, sum(weights[c] * activation[c, y, x] for c in range(channels)))
                    for x in range(width)
                ]
                for y in range(height)
            ]
        )
        assert grid.max() > 0
        wanted = torch.nn.functional.interpolate(torch.from_numpy(grid)[None, None], CHIP, mode="bilinear")
        np.testing.assert_allclose(made.numpy(), wanted[0, 0].numpy(), rtol=1e-6, atol=1e-9 * grid.max())


def test_a_pair_like_the_catalogue_is_nowhere_different(subject, chips, state):
    both = [activation_of(subject, chip) for chip in chips]
    mean = torch.stack([activation.mean((1, 2)) for activation in both]).mean(0)
    found = explain("diff_cam", subject, *chips, {**state, "mean": mean.numpy()})
    assert all(not one.any() for one in found.maps)


def test_it_learns_before_it_explains_and_from_enough(subject, chips, photos, state):
    explanation = explanation_named("diff_cam")
    assert isinstance(explanation, Trained)
    assert explanation.identity()["photos"] == explanation.photos == 256
    with pytest.raises(EngineError, match="learns from a catalogue first"):
        explain("diff_cam", subject, *chips)
    with pytest.raises(EngineError, match="what it learned of a catalogue"):
        explanation.explain(subject, *chips)
    with pytest.raises(EngineError, match="at least two photos, not 1"):
        explanation.train(subject, photos[:1])
    with pytest.raises(EngineError, match="all the same features"):
        explanation.train(subject, photos[:1] * 3)
    network = torch.nn.Sequential(torch.nn.Identity(), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())
    with pytest.raises(EngineError, match="8 channels, and this layer has 3"):
        explanation.explain(Subject(network, "0"), *chips, state)
