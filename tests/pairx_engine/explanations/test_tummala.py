"""Tummala's explanation, as we read it, against loops; and where a network's last map is."""

import numpy as np
import pytest
import torch
from torch import nn

from pairx_engine.errors import EngineError
from pairx_engine.explanations import Subject, explain
from pairx_engine.explanations.tummala import last_map
from tests.pairx_engine.small_networks import random_chip, small_network


@pytest.fixture(scope="module")
def network():
    return small_network(
        "timm InvertedResidual with gate", 2, torch.float64, stem="conv", pool="average", neck="linear"
    )


@pytest.fixture(scope="module")
def chips():
    return [random_chip(seed) for seed in (0, 1, 5)]


def second_of(network, chip):
    found = []
    handle = network.second.register_forward_hook(lambda *given: found.append(given[-1].detach()[0].clone()))
    network(chip[None])
    handle.remove()
    return found[0]


def test_the_map_weighs_channels_by_both_photos(network, chips):
    maps = explain("tummala", Subject(network, "first"), *chips[:2]).maps
    both = [second_of(network, chip) for chip in chips[:2]]
    for side in (0, 1):
        a, b = both[side], both[1 - side]
        channels, height, width = a.shape
        grid = torch.zeros(height, width, dtype=torch.float64)
        for row in range(height):
            for column in range(width):
                total = sum(
                    float(a[c].mean()) * float(b[c].mean()) * float(a[c, row, column])
                    for c in range(channels)
                )
                grid[row, column] = max(0.0, total)
        assert float(grid.max()) > 0
        size = tuple(chips[side].shape[-2:])
        wanted = nn.functional.interpolate(grid[None, None], size, mode="bilinear")[0, 0]
        np.testing.assert_allclose(maps[side], wanted, rtol=0, atol=1e-10 * float(wanted.max()))


def test_it_does_not_matter_which_layer_the_subject_is_at(network, chips):
    one, other = (
        explain("tummala", Subject(network, layer), *chips[:2]).maps for layer in ("stem", "second")
    )
    assert torch.equal(one[0], other[0])


def test_it_sees_the_partner_and_not_the_order(network, chips):
    subject = Subject(network, "first")
    one, other = (explain("tummala", subject, chips[0], partner).maps[0] for partner in chips[1:])
    assert not torch.allclose(one / one.max(), other / other.max(), atol=1e-3)
    there, back = (explain("tummala", subject, *order).maps for order in (chips[:2], chips[1::-1]))
    for found, wanted in zip(there, reversed(back), strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-12, atol=0)


class InPlace(nn.Module):
    """A map that the next step overwrites without a module of its own."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 5, 3, stride=4)

    def forward(self, chips):
        return self.conv(chips).mul_(0).mean((2, 3))


def test_the_last_map_is_kept_as_the_module_gave_it():
    torch.manual_seed(0)
    network, chip = InPlace().eval(), torch.rand(3, 20, 30)
    with torch.no_grad():
        wanted = network.conv(chip[None])[0]
    assert torch.equal(last_map(network, chip), wanted)
    assert not network.conv._forward_hooks


class ChannelsLast(nn.Module):
    """Patches as (1, h, w, C), normalised along their channels, as in Swin."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 17, 4, 4), nn.LayerNorm(17)

    def forward(self, chips):
        return self.norm(self.conv(chips).permute(0, 2, 3, 1)).mean((1, 2))


@pytest.mark.parametrize("size", [(16, 16), (16, 24), (32, 20)])
def test_channels_may_come_last(size):
    torch.manual_seed(0)
    network, chip = ChannelsLast().eval(), torch.rand(3, *size)
    found = last_map(network, chip)
    assert found.shape == (17, size[0] // 4, size[1] // 4)
    with torch.no_grad():
        assert torch.equal(
            found.permute(1, 2, 0), network.norm(network.conv(chip[None]).permute(0, 2, 3, 1))[0]
        )


class Tokens(nn.Module):
    """Patches as tokens after a class token, from which alone the embedding is read, as in vision transformers."""

    num_prefix_tokens = 1

    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 8, 4, 4), nn.LayerNorm(8)

    def forward(self, chips):
        tokens = self.conv(chips).flatten(2).transpose(1, 2)
        return self.norm(torch.cat([tokens.mean(1, keepdim=True), tokens], dim=1))[:, 0]


def test_cells_may_be_tokens_of_which_that_of_the_class_is_none():
    torch.manual_seed(0)
    network, chip = Tokens().eval(), torch.rand(3, 16, 24)
    with torch.no_grad():
        wanted = network.norm(network.conv(chip[None])[0].permute(1, 2, 0)).permute(2, 0, 1)
    torch.testing.assert_close(last_map(network, chip), wanted)


def test_a_network_without_cells_is_refused():
    network = nn.Sequential(nn.Flatten(), nn.Linear(768, 4)).eval()
    with pytest.raises(EngineError, match="no layer whose cells have a place") as caught:
        explain("tummala", Subject(network, "0"), torch.rand(3, 16, 16), torch.rand(3, 16, 16))
    assert "--methods" in caught.value.cure
