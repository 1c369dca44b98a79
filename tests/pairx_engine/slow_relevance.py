"""Relevance in a slow and obvious way, as the engine's reference.

It takes one chip, one start and one backward pass at a time.

Both ways run the whole network once, with its own values, on a graph whose gradient is the relevance:

* the rules of `published` and `paper` are zennit's, as hooks (`pairx_engine.relevance.hooks`, proved against
  the published code);
* the rules of `conserving` are written here as stand-ins. A stand-in has the value of what it replaces and,
  as a function of its inputs, the slopes that the rule wants: ``value.detach() + sum_i share_i (A_i -
  A_i.detach())`` gives R share_i to A_i, whatever the value is made from. Modules get theirs by forward
  hooks, sums and the like by a function mode.
"""

import copy
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import torch
from timm.layers import EffectiveSEModule, SEModule
from timm.models._efficientnet_blocks import SqueezeExcite
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.overrides import TorchFunctionMode
from torchvision.ops import SqueezeExcitation

from pairx_engine.models.miewid import GeneralisedMeanPool
from pairx_engine.relevance.hooks import lrp_rules

GATED = (SqueezeExcite, SEModule, EffectiveSEModule, SqueezeExcitation)
ACTIVATION_MODULES = ("torch.nn.modules.activation", "timm.layers.activations")
ACTIVATION_FUNCTIONS = {"relu", "relu6", "silu", "hardswish", "gelu"}
SUMS = {"add", "add_", "__add__", "__radd__", "__iadd__"}
PRODUCTS = {"mul", "mul_", "multiply", "__mul__", "__rmul__", "__imul__"}
POOLINGS = {"mean", "avg_pool2d", "adaptive_avg_pool2d"}


@dataclass(frozen=True)
class Slow:
    """What the slow way finds for one chip (3, H, W) and the starts (P, D).

    `features` and `channels` by layer, (C, h, w) and (P, C, h, w); `pixels` (P, 3, H, W); `leaked` by layer
    (P,), what stayed at neurons above that layer, and `leaked_in_all` (P,) at any. For the `cells` asked for,
    by layer: `cell_pixels` (k, 3, H, W), signed, and `cell_leaked` (k,), what stayed between the layer and
    the pixels.
    """

    embedding: Tensor
    features: dict[str, Tensor]
    channels: dict[str, Tensor]
    pixels: Tensor
    leaked: dict[str, Tensor]
    leaked_in_all: Tensor
    cell_pixels: dict[str, Tensor]
    cell_leaked: dict[str, Tensor]


def slow_relevance(network, preset, chip, layers, starts, cells=()):
    """Everything in `Slow`. `cells` are (column, row) pairs, looked at on every layer."""
    network = copy.deepcopy(network).eval().requires_grad_(False)
    pixels, leaks = chip[None].clone().requires_grad_(), []
    rules = conserving_rules(network, chip, leaks) if preset == "conserving" else lrp_rules(network)
    with rules, torch.enable_grad():
        features, leaks_above = {}, {}
        with watched(network, layers, features, leaks_above, leaks):
            embedding = network(pixels)
        by_start = [gradients(embedding, start[None], features, pixels, leaks) for start in starts]
        by_cell = {
            name: [
                gradients(features[name], one_cell(features[name], *cell), {}, pixels, leaks)
                for cell in cells
            ]
            for name in layers
        }
    return Slow(
        embedding[0].detach(),
        {name: feature[0].detach() for name, feature in features.items()},
        {name: torch.stack([channels[name] for channels, _, _ in by_start]) for name in layers},
        torch.stack([grid for _, grid, _ in by_start]),
        {
            name: torch.stack(
                [sum(leaked[leaks_above[name] :], chip.new_zeros(())) for _, _, leaked in by_start]
            )
            for name in layers
        },
        torch.stack([sum(leaked, chip.new_zeros(())) for _, _, leaked in by_start]),
        {name: torch.stack([grid for _, grid, _ in found]) for name, found in by_cell.items() if found},
        {
            name: torch.stack([sum(leaked, chip.new_zeros(())) for _, _, leaked in found])
            for name, found in by_cell.items()
            if found
        },
    )


def gradients(output, start, features, pixels, leaks):
    """Of one start: relevance of the features by name and of the pixels, and the sum that each leak took."""
    inputs = [*features.values(), pixels, *leaks]
    found = torch.autograd.grad(output, inputs, start, retain_graph=True, allow_unused=True)
    found = [torch.zeros_like(i)[0] if g is None else g[0] for g, i in zip(found, inputs, strict=True)]
    n = len(features)
    return dict(zip(features, found[:n], strict=True)), found[n], [leak.sum() for leak in found[n + 1 :]]


def one_cell(features, column, row):
    start = torch.zeros_like(features)
    start[:, :, row, column] = features.detach()[:, :, row, column]
    return start


@contextmanager
def watched(network, layers, features, leaks_above, leaks):
    """Keep the layers' outputs; a copy goes on, so that nothing overwrites what was kept."""

    def hook_of(name):
        def hook(module, inputs, output):
            features[name], leaks_above[name] = output, len(leaks)
            return output.clone()

        return hook

    with ExitStack() as handles:
        for name in layers:
            handles.callback(network.get_submodule(name).register_forward_hook(hook_of(name)).remove)
        yield


@contextmanager
def conserving_rules(network, chip, leaks):
    """Within the context the network's gradient is the conserving relevance.

    Changes the network: give it a copy.

    `leaks` receives, in the order of the forward pass, one tensor of zeros per layer with neurons that only
    their bias moves; the gradient of such a tensor is the relevance that stays there.
    """
    for module in network.modules():
        if hasattr(module, "inplace"):
            module.inplace = False
        if isinstance(module, GATED):
            module.forward = torch.no_grad()(module.forward)
    folded = batch_norms_to_fold(network, chip)
    with ExitStack() as handles:
        for module in network.modules():
            rule = rule_of(module, folded.get(module), leaks)
            if rule is not None:
                handles.callback(module.register_forward_hook(plainly(rule)).remove)
        handles.enter_context(FunctionRules())
        yield


def plainly(rule):
    """The rule as a forward hook in which sums and products are just sums and products."""

    def hook(module, inputs, output):
        with torch._C.DisableTorchFunction():
            return rule(inputs[0], output)

    return hook


def rule_of(module, batch_norm, leaks):
    """Stand-in of a module as a function of its input and output.

    None where plain differentiation is right.
    """
    if isinstance(module, nn.Conv2d | nn.Linear):
        return lambda x, value: by_contribution(module, batch_norm, x, value, leaks)
    if isinstance(module, GeneralisedMeanPool):
        return lambda x, value: by_powers(module, x, value)
    if isinstance(module, nn.AvgPool2d | nn.AdaptiveAvgPool2d):
        return lambda x, value: by_average(module.forward, x, value)
    if (
        isinstance(module, (_BatchNorm, nn.LayerNorm, *GATED))
        or type(module).__module__ in ACTIVATION_MODULES
    ):
        return lambda x, value: value.detach() + slope(x)
    return None


def slope(tensor):
    """Zero in value, one in slope."""
    return tensor - tensor.detach()


def by_contribution(layer, batch_norm, x, value, leaks):
    """Rule 2: relevance goes to the positive contributions W_ji A_i of each neuron.

    Without any it goes to the negative contributions; without these it leaks.
    """
    weight, a, one = layer.weight.detach(), x.detach(), slope(x)
    if batch_norm is not None:
        gain = batch_norm.weight if batch_norm.affine else torch.ones_like(batch_norm.running_var)
        factor = gain.detach() / torch.sqrt(batch_norm.running_var + batch_norm.eps)
        weight = weight * factor.reshape(-1, *[1] * (weight.ndim - 1))
    up, down = without_bias(layer, weight.clamp(min=0)), without_bias(layer, weight.clamp(max=0))
    a_up, a_down = a.clamp(min=0), a.clamp(max=0)
    positive, negative = up(a_up) + down(a_down), up(a_down) + down(a_up)
    fast = isinstance(layer, nn.Conv2d) and (layer.stride, layer.dilation, layer.groups) == (
        (1, 1),
        (1, 1),
        1,
    )
    # Behind a ReLU only: elsewhere sums of contributions are hardly ever zero.
    fast = fast and max(layer.kernel_size) > 1 and bool((a >= 0).all())
    rises = positive > none_up_to(positive, fast)
    falls = ~rises & (negative < -none_up_to(negative, fast))
    leak = torch.zeros_like(value, requires_grad=True)
    leaks.append(leak)
    return (
        value.detach()
        + rises * (up(a_up * one) + down(a_down * one)) / torch.where(rises, positive, 1)
        + falls * (up(a_down * one) + down(a_up * one)) / torch.where(falls, negative, 1)
        + (~rises & ~falls) * leak
    )


def none_up_to(sums, fast=False):
    """The size up to which a sum counts as no contribution.

    It is 16 roundings of the channel's largest sum in a fast convolution, and nearly zero otherwise.
    """
    rounding = torch.finfo(sums.dtype).eps
    least = torch.empty_like(sums)
    for place in range(len(sums)):
        for channel in range(sums.shape[1]) if fast else [slice(None)]:
            largest = sums[place, channel].abs().max()
            least[place, channel] = largest * (16 * rounding if fast else rounding**2)
    return least.clamp(min=torch.finfo(sums.dtype).tiny)


def without_bias(layer, weight):
    """The layer as a function, with these weights."""
    twin = copy.deepcopy(layer)
    twin.weight, twin.bias = nn.Parameter(weight, requires_grad=False), None
    return twin.forward


def by_average(pool, x, value):
    """Rule 4: as rule 2 with the pooling's own equal weights; evenly where everything pooled is zero."""
    a, one = x.detach(), slope(x)
    positive, negative, evenly = pool(a.clamp(min=0)), pool(a.clamp(max=0)), pool(torch.ones_like(a))
    rises = positive > none_up_to(positive)
    falls = ~rises & (negative < -none_up_to(negative))
    return (
        value.detach()
        + rises * pool(a.clamp(min=0) * one) / torch.where(rises, positive, 1)
        + falls * pool(a.clamp(max=0) * one) / torch.where(falls, negative, 1)
        + (~rises & ~falls) * pool(one) / evenly
    )


def by_powers(gem, x, value):
    """Rule 5: in proportion to max(x, eps)^p."""
    powers = x.detach().clamp(min=gem.eps) ** gem.p.detach()
    return value.detach() + (powers * slope(x)).sum((2, 3)) / powers.sum((2, 3))


def by_size(a, b, value):
    """Rule 3: to both terms of a sum by their absolute values, halves where both are zero."""
    size_a, size_b = a.detach().abs(), b.detach().abs()
    size = size_a + size_b
    share = torch.where(size > 0, size_a / torch.where(size > 0, size, 1), 0.5)
    return value.detach() + share * slope(a) + (1 - share) * slope(b)


class FunctionRules(TorchFunctionMode):
    """Stand-ins of what networks compute outside of modules."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        name, kwargs = getattr(func, "__name__", ""), kwargs or {}
        moving = [a for a in args if isinstance(a, Tensor) and a.requires_grad]
        if name in SUMS and len(moving) == 2:
            # Never in place: the terms must stay what they are.
            return by_size(*moving, torch.add(*moving))
        value = func(*args, **kwargs)
        if name in PRODUCTS and len(moving) == 2:
            raise NotImplementedError("no rule for the product of two signals")
        if name in POOLINGS and moving:
            return by_average(lambda x: func(x, *args[1:], **kwargs), moving[0], value)
        if name in PRODUCTS | ACTIVATION_FUNCTIONS and moving:
            return value.detach() + slope(moving[0])
        return value


class _Readers(TorchFunctionMode):
    """Counts the operations that read each tensor."""

    def __init__(self):
        super().__init__()
        self.count, self.kept = {}, []

    def __torch_function__(self, func, types, args=(), kwargs=None):
        value = func(*args, **(kwargs or {}))
        if isinstance(value, Tensor):
            for tensor in {
                id(a): a for a in [*args, *(kwargs or {}).values()] if isinstance(a, Tensor)
            }.values():
                self.kept.append(tensor)
                self.count[id(tensor)] = self.count.get(id(tensor), 0) + 1
        return value


def batch_norms_to_fold(network, chip):
    """Rule 1: convolutions and linear layers, with the batch norm that is the only reader of their output.

    They are found by running the network once.
    """
    readers, made, read = _Readers(), {}, []

    def note(module, inputs, output):
        if isinstance(module, nn.Conv2d | nn.Linear):
            made[id(output)] = module
            readers.kept.append(output)
        elif isinstance(module, _BatchNorm) and module.running_var is not None:
            read.append((id(inputs[0]), module))

    with ExitStack() as handles, torch.no_grad():
        for module in network.modules():
            handles.callback(module.register_forward_hook(note).remove)
        with readers:
            network(chip[None])
    return {made[tensor]: norm for tensor, norm in read if tensor in made and readers.count[tensor] == 1}
