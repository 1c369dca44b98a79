"""What the rules promise on random small networks of every block type.

That is conservation, linearity and independence.
"""

from functools import cache
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from pairx_engine.models.miewid import GeneralisedMeanPool
from pairx_engine.relevance.explainer import LayerExplainer
from pairx_engine.relevance.fast import FastPath
from pairx_engine.relevance.precision import precision_named
from pairx_engine.relevance.presets import preset_named
from pairx_engine.relevance.starts import cosine_shares, starts_of
from pairx_engine.relevance.window import whole
from tests.pairx_engine.slow_relevance import slow_relevance
from tests.pairx_engine.small_networks import (
    BLOCKS,
    LAYERS,
    NECKS,
    POOLS,
    STEMS,
    random_chip,
    randomise,
    small_network,
)

EXACT, SINGLE = 1e-9, 1e-4
"""How far the sum of a layer's relevance may be from that of the start.

They are shares of the sum of the start's absolute values.
"""
CELLS = [(0, 0), (-1, -1), (1, 0)]
BLOCK_AND_SEED = [(block, seed) for block in BLOCKS for seed in (1, 2)]


def conserving(network, layers):
    return FastPath(network, layers, preset_named("conserving"), precision_named("float32"))


def above(network, layers, chip, starts):
    """Channel relevance by layer, and what stayed above the lowest of the layers, in sum (P,)."""
    path, ledger = conserving(network, layers), {}
    _, features = path.forward(chip[None])
    channels = path.record_above(chip[None], features)(starts, ledger)
    return channels, sum(ledger.values(), starts.new_zeros(()))


def below(network, layer, chip, starts):
    """Signed pixel relevance of starts (P, C, h, w) at a layer, and what stayed on the way, in sum (P,)."""
    features, pull = conserving(network, [layer]).record_below(chip[None], layer)
    ledger = {}
    return pull(layer, starts, whole(features), ledger), sum(ledger.values(), starts.new_zeros(()))


def total(relevance):
    return relevance.flatten(1).sum(dim=1)


def size(relevance):
    return relevance.abs().flatten(1).sum(dim=1)


@cache
def case(block, seed, dtype=torch.float64):
    """Network, chip, and starts: the cosine's shares with another chip, and two drawn at random."""
    network, chip = small_network(block, seed, dtype), random_chip(seed, dtype=dtype)
    embeddings = network(torch.stack([chip, random_chip(seed + 1, dtype=dtype)]))
    torch.manual_seed(seed)
    drawn = torch.randn(2, embeddings.shape[1], dtype=dtype)
    return network, chip, torch.cat([cosine_shares(*embeddings)[0][None], drawn])


@cache
def slow_case(block, seed):
    network, chip, starts = case(block, seed)
    return slow_relevance(network, "conserving", chip, LAYERS, starts, CELLS)


def close(found, wanted, tolerance=1e-10):
    assert found.shape == wanted.shape
    assert float((found - wanted).abs().max()) <= tolerance * float(wanted.abs().max().clamp(min=1e-300))


@pytest.mark.parametrize(("block", "seed"), BLOCK_AND_SEED)
def test_relevance_and_leakage_sum_to_the_start_at_every_layer(block, seed):
    network, chip, starts = case(block, seed)
    for layer in LAYERS:
        channels, left = above(network, [layer], chip, starts)
        gap = total(channels[layer]) + left - total(starts)
        assert (gap.abs() <= EXACT * size(starts)).all(), layer


@pytest.mark.parametrize(("block", "seed"), BLOCK_AND_SEED)
def test_relevance_and_leakage_equal_the_slow_way(block, seed):
    network, chip, starts = case(block, seed)
    slow = slow_case(block, seed)
    for layer in LAYERS:
        channels, left = above(network, [layer], chip, starts)
        close(channels[layer], slow.channels[layer])
        assert ((left - slow.leaked[layer]).abs() <= 1e-10 * size(starts)).all()
        if not slow.leaked[layer].any():
            assert not left.any(), "nothing may be declared where every neuron has an input that moves it"


@pytest.mark.parametrize(("block", "seed"), BLOCK_AND_SEED)
def test_pixels_get_what_the_layer_had_but_for_the_leakage(block, seed):
    network, chip, _ = case(block, seed)
    slow = slow_case(block, seed)
    for layer in LAYERS:
        features = slow.features[layer]
        starts = torch.zeros(len(CELLS), *features.shape, dtype=features.dtype)
        for start, (column, row) in zip(starts, CELLS, strict=True):
            start[:, row, column] = features[:, row, column]
        pixels, left = below(network, layer, chip, starts)
        close(pixels, slow.cell_pixels[layer])
        assert ((total(pixels) + left - total(starts)).abs() <= EXACT * size(starts)).all()
        assert ((left - slow.cell_leaked[layer]).abs() <= 1e-10 * size(starts)).all()


@pytest.mark.parametrize("block", BLOCKS)
def test_single_precision_conserves_as_well(block):
    network, chip, starts = case(block, 3, torch.float32)
    for layer in LAYERS:
        channels, left = above(network, [layer], chip, starts)
        assert ((total(channels[layer]) + left - total(starts)).abs() <= SINGLE * size(starts)).all()
        pixels, left = below(network, layer, chip, channels[layer])
        assert ((total(pixels) + left - total(channels[layer])).abs() <= SINGLE * size(channels[layer])).all()


@pytest.mark.parametrize("block", BLOCKS)
def test_a_pair_explained_sums_to_its_cosine_on_both_sides(block):
    network, seed = small_network(block, 4), 4
    chips = [random_chip(seed), random_chip(seed + 1)]
    explainer = LayerExplainer(network, LAYERS, "conserving")
    seen = [explainer.see(chip) for chip in chips]
    cosine = torch.nn.functional.cosine_similarity(*(one.embedding for one in seen), dim=0)
    starts = starts_of(explainer.preset, *(one.embedding for one in seen))
    for one, start in zip(seen, starts, strict=True):
        relevance = explainer.relevance(one, start[None])
        for layer in LAYERS:
            _, left = above(network, [layer], one.chip, start[None])
            assert float((relevance[layer].sum() + left - cosine).abs()) <= EXACT * float(start.abs().sum())


@settings(deadline=None, max_examples=40)
@given(st.sampled_from(sorted(BLOCKS)), st.integers(0, 10_000))
def test_relevance_is_shared_out_never_blown_up(block, seed):
    network, chip, starts = case(block, seed)
    channels, _ = above(network, LAYERS, chip, starts)
    pixels, _ = below(network, "stem", chip, channels["stem"])
    sizes = [size(starts), *(size(channels[layer]) for layer in reversed(LAYERS)), size(pixels)]
    for larger, smaller in pairwise(sizes):
        assert (smaller <= larger * (1 + EXACT)).all()
    positive, _ = above(network, LAYERS, chip, starts.abs())
    for layer in LAYERS:
        assert (positive[layer] >= 0).all()


@pytest.mark.parametrize("neck", NECKS)
@pytest.mark.parametrize("pool", POOLS)
@pytest.mark.parametrize("stem", STEMS)
def test_every_stem_pooling_and_neck_conserves(stem, pool, neck):
    network = small_network("timm ConvBnAct with skip", 5, stem=stem, pool=pool, neck=neck)
    chip = random_chip(5)
    starts = torch.randn(2, network(chip[None]).shape[1], generator=torch.Generator().manual_seed(6)).double()
    channels, left = above(network, ["stem"], chip, starts)
    assert ((total(channels["stem"]) + left - total(starts)).abs() <= EXACT * size(starts)).all()
    pixels, left = below(network, "stem", chip, channels["stem"])
    assert ((total(pixels) + left - total(channels["stem"])).abs() <= EXACT * size(channels["stem"])).all()


class Written(nn.Module):
    """A little of everything that has weights or shares, to be written out by hand."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 4, 3, stride=2, padding=1), nn.BatchNorm2d(4), nn.SiLU())
        self.branch = nn.Conv2d(4, 4, 3, padding=1, groups=2)
        self.pool = nn.AvgPool2d(2)
        self.gem = GeneralisedMeanPool()
        self.head = nn.Linear(4, 3)

    def forward(self, x):
        x = self.stem(x)
        return self.head(self.gem(self.pool(x + self.branch(x))))


def matrix_of(function, shape):
    """The matrix of a linear function of maps (C, h, w), column by column from unit inputs."""
    units = torch.eye(int(np.prod(shape)), dtype=torch.float64).view(-1, *shape)
    return function(units).flatten(1).T.numpy()


def by_hand(matrix, activation, relevance):
    """Rule 2, neuron by neuron."""
    given = np.zeros(matrix.shape[1])
    for weights, r in zip(matrix, relevance, strict=True):
        contributions = weights * activation
        for part in (contributions.clip(min=0), contributions.clip(max=0)):
            if abs(part.sum()) > 1e-12:
                given += r * part / part.sum()
                break
    return given


def test_the_slow_way_follows_the_rules_as_written():
    torch.manual_seed(3)
    network = randomise(Written(), torch.randn(4, 3, 8, 8)).double()
    chip, start = random_chip(3, (8, 8)), torch.randn(3).double()
    functional = nn.functional
    conv, norm, branch = network.stem[0], network.stem[1], network.branch
    stem = network.stem(chip[None])[0]
    other = branch(stem[None])[0]
    pooled = network.pool((stem + other)[None])[0]
    r = by_hand(network.head.weight.numpy(), network.gem(pooled[None])[0].numpy(), start.numpy())
    cubes = pooled.clamp(min=network.gem.eps).pow(network.gem.p).numpy()
    r = (r[:, None, None] * cubes / cubes.sum((1, 2), keepdims=True)).flatten()
    average = matrix_of(lambda x: functional.avg_pool2d(x, 2), stem.shape)
    r = by_hand(average, (stem + other).flatten().numpy(), r)
    share = (stem.abs() / (stem.abs() + other.abs())).flatten().numpy()
    grouped = matrix_of(lambda x: functional.conv2d(x, branch.weight, padding=1, groups=2), stem.shape)
    r = r * share + by_hand(grouped, stem.flatten().numpy(), r * (1 - share))
    slow = slow_relevance(network, "conserving", chip, ["stem"], start[None])
    close(slow.channels["stem"].flatten(), torch.from_numpy(r), 1e-12)
    merged = conv.weight * (norm.weight / (norm.running_var + norm.eps).sqrt()).view(-1, 1, 1, 1)
    first = matrix_of(lambda x: functional.conv2d(x, merged, stride=2, padding=1), chip.shape)
    close(slow.pixels.flatten(), torch.from_numpy(by_hand(first, chip.flatten().numpy(), r)), 1e-12)
    assert not slow.leaked_in_all.any()


class Dead(nn.Module):
    """A network whose second convolution has only zeros as inputs.

    So its output is its bias alone; a quarter of the sum skips it.
    """

    def __init__(self, skip):
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, padding=1)
        self.dead = nn.Sequential(nn.Conv2d(4, 4, 1), nn.ReLU())
        self.after = nn.Conv2d(4, 4, 1)
        self.skip = skip
        nn.init.constant_(self.dead[0].bias, -1e3)
        nn.init.constant_(self.after.bias, 3.0)

    def forward(self, x):
        x = self.stem(x)
        y = self.after(self.dead(x))
        return (x + y if self.skip else y).mean((2, 3))


def test_what_only_a_bias_moves_is_declared_to_the_last_bit():
    torch.manual_seed(0)
    network, chip, starts = (
        Dead(skip=False).double().eval(),
        random_chip(0, (5, 6)),
        torch.randn(3, 4).double(),
    )
    channels, left = above(network, ["stem"], chip, starts)
    assert not channels["stem"].any()
    close(left, total(starts), 1e-14)


def test_leakage_beside_a_living_branch_is_that_branchs_share():
    torch.manual_seed(0)
    network, chip, starts = (
        Dead(skip=True).double().eval(),
        random_chip(0, (5, 6)),
        torch.randn(3, 4).double(),
    )
    channels, left = above(network, ["stem"], chip, starts)
    signed = network.stem(chip[None])[0].detach()
    summed = signed + 3.0
    up = summed.clamp(min=0)
    mean = torch.where(up.sum((1, 2), keepdim=True) > 0, up / up.sum((1, 2), keepdim=True), 0)
    assert (summed.clamp(min=0).sum((1, 2)) > 0).all()
    at_sum = starts[:, :, None, None] * mean
    share = signed.abs() / (signed.abs() + 3.0)
    close(channels["stem"], at_sum * share)
    close(left, total(at_sum * (1 - share)))
    assert (left.abs() > 0).all()


class Silent(nn.Module):
    """Two branches that are zero everywhere, summed and averaged."""

    def __init__(self):
        super().__init__()
        self.left, self.right = (nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU()) for _ in range(2))
        for branch in (self.left, self.right):
            nn.init.constant_(branch[0].bias, -1e3)

    def forward(self, x):
        return (self.left(x) + self.right(x)).mean((2, 3))


def test_zeros_share_evenly():
    network, chip, starts = Silent().double().eval(), random_chip(0, (5, 6)), torch.randn(3, 4).double()
    channels, left = above(network, ["left", "right"], chip, starts)
    for layer in ("left", "right"):
        close(channels[layer], (starts / 60)[:, :, None, None].expand(3, 4, 5, 6), 1e-14)
    assert not left.any()


PRESETS = ["published", "paper", "conserving"]


@settings(deadline=None, max_examples=25)
@given(
    st.sampled_from(sorted(BLOCKS)),
    st.sampled_from(PRESETS),
    st.integers(0, 500),
    st.floats(-3, 3),
    st.floats(-3, 3),
)
def test_relevance_is_linear_in_the_start(block, preset, seed, a, b):
    network, chip, starts = case(block, seed)
    explainer = LayerExplainer(network, LAYERS, preset)
    seen = explainer.see(chip)
    parts = explainer.channel_relevance(seen, starts)
    mixed = explainer.channel_relevance(seen, a * starts[:1] + b * starts[1:2])
    for layer in LAYERS:
        wanted = a * parts[layer][0] + b * parts[layer][1]
        scale = max(float(parts[layer].abs().max()), 1e-300) * (abs(a) + abs(b))
        # Factors next to nothing leave numbers of few digits.
        assert float((mixed[layer][0] - wanted).abs().max()) <= max(1e-10 * scale, 1e-300)


@settings(deadline=None, max_examples=25)
@given(st.sampled_from(sorted(BLOCKS)), st.sampled_from(PRESETS), st.integers(0, 500), st.data())
def test_starts_do_not_see_their_company(block, preset, seed, data):
    network, chip, _ = case(block, seed)
    explainer = LayerExplainer(network, LAYERS, preset)
    seen = explainer.see(chip)
    torch.manual_seed(seed)
    starts = torch.randn(data.draw(st.integers(1, 9)), len(seen.embedding), dtype=torch.float64)
    order = data.draw(st.permutations(range(len(starts))))
    together, shuffled = explainer.relevance(seen, starts), explainer.relevance(seen, starts[order])
    channels = explainer.channel_relevance(seen, starts)
    single = data.draw(st.sampled_from(range(len(starts))))
    alone = explainer.relevance(seen, starts[single : single + 1])
    for layer in LAYERS:
        tolerance = 1e-12 * float(channels[layer].abs().sum(dim=1).max())
        assert float((shuffled[layer] - together[layer][order]).abs().max()) <= tolerance
        assert float((alone[layer][0] - together[layer][single]).abs().max()) <= tolerance


@settings(deadline=None, max_examples=25)
@given(st.sampled_from(sorted(BLOCKS)), st.sampled_from(PRESETS), st.sampled_from(LAYERS), st.data())
def test_cells_do_not_see_their_company(block, preset, layer, data):
    network, chip, _ = case(block, 7)
    explainer = LayerExplainer(network, [layer], preset)
    h, w = explainer.see(chip).features[layer].shape[-2:]
    cell = st.tuples(st.integers(0, w - 1), st.integers(0, h - 1))
    cells = data.draw(st.lists(cell, min_size=1, max_size=4))
    maps = explainer.pixel_maps(chip, layer, cells)
    assert maps.shape == (len(cells), *chip.shape[1:])
    for one, found in zip(cells, maps, strict=True):
        close(found, explainer.pixel_maps(chip, layer, [one])[0], 1e-12)


@pytest.mark.parametrize(("block", "seed"), BLOCK_AND_SEED)
def test_published_equals_the_slow_way_on_every_block(block, seed):
    network, chip, starts = case(block, seed)
    slow = slow_relevance(network, "zennit", chip, LAYERS, starts, CELLS)
    explainer = LayerExplainer(network, LAYERS)
    assert explainer.path == "fast"
    seen = explainer.see(chip)
    close(seen.embedding, slow.embedding)
    channels = explainer.channel_relevance(seen, starts)
    for layer in LAYERS:
        close(channels[layer], slow.channels[layer])
        h, w = seen.features[layer].shape[-2:]
        maps = explainer.pixel_maps(chip, layer, [(column % w, row % h) for column, row in CELLS])
        close(maps, slow.cell_pixels[layer].sum(dim=1).abs())


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("block", BLOCKS)
def test_a_pass_recorded_whole_equals_passes_recorded_in_part(block, preset):
    network, chip, starts = case(block, 8)
    explainer = LayerExplainer(network, LAYERS, preset)
    seen, kept = explainer.see(chip), explainer.see(chip, keep=True)
    close(kept.embedding, seen.embedding, 1e-13)
    channels = explainer.channel_relevance(seen, starts)
    for layer, found in explainer.channel_relevance(kept, starts).items():
        close(found, channels[layer], 1e-12)
        maps = explainer.pixel_maps(chip, layer, [(1, 1)])
        close(explainer.pixel_maps(kept, layer, [(1, 1)]), maps, 1e-12)
