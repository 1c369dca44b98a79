"""Networks that the engine was not written for.

They are refused, or explained by the general path with a notice, but never wrongly.
"""

import copy

import pytest
import torch
from timm.layers import ScaledStdConv2d
from torch import nn
from torch.nn import functional

from pairx_engine.errors import EngineError
from pairx_engine.relevance.explainer import LayerExplainer
from tests.pairx_engine.comparison import CELLS, EXACT, beyond, errors_of, found_by, wanted_of
from tests.pairx_engine.slow_relevance import slow_relevance
from tests.pairx_engine.small_networks import random_chip, randomise


class Upsampled(nn.Module):
    """A transposed convolution on the way: zennit has a rule for it, the fast path has none."""

    def __init__(self):
        super().__init__()
        self.down = nn.Sequential(nn.Conv2d(3, 6, 3, 2, 1), nn.BatchNorm2d(6), nn.SiLU())
        self.up = nn.Sequential(nn.ConvTranspose2d(6, 5, 3, 2), nn.BatchNorm2d(5), nn.ReLU())
        self.head = nn.Conv2d(5, 7, 3)

    def forward(self, x):
        return self.head(self.up(self.down(x))).mean((2, 3))


class Standardised(nn.Module):
    """Convolutions that standardise their weights as they run."""

    def __init__(self):
        super().__init__()
        self.down = nn.Sequential(ScaledStdConv2d(3, 6, 3, stride=2), nn.SiLU(inplace=True))
        self.up = ScaledStdConv2d(6, 8, 3)

    def forward(self, x):
        return self.up(self.down(x)).mean((2, 3))


class HandedOn(nn.Module):
    """A layer that gives the very tensor which it reads, as another branch does."""

    def __init__(self, same):
        super().__init__()
        self.stem, self.same, self.conv = nn.Conv2d(3, 4, 3, padding=1), same, nn.Conv2d(4, 4, 3, padding=1)
        self.head = nn.Linear(4, 3)

    def forward(self, x):
        x = self.stem(x)
        return self.head((self.same(x) + self.conv(x)).mean((2, 3)))


@pytest.mark.parametrize("same", [nn.Identity(), nn.Dropout()])
def test_layers_that_hand_on_their_input_have_the_relevance_of_their_own_branch(same):
    torch.manual_seed(0)
    network, chip = HandedOn(same).double().eval(), torch.randn(3, 8, 8).double()
    starts = torch.randn(2, 3).double()
    found, wanted = {}, {}
    for path in ("fast", "general"):
        together = LayerExplainer(network, ["stem", "same"], path=path)
        found |= {(path, n): r for n, r in together.channel_relevance(together.see(chip), starts).items()}
    for name in ("stem", "same"):
        alone = LayerExplainer(network, [name], path="general")
        (wanted[name],) = alone.channel_relevance(alone.see(chip), starts).values()
    assert not torch.allclose(wanted["stem"], wanted["same"])
    for (_, name), values in found.items():
        torch.testing.assert_close(values, wanted[name], rtol=1e-12, atol=1e-14)


class Branching(nn.Module):
    """Control flow that depends on the values, which no tracing can follow."""

    def __init__(self):
        super().__init__()
        self.down = nn.Sequential(nn.Conv2d(3, 6, 3, 2, 1), nn.ReLU())
        self.up = nn.Conv2d(6, 8, 3)

    def forward(self, x):
        x = self.down(x)
        return self.up(x if x.mean() > 0 else -x).mean((2, 3))


class Reflected(nn.Module):
    """A convolution that pads with something else than zeros."""

    def __init__(self):
        super().__init__()
        self.down = nn.Sequential(
            nn.Conv2d(3, 6, 3, 2, 1, padding_mode="reflect"), nn.BatchNorm2d(6), nn.ReLU()
        )
        self.up = nn.Conv2d(6, 8, 3, padding="same")

    def forward(self, x):
        return self.up(self.down(x)).mean((2, 3))


UNKNOWN = {
    "ConvTranspose2d": Upsampled,
    "ScaledStdConv2d": Standardised,
    "read": Branching,
    "Conv2d": Reflected,
}
"""What the notice must name, and the network."""


def unknown_case(name, dtype=torch.float64):
    torch.manual_seed(0)
    network = randomise(UNKNOWN[name](), torch.randn(4, 3, 20, 26)).to(dtype)
    chip = random_chip(4, (20, 26), dtype)
    return network, chip, torch.randn(3, network(chip[None]).shape[1]).to(dtype)


@pytest.mark.parametrize("preset", ["published", "paper"])
@pytest.mark.parametrize("name", UNKNOWN)
def test_unknown_networks_take_the_general_path_and_say_so(name, preset):
    network, chip, starts = unknown_case(name)
    explainer = LayerExplainer(network, ["up", "down"], preset)
    found = found_by(explainer, chip, starts)
    assert explainer.path == "general"
    assert "general path" in explainer.notice
    assert name in explainer.notice
    wanted = wanted_of(slow_relevance(network, "zennit", chip, ["up", "down"], starts, CELLS), preset)
    assert not beyond(EXACT, errors_of(found, wanted))


@pytest.mark.parametrize("options", [{"path": "fast"}, {"preset": "conserving"}])
@pytest.mark.parametrize("name", UNKNOWN)
def test_what_only_the_fast_path_can_do_is_refused_for_unknown_networks(name, options):
    with pytest.raises(EngineError, match=name):
        LayerExplainer(unknown_case(name)[0], ["down"], **options)


class Odd(nn.Module):
    """A known network but for one operation, which is done after the first layer."""

    def __init__(self, operation):
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3)
        self.operation = operation

    def forward(self, x):
        return self.second(self.operation(self.first(x))).mean((2, 3))


OPERATIONS = {
    "sin": torch.sin,
    "mul": lambda x: x * torch.sigmoid(x),
    "sub": lambda x: x - x.mean((2, 3), keepdim=True),
    "softmax": lambda x: functional.softmax(x, dim=1),
    "PixelShuffle": nn.PixelShuffle(1),
    "InstanceNorm2d": nn.InstanceNorm2d(4),
}
"""What the error must name, and the operation."""


@pytest.mark.parametrize("operation", OPERATIONS)
def test_conserving_names_what_it_has_no_rule_for(operation):
    network, chip = Odd(OPERATIONS[operation]).double().eval(), random_chip(0, (9, 9))
    with pytest.raises(EngineError, match=operation):
        found_by(LayerExplainer(network, ["first"], "conserving"), chip, torch.ones(1, 4).double())


@pytest.mark.parametrize("operation", OPERATIONS)
def test_published_differentiates_what_has_no_rule_plainly(operation):
    torch.manual_seed(1)
    network, chip, starts = Odd(OPERATIONS[operation]), random_chip(0, (9, 9)), torch.randn(3, 4).double()
    network = network.double().eval().requires_grad_(False)
    for group in (starts, starts[:1]):
        found = found_by(LayerExplainer(network, ["first"]), chip, group)
        wanted = wanted_of(slow_relevance(network, "zennit", chip, ["first"], group, CELLS), "published")
        assert not beyond(EXACT, errors_of(found, wanted))


class Habit(nn.Module):
    """Layers put together by a function, as people write networks."""

    def __init__(self, together):
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.SiLU(inplace=True))
        self.conv, self.other, self.narrow = (
            nn.Conv2d(4, 4, 3, padding=1),
            nn.Conv2d(4, 4, 1),
            nn.Conv2d(4, 1, 1),
        )
        self.padded, self.wide = nn.Conv2d(4, 4, 1, stride=2, padding=1), nn.Conv2d(8, 4, 3)
        self.vector = nn.Linear(4 * 9 * 12, 5)
        self.last, self.pool = nn.Conv2d(4, 4, 3, padding=1), nn.AdaptiveAvgPool2d(1)
        self.together = together

    def forward(self, x):
        return self.together(self, self.first(x))

    def ended(self, y):
        return self.pool(self.last(y)).flatten(1)


def added_in_place(net, y):
    y += net.conv(y)
    y = net.other(y)
    y += 1
    return net.ended(y)


HABITS = {
    "viewed as a vector": lambda net, y: net.vector(y.view(y.shape[0], -1)),
    "added in place": added_in_place,
    "three terms": lambda net, y: net.ended(net.conv(y) + net.other(y) + y),
    "added to itself": lambda net, y: net.ended(y + y),
    "a constant added": lambda net, y: net.ended(y + 1),
    "scaled": lambda net, y: net.ended(0.5 * y),
    "concatenated": lambda net, y: net.ended(net.wide(torch.cat([y, net.other(y)], dim=1))),
    "cut": lambda net, y: net.ended(y[:, :, 1:, :-2]),
    "permuted": lambda net, y: net.ended(y.permute(0, 1, 3, 2).contiguous()),
    "padded by a function": lambda net, y: net.ended(functional.pad(y, (0, 1, 0, 1))),
    "activated by a function": lambda net, y: net.ended(functional.relu(y)),
    "dropped out by a function": lambda net, y: net.ended(functional.dropout(y, 0.5, net.training)),
    "some outputs see padding alone": lambda net, y: net.ended(net.padded(y)),
    "averaged, dimensions kept": lambda net, y: net.other(net.conv(y).mean((2, 3), keepdim=True)).flatten(1),
    "averaged from the right": lambda net, y: net.conv(y).mean([-1, -2]),
}
"""What both kinds of rules cover."""
RARE_HABITS = {
    "sum of different shapes": lambda net, y: net.ended(y + y.mean((2, 3), keepdim=True)),
    "one channel added to four": lambda net, y: net.ended(y + net.narrow(y)),
    "gated by itself": lambda net, y: net.ended(y * torch.sigmoid(net.narrow(y))),
    "one layer used twice": lambda net, y: net.ended(net.conv(net.conv(y))),
    "detached branch": lambda net, y: net.ended(y + net.other(y.detach())),
    "detached factor": lambda net, y: net.ended(net.conv(y) * net.other(y).detach()),
    "pooled by a function": lambda net, y: functional.adaptive_avg_pool2d(net.conv(y), 1).flatten(1),
    "largest value": lambda net, y: net.conv(y).amax((2, 3)),
    "unit length": lambda net, y: functional.normalize(net.conv(y).mean((2, 3))),
}
"""What plain differentiation surely covers; the conserving rules may refuse it, but not get it wrong."""


def errors_on(together, preset):
    torch.manual_seed(5)
    network = randomise(Habit(together), torch.randn(4, 3, 9, 12)).double()
    chip = random_chip(6, (9, 12))
    starts = torch.randn(3, network(chip[None]).shape[1]).double()
    found = found_by(LayerExplainer(network, ["first"], preset), chip, starts)
    rules = "conserving" if preset == "conserving" else "zennit"
    return errors_of(found, wanted_of(slow_relevance(network, rules, chip, ["first"], starts, CELLS), preset))


@pytest.mark.parametrize("preset", ["published", "conserving"])
@pytest.mark.parametrize("habit", HABITS)
def test_networks_may_be_written_in_any_usual_way(habit, preset):
    assert not beyond(EXACT, errors_on(HABITS[habit], preset))


@pytest.mark.parametrize("habit", RARE_HABITS)
def test_rarer_ways_are_differentiated_plainly(habit):
    assert not beyond(EXACT, errors_on(RARE_HABITS[habit], "published"))


@pytest.mark.parametrize("habit", RARE_HABITS)
def test_conserving_refuses_rarer_ways_or_gets_them_right(habit):
    try:
        errors = errors_on(RARE_HABITS[habit], "conserving")
    except EngineError:
        return
    assert not beyond(EXACT, errors)


class Branching(nn.Module):
    """Branches that reach differently far, below a stack that spreads relevance over all of the map."""

    def __init__(self, channels=4, depth=13):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, channels, 3, padding=1), nn.SiLU())
        self.near, self.far = nn.Conv2d(channels, channels, 1), nn.Conv2d(channels, channels, 3, padding=1)
        body = [
            layer for _ in range(depth) for layer in (nn.Conv2d(channels, channels, 3, padding=1), nn.SiLU())
        ]
        self.body, self.head = nn.Sequential(*body), nn.Linear(channels, 6)

    def forward(self, x):
        x = self.stem(x)
        return self.head(self.body(self.near(x) + self.far(x)).mean((2, 3)))


def test_branches_that_reach_differently_far_share_a_map():
    torch.manual_seed(0)
    network, chip = Branching().double().eval(), torch.randn(3, 20, 20).double()
    cells = [(column, row) for row in range(20) for column in range(20)][::7]
    found, wanted = (
        LayerExplainer(network, ["body"], path=path).pixel_maps(chip, "body", cells)
        for path in ("fast", "general")
    )
    torch.testing.assert_close(found, wanted, rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize("preset", ["published", "conserving"])
def test_a_cell_that_sees_padding_alone_has_an_empty_map(preset):
    torch.manual_seed(5)
    network, chip = (
        randomise(Habit(HABITS["some outputs see padding alone"]), torch.randn(4, 3, 9, 12)),
        random_chip(6, (9, 12)),
    )
    network = network.double()
    cells = [(0, 0), (1, 1), (3, 0), (6, 4)]
    found = LayerExplainer(network, ["padded"], preset).pixel_maps(chip, "padded", cells)
    rules = "conserving" if preset == "conserving" else "zennit"
    slow = slow_relevance(network, rules, chip, ["padded"], torch.ones(1, 4).double(), cells)
    wanted = slow.cell_pixels["padded"].sum(dim=1).abs()
    assert wanted.flatten(1).any(dim=1).tolist() == [False, True, False, True]
    assert float((found - wanted).abs().max()) <= EXACT * float(wanted.max())


def replace_parameters(network, state):
    for module in network.modules():
        for name, parameter in list(module.named_parameters(recurse=False)):
            setattr(module, name, nn.Parameter(parameter.detach() * 1.5, requires_grad=False))


def replace_statistics(network, state):
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean = module.running_mean + 1


def replace_layers(network, state):
    for parent in list(network.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.Conv2d):
                other = copy.deepcopy(child)
                other.weight.data *= 1.5
                setattr(parent, name, other)


def replace_activations(network, state):
    for parent in list(network.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, (nn.ReLU, nn.SiLU)):
                setattr(parent, name, nn.Softplus())


CHANGES = {
    "loaded": lambda network, state: network.load_state_dict(state),
    "loaded by assignment": lambda network, state: network.load_state_dict(state, assign=True),
    "new parameters": replace_parameters,
    "new statistics": replace_statistics,
    "new layers": replace_layers,
    "new activations": replace_activations,
}


@pytest.mark.parametrize("change", CHANGES)
def test_an_explainer_follows_changes_of_its_network(change):
    torch.manual_seed(5)
    chips, chip = torch.randn(4, 3, 9, 12), random_chip(6, (9, 12))
    network, other = (randomise(Habit(HABITS["three terms"]), chips, seed).double() for seed in (1, 2))
    explainer, starts = LayerExplainer(network, ["first"]), torch.randn(2, 4).double()
    before = found_by(explainer, chip, starts)
    CHANGES[change](network, other.state_dict())
    found = found_by(explainer, chip, starts)
    wanted = found_by(LayerExplainer(network, ["first"]), chip, starts)
    for name, value in wanted.items():
        assert not torch.allclose(before[name], value), name
        torch.testing.assert_close(found[name], value, rtol=1e-12, atol=1e-14)
