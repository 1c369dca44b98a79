"""Sums and products of two values: of tokens with weights that stand fixed, or of two that both carry.

A product of two values that both carry relevance is homogeneous of degree two, so each factor gets half of
its gradient: gated blocks, and attention where nothing of it is held. What is a constant, or held, takes no
part: the other factor gets its whole gradient.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from pairx_engine.relevance.rules.base import Run
from pairx_engine.relevance.rules.modified_gradients import GradientRecording, Gradients, by_row
from pairx_engine.relevance.rules.narrow import Gradient, Narrow, gathered

CONSTANTS = "constants"


def spread_back(gradient: Tensor, shape: Sequence[int]) -> Tensor:
    """The gradient (P, ...) of a value of `shape` that was spread to a larger one."""
    extra = gradient.ndim - 1 - len(shape)
    if extra:
        gradient = gradient.sum(dim=tuple(range(1, 1 + extra)))
    axes = [i + 1 for i, n in enumerate(shape) if n == 1 and gradient.shape[i + 1] != 1]
    return gradient.sum(dim=axes, keepdim=True) if axes else gradient


@dataclass(frozen=True)
class Added:
    """a + b or a - b: both get the gradient; what carries no relevance absorbs its share as `absorbs`."""

    absorbs: str = CONSTANTS
    sign: float = 1.0
    """Of the second summand."""

    def record(self, run: Run, inputs: Sequence[Tensor]) -> tuple[Tensor, GradientRecording]:
        """Run the step; keep the constant, if there is one."""
        factor = self.sign * run.argument(2, "alpha", 1)
        constant: Tensor | float | None = None
        places: list[tuple[int, float]] = []
        for place, times in ((0, 1.0), (1, factor)):
            source = run.carries(place, ("input", "other")[place])
            if source is None:
                constant = run.argument(place, ("input", "other")[place]) * times
            else:
                places.append((source, times))
        shapes = [value.shape for value in inputs]
        return run(*inputs), _Sum(self.absorbs, places, shapes, constant)


@dataclass(frozen=True)
class _Sum:
    absorbs: str
    places: Sequence[tuple[int, float]]
    shapes: Sequence[torch.Size]
    constant: Tensor | float | None

    def pull(self, gradient: Tensor) -> Gradients:
        parts = [(source, spread_back(gradient, self.shapes[source]), times) for source, times in self.places]
        return gathered(
            ((source, part if times == 1 else part * times) for source, part, times in parts),
            len(self.shapes),
        )

    def pull_part(self, part: Narrow) -> Gradients | None:
        if any([*shape] != part.shape for shape in self.shapes):
            return None
        return gathered(
            ((source, part if times == 1 else part.of(part.values * times)) for source, times in self.places),
            len(self.shapes),
        )

    def absorbed(self, gradient: Tensor) -> Tensor:
        if self.constant is None:
            return gradient.new_zeros(gradient.shape[:2])
        return by_row(gradient * self.constant)


class Multiplied:
    """a * b, number by number, or a / b with a constant b."""

    def __init__(self, divides: bool = False) -> None:
        self.divides = divides

    def record(self, run: Run, inputs: Sequence[Tensor]) -> tuple[Tensor, GradientRecording]:
        """Run the step; keep each factor's factor."""
        factors: list[tuple[int, Tensor | float]] = []
        sources = [run.carries(0, "input"), run.carries(1, "other")]
        share = 0.5 if None not in sources else 1.0
        for place, source in enumerate(sources):
            if source is not None:
                other = run.argument(1 - place, ("input", "other")[1 - place])
                factors.append((source, (1 / other if self.divides else other) * share))
        return run(*inputs), _Products(factors, [value.shape for value in inputs])


@dataclass(frozen=True)
class _Products:
    factors: Sequence[tuple[int, Tensor | float]]
    shapes: Sequence[torch.Size]

    def pull(self, gradient: Tensor) -> Gradients:
        return gathered(
            (
                (source, spread_back(gradient * factor, self.shapes[source]))
                for source, factor in self.factors
            ),
            len(self.shapes),
        )

    def pull_part(self, part: Narrow) -> Gradients | None:
        if any([*shape] != part.shape for shape in self.shapes):
            return None
        ndim = len(part.shape)
        kept = [
            (source, part.cut(factor, ndim) if isinstance(factor, Tensor) else factor)
            for source, factor in self.factors
        ]
        return gathered(
            ((source, part.of(part.values * factor)) for source, factor in kept), len(self.shapes)
        )


class MatrixProduct:
    """a @ b over the last two axes."""

    def record(self, run: Run, inputs: Sequence[Tensor]) -> tuple[Tensor, GradientRecording]:
        """Run the step; keep both matrices where both carry, else the constant one."""
        sources = run.carries(0, "input"), run.carries(1, "other")
        left, right = run.argument(0, "input"), run.argument(1, "other")
        share = 0.5 if None not in sources else 1.0
        shapes = [value.shape for value in inputs]
        kept_right = None if sources[0] is None else right * share
        kept_left = None if sources[1] is None else left * share
        return run(*inputs), _MatrixProduct(sources, kept_left, kept_right, shapes)


@dataclass(frozen=True)
class _MatrixProduct:
    sources: tuple[int | None, int | None]
    left: Tensor | None
    right: Tensor | None
    shapes: Sequence[torch.Size]

    def pull(self, gradient: Tensor) -> Gradients:
        to_left, to_right = self.sources
        parts: list[tuple[int, Gradient]] = []
        if to_left is not None:
            parts.append((to_left, spread_back(gradient @ _turned(self.right), self.shapes[to_left])))
        if to_right is not None:
            parts.append((to_right, spread_back(weighed(self.left, gradient), self.shapes[to_right])))
        return gathered(parts, len(self.shapes))


def _turned(matrix: Tensor | None) -> Tensor:
    assert matrix is not None
    return matrix.transpose(-1, -2)


def weighed(weights: Tensor | None, gradient: Tensor) -> Tensor:
    """weights^T @ gradient: (..., t, s) and (P, ..., t, d) to (P, ..., s, d).

    The starts lie side by side in one product, since a product per start would read the weights each time.
    """
    turned = _turned(weights)
    starts, width = len(gradient), gradient.shape[-1]
    if starts == 1 or turned.ndim != gradient.ndim - 1:
        return turned @ gradient
    beside = gradient.movedim(0, -2).flatten(-2)
    return (turned @ beside).unflatten(-1, (starts, width)).movedim(-2, 0)


@dataclass(frozen=True)
class Attention:
    """scaled_dot_product_attention(q, k, v): softmax(q k^T * scale + mask) @ v.

    `held`: the weights are constants (CP-LRP), so that v gets its whole gradient and q and k none. Otherwise
    (AttnLRP) v gets half of its gradient, and q and k a quarter: half from the product with v, half of that
    from their own.
    """

    held: bool

    def record(self, run: Run, inputs: Sequence[Tensor]) -> tuple[Tensor, GradientRecording]:
        """Run the step, and compute the weights that it keeps to itself."""
        q, k, v = (run.argument(place, name) for place, name in enumerate(("query", "key", "value")))
        scale = run.argument(6, "scale")
        scale = 1 / math.sqrt(q.shape[-1]) if scale is None else scale
        weights = _weights(
            q, k, scale, run.argument(3, "attn_mask"), bool(run.argument(5, "is_causal", False))
        )
        sources = tuple(run.carries(place, name) for place, name in enumerate(("query", "key", "value")))
        kept = None if self.held else (q * scale, k * scale, v)
        return run(*inputs), _Attended(weights, sources, kept, len(inputs))


def _weights(q: Tensor, k: Tensor, scale: float, mask: Tensor | None, causal: bool) -> Tensor:
    logits = (q * scale) @ k.transpose(-1, -2)
    if causal:
        later = torch.ones(logits.shape[-2:], dtype=torch.bool, device=q.device).triu(1)
        logits = logits.masked_fill(later, -torch.inf)
    if mask is not None:
        logits = logits.masked_fill(~mask, -torch.inf) if mask.dtype == torch.bool else logits + mask
    return logits.softmax(dim=-1)


@dataclass(frozen=True)
class _Attended:
    weights: Tensor
    sources: tuple[int | None, ...]
    kept: tuple[Tensor, Tensor, Tensor] | None
    """q and k, both times the scale, and v."""
    inputs: int

    def pull_part(self, part: Narrow) -> Gradients | None:
        if self.kept is not None or part.axis != part.values.ndim - 3:
            return None
        return replace(self, weights=self.weights.narrow(-2, part.start, part.length)).pull(part.values)

    def pull(self, gradient: Tensor) -> Gradients:
        to_q, to_k, to_v = self.sources
        alone = self.kept is None or (to_q is None and to_k is None)
        parts: list[tuple[int, Gradient]] = []
        if to_v is not None:
            parts.append((to_v, weighed(self.weights, gradient) * (1 if alone else 0.5)))
        if self.kept is None or alone:
            return gathered(parts, self.inputs)
        q, k, v = self.kept
        of_weights = (gradient @ v.transpose(-1, -2)) * (0.5 if to_v is not None else 1)
        mean = (of_weights * self.weights).sum(dim=-1, keepdim=True)
        of_logits = self.weights * (of_weights - mean)
        share = 0.5 if None not in (to_q, to_k) else 1
        if to_q is not None:
            parts.append((to_q, of_logits @ k * share))
        if to_k is not None:
            parts.append((to_k, of_logits.transpose(-1, -2) @ q * share))
        return gathered(parts, self.inputs)
