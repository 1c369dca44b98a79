"""Norms as modified gradients: what they divide by is held, what they subtract is not.

y = w * (x - mean x) / s + b, so G_in = u - mean(u) with u = w / s * G; without a mean, G_in = u. The bias
absorbs its share.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from pairx_engine.relevance.rules.base import Run
from pairx_engine.relevance.rules.modified_gradients import GradientRecording, Gradients, Scaled, by_row
from pairx_engine.relevance.rules.narrow import Narrow

NORM_BIASES = "biases of norms"


@dataclass(frozen=True)
class Terms:
    """What one norm does to one input: its axes, epsilon, weight and bias as they spread to the input.

    `groups` splits axis 1 first. `centred` says whether the mean is subtracted.
    """

    axes: tuple[int, ...]
    eps: float
    weight: Tensor | None
    bias: Tensor | None
    centred: bool
    groups: int | None = None


@dataclass(frozen=True)
class SpreadHeld:
    """A norm by the module's equation; `read` gives its terms for a run."""

    read: Callable[[Run, Tensor], Terms]

    def record(self, run: Run, inputs: Sequence[Tensor]) -> tuple[Tensor, GradientRecording]:
        """Run the step; keep w / s and b."""
        x = inputs[0]
        terms = self.read(run, x)
        grouped = x if terms.groups is None else x.unflatten(1, (terms.groups, -1))
        centred = grouped - grouped.mean(dim=terms.axes, keepdim=True) if terms.centred else grouped
        scale = (centred.square().mean(dim=terms.axes, keepdim=True) + terms.eps).rsqrt()
        if terms.groups is not None:
            scale = scale.expand(*grouped.shape[:3], *scale.shape[3:]).flatten(1, 2)
        factor = scale if terms.weight is None else scale * terms.weight
        return run(x), _Normed(factor, terms.bias, terms.axes if terms.centred else (), terms.groups)


@dataclass(frozen=True)
class _Normed:
    factor: Tensor
    bias: Tensor | None
    axes: tuple[int, ...] = ()
    """Of the mean, in the grouped input without the axis of starts."""
    groups: int | None = None
    absorbs: str = NORM_BIASES

    def pull(self, gradient: Tensor) -> Gradients:
        u = gradient * self.factor
        if not self.axes:
            return [u]
        axes = tuple(axis + 1 for axis in self.axes)
        if self.groups is None:
            return [u - u.mean(dim=axes, keepdim=True)]
        grouped = u.unflatten(2, (self.groups, -1))
        return [(grouped - grouped.mean(dim=axes, keepdim=True)).flatten(2, 3)]

    def pull_part(self, part: Narrow) -> Gradients | None:
        if self.groups is not None or part.axis in self.axes:
            return None
        narrow = replace(self, factor=part.cut(self.factor, part.values.ndim - 1))
        (found,) = narrow.pull(part.values)
        assert isinstance(found, Tensor)
        return [part.of(found)]

    def absorbed(self, gradient: Tensor) -> Tensor:
        if self.bias is None:
            return gradient.new_zeros(gradient.shape[:2])
        return by_row(gradient * self.bias)


def last_axes(run: Run, x: Tensor) -> Terms:
    """layer_norm(x, shape, weight, bias, eps)."""
    shape, weight, bias = (
        run.argument(place, name) for place, name in ((1, "normalized_shape"), (2, "weight"), (3, "bias"))
    )
    axes = tuple(range(x.ndim - len(shape), x.ndim))
    return Terms(axes, run.argument(4, "eps", 1e-5), weight, bias, centred=True)


def root_mean_square(run: Run, x: Tensor) -> Terms:
    """rms_norm(x, shape, weight, eps)."""
    axes = tuple(range(x.ndim - len(run.argument(1, "normalized_shape")), x.ndim))
    eps = run.argument(3, "eps")
    return Terms(
        axes, torch.finfo(x.dtype).eps if eps is None else eps, run.argument(2, "weight"), None, centred=False
    )


def of_layer_norm(module: nn.LayerNorm) -> Callable[[Run, Tensor], Terms]:
    """A module of torch's over its last axes."""

    def read(run: Run, x: Tensor) -> Terms:
        axes = tuple(range(x.ndim - len(module.normalized_shape), x.ndim))
        return Terms(axes, module.eps, module.weight, module.bias, centred=True)

    return read


def of_rms_norm(module: Any) -> Callable[[Run, Tensor], Terms]:
    """A module of torch's or timm's over the last axis, or timm's over the channels of a map."""

    def read(run: Run, x: Tensor) -> Terms:
        weight, eps = module.weight, module.eps
        of_map = type(module).__name__.startswith("RmsNorm2d")
        if of_map and weight is not None:
            weight = weight.view(1, -1, 1, 1)
        return Terms(
            (1,) if of_map else (x.ndim - 1,),
            torch.finfo(x.dtype).eps if eps is None else eps,
            weight,
            None,
            centred=False,
        )

    return read


def grouped(run: Run, x: Tensor) -> Terms:
    """group_norm(x, groups, weight, bias, eps)."""
    return _grouped(
        x, run.argument(1, "num_groups"), run.argument(2, "weight"), run.argument(3, "bias"),
        run.argument(4, "eps", 1e-5),
    )  # fmt: skip


def of_group_norm(module: nn.GroupNorm) -> Callable[[Run, Tensor], Terms]:
    """A module of torch's."""
    return lambda run, x: _grouped(x, module.num_groups, module.weight, module.bias, module.eps)


def _grouped(x: Tensor, groups: int, weight: Tensor | None, bias: Tensor | None, eps: float) -> Terms:
    shape = (1, -1, *[1] * (x.ndim - 2))
    weight, bias = (None if one is None else one.view(shape) for one in (weight, bias))
    return Terms(tuple(range(2, x.ndim + 1)), eps, weight, bias, centred=True, groups=groups)


class Affine:
    """A batch norm in evaluation mode, and the activation in it, if there is one: y = f(a x + b).

    The activation's secant f(z) / z is held.
    """

    def __init__(self, module: Any) -> None:
        self.module = module

    def record(self, run: Run, inputs: Sequence[Tensor]) -> tuple[Tensor, GradientRecording]:
        """Run the step; keep a and b, times the secant."""
        x, norm = inputs[0], self.module
        scale = (norm.running_var + norm.eps).rsqrt()
        scale = scale if norm.weight is None else scale * norm.weight
        shift = -norm.running_mean * scale
        shift = shift if norm.bias is None else shift + norm.bias
        a, b = (one.detach().view(1, -1, *[1] * (x.ndim - 2)) for one in (scale, shift))
        output, z = run(x), a * x + b
        if type(norm) in (nn.BatchNorm1d, nn.BatchNorm2d):
            return output, _Normed(a, b)
        secant = torch.where(z == 0, 0, output / torch.where(z == 0, 1, z))
        return output, _Normed(a * secant, b * secant)


class SizeHeld:
    """normalize(x, p, dim, eps): what it divides by is held."""

    def record(self, run: Run, inputs: Sequence[Tensor]) -> tuple[Tensor, GradientRecording]:
        """Run the step; keep one over the size."""
        p, axis, eps = run.argument(1, "p", 2.0), run.argument(2, "dim", 1), run.argument(3, "eps", 1e-12)
        return run(*inputs), Scaled(1 / inputs[0].norm(p, dim=axis, keepdim=True).clamp(min=eps))
