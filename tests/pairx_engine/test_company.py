"""Photos computed together, as on a GPU, give what each photo gives alone.

They are recorded together, with whole maps and collected questions.
"""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from pairx_engine.device.tuning import CPU, Tuning
from pairx_engine.errors import EngineError
from pairx_engine.relevance import recorder
from pairx_engine.relevance.company import by_photo, joined, times
from pairx_engine.relevance.explainer import LayerExplainer
from pairx_engine.relevance.rules import conserving, convolution
from pairx_engine.relevance.rules.base import Unsettled
from pairx_engine.relevance.rules.convolution import Geometry
from pairx_engine.relevance.window import Window
from tests.pairx_engine.small_networks import BLOCKS, CHIP, random_chip, small_network

GPU_LIKE = Tuning(3, 2, 4, None, None, windows=False, forward="contiguous", pull="channels_last")
CELLS = [[(0, 0), (3, 2), (1, 1)], [(2, 1)], [], [(0, 1), (1, 0), (2, 2), (3, 0), (0, 0)]]
STARTS = [3, 1, 5, 2]


@pytest.mark.parametrize("photos", [1, 2, 3])
@pytest.mark.parametrize("starts", [1, 4])
def test_relevance_meets_the_terms_of_its_own_photo(photos, starts):
    kept, relevance = torch.randn(photos, 5, 2), torch.randn(photos * starts, 5, 2)
    wanted = torch.stack([relevance[s] * kept[s // starts] for s in range(len(relevance))])
    assert torch.equal(times(relevance, kept), wanted)
    assert torch.equal(joined(by_photo(relevance, kept)), relevance)


def alone(explainer, chips, starts, layer):
    found = []
    for chip, some, cells in zip(chips, starts, CELLS, strict=True):
        seen = explainer.see(chip)
        channels = explainer.channel_relevance(seen, some)[layer]
        found.append((seen.embedding, channels, explainer.pixel_maps(chip, layer, cells)))
    return found


def together(explainer, chips, starts, layer, keep):
    seen = explainer.see_all(chips, keep)
    channels = [found[layer] for found in explainer.channel_relevances(seen, starts)]
    maps = explainer.all_pixel_maps(seen if keep else chips, layer, CELLS)
    return list(zip([one.embedding for one in seen], channels, maps, strict=True))


def work(net, n=4):
    chips = [random_chip(seed) for seed in range(n)]
    width = net(chips[0][None]).shape[1]
    starts = [torch.randn(count, width, dtype=torch.float64) for count in STARTS]
    return chips, starts


CONSERVING = [
    "strided conv",
    "grouped dilated conv",
    "average pooling",
    "timm InvertedResidual with gate",
    "timm BasicBlock",
]
"""Blocks that have among them every rule of that preset's own."""


@pytest.mark.parametrize(
    ("block", "preset"), [*((b, "published") for b in BLOCKS), *((b, "conserving") for b in CONSERVING)]
)
def test_every_block_gives_what_it_gives_alone(block, preset, monkeypatch):
    net = small_network(block, seed=1)
    chips, starts = work(net)
    wanted = alone(LayerExplainer(net, ["first"], preset, tuning=CPU), chips, starts, "first")
    # As on a GPU, what the rules ask of the device is answered after the pass.
    monkeypatch.setattr(recorder, "_on_gpu", lambda value: True)
    explainer = LayerExplainer(net, ["first"], preset, tuning=GPU_LIKE)
    assert explainer.path == "fast"
    for keep in (False, True):
        for mine, one in zip(together(explainer, chips, starts, "first", keep), wanted, strict=True):
            for found, expected in zip(mine, one, strict=True):
                scale = expected.abs().max() if expected.numel() else 1
                assert found.shape == expected.shape
                torch.testing.assert_close(found / scale, expected / scale, rtol=0, atol=1e-10)


@pytest.mark.parametrize("tuning", [GPU_LIKE, replace(GPU_LIKE, photos=2, starts=1), replace(CPU, photos=2)])
def test_the_general_path_takes_photos_together_too(tuning):
    net = small_network("conv + batch norm + ReLU", seed=2)
    chips, starts = work(net)
    wanted = alone(LayerExplainer(net, ["first"], path="general", tuning=CPU), chips, starts, "first")
    explainer = LayerExplainer(net, ["first"], path="general", tuning=tuning)
    for mine, one in zip(together(explainer, chips, starts, "first", True), wanted, strict=True):
        for found, expected in zip(mine, one, strict=True):
            torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)


@settings(deadline=None, max_examples=15)
@given(st.permutations(range(4)), st.integers(1, 4))
def test_a_photos_numbers_do_not_depend_on_its_company(order, count):
    net = small_network("timm InvertedResidual with gate", seed=3)
    chips, starts = work(net)
    explainer = LayerExplainer(net, ["first"], tuning=GPU_LIKE)
    seen = explainer.see_all(chips)
    everyone = explainer.relevances(seen, starts)
    some = order[:count]
    few = explainer.relevances([seen[i] for i in some], [starts[i] for i in some])
    for i, found in zip(some, few, strict=True):
        assert torch.equal(found["first"], everyone[i]["first"])


def unlike(net):
    """Two chips of which the rules ask the same and are answered otherwise.

    In the first convolution of `first` the second chip's contributions are all negative: z+ cancels, and
    there is none.
    """
    conv = net.first[0]
    with torch.no_grad():
        conv.weight.copy_(
            conv.weight.abs() * torch.tensor([-1.0, 1.0]).repeat(len(conv.weight) // 2)[:, None, None, None]
        )
    net.stem = nn.Sequential(nn.Conv2d(3, 8, 1, bias=False), nn.Hardtanh(-1.0, 1.0))
    with torch.no_grad():
        net.stem[0].weight.abs_()
    one = random_chip(0, dtype=torch.float32)
    return [one, one.abs() + 1]


@pytest.mark.parametrize("preset", ["published", "conserving"])
def test_what_the_rules_ask_of_one_photo_changes_nothing_for_another(preset, monkeypatch):
    net = small_network("conv + batch norm + Hardswish", 8, torch.float32, "conv", "mean", "none")
    mixed, uniform = unlike(net)
    monkeypatch.setattr(recorder, "_on_gpu", lambda value: True)
    monkeypatch.setattr(convolution, "MANY_SUMMANDS", 1)
    answers = []
    settled = recorder.settled
    monkeypatch.setattr(
        recorder,
        "settled",
        lambda found, say: (
            answers.append([bool(f.question()) for f in found if isinstance(f, Unsettled)])
            or settled(found, say)
        ),
    )
    explainer = LayerExplainer(net, ["first"], preset, tuning=replace(GPU_LIKE, photos=2))
    start, found = torch.ones(1, 8), {}
    for name, partner in (("like", mixed), ("unlike", uniform)):
        seen = explainer.see_all([mixed, partner], keep=True)
        maps = explainer.all_pixel_maps(seen, "first", [[(2, 2), (3, 1)]] * 2)[0]
        found[name] = explainer.channel_relevances(seen, [start, start])[0]["first"], maps
    assert answers[0] != answers[1], "the partners differ in what they answer"
    for mine, one in zip(found["like"], found["unlike"], strict=True):
        assert torch.equal(mine, one)


def test_a_network_that_takes_one_chip_at_a_time_gets_one():
    class Alone(nn.Module):
        def __init__(self):
            super().__init__()
            self.first = nn.Conv2d(3, 4, 3)

        def forward(self, chips):
            return self.first(chips[:1]).mean((2, 3))

    net, chips = Alone().double(), [random_chip(seed) for seed in range(2)]
    explainer = LayerExplainer(net, ["first"], tuning=GPU_LIKE)
    for one, chip in zip(explainer.see_all(chips), chips, strict=True):
        torch.testing.assert_close(one.embedding, net(chip[None])[0])


def test_photos_of_one_pass_use_it_and_others_are_recorded_again(monkeypatch):
    net = small_network("conv + batch norm + SiLU", seed=4)
    chips, starts = work(net)
    explainer = LayerExplainer(net, ["first"], tuning=GPU_LIKE)
    seen = explainer.see_all(chips, keep=True)
    recorded = []
    record_above = type(explainer._ways._way).record_above
    monkeypatch.setattr(
        type(explainer._ways._way),
        "record_above",
        lambda way, chip, *rest: recorded.append(len(chip)) or record_above(way, chip, *rest),
    )
    whole = explainer.relevances(seen[:3], starts[:3])
    assert not recorded
    # One of the three has no pass of its own; alone it runs alone, and with others in a group that is filled
    # up.
    single = explainer.relevance(seen[1], starts[1])
    explainer.relevances(seen[:2], starts[:2])
    assert recorded == [1, 3]
    torch.testing.assert_close(single["first"], whole[1]["first"], rtol=1e-12, atol=1e-14)


def test_when_memory_runs_out_fewer_photos_go_together(monkeypatch):
    net = small_network("conv + batch norm + SiLU", seed=5)
    chips, starts = work(net)
    explainer = LayerExplainer(net, ["first"], tuning=GPU_LIKE)
    wanted = explainer.relevances(explainer.see_all(chips), starts)
    sizes, record = [], recorder.Recorder.record

    def small_memory(self, known, *rest, **asked):
        sizes.append(len(next(iter(known.values()))))
        if sizes[-1] > 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return record(self, known, *rest, **asked)

    monkeypatch.setattr(recorder.Recorder, "record", small_memory)
    found = explainer.relevances(explainer.see_all(chips), starts)
    assert sizes == [3, 2, 1, 1, 1, 1]
    for mine, one in zip(found, wanted, strict=True):
        torch.testing.assert_close(mine["first"], one["first"], rtol=1e-10, atol=1e-12)


def test_cells_outside_the_grid_of_any_photo_are_refused():
    net = small_network("conv + batch norm + SiLU", seed=6)
    chips, _ = work(net)
    explainer = LayerExplainer(net, ["first"], tuning=GPU_LIKE)
    with pytest.raises(EngineError, match="outside"):
        explainer.all_pixel_maps(chips[:2], "first", [[(0, 0)], [(99, 0)]])


@pytest.mark.parametrize("trimmed", [False, True])
@pytest.mark.parametrize(
    ("kernel", "dilation", "padding"), [((3, 3), (1, 1), 1), ((5, 3), (2, 1), 2), ((3, 3), (2, 2), 0)]
)
def test_a_mirrored_kernel_turns_a_depthwise_convolution_round(kernel, dilation, padding, trimmed):
    torch.manual_seed(0)
    conv = nn.Conv2d(6, 6, kernel, padding=padding, dilation=dilation, groups=6, bias=False).double()
    weight, both = conv.weight.detach(), (padding, padding)
    geometry = Geometry(kernel, (1, 1), dilation, both, both, 6)
    values = torch.randn(2, 6, 7, 8, dtype=torch.float64)
    held = Window(0, 7, 0, 8)
    wanted = geometry.support(held)
    if trimmed:
        wanted = Window(wanted.top + 1, wanted.bottom - 1, wanted.left + 1, wanted.right - 2)
    plain = geometry.transposed(values, weight, held, wanted)
    turned = geometry.transposed(values, weight.flip(2, 3), held, wanted, mirrored=True)
    torch.testing.assert_close(turned, plain, rtol=1e-12, atol=1e-14)


def with_noise(function, seed):
    """A product of a `Geometry` with the rounding errors of a fast convolution.

    The errors are there only where some GPU may use a fast convolution. They are a few steps of single
    precision at the largest value of a channel.
    """
    noise = torch.Generator().manual_seed(seed)

    def noisy(geometry, *given, **named):
        made = function(geometry, *given, **named)
        if not conserving.may_be_fast(geometry):
            return made
        largest = made.abs().amax(dim=(2, 3), keepdim=True)
        return made + 4e-7 * largest * (2 * torch.rand(made.shape, generator=noise, dtype=made.dtype) - 1)

    return noisy


@pytest.mark.parametrize("block", ["conv + batch norm + ReLU", "timm BasicBlock", "torchvision BasicBlock"])
def test_conserving_is_not_upset_by_the_noise_of_fast_convolutions(block, monkeypatch):
    # On one half of the chip nothing moves a neuron but its bias: any noise there would be inverted.
    net = small_network(block, seed=7, stem="conv + max pooling", pool="mean", neck="none")
    norms = [module for module in net.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.running_mean.zero_()
        norm.bias.data.fill_(0.5 if norm is norms[-1] else -0.3)
    chip, cells = random_chip(0), [(c, r) for c in range(6) for r in range(8)]
    chip[:, :, : CHIP[1] // 2] = 0
    wanted = LayerExplainer(net, ["second"], "conserving").pixel_maps(chip, "second", cells)
    for name in ("applied", "transposed"):
        monkeypatch.setattr(Geometry, name, with_noise(getattr(Geometry, name), 1))
    # Single precision's steps, on numbers in double precision: what is left of the error is the noise's.
    step = torch.finfo(torch.float32).eps / torch.finfo(torch.float64).eps
    monkeypatch.setattr(conserving, "ROUNDINGS", conserving.ROUNDINGS * step)
    found = LayerExplainer(net, ["second"], "conserving").pixel_maps(chip, "second", cells)
    assert (found - wanted).abs().max() <= 1e-2 * wanted.abs().max()
    # With a bound that does not know of the noise, the maps are about nothing.
    monkeypatch.setattr(conserving, "ROUNDINGS", 0)
    upset = LayerExplainer(net, ["second"], "conserving").pixel_maps(chip, "second", cells)
    assert (upset - wanted).abs().max() > 0.1 * wanted.abs().max()
