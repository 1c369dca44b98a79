"""Where the cells of a layer lie in its output, and back."""

import pytest
import timm
import torch
from torch import nn

from pairx_engine.models.cells import CellGrid, cell_grid, extra_tokens
from pairx_engine.models.timm_model import PooledFeatures


@pytest.mark.parametrize(
    ("shape", "chip", "extra", "wanted"),
    [
        ((1, 64, 56, 56), (224, 224), None, CellGrid("map", 56, 56)),
        ((1, 1280, 7, 14), (224, 448), None, CellGrid("map", 7, 14)),
        ((1, 8, 1, 1), (16, 23), None, CellGrid("map", 1, 1)),
        ((1, 56, 56, 96), (224, 224), None, CellGrid("channels last", 56, 56)),
        # As a map this would have nearly the chip's proportions, too.
        ((1, 40, 40, 48), (160, 160), None, CellGrid("channels last", 40, 40)),
        ((1, 28, 28, 32), (224, 224), None, CellGrid("channels last", 28, 28)),
        # Convolutions without padding, and few channels.
        ((1, 6, 9, 12), (16, 23), None, CellGrid("map", 9, 12)),
        ((1, 5, 7, 10), (9, 12), None, CellGrid("map", 7, 10)),
        ((1, 8, 8, 8), (64, 64), None, CellGrid("map", 8, 8)),
        ((1, 10, 20, 192), (160, 320), None, CellGrid("channels last", 10, 20)),
        ((1, 257, 384), (224, 224), 1, CellGrid("tokens", 16, 16, 1)),
        ((1, 256, 384), (224, 224), 1, CellGrid("tokens", 16, 16)),
        ((1, 201, 384), (224, 224), 5, CellGrid("tokens", 14, 14, 5)),
        ((1, 201, 384), (224, 224), None, CellGrid("tokens", 14, 14, 5)),
        ((1, 393, 384), (224, 448), None, CellGrid("tokens", 14, 28, 1)),
        ((1, 25, 384), (160, 160), None, CellGrid("tokens", 5, 5)),
        ((1, 202, 384), (224, 224), 5, None),
        ((1, 3, 17, 64), (64, 64), None, None),
        ((16, 16, 96), (64, 64), None, None),
        ((2, 8, 7, 7), (224, 224), None, None),
        ((1, 384), (224, 224), None, None),
    ],
)
def test_an_output_tells_where_its_cells_are(shape, chip, extra, wanted):
    assert cell_grid(torch.zeros(shape), chip, extra) == wanted


def test_what_is_no_tensor_has_no_cells():
    assert cell_grid((torch.zeros(1, 8, 7, 7),), (224, 224)) is None


@pytest.mark.parametrize(
    ("shape", "grid"),
    [
        ((1, 5, 2, 3), CellGrid("map", 2, 3)),
        ((1, 2, 3, 5), CellGrid("channels last", 2, 3)),
        ((1, 8, 5), CellGrid("tokens", 2, 3, 2)),
    ],
)
def test_maps_hold_each_cell_and_go_back_where_they_were(shape, grid):
    output = torch.arange(30.0 if len(shape) == 4 else 40.0).view(shape)
    maps = grid.maps(output)
    assert maps.shape == (1, 5, 2, 3)
    for row in range(2):
        for column in range(3):
            wanted = {
                "map": lambda r, c: output[0, :, r, c],
                "channels last": lambda r, c: output[0, r, c],
                "tokens": lambda r, c: output[0, 2 + 3 * r + c],
            }[grid.form](row, column)
            assert torch.equal(maps[0, :, row, column], wanted)
    two = torch.cat([maps, maps + 100])
    placed = grid.placed(two, output)
    assert torch.equal(placed[:1], output)
    assert torch.equal(grid.maps(placed), two)
    assert torch.equal(placed[1, : grid.extra], output[0, : grid.extra])


def test_the_network_says_how_many_tokens_are_no_cells():
    vit = PooledFeatures(
        timm.create_model("vit_tiny_patch16_224", num_classes=0, img_size=32, depth=1, reg_tokens=3)
    )
    assert extra_tokens(vit, "backbone.blocks.0.mlp") == 4
    assert extra_tokens(nn.Sequential(nn.Linear(2, 2)), "0") is None


def test_of_two_grids_that_fit_the_one_without_remainder_is_taken():
    """28 tokens of a chip of 28 x 42: 4 x 6 behind four of their own by stride 7, or 4 x 7 by stride 6."""
    tokens = torch.zeros(1, 28, 5)
    for extra in (4, None):
        found = cell_grid(tokens, (28, 42), extra)
        assert (found.height, found.width, found.extra) == (4, 6, 4)
    before = cell_grid(torch.zeros(1, 24, 5), (28, 42), 4)
    assert (before.height, before.width, before.extra) == (4, 6, 0), "before tokens are added"
