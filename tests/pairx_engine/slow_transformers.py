"""The rules for transformers the slow way: every operation of a network replaced by its formula.

The network runs as it is, one operation after another, and each that has a rule is computed from the rule's
own formula with parts of it detached, so that autograd does the rest. It knows nothing of steps or
recordings. Each start takes a backward pass of its own.
"""

from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from pairx_engine.relevance.presets import preset_named
from tests.pairx_engine.slow_relevance import Slow

BENDING = {F.gelu, F.silu, F.relu, F.hardswish, torch.tanh, Tensor.tanh, torch.relu}
GATING = {torch.sigmoid, Tensor.sigmoid, F.sigmoid, F.hardsigmoid}
SOFTMAX = {F.softmax, torch.softmax, Tensor.softmax}
TIMES = {torch.mul, Tensor.mul, Tensor.__mul__, Tensor.__rmul__}
MATRICES = {torch.matmul, Tensor.matmul, Tensor.__matmul__, torch.bmm, Tensor.bmm}
SLOPES = {F.gelu: 0.5, F.silu: 0.5, F.hardswish: 0.5, torch.tanh: 1.0, Tensor.tanh: 1.0}


def carries(value):
    return isinstance(value, Tensor) and value.requires_grad


def halved(value):
    """The value, of which only half of the gradient comes through."""
    return value / 2 + value.detach() / 2


class Rules(TorchFunctionMode):
    """Gradients within are those of the rules. `attending` are the weights of layers beside attention."""

    def __init__(self, preset, attending):
        super().__init__()
        self.held = preset.rules == "cp"
        self.gammas = preset.gammas
        self.attending = {weight.data_ptr() for weight in attending}

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        with torch._C.DisableTorchFunction():
            if func is F.linear:
                return self.linear(*args, **kwargs)
            if func in (F.conv2d, torch.conv2d):
                return self.convolution(*args, **kwargs)
            if func is F.layer_norm:
                return layer_norm(*args, **kwargs)
            if func in (F.rms_norm, torch.rms_norm):
                return rms_norm(*args, **kwargs)
            if func is F.group_norm:
                return group_norm(*args, **kwargs)
            if func is F.normalize:
                return func(*args, **kwargs) if not carries(args[0]) else normalize(*args, **kwargs)
            if func is F.scaled_dot_product_attention:
                return self.attention(*args, **kwargs)
            if func in BENDING and carries(args[0]):
                x, y = args[0], func(args[0].detach(), *args[1:], **_out_of_place(kwargs))
                return x * torch.where(x == 0, SLOPES.get(func, 0.0), y / torch.where(x == 0, 1, x)).detach()
            if func in GATING or (func in SOFTMAX and self.held):
                return func(args[0].detach(), *args[1:], **_out_of_place(kwargs))
            if func in TIMES | MATRICES and carries(args[0]) and carries(args[1]):
                return func(halved(args[0]), halved(args[1]))
            return func(*args, **kwargs)

    def linear(self, x, weight, bias=None):
        beside = weight.data_ptr() in self.attending
        gamma = self.gammas.attention if beside else self.gammas.linear
        return generalised(gamma, x, weight, bias, lambda x, w, b: F.linear(x, w, b))

    def convolution(self, x, weight, bias=None, *how):
        return generalised(self.gammas.convolution, x, weight, bias, lambda x, w, b: F.conv2d(x, w, b, *how))

    def attention(self, q, k, v, attn_mask=None, dropout_p=0.0, is_causal=False, scale=None):
        assert not is_causal
        both = carries(q) and carries(k)
        q, k = (halved(q), halved(k)) if both else (q, k)
        logits = q @ k.transpose(-1, -2) * (scale or q.shape[-1] ** -0.5)
        weights = (logits if attn_mask is None else logits + attn_mask).softmax(-1)
        if self.held or not carries(weights):
            return weights.detach() @ v
        return halved(weights) @ halved(v)


def _out_of_place(kwargs):
    return {name: value for name, value in kwargs.items() if name != "inplace"}


def generalised(gamma, x, weight, bias, layer):
    """The gamma rule in its four branches, by the signs of inputs and outputs."""
    z = layer(x, weight, bias)
    if not gamma or not carries(x):
        return z
    positive, negative = x.clamp(min=0), x.clamp(max=0)
    more, less = weight + gamma * weight.clamp(min=0), weight + gamma * weight.clamp(max=0)
    bias = z.new_zeros(len(weight)) if bias is None else bias
    for_positive = layer(positive, more, bias + gamma * bias.clamp(min=0)) + layer(negative, less, None)
    for_negative = layer(positive, less, bias + gamma * bias.clamp(max=0)) + layer(negative, more, None)
    whole = torch.where(z > 0, for_positive, for_negative)
    return whole * (z / torch.where(whole == 0, 1, whole)).detach()


def layer_norm(x, shape, weight=None, bias=None, eps=1e-5):
    axes = tuple(range(-len(shape), 0))
    centred = x - x.mean(axes, keepdim=True)
    y = centred / (x.var(axes, unbiased=False, keepdim=True) + eps).sqrt().detach()
    y = y if weight is None else y * weight
    return y if bias is None else y + bias


def rms_norm(x, shape, weight=None, eps=None):
    axes = tuple(range(-len(shape), 0))
    eps = torch.finfo(x.dtype).eps if eps is None else eps
    y = x / (x.square().mean(axes, keepdim=True) + eps).sqrt().detach()
    return y if weight is None else y * weight


def group_norm(x, groups, weight=None, bias=None, eps=1e-5):
    parts = x.unflatten(1, (groups, -1)).flatten(2)
    centred = parts - parts.mean(2, keepdim=True)
    y = (centred / (parts.var(2, unbiased=False, keepdim=True) + eps).sqrt().detach()).reshape(x.shape)
    shape = (1, -1, *[1] * (x.ndim - 2))
    y = y if weight is None else y * weight.view(shape)
    return y if bias is None else y + bias.view(shape)


def normalize(x, p=2.0, dim=1, eps=1e-12, out=None):
    return x / x.detach().norm(p, dim, keepdim=True).clamp(min=eps)


@dataclass
class Pass:
    """A recorded forward pass under the rules: what is kept to pull starts through it, one by one."""

    pixels: Tensor
    outputs: dict
    embedding: Tensor

    def gradient(self, output, start, inputs):
        """Gradients of the inputs; the start is a relevance, (1, ...)."""
        g = torch.where(output == 0, 0, start / torch.where(output == 0, 1, output)).detach()
        found = torch.autograd.grad(output, inputs, g, retain_graph=True, allow_unused=True)
        return [
            torch.zeros_like(one) if part is None else part for one, part in zip(inputs, found, strict=True)
        ]


@contextmanager
def _watched(network, layers, outputs):
    def keep(name):
        def hook(module, inputs, output):
            outputs[name] = output

        return hook

    handles = [network.get_submodule(name).register_forward_hook(keep(name)) for name in layers]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def forward_pass(network, preset, chip, layers, attending):
    """One forward pass of a chip (3, H, W) that serves any number of starts."""
    pixels, outputs = chip[None].clone().requires_grad_(), {}
    with torch.enable_grad(), _watched(network, layers, outputs), Rules(preset_named(preset), attending):
        embedding = network(pixels)
    return Pass(pixels, outputs, embedding)


def slow_transformer(network, preset, chip, layers, starts, cells, maps, attending):
    """Everything in `Slow` but leaks. `maps(output)` gives a layer's cells as (1, C, h, w).

    `attending` are the weights of the layers beside attention.
    """
    kept = forward_pass(network, preset, chip, layers, attending)
    outputs = [kept.outputs[name] for name in layers]
    channels = {name: [] for name in layers}
    pixels = []
    for start in starts:
        *parts, below = kept.gradient(kept.embedding, start[None], [*outputs, kept.pixels])
        for name, output, part in zip(layers, outputs, parts, strict=True):
            channels[name].append(maps(output * part)[0].detach())
        pixels.append((kept.pixels * below)[0].detach())
    of_cells = {}
    for name, output in zip(layers, outputs, strict=True):
        of_cells[name] = torch.stack([_from_cell(kept, output, maps, cell) for cell in cells])
    zero = chip.new_zeros(len(starts))
    return Slow(
        kept.embedding[0].detach(),
        {name: maps(output)[0].detach() for name, output in zip(layers, outputs, strict=True)},
        {name: torch.stack(found) for name, found in channels.items()},
        torch.stack(pixels),
        dict.fromkeys(layers, zero),
        zero,
        of_cells,
        dict.fromkeys(layers, chip.new_zeros(len(cells))),
    )


def _from_cell(kept, output, maps, cell):
    """Relevance of the pixels (3, H, W) from one cell's activations."""
    mask = torch.zeros_like(output)
    column, row = cell
    maps(mask)[0, :, row, column] = 1  # a view
    (below,) = torch.autograd.grad(output, [kept.pixels], mask, retain_graph=True)
    return (kept.pixels * below)[0].detach()
