"""ZPlus for convolutions, on windows of their maps.

With A the input, z+ the sum of positive contributions and R the relevance of the output, the terms kept are
the positive and negative parts of A and the ratio q = 1 / z+. So each start costs two products with the
weights, or one where A cannot be negative:

    R_in = A+ * W+^T (R q) + A- * W-^T (R q)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, NamedTuple

import torch
from timm.layers import Conv2dSame
from timm.layers.padding import get_same_padding
from torch import Tensor, nn
from torch.nn import functional

from pairx_engine.device.tuning import HEAVY_PRODUCT, SMALL_MAP, Layout
from pairx_engine.relevance.company import by_photo, joined, meet, times
from pairx_engine.relevance.layout import converted, is_channels_last, laid_out_like
from pairx_engine.relevance.precision import Precision
from pairx_engine.relevance.rules.base import STABILISER, Pulled, Recording, Unsettled, Windows
from pairx_engine.relevance.rules.weights import Weights, product
from pairx_engine.relevance.window import Window, cut, move

MANY_SUMMANDS = 64
"""Contributions per output from which on z+ is taken from the step's own output.

Fewer contributions often have one sign.
"""
CANCELLATION = 32.0
"""How many times the sum of magnitudes may exceed z+ there; rounding errors of z+ grow as much."""


class Geometry(NamedTuple):
    """Kernel, stride, dilation, groups and padding (rows, columns; before, after) of a convolution."""

    kernel: tuple[int, int]
    stride: tuple[int, int]
    dilation: tuple[int, int]
    before: tuple[int, int]
    after: tuple[int, int]
    groups: int

    def is_product(self, values: Tensor, weight: Tensor) -> bool:
        """Whether to multiply matrices: where each cell reads only itself, and the weights dominate.

        It does not depend on the number of items, so that an item's numbers do not depend on the other items.
        """
        one, none = (1, 1), (0, 0)
        pointwise = (self.kernel, self.stride, self.before, self.after) == (one, one, none, none)
        if not pointwise or self.groups > 1 or values.stride(1) != 1:
            return False
        cells = values.shape[-2] * values.shape[-1]
        single = values.dtype == torch.float32 and values.device.type == "cpu"
        return cells <= SMALL_MAP and not (single and cells * weight.numel() >= HEAVY_PRODUCT)

    def applied(self, activation: Tensor, weight: Tensor) -> Tensor:
        """The convolution without bias, (N, in, H, W) to (N, out, h, w)."""
        if self.is_product(activation, weight):
            return _from_cells(_as_cells(activation) @ weight.flatten(1).T)
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

    def transposed(
        self, values: Tensor, weight: Tensor, held: Window, wanted: Window, mirrored: bool = False
    ) -> Tensor:
        """W^T of values that fill `held` of the output, in the window `wanted` of the input.

        With `mirrored` the kernels of W come turned by half a turn, for a convolution that slides by one.
        """
        if self.is_product(values, weight):
            return move(_from_cells(_as_cells(values) @ weight.flatten(1)), held, wanted)
        trim, filled = _trimmed(self, held, wanted)
        if mirrored:
            (kh, kw), (dh, dw) = self.kernel, self.dilation
            padding = (dh * (kh - 1) - trim[0], dw * (kw - 1) - trim[1])
            made = functional.conv2d(values, weight, None, 1, padding, self.dilation, self.groups)
            return move(made, filled, wanted)
        made = functional.conv_transpose2d(
            values,
            weight,
            stride=self.stride,
            padding=trim,
            groups=self.groups,
            dilation=self.dilation,
        )
        return move(made, filled, wanted)


@lru_cache(maxsize=4096)
def _trimmed(geometry: Geometry, held: Window, wanted: Window) -> tuple[tuple[int, int], Window]:
    """What a transposed product may leave out at each side, and the window that it then fills."""
    full = geometry.support(held)
    (kh, kw), (dh, dw) = geometry.kernel, geometry.dilation
    rows = max(0, min(wanted.top - full.top, full.bottom - wanted.bottom, dh * (kh - 1)))
    columns = max(0, min(wanted.left - full.left, full.right - wanted.right, dw * (kw - 1)))
    filled = Window(full.top + rows, full.bottom - rows, full.left + columns, full.right - columns)
    return (rows, columns), filled


@dataclass(frozen=True)
class Part:
    """Activations and their weights; with `both`, both signs side by side along the channels.

    `shared` activations are the network's own values, which others may read; otherwise they are the
    recording's copies. `mirrored` is the weight with its kernels turned, where an ordinary convolution makes
    the transposed product.
    """

    activation: Tensor
    weight: Tensor
    both: bool
    shared: bool = False
    mirrored: Tensor | None = None


class ZPlus:
    """A convolution: R_in = A+ * W+^T (R / z+) + A- * W-^T (R / z+), z+ = W+ A+ + b+ + W- A-.

    With `nonnegative` the inputs are known to have no negative part, which saves half of the work.
    """

    def __init__(
        self,
        module: nn.Conv2d,
        folded: nn.Module | None,
        nonnegative: bool,
        precision: Precision,
        layout: Layout | None = None,
    ) -> None:
        self.module = module
        self.weights = Weights(module, folded)
        self.nonnegative = nonnegative
        self.layout = layout
        # A CPU has no kernel for grouped 16-bit products with a stride: they take fifty times as long. And
        # their outputs have few contributions, so half precision cannot hold their ratios side by side.
        strided = max(_two(module.stride)) > 1
        exempt = module.groups > 1 and (strided or precision.rescale)
        self.precision = replace(precision, operands=None) if exempt else precision

    def record(
        self, run: Callable[..., Tensor], inputs: Sequence[Tensor]
    ) -> tuple[Tensor, Recording | Unsettled]:
        """Run the step; keep the parts of A and 1 / z+."""
        output = run(*inputs)
        geometry = self.geometry(inputs[0])
        a = converted(inputs[0], self.precision.relevance or inputs[0].dtype, self.layout)
        parts = self.parts(a)
        from_output = self.from_output(a, output, geometry)
        if from_output is None:
            return output, self.recording(self.total(parts, geometry), geometry, parts)
        return output, _FromOutput(self, *from_output, geometry, parts)

    def recording(self, z: Tensor, geometry: Geometry, parts: tuple[Part, ...]) -> Recording | Unsettled:
        """The recording from z+ without the bias; z+ must be a tensor of its own."""
        bias = self.weights.positive_bias(z.dtype)
        if bias is not None:
            z.add_(bias)
        # A sum of positive contributions is stabilised upwards. On a GPU it is clamped first, since it may be
        # computed from other sums.
        ratio = (z.clamp_(min=0) if z.is_cuda else z).add_(STABILISER).reciprocal_()
        return ConvRecording(geometry, parts, ratio, self.precision)

    def from_output(
        self, activation: Tensor, output: Tensor, geometry: Geometry
    ) -> tuple[Tensor, Tensor] | None:
        """z+ as (W A + |W| |A|) / 2, at half the cost of the sum over signs; None where unsuitable.

        The two terms cancel where nearly all contributions are negative. Whether they do so anywhere in a
        photo is returned with z+, as truth values (N,) on the device; if so, the sum over signs must be
        taken. With a bias that sum is always taken, since beside a bias the contributions may be lost in the
        output.
        """
        conv = self.module
        summands = conv.in_channels * geometry.kernel[0] * geometry.kernel[1]
        if self.nonnegative or conv.bias is not None or conv.groups > 1 or summands < MANY_SUMMANDS:
            return None
        if self.precision.rescale:
            return None
        weight = self._operand("half magnitude", activation)
        half = geometry.applied(activation.to(weight.dtype).abs(), weight)
        output, scale = converted(output, half.dtype, self.layout), self.weights.scale(half.dtype)
        if scale is None:
            z = torch.add(half, output, alpha=0.5)
        else:
            # The output is that before the batch norm that the rule folds into W.
            z = torch.addcmul(half, output, scale, value=0.5)
        return z, _least(torch.add(z, half, alpha=-2 / CANCELLATION, out=half)) < 0

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

    def parts(self, activation: Tensor) -> tuple[Part, ...]:
        """The parts of A with the weights that make positive contributions of them."""
        if self.nonnegative:
            return (replace(self._part(activation, "positive"), shared=True),)
        if self.module.groups == 1:
            a = signs(activation)
            return (Part(a, self._operand("both", a), both=True),)
        return (
            self._part(activation.clamp(min=0), "positive"),
            self._part(activation.clamp(max=0), "negative"),
        )

    def opposed(self, parts: Sequence[Part]) -> tuple[Part, ...]:
        """The same parts of A with the weights that make negative contributions of them."""
        if parts[0].both:
            return (replace(parts[0], weight=self._operand("opposite", parts[0].activation)),)
        return tuple(
            replace(self._part(part.activation, kind), shared=part.shared)
            for part, kind in zip(parts, ("negative", "positive"), strict=False)
        )

    def _part(self, activation: Tensor, kind: str) -> Part:
        """One sign of A, beside the weights of one sign."""
        conv = self.module
        # A GPU has fast kernels for depthwise convolutions, and none for their transposes.
        depthwise = activation.is_cuda and conv.groups == conv.in_channels == conv.out_channels > 1
        turned = depthwise and _two(conv.stride) == (1, 1)
        mirrored = self._operand(f"{kind} mirrored", activation) if turned else None
        return Part(activation, self._operand(kind, activation), both=False, mirrored=mirrored)

    def _operand(self, kind: str, beside: Tensor) -> Tensor:
        """Weights in the layout of their maps; a CPU's products take channels last, whatever the maps."""
        contiguous = beside.is_cuda and not is_channels_last(beside)
        return self.weights.operand(kind, self.precision, "contiguous" if contiguous else "channels_last")

    def total(self, parts: Sequence[Part], geometry: Geometry) -> Tensor:
        """Sum of the parts' contributions to each output (N, out, h, w)."""
        sums = [geometry.applied(part.activation, part.weight.to(part.activation.dtype)) for part in parts]
        return sums[0] if len(sums) == 1 else sums[0] + sums[1]


@dataclass(frozen=True)
class _FromOutput:
    """A convolution with z+ from its output, before it is known whether that is valid."""

    rule: ZPlus
    z: Tensor
    cancelled: Tensor
    geometry: Geometry
    parts: tuple[Part, ...]

    def question(self) -> Tensor:
        """Whether z+ cancelled anywhere."""
        return self.cancelled.any()

    def settled(self, answer: bool | None) -> Recording | Unsettled | None:
        """The recording, from the sum over signs for the photos that need it."""
        if answer is None:
            return None
        z = self.z
        if answer:
            z = torch.where(self.cancelled.view(-1, 1, 1, 1), self.rule.total(self.parts, self.geometry), z)
        return self.rule.recording(z, self.geometry, self.parts)


def maps(held: Window | None, wanted: Windows) -> tuple[Window, Window]:
    """The windows of a convolution's output and input, which are both maps."""
    if held is None or wanted[0] is None:
        raise TypeError("a convolution's output and input are maps (N, C, H, W)")
    return held, wanted[0]


def signs(activation: Tensor) -> Tensor:
    """Positive and negative part of (N, C, H, W) side by side, (N, 2 C, H, W)."""
    n, channels, *size = activation.shape
    layout = torch.channels_last if is_channels_last(activation) else torch.contiguous_format
    both = torch.empty(
        (n, 2 * channels, *size), dtype=activation.dtype, device=activation.device, memory_format=layout
    )
    torch.clamp(activation, min=0, out=both[:, :channels])
    torch.clamp(activation, max=0, out=both[:, channels:])
    return both


def _least(values: Tensor) -> Tensor:
    """The smallest value of each item (N,), read in memory order, which is many times as fast."""
    ordered = _as_cells(values) if is_channels_last(values) else values
    return ordered.flatten(1).amin(dim=1)


def _as_cells(values: Tensor) -> Tensor:
    return values.permute(0, 2, 3, 1)


def _from_cells(cells: Tensor) -> Tensor:
    return cells.permute(0, 3, 1, 2)


def _two(value: Any) -> tuple[int, int]:
    first, second = (value, value) if isinstance(value, int) else value
    return int(first), int(second)


@dataclass(frozen=True)
class ConvRecording:
    """A convolution's parts and ratio q, and how to multiply.

    The ratio is None where relevance arrives already multiplied by it; a ratio that is not `foldable` stays
    (`folding`).
    """

    geometry: Geometry
    parts: tuple[Part, ...]
    ratio: Tensor | None
    precision: Precision
    foldable: bool = True

    def scaled(self, ratio: Tensor) -> ConvRecording:
        """The recording that pulls `ratio` times as much to each cell of its input."""
        parts = []
        for part in self.parts:
            if part.shared:
                parts.append(replace(part, activation=part.activation * ratio, shared=False))
                continue
            for signed in part.activation.chunk(2, dim=1) if part.both else (part.activation,):
                signed.mul_(ratio)
            parts.append(part)
        return replace(self, parts=tuple(parts))

    def reach(self, window: Window) -> Window | None:
        """What the kernel spans, padding included."""
        return self.geometry.support(window)

    def pull(self, relevance: Tensor, held: Window | None, wanted: Windows) -> Pulled:
        """Sum over parts of A * W^T (R q)."""
        output, wanted_map = maps(held, wanted)
        scaled = relevance if self.ratio is None else times(relevance, cut(self.ratio, output))
        return [self.share(self.parts, scaled, output, wanted_map)]

    def share(self, parts: Sequence[Part], scaled: Tensor, held: Window, wanted: Window) -> Tensor:
        """Sum over parts of A * W^T scaled, in the window wanted."""
        total: Tensor | None = None
        filled = self.geometry.support(held).within(wanted)
        if min(filled.size) <= 0:
            channels = parts[0].activation.shape[1] // (2 if parts[0].both else 1)
            return scaled.new_zeros((len(scaled), channels, *wanted.size))

        scaled = laid_out_like(parts[0].activation, scaled)
        for part in parts:
            r = _shared_out(
                self._transposed(part, scaled, held, filled), cut(part.activation, filled), part.both
            )
            total = r if total is None else total.add_(r)
        assert total is not None
        return move(total, filled, wanted)

    def _transposed(self, part: Part, scaled: Tensor, held: Window, filled: Window) -> Tensor:
        """W^T scaled for one part's weights, in the window `filled` of the input."""
        mirrored = part.mirrored is not None

        def back(values: Tensor, weight: Tensor) -> Tensor:
            return self.geometry.transposed(values, weight, held, filled, mirrored)

        weight = part.weight if part.mirrored is None else part.mirrored
        return product(scaled, weight, back, self.precision)


def _shared_out(made: Tensor, activation: Tensor, both: bool) -> Tensor:
    """Cells (S, C or 2 C, h, w) times their activations (N, ...), signs added up: (S, C, h, w)."""
    if not both:
        return times(made, activation)
    half = made.shape[1] // 2
    if meet(made, activation):
        return (made[:, :half] * activation[:, :half]).addcmul_(made[:, half:], activation[:, half:])
    made, activation = by_photo(made, activation), activation.unsqueeze(1)
    r = made[:, :, :half] * activation[:, :, :half]
    return joined(r.addcmul_(made[:, :, half:], activation[:, :, half:]))
