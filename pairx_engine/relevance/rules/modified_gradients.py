"""Rules in the form of modified gradients, and what all of them share.

A set of rules of this form pulls gradients G instead of relevances; the relevance of an activation A is
A * G. A gradient of the forward pass is changed where a rule says so, and every rule is linear in G. Shapes
are (P, ...) for P starts of a value of any shape (...), so that a step may move the photos' axis as it likes
(Swin folds its windows into it).

Where a step computes y = f(x) with f(0) = 0 and is homogeneous in the sense of its rule, x * G_x sums to
y * G_y. What a step adds of its own (biases, position embeddings, class tokens) absorbs the rest, and
`absorbed` gives it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor
from torch.nn import functional

from pairx_engine.relevance.precision import Precision
from pairx_engine.relevance.rules.base import Run, graph_of
from pairx_engine.relevance.rules.narrow import Gradient, Narrow
from pairx_engine.relevance.rules.weights import product

Gradients = list[Gradient | None]
BIASES = "biases"


class GradientRecording(Protocol):
    """One step of a forward pass with what its rule keeps of it."""

    def pull(self, gradient: Tensor) -> Gradients:
        """Gradients (P, *input.shape) of each input, from that of the output (P, *output.shape)."""


@runtime_checkable
class Absorbing(Protocol):
    """A recording that keeps relevance for what the step adds of its own."""

    absorbs: str

    def absorbed(self, gradient: Tensor) -> Tensor:
        """The relevance that stays (P, n), by the first axis of the output."""


class GradientRule(Protocol):
    """How gradients pass one kind of step."""

    def record(self, run: Run, inputs: Sequence[Tensor]) -> tuple[Tensor, GradientRecording]:
        """Run the step on its tensor inputs, keeping what the pull needs."""


def by_row(products: Tensor) -> Tensor:
    """(P, n, ...) summed over all but the first two axes."""
    return products.flatten(2).sum(dim=2) if products.ndim > 2 else products


@dataclass(frozen=True)
class Whole:
    """G_in = G: dropout in evaluation mode, identities."""

    def record(self, run: Run, inputs: Sequence[Tensor]) -> tuple[Tensor, GradientRecording]:
        """Run the step; nothing is kept."""
        return run(*inputs), self

    def pull(self, gradient: Tensor) -> Gradients:
        """The same gradient."""
        return [gradient]

    def pull_part(self, part: Narrow) -> Gradients:
        """The same part."""
        return [part]


class Differentiated:
    """The ordinary gradient of a step of one input that is linear, or homogeneous of degree one."""

    def record(self, run: Run, inputs: Sequence[Tensor]) -> tuple[Tensor, GradientRecording]:
        """Run the step with autograd on and keep its graph."""
        output, leaves = graph_of(run, inputs)
        return output.detach(), _Graph(output, leaves)


@dataclass(frozen=True)
class _Graph:
    output: Tensor
    leaves: Sequence[Tensor]

    def pull(self, gradient: Tensor) -> Gradients:
        wanted = gradient.to(self.output.dtype)
        found = torch.autograd.grad(
            self.output, self.leaves, wanted, retain_graph=True, allow_unused=True, is_grads_batched=True
        )
        return [None if one is None else one.to(gradient.dtype) for one in found]


@dataclass(frozen=True)
class Scaled:
    """G_in = G * factor, with the factor held."""

    factor: Tensor

    def pull(self, gradient: Tensor) -> Gradients:
        """By the class's equation."""
        return [gradient * self.factor]

    def pull_part(self, part: Narrow) -> Gradients:
        """The same of a part."""
        return [part.of(part.values * part.cut(self.factor, part.values.ndim - 1))]


@dataclass(frozen=True)
class Secant:
    """Activations y = f(x): G_in = G * y / x, and `at_zero`, the slope there, where x = 0.

    Also gates that are held: y = x * g(x).
    """

    at_zero: float = 0.0

    def record(self, run: Run, inputs: Sequence[Tensor]) -> tuple[Tensor, GradientRecording]:
        """Run the step; keep y / x."""
        output, x = run(*inputs), inputs[0]
        zero = x == 0
        slope = torch.where(zero, self.at_zero, output / torch.where(zero, 1, x))
        return output, Scaled(slope)


@dataclass(frozen=True)
class LinearMap:
    """A map z = W x + b and its transpose, for weights of any sign pattern.

    `forward(x, weight)` leaves the bias out. `back(g, weight)` takes (P, *z.shape) to (P, *x.shape). `bias`
    has z's shape or one that spreads to it. `weight(kind)` gives the operands of
    `pairx_engine.relevance.rules.weights.Weights`.
    """

    forward: Callable[[Tensor, Tensor], Tensor]
    back: Callable[[Tensor, Tensor], Tensor]
    weight: Callable[[str], Tensor]
    bias: Tensor | None
    last_axis: bool = False
    """Whether it maps the last axis alone, by weights (out, in), and each row by itself."""


@dataclass(frozen=True)
class GammaRule:
    """The generalised gamma rule, plain for gamma = 0.

    With c_ji = W_ji x_i, outputs z_j > 0 weigh positive contributions (1 + gamma) times, outputs z_j < 0 the
    negative ones; so does the bias take part, and absorbs its share:

        R_i = sum_j (c_ji + gamma c_ji^(sign of z_j)) R_j / z^gamma_j,

    z^gamma_j being the sum of these with that of the bias. As gradients, with u = z / z^gamma * G,

        G_i = (1 + gamma / 2) (W^T u)_i + sign(x_i) gamma / 2 (|W|^T (sign(z) u))_i,

    since the contributions of one sign are half of all plus or minus half of their magnitudes. So a start
    takes two products with the weights, where the rule's four branches take eight. `precision` is the pull's.
    """

    gamma: float
    precision: Precision

    def recorded(self, x: Tensor, z: Tensor, linear: LinearMap) -> GradientRecording:
        """The recording of a step with input x and output z."""
        weight = linear.weight("weight")
        if not self.gamma:
            return _LinearRecording(linear, weight, self.precision)
        half = linear.weight("half magnitude")
        positive, negative = (z > 0).to(z.dtype), (z < 0).to(z.dtype)
        sign = positive - negative
        pure = z if linear.bias is None else z - linear.bias
        # In the format of the forward pass, whatever that of the pull.
        magnitude = 2 * linear.forward(x.abs(), half.to(x.dtype))
        same = (pure + sign * magnitude) / 2
        if linear.bias is not None:
            same = same + torch.where(z > 0, linear.bias.clamp(min=0), linear.bias.clamp(max=0))
        # `same` is of z's sign or zero, so this is never smaller than z by magnitude.
        ratio = torch.where(sign == 0, 0, z / torch.where(sign == 0, 1, z + self.gamma * same))
        signs = self.gamma * (1 - 2 * (x < 0).to(z.dtype))
        return _GammaRecording(linear, weight, half, self.precision, self.gamma, ratio, sign, signs)


@dataclass(frozen=True)
class _LinearRecording:
    linear: LinearMap
    weight: Tensor
    precision: Precision
    absorbs: str = BIASES

    def pull(self, gradient: Tensor) -> Gradients:
        return [product(gradient, self.weight, self.linear.back, self.precision)]

    def pull_part(self, part: Narrow) -> Gradients | None:
        if not self.linear.last_axis:
            return None
        if _is_last(part):
            rows = self.weight.narrow(0, part.start, part.length)
            return [product(part.values, rows, self.linear.back, self.precision)]
        return [part.of(product(part.values, self.weight, self.linear.back, self.precision))]

    def absorbed(self, gradient: Tensor) -> Tensor:
        if self.linear.bias is None:
            return gradient.new_zeros(gradient.shape[:2])
        return by_row(gradient * self.linear.bias)


@dataclass(frozen=True)
class _GammaRecording:
    linear: LinearMap
    weight: Tensor
    half: Tensor
    precision: Precision
    gamma: float
    ratio: Tensor
    sign: Tensor
    signs: Tensor
    """gamma, with the sign of each input."""
    absorbs: str = BIASES

    def pull(self, gradient: Tensor) -> Gradients:
        u = gradient * self.ratio
        plain = product(u, self.weight, self.linear.back, self.precision)
        sized = product(u * self.sign, self.half, self.linear.back, self.precision)
        return [torch.addcmul(plain * (1 + self.gamma / 2), sized, self.signs)]

    def pull_part(self, part: Narrow) -> Gradients | None:
        if not self.linear.last_axis:
            return None
        ndim = part.values.ndim - 1
        ratio, sign = (part.cut(kept, ndim) for kept in (self.ratio, self.sign))
        if not _is_last(part):
            narrow = replace(self, ratio=ratio, sign=sign, signs=part.cut(self.signs, ndim))
            (found,) = narrow.pull(part.values)
            assert isinstance(found, Tensor)
            return [part.of(found)]
        weight, half = (w.narrow(0, part.start, part.length) for w in (self.weight, self.half))
        return replace(self, ratio=ratio, sign=sign, weight=weight, half=half).pull(part.values)

    def absorbed(self, gradient: Tensor) -> Tensor:
        bias = self.linear.bias
        if bias is None:
            return gradient.new_zeros(gradient.shape[:2])
        of_sign = torch.where(self.sign > 0, bias.clamp(min=0), bias.clamp(max=0))
        return by_row(gradient * self.ratio * (bias + self.gamma * of_sign))


def _is_last(part: Narrow) -> bool:
    return part.axis == part.values.ndim - 2


def linear_map(weight: Callable[[str], Tensor], bias: Tensor | None) -> LinearMap:
    """A linear layer on the last axis, weight (out, in)."""
    return LinearMap(functional.linear, torch.matmul, weight, bias, last_axis=True)
