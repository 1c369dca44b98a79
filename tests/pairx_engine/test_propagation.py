"""The parts of the fast path: windows, transposed convolutions on them, the reading of networks.

Also which networks are left to the general path.
"""

import copy
import operator

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

from pairx_engine.device.tuning import WINDOW_SIZES
from pairx_engine.errors import EngineError
from pairx_engine.relevance.batch_norms import fold_batch_norm
from pairx_engine.relevance.explainer import LayerExplainer
from pairx_engine.relevance.fast import FastPath
from pairx_engine.relevance.layout import channels_last
from pairx_engine.relevance.precision import PRECISIONS
from pairx_engine.relevance.presets import PRESETS
from pairx_engine.relevance.rules.base import settled
from pairx_engine.relevance.rules.conserving import ConservingConv
from pairx_engine.relevance.rules.convolution import (
    CANCELLATION,
    MANY_SUMMANDS,
    ConvRecording,
    Geometry,
    ZPlus,
    signs,
)
from pairx_engine.relevance.rules.published import PUBLISHED
from pairx_engine.relevance.trace import CHIP, Untraceable, trace
from pairx_engine.relevance.window import Window, cut, fitted, move, whole
from tests.pairx_engine.small_networks import random_chip

SIZE = 9


def spans():
    return (
        st.tuples(st.integers(0, SIZE), st.integers(0, SIZE))
        .map(sorted)
        .filter(lambda ends: ends[0] < ends[1])
    )


windows = st.builds(lambda rows, columns: Window(*rows, *columns), spans(), spans())


def on_canvas(part, window):
    """The naive meaning of a part that fills a window: zeros everywhere else."""
    canvas = torch.zeros(*part.shape[:2], SIZE, SIZE, dtype=part.dtype)
    for row in range(window.top, window.bottom):
        for column in range(window.left, window.right):
            canvas[..., row, column] = part[..., row - window.top, column - window.left]
    return canvas


@settings(deadline=None, max_examples=60)
@given(windows, windows)
def test_moving_between_windows_keeps_what_both_hold(held, wanted):
    assume(held.top < wanted.bottom and wanted.top < held.bottom)
    assume(held.left < wanted.right and wanted.left < held.right)
    part = torch.randn(2, 3, *held.size).double()
    moved = move(part, held, wanted)
    assert moved.shape[2:] == wanted.size
    assert torch.equal(moved, cut(on_canvas(part, held), wanted))
    both = held.union(wanted)
    assert torch.equal(move(part, held, both), cut(on_canvas(part, held), both))
    inner = held.within(wanted)
    assert torch.equal(move(part, held, inner), cut(on_canvas(part, held), inner))


@settings(deadline=None, max_examples=200)
@given(st.integers(-30, 60), st.integers(1, 50), st.integers(1, 40))
def test_fitted_windows_lie_inside_and_lose_nothing(low, size, end):
    extent = Window(0, end, 0, end)
    found = fitted(Window(low, low + size, 0, 1), extent)
    cells = [row for row in range(low, low + size) if 0 <= row < end]
    assert 0 <= found.top < found.bottom <= end
    assert all(found.top <= row < found.bottom for row in cells)
    assert found.bottom - found.top <= max(1, size)
    if low >= 0 and low + size <= end:
        assert (found.top, found.bottom) == (low, low + size)


@given(st.integers(1, 60), st.integers(20, 60))
def test_fitted_windows_have_few_sizes(size, end):
    extent = Window(0, end, 0, end)
    found = {fitted(Window(low, low + size, 0, 1), extent).size[0] for low in range(1 - size, end)}
    assert len(found) <= WINDOW_SIZES


@pytest.mark.parametrize("side", [12, 28])
def test_light_and_heavy_products_are_the_same_for_any_number_of_items(side):
    torch.manual_seed(0)
    geometry = Geometry((1, 1), (1, 1), (1, 1), (0, 0), (0, 0), 1)
    values = channels_last(torch.randn(3, 320, side, side))
    weight = channels_last(torch.randn(320, 256, 1, 1))
    assert geometry.is_product(values, weight) == (side == 12)
    found = geometry.transposed(values, weight, whole(values), whole(values))
    wanted = torch.einsum("nohw,oi->nihw", values.double(), weight[:, :, 0, 0].double())
    torch.testing.assert_close(found.double(), wanted, rtol=0, atol=3e-6 * float(wanted.abs().max()))
    if side == 28:
        # Small maps are filled up to one number of items; larger ones are not.
        assert torch.equal(found[:1], geometry.transposed(values[:1], weight, whole(values), whole(values)))
    backwards = channels_last(weight.transpose(0, 1))
    torch.testing.assert_close(geometry.applied(values, backwards), found, rtol=0, atol=1e-3)


@settings(deadline=None, max_examples=80)
@given(st.data())
def test_transposed_products_on_windows_are_the_gradients_of_the_convolution(data):
    kernel, stride, dilation = (
        data.draw(st.tuples(n, n)) for n in (st.integers(1, 4), st.integers(1, 3), st.integers(1, 2))
    )
    groups = data.draw(st.sampled_from([1, 2, 4]))
    before = tuple(data.draw(st.integers(0, k - 1)) for k in kernel)
    after = tuple(data.draw(st.integers(0, k - 1)) for k in kernel)
    geometry = Geometry(kernel, stride, dilation, before, after, groups)
    activation = torch.randn(1, 4, 10, 11).double().requires_grad_()
    weight = torch.randn(8, 4 // groups, *kernel).double()
    padded = functional.pad(activation, (before[1], after[1], before[0], after[0]))
    wanted_output = functional.conv2d(padded, weight, None, stride, 0, dilation, groups)
    layout = data.draw(st.sampled_from([torch.contiguous_format, torch.channels_last]))
    laid_out = activation.detach().contiguous(memory_format=layout)
    torch.testing.assert_close(
        geometry.applied(laid_out, weight), wanted_output.detach(), rtol=1e-10, atol=1e-10
    )
    h, w = wanted_output.shape[2:]
    rows = sorted(data.draw(st.lists(st.integers(0, h), min_size=2, max_size=2, unique=True)))
    columns = sorted(data.draw(st.lists(st.integers(0, w), min_size=2, max_size=2, unique=True)))
    held = Window(*rows, *columns)
    values = torch.randn(1, 8, *held.size).double().contiguous(memory_format=layout)
    start = torch.zeros_like(wanted_output)
    cut(start, held).copy_(values)
    (gradient,) = torch.autograd.grad(wanted_output, activation, start)
    reached = geometry.support(held).within(whole(activation))
    # What is wanted may be less: a map's window need not hold all that one of several readers reaches.
    inner_rows = sorted(data.draw(st.lists(st.integers(reached.top, reached.bottom), min_size=2, max_size=2)))
    inner_columns = sorted(
        data.draw(st.lists(st.integers(reached.left, reached.right), min_size=2, max_size=2))
    )
    for wanted in (reached, Window(*inner_rows, *inner_columns)):
        if min(wanted.size) > 0:
            torch.testing.assert_close(
                geometry.transposed(values, weight, held, wanted),
                cut(gradient, wanted),
                rtol=1e-10,
                atol=1e-10,
            )
    # And nothing lies outside of what the window says it reaches.
    outside = gradient.clone()
    cut(outside, reached).zero_()
    assert (outside == 0).all()


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_signs_lie_side_by_side(layout):
    values = torch.randn(1, 3, 4, 5).contiguous(memory_format=layout)
    both = signs(values)
    assert torch.equal(both, torch.cat([values.clamp(min=0), values.clamp(max=0)], dim=1))
    assert both.is_contiguous(memory_format=layout)


def naive_positive_sum(conv, chip):
    """z+ of every output, contribution by contribution, in double precision."""
    (kh, kw), (sh, sw), (ph, pw) = conv.kernel_size, conv.stride, conv.padding
    weight = conv.weight.detach().double()
    bias = 0 if conv.bias is None else conv.bias.detach().double().clamp(min=0)
    padded = functional.pad(chip.double(), (pw, pw, ph, ph))[0]
    out = torch.empty(conv(chip).shape[1:], dtype=torch.double)
    for row in range(out.shape[1]):
        for column in range(out.shape[2]):
            patch = padded[:, row * sh : row * sh + kh, column * sw : column * sw + kw]
            out[:, row, column] = (weight * patch).clamp(min=0).sum(dim=(1, 2, 3)) + bias
    return out


def random_norm(channels):
    """A batch norm that multiplies by numbers of both signs, and its third channel by a positive one."""
    norm = nn.BatchNorm2d(channels).eval()
    for values in (norm.running_mean, norm.bias.data):
        values.normal_()
    norm.running_var.uniform_(0.5, 2)
    norm.weight.data.normal_()[2] = 1.3
    return norm


@pytest.mark.parametrize("share", [0.5, 0.02, 0.0])
@pytest.mark.parametrize(("kernel", "stride", "padding"), [(1, 1, 0), (3, 2, 1)])
@pytest.mark.parametrize("normed", [False, True])
def test_positive_sums_are_exact_to_rounding_whatever_cancels(kernel, stride, padding, share, normed):
    torch.manual_seed(0)
    conv = nn.Conv2d(2 * MANY_SUMMANDS, 5, kernel, stride, padding, bias=False)
    chip = torch.randn(1, conv.in_channels, 6, 6)
    with torch.no_grad():
        # One output whose contributions are nearly all negative: `share` of them stay as they are.
        conv.weight[2] = conv.weight[2].abs()
        few = torch.rand(conv.in_channels) < share
        chip[:, ~few] = -chip[:, ~few].abs()
        norm = random_norm(conv.out_channels) if normed else None
        rule = ZPlus(conv, norm, False, PRECISIONS["float32"])
        _, recording = rule.record(conv, [chip])
        _, cancelled = rule.from_output(chip, conv(chip), rule.geometry(chip))
        (recording,) = settled([recording])
    seen = copy.deepcopy(conv)
    if norm is not None:
        seen.weight, seen.bias = (nn.Parameter(values) for values in fold_batch_norm(conv, norm))
    wanted = naive_positive_sum(seen, chip)
    assert bool(cancelled) == (share < 1 / CANCELLATION)
    torch.testing.assert_close(1 / recording.ratio[0].double(), wanted + 1e-6, rtol=3e-6, atol=1e-12)


@pytest.mark.parametrize("bias", [1.0, -1.0, -10.0])
def test_contributions_that_are_lost_beside_a_bias_are_still_summed(bias):
    torch.manual_seed(0)
    conv = nn.Conv2d(2 * MANY_SUMMANDS, 5, 1)
    chip = 1e-9 * torch.randn(1, conv.in_channels, 6, 6)
    nn.init.constant_(conv.bias, bias)
    with torch.no_grad():
        rule = ConservingConv(conv, None, False, PRECISIONS["float32"])
        _, recording = rule.record(conv, [chip])
        (recording,) = settled([recording])
        nn.init.zeros_(conv.bias)
        wanted = naive_positive_sum(conv, chip)
    torch.testing.assert_close(1 / recording.ratio[0].double(), wanted, rtol=3e-6, atol=0)


@pytest.mark.parametrize("dead", [False, True])
def test_a_conserving_step_at_which_nothing_stays_is_like_any_other(dead):
    torch.manual_seed(0)
    conv = nn.Conv2d(MANY_SUMMANDS, 5, 1, bias=False)
    chip = torch.randn(1, MANY_SUMMANDS, 6, 6)
    if dead:
        nn.init.zeros_(conv.weight[3])
    with torch.no_grad():
        _, recording = ConservingConv(conv, None, False, PRECISIONS["float32"]).record(conv, [chip])
        (recording,) = settled([recording])
    assert (type(recording) is ConvRecording) != dead
    if dead:
        kept = recording.left(torch.ones(1, 5, 6, 6), whole(chip))
        torch.testing.assert_close(kept, torch.tensor([36.0]))


class Overwriting(nn.Module):
    """Reads under the old name what an activation and a sum have changed in place."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.act = nn.ReLU(inplace=True)
        self.mix = nn.Conv2d(4, 4, 1)
        self.head = nn.Linear(4, 5)

    def forward(self, x):
        kept = self.conv(x)
        changed = self.act(kept)
        kept += self.mix(changed)
        return self.head((kept * 2).mul_(0.5).mean((2, 3)))


class Keeping(Overwriting):
    """The same function without anything in place."""

    def forward(self, x):
        changed = functional.relu(self.conv(x))
        return self.head(((changed + self.mix(changed)) * 2 * 0.5).mean((2, 3)))


def test_values_changed_in_place_are_read_as_they_are_then():
    torch.manual_seed(0)
    net, plain, chip = Overwriting().double().eval(), Keeping().double().eval(), random_chip(0, (6, 7))
    plain.load_state_dict(net.state_dict())
    found, wanted = (LayerExplainer(n, ["mix"], path="fast") for n in (net, plain))
    torch.testing.assert_close(found.see(chip).embedding, net(chip[None])[0].detach(), rtol=1e-12, atol=1e-12)
    start = torch.randn(2, 5).double()
    grids = [one.relevance(one.see(chip), start)["mix"] for one in (found, wanted)]
    torch.testing.assert_close(*grids, rtol=1e-10, atol=1e-12)
    maps = [one.pixel_maps(chip, "mix", [[0, 0], [3, 2]]) for one in (found, wanted)]
    torch.testing.assert_close(*maps, rtol=1e-10, atol=1e-12)


def test_a_trace_shares_the_parameters_and_nothing_else():
    net = Overwriting().train()
    read = trace(net, PUBLISHED.whole)
    shadow = dict(read.shadow.named_parameters())
    assert all(shadow[name] is parameter for name, parameter in net.named_parameters())
    assert not read.shadow.training
    assert not any(step.call in (operator.iadd, torch.Tensor.mul_) for step in read.steps)
    assert net.act.inplace
    assert net.training


def test_a_trace_knows_what_leads_where():
    read = trace(Overwriting(), PUBLISHED.whole)
    (act,) = read.outputs["act"]
    assert read.leading_to(read.result, set()) >= {CHIP, act, read.result}
    assert CHIP not in read.leading_to(read.result, {*read.outputs["conv"]})
    assert read.depending_on({act}) == {i for i in read.depending_on({CHIP}) if i >= act}


class Branching(nn.Module):
    """Goes another way for bright chips."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)

    def forward(self, x):
        out = self.conv(x)
        return (out if x.mean() > 0 else -out).mean((2, 3))


class Splitting(nn.Module):
    """Cuts its map into two tensors and uses them as a list."""

    def __init__(self):
        super().__init__()
        self.conv, self.head = nn.Conv2d(3, 4, 3), nn.Conv2d(2, 3, 1)

    def forward(self, x):
        return self.head(torch.stack(torch.chunk(self.conv(x), 2, dim=1)[::-1]).sum(0)).mean((2, 3))


class Transposing(nn.Module):
    """Holds a layer that has a rule, but not one of the fast path's."""

    def __init__(self):
        super().__init__()
        self.conv, self.up = nn.Conv2d(3, 4, 3), nn.ConvTranspose2d(4, 4, 2)

    def forward(self, x):
        return self.up(self.conv(x)).mean((2, 3))


@pytest.mark.parametrize(
    ("make", "words"), [(Branching, "control flow"), (Splitting, "chunk"), (Transposing, "ConvTranspose2d")]
)
def test_what_cannot_be_read_takes_the_general_path_with_a_notice(make, words):
    torch.manual_seed(1)
    net, chip = make().double().eval(), random_chip(1, (6, 7))
    explainer, general = LayerExplainer(net, ["conv"]), LayerExplainer(net, ["conv"], path="general")
    seen = explainer.see(chip)
    start = torch.randn(2, *seen.embedding.shape).double()
    found = explainer.relevance(seen, start)["conv"], explainer.pixel_maps(chip, "conv", [[1, 2]])
    assert explainer.path == "general"
    assert words in explainer.notice
    assert general.notice is None
    assert torch.equal(found[0], general.relevance(general.see(chip), start)["conv"])
    assert torch.equal(found[1], general.pixel_maps(chip, "conv", [[1, 2]]))
    for asked in ({"preset": "conserving"}, {"precision": "bfloat16"}):
        with pytest.raises(EngineError, match="needs the fast path"):
            explain(LayerExplainer(net, ["conv"], **asked), chip)
    with pytest.raises(EngineError, match="the fast path cannot explain this network"):
        explain(LayerExplainer(net, ["conv"], path="fast"), chip)


class Halving(nn.Module):
    """Uses both halves of its map, one by one."""

    def __init__(self):
        super().__init__()
        self.conv, self.head = nn.Conv2d(3, 4, 3), nn.Conv2d(2, 3, 1)

    def forward(self, x):
        a, b = torch.chunk(self.conv(x), 2, dim=1)
        return self.head(a + b.relu()).mean((2, 3))


def test_parts_of_a_map_are_read_one_by_one():
    torch.manual_seed(1)
    net, chip = Halving().double().eval(), random_chip(1, (6, 7))
    explainer, general = LayerExplainer(net, ["conv"]), LayerExplainer(net, ["conv"], path="general")
    seen = explainer.see(chip)
    start = torch.randn(2, *seen.embedding.shape).double()
    assert explainer.path == "fast"
    wanted = general.relevance(general.see(chip), start)["conv"]
    assert torch.allclose(explainer.relevance(seen, start)["conv"], wanted, atol=1e-12)
    wanted = general.pixel_maps(chip, "conv", [[1, 2]])
    assert torch.allclose(explainer.pixel_maps(chip, "conv", [[1, 2]]), wanted, atol=1e-12)


def explain(explainer, chip):
    seen = explainer.see(chip)
    return explainer.relevance(seen, seen.embedding[None])


def test_layers_inside_a_single_step_take_the_general_path():
    from timm.layers import BatchNormAct2d

    net = nn.Sequential(
        nn.Conv2d(3, 4, 3), BatchNormAct2d(4), nn.Conv2d(4, 2, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    ).eval()
    assert LayerExplainer(net, ["1"]).path == "fast"
    assert "single step" in LayerExplainer(net, ["1.act"]).notice


def test_a_preset_without_a_rule_for_a_step_says_which():
    class Odd(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3)

        def forward(self, x):
            return torch.cumsum(self.conv(x), dim=2).mean((2, 3))

    assert LayerExplainer(Odd(), ["conv"]).path == "fast"
    with pytest.raises(EngineError, match="no rule for cumsum"):
        LayerExplainer(Odd(), ["conv"], "conserving")


def test_a_recorded_pass_serves_both_directions():
    torch.manual_seed(2)
    net, chip = Overwriting().double().eval(), random_chip(2, (6, 7))
    explainer = LayerExplainer(net, ["conv", "act"])
    kept, plain = explainer.see(chip, keep=True), explainer.see(chip)
    assert plain.kept is None
    start = torch.randn(1, 5).double()
    for layer, grid in explainer.relevance(plain, start).items():
        torch.testing.assert_close(explainer.relevance(kept, start)[layer], grid, rtol=1e-12, atol=1e-14)
    maps = explainer.pixel_maps(kept, "act", [[2, 2]])
    torch.testing.assert_close(maps, explainer.pixel_maps(chip, "act", [[2, 2]]), rtol=1e-12, atol=1e-14)


def test_unreadable_networks_say_so_to_those_who_compile_them():
    with pytest.raises(Untraceable):
        FastPath(Branching(), ["conv"], PRESETS["published"], PRECISIONS["float32"])
