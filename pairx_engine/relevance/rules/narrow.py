"""Gradients that are zero outside a range of one axis: a class token's row, one cell, the values among q, k, v.

Rules that work row by row need only the rows of the range, which saves most of their arithmetic.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import prod
from typing import Protocol, runtime_checkable

from torch import Tensor


@dataclass(frozen=True)
class Narrow:
    """A gradient (P, *shape) that is zero but for `values`, its range from `start` of an axis.

    `axis` counts from 0 without the axis of starts, and `size` is the whole axis's.
    """

    values: Tensor
    axis: int
    start: int
    size: int

    @property
    def length(self) -> int:
        """How much of the axis it is."""
        return self.values.shape[self.axis + 1]

    @property
    def shape(self) -> list[int]:
        """The whole value's shape."""
        shape = [*self.values.shape[1:]]
        shape[self.axis] = self.size
        return shape

    def whole(self) -> Tensor:
        """The gradient with its zeros."""
        whole = self.values.new_zeros([len(self.values), *self.shape])
        whole.narrow(self.axis + 1, self.start, self.length).copy_(self.values)
        return whole

    def of(self, values: Tensor) -> Narrow:
        """Other values in the same place."""
        return Narrow(values, self.axis, self.start, self.size)

    def cut(self, kept: Tensor, ndim: int) -> Tensor:
        """The part of what is kept of a value of `ndim` axes, or spreads to it, that meets the range."""
        axis = self.axis - (ndim - kept.ndim)
        if axis < 0 or kept.shape[axis] == 1:
            return kept
        return kept.narrow(axis, self.start, self.length)


Gradient = Tensor | Narrow


@runtime_checkable
class Narrowing(Protocol):
    """A recording that pulls a range of its output alone, where it can."""

    def pull_part(self, part: Narrow) -> list[Gradient | None] | None:
        """As `pull`, for a part; None where the whole is needed."""


def whole_of(gradient: Gradient) -> Tensor:
    """The gradient (P, *shape) with its zeros."""
    return gradient.whole() if isinstance(gradient, Narrow) else gradient


def added(a: Gradient, b: Gradient) -> Gradient:
    """The sum of two gradients; neither is changed."""
    if isinstance(a, Narrow) and isinstance(b, Narrow):
        if (a.axis, a.start, a.length) == (b.axis, b.start, b.length):
            return a.of(a.values + b.values)
        return added(a.whole(), b)
    if isinstance(a, Narrow):
        a, b = b, a
    if isinstance(b, Narrow):
        assert isinstance(a, Tensor)
        total = a.clone()
        total.narrow(b.axis + 1, b.start, b.length).add_(b.values)
        return total
    assert isinstance(a, Tensor)
    return a + b


def gathered(parts: Iterable[tuple[int, Gradient]], inputs: int) -> list[Gradient | None]:
    """Gradients by the input that they are of, added up where one has several; None for those without."""
    found: list[Gradient | None] = [None] * inputs
    for source, part in parts:
        before = found[source]
        found[source] = part if before is None else added(before, part)
    return found


def narrowed(gradient: Tensor, axis: int) -> Gradient:
    """A gradient (P, *shape) as the range of an axis outside which it is zero, if that is less than half."""
    others = [i for i in range(gradient.ndim) if i != axis + 1]
    filled = gradient.abs().amax(dim=others).nonzero().flatten()
    size = gradient.shape[axis + 1]
    if len(filled) == 0:
        return gradient
    start, end = int(filled[0]), int(filled[-1]) + 1
    if 2 * (end - start) > size:
        return gradient
    return Narrow(gradient.narrow(axis + 1, start, end - start), axis, start, size)


def reshaped(part: Narrow, output: Sequence[int], given: Sequence[int]) -> Narrow | None:
    """A part of an output of shape `output` as one of its input `given`, of the same numbers in order.

    None where the range is none of a single axis there.
    """
    before, after = prod(output[: part.axis]), prod(output[part.axis + 1 :])
    outer = 1
    for axis, size in enumerate(given):
        inner = prod(given[axis + 1 :])
        if outer == before and size * inner == part.size * after:
            start, length = part.start * after, part.length * after
            if not (start % inner or length % inner):
                shape = [len(part.values), *given[:axis], length // inner, *given[axis + 1 :]]
                return Narrow(part.values.reshape(shape), axis, start // inner, size)
        outer *= size
    return None
