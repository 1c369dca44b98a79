"""The rules of the preset `conserving`: what enters a step as relevance leaves it as relevance.

Contributions c_ji = W_ji A_i of a linear step are taken with the batch norm after it folded into W; the bias
takes no part. With z+_j the sum of the positive and z-_j that of the negative contributions,

    R_i = sum_j c+_ji R_j / z+_j   over outputs with z+_j > t,
        + sum_j c-_ji R_j / z-_j   over the others with z-_j < -t,

and relevance of an output without any contributions stays where it is, since the output's value is its bias
alone. That is the only leakage, and it is declared. All shares lie between 0 and 1, so nothing grows on the
way.

Sums up to the threshold t count as no contribution. t is nearly zero, with one exception: behind a ReLU many
sums are exactly zero, and a GPU may use a fast convolution (Winograd's, or by Fourier transforms), which
leaves rounding errors there. Then t is a few roundings of the largest sum of the channel (`some`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional
from zennit.types import AvgPool

from pairx_engine.errors import EngineError
from pairx_engine.models.miewid import GeneralisedMeanPool
from pairx_engine.relevance.company import times
from pairx_engine.relevance.precision import Precision
from pairx_engine.relevance.reading import Place
from pairx_engine.relevance.rules.base import (
    LinearRecording,
    Pulled,
    Recording,
    Rule,
    Unsettled,
    Windows,
    to_window,
    transposed,
)
from pairx_engine.relevance.rules.convolution import ConvRecording, Geometry, Part, ZPlus, maps
from pairx_engine.relevance.rules.rows import FIRST, Row, RuleSet, layers, of_type, passing, plain
from pairx_engine.relevance.rules.weights import Weights
from pairx_engine.relevance.window import Window, cut, move, whole

ROUNDINGS = 16
"""A fast convolution's sums count as zero up to so many roundings of their channel's largest sum."""


def some(sums: Tensor, fast: bool = False) -> Tensor:
    """Where sums (N, C, ...) of contributions of one sign are not zero: a mask of their shape.

    The threshold is the square of the format's step times the photo's largest sum by magnitude, which keeps
    inverses finite: without contributions, sums are exactly zero. For a `fast` convolution, (N, C, h, w), the
    threshold is `ROUNDINGS` steps at the largest sum of the same photo and channel. Formats shorter than
    single precision are added up in single precision.
    """
    size = sums.abs()
    largest = size.amax(dim=tuple(range(2 if fast else 1, sums.ndim)), keepdim=True)
    step = min(torch.finfo(sums.dtype).eps, torch.finfo(torch.float32).eps)
    least = largest * (ROUNDINGS * step if fast else step * step)
    return size > least.clamp(min=torch.finfo(sums.dtype).tiny)


def may_be_fast(geometry: Geometry) -> bool:
    """Whether some GPU computes such a convolution by a fast algorithm.

    These have kernels of several cells that slide by one over all channels.
    """
    sliding = geometry.stride == (1, 1) and geometry.dilation == (1, 1)
    return sliding and geometry.groups == 1 and max(geometry.kernel) > 1


def inverted(sums: Tensor, where: Tensor) -> Tensor:
    """1 / sums where the mask says so, zero elsewhere."""
    return torch.where(where, sums, 1).reciprocal() * where


def ratios(positive: Tensor, negative: Callable[[], Tensor]) -> tuple[Tensor, Tensor | None]:
    """1 / z+ and 1 / z- where each is used, zero elsewhere; None for the second if it cannot be used."""
    has = some(positive)
    if not positive.is_cuda and bool(has.all()):
        return positive.reciprocal(), None
    z = negative()
    uses = ~has & some(z)
    used = positive.is_cuda or bool(uses.any())
    return inverted(positive, has), inverted(z, uses) if used else None


class ConservingConv(ZPlus):
    """A convolution by the module's equation."""

    def recording(self, z: Tensor, geometry: Geometry, parts: tuple[Part, ...]) -> Recording | Unsettled:
        """The recording from z+, which first asks whether any output has no positive contributions."""
        return _WithoutPositive(self, z, self.some(z, geometry), geometry, parts)

    def some(self, sums: Tensor, geometry: Geometry) -> Tensor:
        """Where sums of contributions of one sign are not zero.

        Only behind a ReLU is there reason to doubt small sums.
        """
        return some(sums, fast=self.nonnegative and may_be_fast(geometry))


@dataclass(frozen=True)
class _WithoutPositive:
    """A convolution before it is known whether some output has no positive contributions."""

    rule: ConservingConv
    z: Tensor
    has: Tensor
    geometry: Geometry
    parts: tuple[Part, ...]

    def question(self) -> Tensor:
        """Whether some output has no positive contributions."""
        return ~self.has.all()

    def settled(self, answer: bool | None) -> Recording | Unsettled:
        """An ordinary recording if all outputs have positive contributions.

        It may be folded only without other photos beside it, since these must not change a photo's numbers.
        """
        if answer is False:
            ratio, alone = self.z.reciprocal_(), len(self.z) == 1
            return ConvRecording(self.geometry, self.parts, ratio, self.rule.precision, alone)
        opposed = self.rule.opposed(self.parts)
        negative = self.rule.total(opposed, self.geometry)
        uses = ~self.has & self.rule.some(negative, self.geometry)
        return _WithNegative(self, inverted(self.z, self.has), opposed, negative, uses)


@dataclass(frozen=True)
class _WithNegative:
    """The same, before it is known whether any of those outputs has negative contributions."""

    before: _WithoutPositive
    first: Tensor
    opposed: tuple[Part, ...]
    negative: Tensor
    uses: Tensor

    def question(self) -> Tensor:
        """Whether any of those outputs has negative contributions."""
        return self.uses.any()

    def settled(self, answer: bool | None) -> Recording:
        """The recording, with the second ratio where it is used."""
        second = None if answer is False else inverted(self.negative, self.uses)
        geometry, parts, rule = self.before.geometry, self.before.parts, self.before.rule
        return _ConvRecording(geometry, parts, self.first, rule.precision, False, self.opposed, second)


@dataclass(frozen=True)
class _ConvRecording(ConvRecording):
    opposite: tuple[Part, ...] = ()
    second: Tensor | None = None

    def pull(self, relevance: Tensor, held: Window | None, wanted: Windows) -> Pulled:
        assert self.ratio is not None
        output, wanted_map = maps(held, wanted)
        total = self.share(self.parts, times(relevance, cut(self.ratio, output)), output, wanted_map)
        if self.second is not None:
            scaled = times(relevance, cut(self.second, output))
            total = total + self.share(self.opposite, scaled, output, wanted_map)
        return [total]

    def left(self, relevance: Tensor, held: Window | None) -> Tensor:
        assert self.ratio is not None
        used = self.ratio if self.second is None else self.ratio + self.second
        used = used if held is None else cut(used, held)
        return times(relevance, used == 0).flatten(1).sum(dim=1)


class ConservingLinear:
    """A linear layer on the last axis by the module's equation."""

    def __init__(self, module: nn.Linear, folded: nn.Module | None, precision: Precision) -> None:
        self.weights = Weights(module, folded)
        self.precision = precision

    def record(self, run: Callable[..., Tensor], inputs: Sequence[Tensor]) -> tuple[Tensor, Recording]:
        """Run the step; keep A and both ratios."""
        a = inputs[0].to(self.precision.relevance or inputs[0].dtype)
        parts = a.clamp(min=0), a.clamp(max=0)
        weights = [self.weights.operand(kind, self.precision) for kind in ("positive", "negative")]

        def total(signs: Sequence[Tensor]) -> Tensor:
            sums = [functional.linear(x, w.to(x.dtype)) for x, w in zip(parts, signs, strict=True)]
            return sums[0] + sums[1]

        first, second = ratios(total(weights), lambda: total(weights[::-1]))
        terms = [(parts[0], first, weights[0]), (parts[1], first, weights[1])]
        if second is not None:
            terms += [(parts[0], second, weights[1]), (parts[1], second, weights[0])]
        used = first if second is None else first + second
        activations, ratio_of, weight_of = zip(*terms, strict=True)
        return run(*inputs), _LinearRecording(activations, ratio_of, weight_of, self.precision, used == 0)


@dataclass(frozen=True)
class _LinearRecording(LinearRecording):
    stays: Tensor

    def left(self, relevance: Tensor, held: Window | None) -> Tensor:
        return times(relevance, self.stays).flatten(1).sum(dim=1)


class Shared:
    """A sum of two tensors: R_a = R |a| / (|a| + |b|), R_b the rest; halves where both are zero."""

    def record(self, run: Callable[..., Tensor], inputs: Sequence[Tensor]) -> tuple[Tensor, Recording]:
        """Run the step; keep the first summand's share."""
        output = run(*inputs)
        if any(value.shape != output.shape for value in inputs):
            shapes = " and ".join(str(tuple(value.shape)) for value in inputs)
            raise EngineError(
                f"preset conserving has no rule for a sum of {shapes}; choose published or paper"
            )
        first, second = (value.abs() for value in inputs)
        both = first + second
        share = torch.where(both > 0, first / torch.where(both > 0, both, 1), 0.5)
        return output, _SharedRecording(share)


@dataclass(frozen=True)
class _SharedRecording:
    share: Tensor

    def reach(self, window: Window) -> Window | None:
        return window

    def pull(self, relevance: Tensor, held: Window | None, wanted: Windows) -> Pulled:
        share = self.share if held is None else cut(self.share, held)
        first = times(relevance, share).to(relevance.dtype)
        parts = (first, relevance - first)
        return [to_window(part, held, window) for part, window in zip(parts, wanted, strict=True)]


class SharedPool:
    """Average pooling J as a linear step of equal positive weights.

    Relevance of an average of nothing is shared evenly.
    """

    def record(self, run: Callable[..., Tensor], inputs: Sequence[Tensor]) -> tuple[Tensor, Recording]:
        """Run the step; keep the signed parts, their ratios, and the pooling's graph."""
        positive, negative = inputs[0].clamp(min=0), inputs[0].clamp(max=0)
        first, second = ratios(run(positive), lambda: run(negative))
        ones = run(torch.ones_like(inputs[0]))
        used = first if second is None else first + second
        even = (used == 0) / ones
        with torch.enable_grad():
            leaf = inputs[0].detach().requires_grad_()
            output = run(leaf)
        terms = [(positive, first), (torch.ones_like(positive), even)]
        terms += [] if second is None else [(negative, second)]
        return output.detach(), _PoolRecording(output, leaf, tuple(terms))


@dataclass(frozen=True)
class _PoolRecording:
    output: Tensor
    leaf: Tensor
    terms: tuple[tuple[Tensor, Tensor], ...]

    def reach(self, window: Window) -> Window | None:
        return None

    def pull(self, relevance: Tensor, held: Window | None, wanted: Windows) -> Pulled:
        total: Tensor | None = None
        for part, ratio in self.terms:
            (back,) = transposed(self.output, [self.leaf], times(relevance.to(ratio.dtype), ratio))
            assert back is not None
            total = times(back, part) if total is None else total + times(back, part)
        assert total is not None
        total = total.to(relevance.dtype)
        return [total if wanted[0] is None else move(total, whole(total), wanted[0])]


class SharedGeM:
    """Generalised-mean pooling: R_i = R c_i / sum c, c = max(x, eps)^p."""

    def __init__(self, module: GeneralisedMeanPool) -> None:
        self.module = module

    def record(self, run: Callable[..., Tensor], inputs: Sequence[Tensor]) -> tuple[Tensor, Recording]:
        """Run the step; keep each cell's share (1, C, h, w)."""
        # First divided by the channel's largest value, since powers of small numbers would vanish.
        clamped = inputs[0].clamp(min=self.module.eps)
        powers = (clamped / clamped.amax(dim=(2, 3), keepdim=True)).pow(self.module.p.detach())
        return run(*inputs), _GeMRecording(powers / powers.sum(dim=(2, 3), keepdim=True))


@dataclass(frozen=True)
class _GeMRecording:
    share: Tensor

    def reach(self, window: Window) -> Window | None:
        return None

    def pull(self, relevance: Tensor, held: Window | None, wanted: Windows) -> Pulled:
        shared = times(relevance[..., None, None], self.share).to(relevance.dtype)
        return [shared if wanted[0] is None else move(shared, whole(shared), wanted[0])]


_RESHAPING = (
    *("flatten", "reshape", "view", "permute", "transpose", "contiguous", "clone", "squeeze", "unsqueeze"),
    *("getitem", "cat", "concat", "pad", "detach", "max_pool2d"),
)
"""Functions and methods whose ordinary gradient hands each number's relevance back to its origin."""
_MEANS = (torch.mean, Tensor.mean)
_POOLING = ("avg_pool2d", "adaptive_avg_pool2d")
_POINTWISE = (
    *("mul", "layer_norm", "group_norm", "batch_norm", "relu"),
    *("relu6", "gelu", "silu", "hardswish", "sigmoid"),
)
"""Functions and methods that scale, shift or bend each number by itself; relevance passes."""
_PASSING_MODULES = (nn.LayerNorm, nn.GroupNorm)
_PLAIN_MODULES = (nn.MaxPool2d, nn.Flatten, nn.AdaptiveMaxPool2d)


def _convolution(at: Place) -> Rule:
    folded = at.reading.read_alone.get(at.module)
    return ConservingConv(at.module, folded, at.input_nonnegative, at.precision, at.reading.layout)


def _linear(at: Place) -> Rule:
    return ConservingLinear(at.module, at.reading.read_alone.get(at.module), at.precision)


CONSERVING = RuleSet(
    "conserving",
    (
        *FIRST,
        *layers(_convolution, _linear),
        of_type((AvgPool,), lambda at: SharedPool()),
        Row(lambda at: at.step.call in _MEANS or at.name in _POOLING, lambda at: SharedPool()),
        of_type((GeneralisedMeanPool,), lambda at: SharedGeM(at.module)),
        Row(lambda at: at.sums_two, lambda at: Shared()),
        Row(lambda at: at.sums and len(at.carried) == 1, passing),
        Row(lambda at: isinstance(at.module, _PASSING_MODULES), passing),
        Row(lambda at: at.name in _POINTWISE and at.operands == 1, passing),
        Row(lambda at: isinstance(at.module, _PLAIN_MODULES), plain),
        Row(lambda at: at.name in _RESHAPING, plain),
    ),
    accounts=True,
)
