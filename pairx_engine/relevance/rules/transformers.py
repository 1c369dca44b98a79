"""Rules for networks with attention, as modified gradients: `cp` and `attnlrp`.

| steps | rule |
| --- | --- |
| linear layers, convolutions | generalised gamma, by kind: beside attention, other linear layers, convolutions |
| LayerNorm, RMSNorm, GroupNorm, normalised queries and keys | what they divide by is held |
| GELU, SiLU and other activations | the secant y / x |
| gates by a sigmoid, squeeze-and-excitation | the gate is held |
| products of two values that carry relevance | half to each |
| softmax | `cp`: held, so that values alone carry; `attnlrp`: its gradient |
| sums, averages, rearranging, LayerScale, windows, masks | the ordinary gradient |

So `cp` is conservative propagation (Ali et al., 2022), and `attnlrp` AttnLRP (Achtibat et al., 2024), where
the halves make a quarter for queries and keys and a half for values. Under `cp` what pixels, biases, position
embeddings, class and register tokens get sums to the start. Under `attnlrp` it does not.
"""

from __future__ import annotations

from collections.abc import Sequence

from timm.layers import Conv2dSame, RmsNorm, RmsNorm2d
from timm.layers.padding import pad_same
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.grad import conv2d_input
from zennit.types import AvgPool, BatchNorm

from pairx_engine.models.miewid import GeneralisedMeanPool
from pairx_engine.relevance.hooks import SQUEEZE_EXCITE
from pairx_engine.relevance.reading import ACTIVATIONS, FUSED_ATTENTION, MATRIX_PRODUCTS, Place
from pairx_engine.relevance.rules.base import Run
from pairx_engine.relevance.rules.modified_gradients import (
    Differentiated,
    GammaRule,
    GradientRecording,
    LinearMap,
    Secant,
    Whole,
    linear_map,
)
from pairx_engine.relevance.rules.norms import (
    Affine,
    SizeHeld,
    SpreadHeld,
    grouped,
    last_axes,
    of_group_norm,
    of_layer_norm,
    of_rms_norm,
    root_mean_square,
)
from pairx_engine.relevance.rules.products import CONSTANTS, Added, Attention, MatrixProduct, Multiplied
from pairx_engine.relevance.rules.rearranging import IN_ORDER, InOrder, Joined, Permuted, Rolled, Viewed
from pairx_engine.relevance.rules.rows import (
    OF_ONE_TENSOR,
    Row,
    RuleSet,
    is_known_convolution,
    of_type,
    refused,
)
from pairx_engine.relevance.rules.weights import Weights

POSITIONS = "position embeddings"
_PERMUTING = ("permute", "transpose", "swapaxes", "movedim", "t")
_VIEWS = ("getitem", "select", "narrow", "part")
_LINEAR = (
    *("mean", "sum", "avg_pool2d", "adaptive_avg_pool2d", "pad", "expand", "stack", "repeat", "flip", "neg"),
    *("interpolate", "window_reverse", "grid_reverse", "max_pool2d"),
)
"""Functions and methods whose ordinary gradient is their rule: linear, or a choice among numbers."""
_GATES = ("sigmoid", "hardsigmoid")


class LinearLayer:
    """A linear layer on the last axis, as a module or a function."""

    def __init__(self, at: Place) -> None:
        beside = at.step.index in at.reading.beside_attention
        gammas = at.reading.gammas
        self.rule = GammaRule(gammas.attention if beside else gammas.linear, at.precision)
        self.weights = None if at.module is None else Weights(at.module, None)

    def record(self, run: Run, inputs: Sequence[Tensor]) -> tuple[Tensor, GradientRecording]:
        """Run the step; keep what its rule needs."""
        weights = self.weights
        if weights is None:
            # A function's weights may have been computed on the way.
            weights = Weights(_Given(run.argument(1, "weight"), run.argument(2, "bias")), None)
        layer = linear_map(lambda kind: weights.operand(kind, self.rule.precision), weights.bias)
        output = run(*inputs)
        return output, self.rule.recorded(inputs[0], output, layer)


class _Given:
    """Weight and bias that were given to a function."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        self.weight, self.bias = weight, bias


class ConvolutionLayer:
    """A convolution, timm's padded ones included."""

    def __init__(self, at: Place) -> None:
        self.rule = GammaRule(at.reading.gammas.convolution, at.precision)
        self.module, self.weights = at.module, Weights(at.module, None)

    def record(self, run: Run, inputs: Sequence[Tensor]) -> tuple[Tensor, GradientRecording]:
        """Run the step; keep what its rule needs."""
        x, module = inputs[0], self.module
        same = isinstance(module, Conv2dSame)
        padded = pad_same(x, module.kernel_size, module.stride, module.dilation) if same else x
        top, left = (_before(whole, part) for whole, part in zip(padded.shape[2:], x.shape[2:], strict=True))
        padding = (0, 0) if same else module.padding
        size, (height, width) = padded.shape[1:], x.shape[2:]

        def forward(given: Tensor, weight: Tensor) -> Tensor:
            given = pad_same(given, module.kernel_size, module.stride, module.dilation) if same else given
            return functional.conv2d(
                given, weight, None, module.stride, padding, module.dilation, module.groups
            )

        def back(g: Tensor, weight: Tensor) -> Tensor:
            flat = g.flatten(0, 1)
            found = conv2d_input(
                (len(flat), *size), weight, flat, module.stride, padding, module.dilation, module.groups
            )
            return found[..., top : top + height, left : left + width].unflatten(0, g.shape[:2])

        bias = self.weights.bias
        layer = LinearMap(
            forward,
            back,
            lambda kind: self.weights.operand(kind, self.rule.precision),
            None if bias is None else bias.view(1, -1, 1, 1),
        )
        output = run(x)
        return output, self.rule.recorded(x, output, layer)


def _before(whole: int, part: int) -> int:
    """Padding before a map's side, of which timm puts the smaller half first."""
    return (whole - part) // 2


def _sum(at: Place) -> Added:
    names = at.constant_names
    return Added(POSITIONS if any("pos" in name for name in names) else CONSTANTS)


_ROWS = (
    OF_ONE_TENSOR,
    Row(lambda at: at.is_identity, lambda at: Whole()),
    of_type(SQUEEZE_EXCITE, lambda at: Secant()),
    Row(lambda at: is_known_convolution(at.module), ConvolutionLayer),
    Row(lambda at: type(at.module) is nn.Linear or at.name == "linear", LinearLayer),
    Row(lambda at: at.is_layer, refused(lambda at: f"is a {type(at.module).__name__}")),
    Row(lambda at: isinstance(at.module, nn.LayerNorm), lambda at: SpreadHeld(of_layer_norm(at.module))),
    Row(lambda at: isinstance(at.module, nn.GroupNorm), lambda at: SpreadHeld(of_group_norm(at.module))),
    of_type((RmsNorm, RmsNorm2d, nn.RMSNorm), lambda at: SpreadHeld(of_rms_norm(at.module))),
    Row(lambda at: at.name == "layer_norm", lambda at: SpreadHeld(last_axes)),
    Row(lambda at: at.name == "rms_norm", lambda at: SpreadHeld(root_mean_square)),
    Row(lambda at: at.name == "group_norm", lambda at: SpreadHeld(grouped)),
    Row(lambda at: at.name == "normalize", lambda at: SizeHeld()),
    of_type((BatchNorm,), lambda at: Affine(at.module)),
    Row(
        lambda at: at.is_activation,
        lambda at: Secant(ACTIVATIONS.get(at.name or type(at.module).__name__.lower(), 0.0)),
    ),
    of_type((GeneralisedMeanPool,), lambda at: Differentiated()),
    Row(lambda at: at.name in IN_ORDER or isinstance(at.module, nn.Flatten), lambda at: InOrder()),
    Row(lambda at: at.name in _PERMUTING, lambda at: Permuted()),
    Row(lambda at: at.name in _VIEWS, lambda at: Viewed()),
    Row(lambda at: at.name == "roll", lambda at: Rolled()),
    Row(lambda at: at.name in ("cat", "concat"), lambda at: Joined()),
    Row(lambda at: at.sums, _sum),
    Row(lambda at: at.name == "sub", lambda at: Added(sign=-1.0)),
    Row(lambda at: at.name == "mul", lambda at: Multiplied()),
    Row(lambda at: at.name in ("truediv", "div") and at.operands == 1, lambda at: Multiplied(divides=True)),
    Row(lambda at: at.name in MATRIX_PRODUCTS, lambda at: MatrixProduct()),
    Row(lambda at: at.name in _LINEAR, lambda at: Differentiated()),
    Row(
        lambda at: isinstance(at.module, (AvgPool, nn.MaxPool2d, nn.AdaptiveMaxPool2d, nn.Upsample)),
        lambda at: Differentiated(),
    ),
)


def _gates(at: Place) -> bool:
    return at.name in _GATES or isinstance(at.module, (nn.Sigmoid, nn.Hardsigmoid))


CP = RuleSet(
    "cp",
    (Row(lambda at: at.name == FUSED_ATTENTION, lambda at: Attention(held=True)), *_ROWS),
    form="gradient",
    holds=lambda at: at.is_softmax or _gates(at),
    accounts=True,
)
ATTNLRP = RuleSet(
    "attnlrp",
    (
        Row(lambda at: at.name == FUSED_ATTENTION, lambda at: Attention(held=False)),
        Row(lambda at: at.is_softmax, lambda at: Differentiated()),
        *_ROWS,
    ),
    form="gradient",
    holds=_gates,
    attention_alone=True,
)
