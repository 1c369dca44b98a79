"""The operands of products: weights as the rules see them, in the format of the products."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from pairx_engine.device.tuning import Layout
from pairx_engine.relevance.batch_norms import batch_norm_scale, fold_batch_norm
from pairx_engine.relevance.precision import Precision

HEADROOM = 64.0


class Weights:
    """A layer's weight and bias, and the operands made from them.

    A batch norm is folded in where the rule wants it. All are made on first use and kept, operands per format
    and layout, one set for all chips.
    """

    def __init__(self, module: Any, folded: nn.Module | None) -> None:
        self.module = module
        self.folded = folded
        self._made: dict[tuple[object, ...], Tensor | None] = {}
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
            return self._kept(("bias",), lambda: fold_batch_norm(self.module, self.folded)[1])
        bias: Tensor | None = self.module.bias
        return None if bias is None else bias.detach()

    def positive_bias(self, dtype: torch.dtype) -> Tensor | None:
        """The bias's positive part as a map of one cell (1, out, 1, 1)."""
        bias = self.bias
        if bias is None:
            return None
        return self._kept(("positive bias", dtype), lambda: bias.clamp(min=0).to(dtype).view(1, -1, 1, 1))

    def scale(self, dtype: torch.dtype) -> Tensor | None:
        """The factor on the layer's own weight, a map of one cell (1, out, 1, 1); None if there is none."""
        if self.folded is None:
            return None
        return self._kept(("scale", dtype), lambda: batch_norm_scale(self.folded).to(dtype).view(1, -1, 1, 1))

    def operand(
        self, kind: str, precision: Precision | None = None, layout: Layout = "channels_last"
    ) -> Tensor:
        """An operand made from the weight.

        `kind` is the `weight`, `half magnitude`, its `positive` or `negative` part, or `both` parts side by
        side (out, 2 in, ...). `opposite` is `both` with the negative part first; `mirrored` parts have their
        kernels turned by half a turn. A convolution's operands lie in memory as `layout` says, like the maps
        that they are multiplied with.
        """
        dtype = (precision.operands if precision else None) or self.module.weight.dtype

        def make() -> Tensor:
            made = _MAKE[kind](self.weight).to(dtype)
            if made.ndim < 4:
                return made
            last = layout == "channels_last"
            return made.contiguous(memory_format=torch.channels_last if last else torch.contiguous_format)

        made = self._kept((kind, dtype, layout), make)
        assert made is not None
        return made

    def _kept(self, key: tuple[object, ...], make: Callable[[], Tensor]) -> Tensor | None:
        with self._lock:
            if key not in self._made:
                # Never inside a mode that marks tensors, since other threads use them outside of it.
                with torch.inference_mode(False), torch.no_grad():
                    self._made[key] = make()
            return self._made[key]


_MAKE: dict[str, Callable[[Tensor], Tensor]] = {
    "weight": lambda w: w,
    "half magnitude": lambda w: w.abs() / 2,
    "positive": lambda w: w.clamp(min=0),
    "negative": lambda w: w.clamp(max=0),
    "both": lambda w: torch.cat([w.clamp(min=0), w.clamp(max=0)], dim=1),
    "opposite": lambda w: torch.cat([w.clamp(max=0), w.clamp(min=0)], dim=1),
    "positive mirrored": lambda w: w.clamp(min=0).flip(2, 3),
    "negative mirrored": lambda w: w.clamp(max=0).flip(2, 3),
}


def product(
    scaled: Tensor, weight: Tensor, multiply: Callable[[Tensor, Tensor], Tensor], precision: Precision
) -> Tensor:
    """`multiply(scaled, weight)` in the operands' format, returned in the format of `scaled`."""
    if precision.operands is None or precision.operands == scaled.dtype:
        return multiply(scaled.to(weight.dtype), weight).to(scaled.dtype)
    if not precision.rescale:
        return multiply(scaled.to(precision.operands), weight).to(scaled.dtype)
    # The peak is well above one, since most values lie far below the largest. It is well below the format's
    # 65504, since products add up.
    peak = scaled.abs().flatten(1).amax(dim=1).clamp(min=torch.finfo(scaled.dtype).tiny) / HEADROOM
    peak = peak.view(-1, *[1] * (scaled.ndim - 1))
    return multiply((scaled / peak).to(precision.operands), weight).to(scaled.dtype) * peak
