"""How relevance passes each step, as in the general path (`pairx_engine.lrp`), from terms kept of one forward pass.

A rule records a step of one chip's forward pass; the recording then pulls relevances R of the step's output, (P, ...)
for P starts, down to its inputs. With A the input and z the output that the rule sees, the terms kept are A (in its
positive and negative part, where it has both) and the ratio q = 1 / z, so that each start costs two products with the
weights, or one where A cannot be negative:

    R_in = A+ * W+^T (R q) + A- * W-^T (R q)
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from timm.layers import Conv2dSame
from timm.layers.padding import get_same_padding
from torch import Tensor, nn
from torch.nn import functional

from pairx_engine.lrp import fold_batch_norm
from pairx_engine.propagation.precision import Precision
from pairx_engine.propagation.window import Window, cut, move, whole

STABILISER = 1e-6
Pulled = list[Tensor | None]
Windows = Sequence[Window | None]


class Recording(Protocol):
    """One step of one chip's forward pass with the terms of its rule.

    Windows are of maps (N, C, H, W); None stands for the whole of any other value.
    """

    def reach(self, window: Window) -> Window | None:
        """The part of the first input's map that relevance in `window` of the output can reach; None: all of it."""

    def pull(self, relevance: Tensor, held: Window | None, wanted: Windows) -> Pulled:
        """Relevance of each input, in the windows wanted, from that of the output in the window held."""


class Rule(Protocol):
    """How relevance passes one kind of step."""

    def record(self, run: Callable[..., Tensor], inputs: Sequence[Tensor]) -> tuple[Tensor, Recording]:
        """Run the step on its tensor inputs, keeping what the pull needs; `run` maps them to the step's output."""


def stabilised(z: Tensor) -> Tensor:
    """z moved away from zero by 1e-6 in its own direction, upwards at zero."""
    return z + torch.where(z < 0, -STABILISER, STABILISER)


class Pass:
    """R_in = R: activations, batch norms, dropout, and the signal of a gate."""

    def record(self, run: Callable[..., Tensor], inputs: Sequence[Tensor]) -> tuple[Tensor, Recording]:
        """Run the step; nothing is kept."""
        return run(*inputs), self

    def reach(self, window: Window) -> Window | None:
        """Cell by cell."""
        return window

    def pull(self, relevance: Tensor, held: Window | None, wanted: Windows) -> Pulled:
        """The same relevance for the first input."""
        return [to_window(relevance, held, wanted[0]), *[None] * (len(wanted) - 1)]


class Copy(Pass):
    """A sum differentiated plainly: every summand gets all of the relevance."""

    def pull(self, relevance: Tensor, held: Window | None, wanted: Windows) -> Pulled:
        """The same relevance for each input."""
        return [to_window(relevance, held, window) for window in wanted]


def to_window(relevance: Tensor, held: Window | None, wanted: Window | None) -> Tensor:
    """`move` for maps, the value itself for anything else."""
    return relevance if held is None or wanted is None else move(relevance, held, wanted)


@dataclass(frozen=True)
class Plain:
    """Ordinary gradients, for all that has no rule: R_in = J^T R."""

    def record(self, run: Callable[..., Tensor], inputs: Sequence[Tensor]) -> tuple[Tensor, Recording]:
        """Run the step with autograd on and keep its graph."""
        with torch.enable_grad():
            leaves = [value.detach().requires_grad_() for value in inputs]
            output = run(*leaves)
        return output.detach(), _PlainRecording(output, leaves)


@dataclass(frozen=True)
class _PlainRecording:
    output: Tensor
    leaves: list[Tensor]

    def reach(self, window: Window) -> Window | None:
        return None

    def pull(self, relevance: Tensor, held: Window | None, wanted: Windows) -> Pulled:
        pulled = transposed(self.output, self.leaves, relevance)
        return [
            r if r is None or window is None else move(r, whole(r), window)
            for r, window in zip(pulled, wanted, strict=True)
        ]


def transposed(output: Tensor, leaves: Sequence[Tensor], relevance: Tensor) -> Pulled:
    """J^T R of each leaf for R (P, ...), from a graph of one item that is kept for further calls."""
    given = relevance.to(output.dtype)
    if len(given) == 1:
        pulled = torch.autograd.grad(output, leaves, given, retain_graph=True, allow_unused=True)
    else:
        batched = torch.autograd.grad(
            output, leaves, given[:, None], retain_graph=True, allow_unused=True, is_grads_batched=True
        )
        pulled = tuple(None if r is None else r[:, 0] for r in batched)
    return [None if r is None else r.to(relevance.dtype) for r in pulled]


@dataclass(frozen=True)
class Norm:
    """Pooling by its linear map J: R_in = A * J^T (R / z)."""

    def record(self, run: Callable[..., Tensor], inputs: Sequence[Tensor]) -> tuple[Tensor, Recording]:
        """Run the step with autograd on and keep its graph."""
        with torch.enable_grad():
            leaf = inputs[0].detach().requires_grad_()
            output = run(leaf)
        return output.detach(), _NormRecording(output, leaf, 1 / stabilised(output.detach()))


@dataclass(frozen=True)
class _NormRecording:
    output: Tensor
    leaf: Tensor
    ratio: Tensor

    def reach(self, window: Window) -> Window | None:
        return None

    def pull(self, relevance: Tensor, held: Window | None, wanted: Windows) -> Pulled:
        (r,) = transposed(self.output, [self.leaf], relevance * self.ratio)
        assert r is not None
        r = (r * self.leaf.detach()).to(relevance.dtype)
        return [r if wanted[0] is None else move(r, whole(r), wanted[0])]


class Epsilon:
    """A linear layer on the last axis: R_in = A * W^T (R / z), z = W A + b with the batch norm after it folded in."""

    def __init__(self, module: nn.Linear, folded: nn.Module | None, precision: Precision) -> None:
        self.weights = Weights(module, folded)
        self.precision = precision

    def record(self, run: Callable[..., Tensor], inputs: Sequence[Tensor]) -> tuple[Tensor, Recording]:
        """Run the step, keep A and 1 / z."""
        output, weight = run(*inputs), self.weights
        z = output if weight.folded is None else functional.linear(inputs[0], weight.weight, weight.bias)
        kept = self.precision.relevance or output.dtype
        return output, _LinearRecording(
            (inputs[0].to(kept),),
            ((1 / stabilised(z)).to(kept),),
            (weight.operand("weight", self.precision),),
            self.precision,
        )


@dataclass(frozen=True)
class _LinearRecording:
    """R_in = sum over parts of A_part * W_part^T (R q_part) on the last axis."""

    parts: tuple[Tensor, ...]
    ratios: tuple[Tensor, ...]
    weights: tuple[Tensor, ...]
    precision: Precision

    def reach(self, window: Window) -> Window | None:
        return None

    def pull(self, relevance: Tensor, held: Window | None, wanted: Windows) -> Pulled:
        total: Tensor | None = None
        for part, ratio, weight in zip(self.parts, self.ratios, self.weights, strict=True):
            r = part * product(relevance * ratio, weight, torch.matmul, self.precision)
            total = r if total is None else total + r
        return [total]


def product(
    scaled: Tensor, weight: Tensor, multiply: Callable[[Tensor, Tensor], Tensor], precision: Precision
) -> Tensor:
    """`multiply(scaled, weight)` in the operands' format, returned in the format of `scaled`."""
    if precision.operands is None or precision.operands == scaled.dtype:
        return multiply(scaled, weight)
    if not precision.rescale:
        return multiply(scaled.to(precision.operands), weight).to(scaled.dtype)
    peak = scaled.abs().flatten(1).amax(dim=1).clamp(min=torch.finfo(scaled.dtype).tiny)
    peak = peak.view(-1, *[1] * (scaled.ndim - 1))
    return multiply((scaled / peak).to(precision.operands), weight).to(scaled.dtype) * peak


class Weights:
    """A layer's weight and bias, a batch norm folded in where the rule wants it, and the operands made from them.

    Operands are made on first use and kept per format, one set for all chips.
    """

    def __init__(self, module: Any, folded: nn.Module | None) -> None:
        self.module = module
        self.folded = folded
        self._operands: dict[tuple[str, torch.dtype], Tensor] = {}
        self._lock = threading.Lock()

    @property
    def weight(self) -> Tensor:
        """Weight (out, in, ...) as the rule sees it."""
        if self.folded is None:
            weight: Tensor = self.module.weight.detach()
            return weight
        return fold_batch_norm(self.module, self.folded)[0]

    @property
    def bias(self) -> Tensor | None:
        """Bias (out,) as the rule sees it."""
        if self.folded is not None:
            return fold_batch_norm(self.module, self.folded)[1]
        bias: Tensor | None = self.module.bias
        return None if bias is None else bias.detach()

    def operand(self, kind: str, precision: Precision | None = None) -> Tensor:
        """The `weight`, its `positive` or `negative` part, or `both` parts side by side (out, 2 in, ...)."""
        dtype = (precision.operands if precision else None) or self.module.weight.dtype
        with self._lock:
            if (kind, dtype) not in self._operands:
                made = _MAKE[kind](self.weight).to(dtype)
                if made.ndim == 4:
                    made = made.contiguous(memory_format=torch.channels_last)
                self._operands[kind, dtype] = made
            return self._operands[kind, dtype]


_MAKE: dict[str, Callable[[Tensor], Tensor]] = {
    "weight": lambda w: w,
    "positive": lambda w: w.clamp(min=0),
    "negative": lambda w: w.clamp(max=0),
    "both": lambda w: torch.cat([w.clamp(min=0), w.clamp(max=0)], dim=1),
    "opposite": lambda w: torch.cat([w.clamp(max=0), w.clamp(min=0)], dim=1),
}


@dataclass(frozen=True)
class Geometry:
    """Kernel, stride, dilation and groups of a convolution, and its padding (rows, columns) before and after the map."""

    kernel: tuple[int, int]
    stride: tuple[int, int]
    dilation: tuple[int, int]
    before: tuple[int, int]
    after: tuple[int, int]
    groups: int

    def applied(self, activation: Tensor, weight: Tensor) -> Tensor:
        """The convolution without bias, (N, in, H, W) to (N, out, h, w)."""
        padding = self.before
        if self.before != self.after:
            (top, left), (bottom, right) = self.before, self.after
            activation, padding = functional.pad(activation, (left, right, top, bottom)), (0, 0)
        return functional.conv2d(activation, weight, None, self.stride, padding, self.dilation, self.groups)

    def support(self, window: Window) -> Window:
        """Input cells that the output cells of a window read, padding cells included."""
        (kh, kw), (sh, sw), (dh, dw), (ph, pw) = self.kernel, self.stride, self.dilation, self.before
        return Window(
            window.top * sh - ph,
            (window.bottom - 1) * sh - ph + dh * (kh - 1) + 1,
            window.left * sw - pw,
            (window.right - 1) * sw - pw + dw * (kw - 1) + 1,
        )

    def transposed(self, values: Tensor, weight: Tensor, held: Window, wanted: Window) -> Tensor:
        """W^T of values that fill `held` of the output, in the window `wanted` of the input, inside their support."""
        full = self.support(held)
        trim = [
            max(0, min(low, high, d * (k - 1)))
            for low, high, d, k in (
                (wanted.top - full.top, full.bottom - wanted.bottom, self.dilation[0], self.kernel[0]),
                (wanted.left - full.left, full.right - wanted.right, self.dilation[1], self.kernel[1]),
            )
        ]
        made = functional.conv_transpose2d(
            values,
            weight,
            stride=self.stride,
            padding=(trim[0], trim[1]),
            groups=self.groups,
            dilation=self.dilation,
        )
        filled = Window(full.top + trim[0], full.bottom - trim[0], full.left + trim[1], full.right - trim[1])
        return move(made, filled, wanted)


@dataclass(frozen=True)
class Part:
    """Activations and the weights that they are multiplied by; `both` signs side by side along the channels, or one."""

    activation: Tensor
    weight: Tensor
    both: bool


class ZPlus:
    """A convolution: R_in = A+ * W+^T (R / z+) + A- * W-^T (R / z+), z+ = W+ A+ + b+ + W- A-.

    With `nonnegative` the inputs are known to have no negative part, and half of the work falls away.
    """

    def __init__(
        self, module: nn.Conv2d, folded: nn.Module | None, nonnegative: bool, precision: Precision
    ) -> None:
        self.module = module
        self.weights = Weights(module, folded)
        self.nonnegative = nonnegative
        self.precision = precision

    def record(self, run: Callable[..., Tensor], inputs: Sequence[Tensor]) -> tuple[Tensor, Recording]:
        """Run the step, keep the parts of A and 1 / z+."""
        geometry = self.geometry(inputs[0])
        parts = self.parts(inputs[0], geometry)
        z = self.total(parts, geometry)
        bias = self.weights.bias
        if bias is not None:
            z = z + bias.clamp(min=0).to(z.dtype).view(1, -1, 1, 1)
        ratio = stabilised(z).reciprocal_()
        return run(*inputs), ConvRecording(geometry, parts, ratio, whole(inputs[0]), self.precision)

    def geometry(self, activation: Tensor) -> Geometry:
        """The convolution's geometry for an input (N, C, H, W); TensorFlow's padding depends on its size."""
        conv = self.module
        kernel, stride, dilation = (_two(n) for n in (conv.kernel_size, conv.stride, conv.dilation))
        before = after = _two(conv.padding)
        if isinstance(conv, Conv2dSame):
            total = [
                get_same_padding(n, k, s, d)
                for n, k, s, d in zip(activation.shape[-2:], kernel, stride, dilation, strict=True)
            ]
            before = (total[0] // 2, total[1] // 2)
            after = (total[0] - before[0], total[1] - before[1])
        return Geometry(kernel, stride, dilation, before, after, conv.groups)

    def parts(self, activation: Tensor, geometry: Geometry, opposite: bool = False) -> tuple[Part, ...]:
        """The parts of A with the weights that make positive contributions of them, or negative ones if `opposite`."""
        a = activation.to(self.precision.relevance or activation.dtype)
        first, second = ("negative", "positive") if opposite else ("positive", "negative")
        if self.nonnegative:
            return (Part(a, self._operand(first), False),)
        positive, negative = a.clamp(min=0), a.clamp(max=0)
        if geometry.groups == 1:
            weight = self._operand("opposite" if opposite else "both")
            return (Part(torch.cat([positive, negative], dim=1), weight, True),)
        return Part(positive, self._operand(first), False), Part(negative, self._operand(second), False)

    def _operand(self, kind: str) -> Tensor:
        return self.weights.operand(kind, self.precision)

    def total(self, parts: Sequence[Part], geometry: Geometry) -> Tensor:
        """Sum of the parts' contributions to each output (N, out, h, w)."""
        sums = [geometry.applied(part.activation, part.weight.to(part.activation.dtype)) for part in parts]
        return sums[0] if len(sums) == 1 else sums[0] + sums[1]


def _two(value: Any) -> tuple[int, int]:
    first, second = (value, value) if isinstance(value, int) else value
    return int(first), int(second)


@dataclass(frozen=True)
class ConvRecording:
    """A convolution's parts and ratio q, the extent of its input, and how to multiply."""

    geometry: Geometry
    parts: tuple[Part, ...]
    ratio: Tensor
    extent: Window
    precision: Precision

    def reach(self, window: Window) -> Window | None:
        """What the kernel spans, inside the map."""
        return self.geometry.support(window).within(self.extent)

    def pull(self, relevance: Tensor, held: Window | None, wanted: Windows) -> Pulled:
        """Sum over parts of A * W^T (R q)."""
        assert held is not None and wanted[0] is not None
        return [self.share(self.parts, relevance * cut(self.ratio, held), held, wanted[0])]

    def share(self, parts: Sequence[Part], scaled: Tensor, held: Window, wanted: Window) -> Tensor:
        """Sum over parts of A * W^T scaled, in the window wanted."""
        total: Tensor | None = None
        filled = self.geometry.support(held).within(wanted)

        def back(values: Tensor, weight: Tensor) -> Tensor:
            return self.geometry.transposed(values, weight, held, filled)

        for part in parts:
            made, activation = product(scaled, part.weight, back, self.precision), cut(part.activation, filled)
            if part.both:
                half = made.shape[1] // 2
                r = (made[:, :half] * activation[:, :half]).addcmul_(made[:, half:], activation[:, half:])
            else:
                r = made * activation
            total = r if total is None else total.add_(r)
        assert total is not None
        return move(total, filled, wanted)
