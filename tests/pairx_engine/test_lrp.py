"""The rules against explicit matrices and zennit's own merging, and what they leave behind."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from timm.layers import BatchNormAct2d, SEModule
from torch import nn
from torchvision.ops import SqueezeExcitation
from zennit.canonizers import SequentialMergeBatchNorm
from zennit.composites import EpsilonPlus

from pairx_engine.relevance.batch_norms import fold_batch_norm, following_batch_norms
from pairx_engine.relevance.explainer import LayerExplainer
from pairx_engine.relevance.hooks import lrp_rules
from pairx_engine.relevance.presets import PRESETS, REDUCTIONS, Preset, preset_named, reduce_channels

STABILIZER = 1e-6


class SmallNet(nn.Module):
    """A network with one of everything.

    It has folded and unfolded batch norms, a residual sum, squeeze-excitation, pooling and a linear layer.
    """

    def __init__(self, gate=SEModule):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(inplace=True))
        self.branch = nn.Sequential(nn.Conv2d(4, 4, 3, padding=1, bias=False), nn.SiLU(inplace=True))
        self.gate = SEModule(4, rd_channels=2) if gate is SEModule else gate(4, 2)
        self.reduce = nn.Conv2d(4, 5, 1, stride=2)
        self.norm = BatchNormAct2d(5, act_layer=nn.SiLU)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Linear(5, 6)

    def forward(self, chips):
        stem = self.stem(chips)
        gated = self.gate(stem + self.branch(stem))
        return self.head(self.pool(self.norm(self.reduce(gated))).flatten(1))


def make_net(seed=0, gate=SEModule):
    torch.manual_seed(seed)
    net = SmallNet(gate)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.weight)
            nn.init.normal_(module.bias)
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2.0)
    return net.double().eval()


def stabilised(z):
    return z + STABILIZER * np.where(z >= 0, 1.0, -1.0)


def as_matrix(conv, weight, shape):
    """The convolution without bias as a matrix, column by column from unit inputs."""
    columns = []
    for k in range(int(np.prod(shape))):
        unit = torch.zeros(int(np.prod(shape)), dtype=torch.double)
        unit[k] = 1
        out = nn.functional.conv2d(unit.view(1, *shape), weight, stride=conv.stride, padding=conv.padding)
        columns.append(out.flatten().numpy())
    return np.stack(columns, axis=1), tuple(out.shape[1:])


def zplus(conv, weight, bias, activation, relevance):
    matrix, out = as_matrix(conv, weight, activation.shape)
    a = activation.flatten()
    bias = np.zeros(out[0]) if bias is None else bias
    z = matrix.clip(min=0) @ a.clip(min=0) + matrix.clip(max=0) @ a.clip(max=0)
    z = z + np.repeat(bias.clip(min=0), out[1] * out[2])
    s = relevance.flatten() / stabilised(z)
    back = a.clip(min=0) * (matrix.clip(min=0).T @ s) + a.clip(max=0) * (matrix.clip(max=0).T @ s)
    return back.reshape(activation.shape)


def naive_relevance(net, chip, start):
    """Channel relevance at the stem's output by the written-out rules."""
    with torch.no_grad():
        stem = net.stem(chip[None])
        total = stem + net.branch(stem.clone())
        gated = net.gate(total.clone())
        top = net.norm(net.reduce(gated))
        pooled = top.mean((2, 3))[0].numpy()
        weight, bias = net.head.weight.numpy(), net.head.bias.numpy()
    r_pooled = pooled * (weight.T @ (start.numpy() / stabilised(weight @ pooled + bias)))
    area = top.shape[2] * top.shape[3]
    r_top = top[0].numpy() * (r_pooled / stabilised(pooled) / area)[:, None, None]
    reduce = net.reduce
    r_gated = zplus(reduce, reduce.weight.detach(), reduce.bias.detach().numpy(), gated[0].numpy(), r_top)
    conv = net.branch[0]
    return r_gated + zplus(conv, conv.weight.detach(), None, stem[0].numpy(), r_gated)


def naive_pixels(net, chip, cell):
    """Pixel map of one cell of the stem.

    The activation at the cell goes down through the stem with its batch norm folded in.
    """
    conv, bn = net.stem[0], net.stem[1]
    with torch.no_grad():
        features = net.stem(chip[None])[0].numpy()
        scale = bn.weight / (bn.running_var + bn.eps).sqrt()
        weight = conv.weight * scale[:, None, None, None]
        bias = ((conv.bias - bn.running_mean) * scale + bn.bias).numpy()
    start = np.zeros_like(features)
    start[:, cell[1], cell[0]] = features[:, cell[1], cell[0]]
    return np.abs(zplus(conv, weight, bias, chip.numpy(), start).sum(axis=0))


def close(found, wanted, tolerance=1e-9):
    wanted = np.asarray(wanted)
    np.testing.assert_allclose(
        np.asarray(found), wanted, rtol=0, atol=tolerance * max(np.abs(wanted).max(), 1e-300)
    )


PATHS = pytest.mark.parametrize("path", ["fast", "general"])


@PATHS
@pytest.mark.parametrize("gate", [SEModule, SqueezeExcitation])
def test_relevance_equals_the_written_out_rules(gate, path):
    net = make_net(1, gate)
    chip, starts = torch.randn(3, 6, 7).double(), torch.randn(4, 6).double()
    starts = torch.cat([starts, -starts])
    published, paper = (
        explainer.relevance(explainer.see(chip), starts)["stem"]
        for explainer in (
            LayerExplainer(net, ["stem"], path=path),
            LayerExplainer(net, ["stem"], "paper", path=path),
        )
    )
    assert (paper < 0).any()
    for start, shown, signed in zip(starts, published, paper, strict=True):
        channels = naive_relevance(net, chip, start)
        close(shown, np.abs(channels.sum(axis=0)))
        close(signed, channels.sum(axis=0))


@PATHS
def test_pixel_maps_equal_the_written_out_rules(path):
    net = make_net(2)
    chip = torch.randn(3, 6, 7).double()
    cells = torch.tensor([[0, 0], [6, 5], [3, 2]])
    maps = LayerExplainer(net, ["stem"], path=path).pixel_maps(chip, "stem", cells)
    for cell, found in zip(cells.tolist(), maps, strict=True):
        close(found, naive_pixels(net, chip, cell))


def test_folding_agrees_with_zennits_merging():
    # Merging as zennit does it keeps eps in the neutralised batch norm, hence the wide tolerance.
    torch.manual_seed(3)
    net = nn.Sequential(
        nn.Conv2d(3, 4, 3),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Conv2d(4, 5, 3),
        nn.BatchNorm2d(5),
        nn.Flatten(),
        nn.Linear(125, 2),
    )
    for bn in (net[1], net[4]):
        nn.init.normal_(bn.weight)
        nn.init.normal_(bn.bias)
        bn.running_mean.normal_()
        bn.running_var.uniform_(0.5, 2)
    net = net.double().eval()
    chips, start = torch.randn(1, 3, 9, 9).double().requires_grad_(), torch.randn(1, 2).double()
    with EpsilonPlus(canonizers=[SequentialMergeBatchNorm()]).context(net):
        (wanted,) = torch.autograd.grad(net(chips), chips, start)
    with lrp_rules(net):
        (found,) = torch.autograd.grad(net(chips), chips, start)
    close(found, wanted, 1e-4)


def linears():
    torch.manual_seed(4)
    return [
        (nn.Conv2d(3, 4, 3, groups=1), nn.BatchNorm2d(4), (2, 3, 5, 5)),
        (nn.Conv2d(4, 4, 3, groups=4, bias=False), nn.BatchNorm2d(4, affine=False), (2, 4, 5, 5)),
        (nn.ConvTranspose2d(3, 4, 3), nn.BatchNorm2d(4), (2, 3, 5, 5)),
        (nn.Linear(3, 4, bias=False), nn.BatchNorm1d(4), (2, 3)),
    ]


@pytest.mark.parametrize("case", range(4))
def test_folded_parameters_equal_both_layers(case):
    linear, bn, shape = linears()[case]
    bn.running_mean.normal_()
    bn.running_var.uniform_(0.5, 2)
    if bn.affine:
        nn.init.normal_(bn.weight)
        nn.init.normal_(bn.bias)
    both = nn.Sequential(linear, bn).double().eval()
    inputs = torch.randn(shape).double()
    wanted = both(inputs)
    weight, bias = fold_batch_norm(linear, bn)
    linear.weight, linear.bias = nn.Parameter(weight), nn.Parameter(bias)
    torch.testing.assert_close(linear(inputs), wanted, rtol=1e-12, atol=1e-12)


def test_only_plain_batch_norms_are_folded():
    net = make_net()
    assert following_batch_norms(net) == {net.stem[0]: net.stem[1]}
    assert (
        following_batch_norms(nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4, track_running_stats=False)))
        == {}
    )


def snapshot(net):
    state = {name: value.clone() for name, value in net.state_dict().items()}
    hooks = [
        len(m._forward_hooks) + len(m._forward_pre_hooks) + len(m._backward_hooks) for m in net.modules()
    ]
    own = [sorted(vars(m)) for m in net.modules()]
    identity = {name: id(p) for name, p in net.named_parameters()}
    flags = [m.training for m in net.modules()], [p.requires_grad for p in net.parameters()]
    gradients = [p.grad for p in net.parameters()]
    return state, hooks, own, identity, flags, gradients


def assert_untouched(before, net):
    after = snapshot(net)
    assert list(before[0]) == list(after[0])
    for name, value in before[0].items():
        assert torch.equal(value, after[0][name]), name
    assert before[1:] == after[1:]


def mixed_net():
    net = make_net(5)
    net.head.train()
    net.stem[0].weight.requires_grad_(False)
    return net


@PATHS
def test_network_is_untouched_after_success(path):
    net = mixed_net()
    before = snapshot(net)
    explainer = LayerExplainer(net, ["stem", "norm"], path=path)
    chip = torch.randn(3, 6, 6).double()
    explainer.relevance(explainer.see(chip), torch.randn(3, 6).double())
    explainer.pixel_maps(chip, "stem", [[1, 2]])
    assert_untouched(before, net)


def fail(failure, net, explainer):
    chip = torch.randn(3, 6, 6).double()
    if failure == "in the forward":
        explainer.see(torch.randn(5, 6, 6).double())
    if failure == "in the start":
        explainer.relevance(explainer.see(chip), torch.randn(1, 7).double())
    if failure == "in the cell":
        explainer.pixel_maps(chip, "stem", [[0, 6]])
    with lrp_rules(net):
        if failure == "in the body":
            raise RuntimeError
        net(chip[None].requires_grad_()).backward(torch.ones(3, 3).double())


@PATHS
@pytest.mark.parametrize(
    "failure", ["in the body", "in the forward", "in the start", "in the cell", "in the backward"]
)
def test_network_is_untouched_after_an_exception(failure, path):
    net = mixed_net()
    before = snapshot(net)
    with pytest.raises((RuntimeError, ValueError)):
        fail(failure, net, LayerExplainer(net, ["stem"], path=path))
    assert_untouched(before, net)


def test_failing_registration_leaves_no_hooks(monkeypatch):
    net = mixed_net()
    before = snapshot(net)

    def refuse(self, module):
        raise RuntimeError("no more hooks")

    monkeypatch.setattr("zennit.rules.Epsilon.register", refuse, raising=False)
    with pytest.raises(RuntimeError, match="no more hooks"), lrp_rules(net):
        pass
    monkeypatch.undo()
    assert_untouched(before, net)


@pytest.mark.parametrize("gate", [SEModule, SqueezeExcitation])
def test_rules_do_not_change_forward_values(gate):
    net = make_net(6, gate)
    chips = torch.randn(2, 3, 6, 6).double()
    with torch.no_grad():
        wanted = net(chips)
        with lrp_rules(net):
            assert torch.equal(net(chips), wanted)
    with lrp_rules(net):
        assert torch.equal(net(chips.clone().requires_grad_()).detach(), wanted)


def test_inner_contexts_add_no_second_set_of_rules():
    net = make_net(7)
    with lrp_rules(net):
        once = snapshot(net)[1]
        with lrp_rules(net):
            assert snapshot(net)[1] == once
        assert snapshot(net)[1] == once
    assert sum(snapshot(net)[1]) == 0


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 4), st.integers(1, 3), st.integers(1, 3), st.integers(0, 10_000))
def test_reductions_equal_loops(channels, height, width, seed):
    values = torch.randn(2, channels, height, width, generator=torch.Generator().manual_seed(seed)).double()
    for p in range(2):
        for row in range(height):
            for column in range(width):
                cell = [float(values[p, c, row, column]) for c in range(channels)]
                wanted = {
                    "abs_of_sum": abs(sum(cell)),
                    "signed_sum": sum(cell),
                    "sum_of_abs": sum(map(abs, cell)),
                    "positive_sum": max(sum(cell), 0.0),
                }
                assert set(wanted) == set(REDUCTIONS)
                for name, value in wanted.items():
                    assert float(reduce_channels(values, name)[p, row, column]) == pytest.approx(
                        value, abs=1e-12
                    )


def test_presets_say_how_they_reduce():
    assert {name: preset.reduction for name, preset in PRESETS.items()} == {
        "published": "abs_of_sum",
        "paper": "signed_sum",
        "conserving": "signed_sum",
        "cp": "signed_sum",
        "attnlrp": "signed_sum",
    }
    with pytest.raises(ValueError, match="published, paper"):
        preset_named("best")
    with pytest.raises(ValueError, match="unknown reduction"):
        Preset("new", "mean")


def test_a_preset_takes_another_reduction_and_keeps_its_name_and_rules():
    for name, own in PRESETS.items():
        assert preset_named(name) is own
        for reduction in REDUCTIONS:
            assert preset_named(name, reduction) == replace(own, reduction=reduction)
    with pytest.raises(ValueError, match="abs_of_sum, signed_sum, sum_of_abs, positive_sum"):
        preset_named("paper", "mean")
