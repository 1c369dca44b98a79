"""Products of points and of maxima: against loops, linear heads written out, and one another."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from pairx_engine.errors import EngineError
from pairx_engine.explanations import Subject, explanation_named
from pairx_engine.explanations.cell_points import Activations, Contributions
from pairx_engine.explanations.cell_products import shares_of_maxima
from pairx_engine.explanations.recorded import recorded
from tests.pairx_engine.small_networks import random_chip, small_network

METHODS = ["simexpert_points", "activation_points"]


def network_with(head):
    torch.manual_seed(0)
    return (
        nn.Sequential(nn.Conv2d(3, 5, 3, 2), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), *head)
        .double()
        .eval()
    )


@pytest.fixture(scope="module")
def plain():
    return network_with([])


@pytest.fixture(scope="module")
def chips():
    # Grids of 4 x 5 and 3 x 6 cells.
    return random_chip(0, (9, 12)), random_chip(1, (8, 14))


def table(products):
    """D, cell by cell of the first photo."""
    n = products.strength(0).numel()
    return torch.stack([products.rows(0, [u])[0].flatten() for u in range(n)])


def test_the_maximum_of_each_channel_gets_the_channels_product():
    rng = torch.Generator().manual_seed(0)
    a, b = (torch.randn(6, *size, generator=rng, dtype=torch.float64) for size in ((2, 3), (3, 4)))
    a[2] = 0.5  # all cells are the maximum: the first gets it
    tops = [[float(channel.max()) for channel in x] for x in (a, b)]
    norm = np.linalg.norm(tops[0]) * np.linalg.norm(tops[1])
    found = shares_of_maxima(a, b)
    for x, grid in zip((a, b), found, strict=True):
        wanted = np.zeros(x.shape[1:])
        for channel, own, other in zip(x, *tops, strict=True):
            cells = [(y, z) for y in range(x.shape[1]) for z in range(x.shape[2])]
            wanted[next(cell for cell in cells if float(channel[cell]) == float(channel.max()))] += (
                own * other / norm
            )
        np.testing.assert_allclose(grid.numpy(), wanted, rtol=1e-12, atol=1e-15)
        assert float(grid.sum()) == pytest.approx(np.dot(*tops) / norm, abs=1e-12)


def test_products_of_activations_are_those_of_single_cells(plain, chips):
    with recorded(Subject(plain, "1"), *chips) as both:
        a, b = (one.activation for one in both)
        found = Activations(both)
        norm = float(a.mean((1, 2)).norm() * b.mean((1, 2)).norm()) * 20 * 18
        for u, v in ((0, 0), (7, 3), (19, 17)):
            wanted = sum(float(a[c, u // 5, u % 5] * b[c, v // 6, v % 6]) for c in range(5)) / norm
            assert float(found.rows(0, [u])[0].flatten()[v]) == pytest.approx(wanted, abs=1e-12)
            assert float(found.rows(1, [v])[0].flatten()[u]) == pytest.approx(wanted, abs=1e-12)
        every = table(found)
        torch.testing.assert_close(every.sum(1).view(4, 5), found.strength(0))
        torch.testing.assert_close(every.sum(0).view(3, 6), found.strength(1))
        cosine = torch.nn.functional.cosine_similarity(*(plain(chip[None]) for chip in chips))
        assert float(every.sum()) == pytest.approx(float(cosine), abs=1e-12)


def test_without_a_neck_contributions_are_activations(plain, chips):
    with recorded(Subject(plain, "1"), *chips) as both:
        torch.testing.assert_close(
            table(Contributions(both)), table(Activations(both)), rtol=1e-9, atol=1e-15
        )


@pytest.mark.parametrize("bias", [False, True])
def test_with_a_linear_neck_contributions_go_through_it_position_by_position(chips, bias):
    neck, norm = nn.Linear(5, 7, bias=bias), nn.BatchNorm1d(7)
    if bias:
        nn.init.normal_(norm.bias)
    network = network_with([neck, norm])
    norm.running_var.uniform_(0.5, 2)
    with recorded(Subject(network, "1"), *chips) as both, torch.no_grad():
        scale = norm.weight / torch.sqrt(norm.running_var + norm.eps)
        norms = np.prod([float(network(chip[None]).norm()) for chip in chips])
        every = table(Contributions(both))
        for u in range(20):
            for v in range(18):
                f_u = scale * (neck.weight @ both[0].activation[:, u // 5, u % 5]) / 20
                f_v = scale * (neck.weight @ both[1].activation[:, v // 6, v % 6]) / 18
                assert float(every[u, v]) == pytest.approx(float(f_u @ f_v) / norms, rel=1e-9, abs=1e-14)
        if not bias:
            assert float(every.sum()) == pytest.approx(both[0].cosine, abs=1e-12)
            torch.testing.assert_close(every.sum(1).view(4, 5), Contributions(both).strength(0))


def test_elsewhere_contributions_are_the_embeddings_first_order(chips):
    network = small_network("timm InvertedResidual with gate", 2, stem="conv", pool="GeM", neck="linear")
    layer, step = network.first, 1e-5

    def given(one, u):
        """What cell u gives to the embedding, by differences."""
        ends = []
        for sign in (1, -1):
            moved = one.activation.clone()
            moved[:, u // moved.shape[2], u % moved.shape[2]] *= 1 + sign * step
            handle = layer.register_forward_hook(lambda *_, moved=moved: moved[None])
            ends.append(network(one.chip[None])[0])
            handle.remove()
        return (ends[0] - ends[1]) / (2 * step)

    with recorded(Subject(network, "first"), *chips) as both, torch.no_grad():
        found, norms = Contributions(both), float(both[0].embedding.norm() * both[1].embedding.norm())
        for u, v in ((0, 0), (3, 7), (11, 2)):
            wanted = float(given(both[0], u) @ given(both[1], v)) / norms
            assert float(found.rows(0, [u])[0].flatten()[v]) == pytest.approx(wanted, rel=1e-5, abs=1e-9)
            assert float(found.rows(1, [v])[0].flatten()[u]) == pytest.approx(wanted, rel=1e-5, abs=1e-9)


@pytest.mark.parametrize("method", METHODS)
def test_the_strongest_cells_are_shown_with_their_like(plain, chips, method):
    found = explanation_named(method).explain(Subject(plain, "1", k=3), *chips)
    with recorded(Subject(plain, "1"), *chips) as both:
        every = table(Activations(both))
    pairs = set()
    for cells, side in ((every.sum(1), 0), (every.sum(0), 1)):
        for cell in sorted(range(len(cells)), key=lambda i: -float(cells[i]))[:3]:
            row = every[cell] if side == 0 else every[:, cell]
            pairs.add((cell, int(row.argmax())) if side == 0 else (int(row.argmax()), cell))
    pairs = sorted(pairs, key=lambda pair: -float(every[pair]))[:3]
    np.testing.assert_allclose(found.shown.relevance, [float(every[pair]) for pair in pairs], rtol=1e-9)
    for (u, v), a, b in zip(pairs, *found.shown.points, strict=True):
        np.testing.assert_allclose(a, ((u % 5 + 0.5) * 12 / 5, (u // 5 + 0.5) * 9 / 4))
        np.testing.assert_allclose(b, ((v % 6 + 0.5) * 14 / 6, (v // 6 + 0.5) * 8 / 3))
    grids = [[every[:, v].view(4, 5) for _, v in pairs], [every[u].view(3, 6) for u, _ in pairs]]
    for side, chip in enumerate(chips):
        single = [
            nn.functional.interpolate(grid[None, None], chip.shape[-2:], mode="bilinear")[0, 0]
            for grid in grids[side]
        ]
        np.testing.assert_allclose(
            found.shown.pixels[side], torch.stack(single).numpy(), rtol=1e-9, atol=1e-15
        )
        wanted = sum(max(0.0, float(every[pair])) * one for pair, one in zip(pairs, single, strict=True))
        torch.testing.assert_close(found.maps[side], wanted, rtol=1e-9, atol=1e-15)


@pytest.mark.parametrize("method", METHODS)
def test_given_cells_are_asked_in_place_of_the_strongest(plain, chips, method):
    asked = replace(explanation_named(method), cells=((4, 3), (0, 1)))
    assert asked.identity() == {"cells": [[4, 3], [0, 1]]} != explanation_named(method).identity()
    found = asked.explain(Subject(plain, "1", k=1), *chips)
    points = sorted(found.shown.points[0].tolist())
    np.testing.assert_allclose(points, [(0.5 * 12 / 5, 1.5 * 9 / 4), (4.5 * 12 / 5, 3.5 * 9 / 4)])
    assert (np.diff(found.shown.relevance) <= 0).all()
    with pytest.raises(EngineError, match="grid of 5 columns and 4 rows"):
        replace(asked, cells=((5, 0),)).explain(Subject(plain, "1"), *chips)
