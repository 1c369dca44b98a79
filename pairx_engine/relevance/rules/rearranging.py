"""Steps that move numbers about: reshaping, permuting, cutting, joining; each is undone on the way down.

Gradients are (P, *shape). Most of a transformer's steps are of this kind, and autograd's batched gradients
would cost more than the products between them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pairx_engine.relevance.rules.base import Run
from pairx_engine.relevance.rules.modified_gradients import (
    Differentiated,
    GradientRecording,
    Gradients,
    by_row,
)
from pairx_engine.relevance.rules.narrow import Gradient, Narrow, gathered, reshaped

IN_ORDER = (
    *("reshape", "view", "flatten", "unflatten", "squeeze", "unsqueeze"),
    *("contiguous", "clone", "detach", "to", "type_as", "float"),
)
"""Functions and methods that leave all numbers in their order."""
TOKENS = "class and register tokens"


@dataclass(frozen=True)
class _Undone:
    undo: Callable[[Tensor], Gradient]
    others: int = 0
    """Inputs of which the step asks for their kind alone."""
    undo_part: Callable[[Narrow], Gradient | None] = lambda part: None

    def pull(self, gradient: Tensor) -> Gradients:
        return [self.undo(gradient), *[None] * self.others]

    def pull_part(self, part: Narrow) -> Gradients | None:
        found = self.undo_part(part)
        return None if found is None else [found, *[None] * self.others]


class InOrder:
    """A step that leaves all numbers in their order."""

    def record(self, run: Run, inputs: Sequence[Tensor]) -> tuple[Tensor, GradientRecording]:
        """Run the step; keep the input's shape."""
        shape, output = inputs[0].shape, run(*inputs)
        given = tuple(output.shape)
        return output, _Undone(
            lambda g: g.reshape(len(g), *shape), len(inputs) - 1, lambda part: reshaped(part, given, shape)
        )


class Permuted:
    """permute(x, dims), transpose(x, a, b) and their like."""

    def record(self, run: Run, inputs: Sequence[Tensor]) -> tuple[Tensor, GradientRecording]:
        """Run the step; keep where each axis came from."""
        ndim = inputs[0].ndim
        # A tensor whose axes have sizes of their own shows where they go.
        order = [size - 1 for size in run(torch.empty(tuple(range(1, ndim + 1)), device="meta")).shape]
        back = [0, *(order.index(axis) + 1 for axis in range(ndim))]

        def undo_part(part: Narrow) -> Narrow:
            return Narrow(part.values.permute(back), order[part.axis], part.start, part.size)

        return run(*inputs), _Undone(lambda g: g.permute(back), undo_part=undo_part)


class Viewed:
    """A step that gives a view of some of a tensor's numbers: sliced, selected.

    What gives no view is differentiated.
    """

    def record(self, run: Run, inputs: Sequence[Tensor]) -> tuple[Tensor, GradientRecording]:
        """Run the step; keep where in the input its numbers stand."""
        shape = inputs[0].shape
        # A tensor without numbers shows by its strides where they would stand.
        view = run(torch.empty(shape, device="meta"))
        strides, offset, size = view.stride(), view.storage_offset(), view.shape
        # Numbers that stand in the view twice, as after `expand`, must be added up.
        if not view._is_view() or any(n > 1 and step == 0 for n, step in zip(size, strides, strict=True)):
            return Differentiated().record(run, inputs)
        if (place := _range_of(shape, view)) is not None:
            axis, start, dropped = place
            return run(*inputs), _Undone(
                lambda g: Narrow(g.unsqueeze(axis + 1) if dropped else g, axis, start, shape[axis])
            )
        count = shape.numel()

        def undo(gradient: Tensor) -> Tensor:
            whole = gradient.new_zeros((len(gradient), count))
            whole.as_strided((len(gradient), *size), (count, *strides), offset).copy_(gradient)
            return whole.view(len(gradient), *shape)

        return run(*inputs), _Undone(undo)


def _range_of(shape: torch.Size, view: Tensor) -> tuple[int, int, bool] | None:
    """Axis, start, and whether the axis was dropped, where a view of a tensor is a range of one axis."""
    strides = torch.empty(shape, device="meta").stride()
    for axis, stride in enumerate(strides):
        others = [*strides[:axis], *strides[axis + 1 :]], [*shape[:axis], *shape[axis + 1 :]]
        start, rest = divmod(int(view.storage_offset()), stride)
        if rest or start >= shape[axis]:
            continue
        if (list(view.stride()), list(view.shape)) == others:
            return axis, start, True
        if view.ndim == len(shape) and view.stride() == strides:
            kept = [*view.shape[:axis], *view.shape[axis + 1 :]]
            if kept == others[1] and start + view.shape[axis] <= shape[axis]:
                return axis, start, False
    return None


class Rolled:
    """roll(x, shifts, dims)."""

    def record(self, run: Run, inputs: Sequence[Tensor]) -> tuple[Tensor, GradientRecording]:
        """Run the step; keep the way back."""
        shifts, axes = run.argument(1, "shifts"), run.argument(2, "dims")
        if axes is None:
            return Differentiated().record(run, inputs)
        shifts, axes = ([given] if isinstance(given, int) else list(given) for given in (shifts, axes))
        ndim = inputs[0].ndim
        back, places = [-by for by in shifts], [axis % ndim + 1 for axis in axes]
        return run(*inputs), _Undone(lambda g: g.roll(back, places))


class Joined:
    """cat(tensors, dim): each tensor gets the gradient of its part.

    Tensors that carry no relevance, such as class and register tokens, absorb theirs.
    """

    def record(self, run: Run, inputs: Sequence[Tensor]) -> tuple[Tensor, GradientRecording]:
        """Run the step; keep what was joined where, and the constants."""
        output = run(*inputs)
        axis = run.argument(1, "dim", 0) % output.ndim
        listed = run.step.args[0] if run.step.args else run.step.kwargs["tensors"]
        sources, tensors = [], run.argument(0, "tensors")
        for one in listed:
            index = getattr(one, "index", None)
            sources.append(run.inputs.index(index) if index in run.inputs else None)
        sizes = [one.shape[axis] for one in tensors]
        constants = [
            tensor if source is None else None for source, tensor in zip(sources, tensors, strict=True)
        ]
        return output, _Joined(axis, sizes, sources, constants, len(inputs))


@dataclass(frozen=True)
class _Joined:
    axis: int
    sizes: Sequence[int]
    sources: Sequence[int | None]
    constants: Sequence[Tensor | None]
    inputs: int
    absorbs: str = TOKENS

    def pull(self, gradient: Tensor) -> Gradients:
        parts = gradient.split(self.sizes, dim=self.axis + 1)
        return gathered(
            ((source, part) for source, part in zip(self.sources, parts, strict=True) if source is not None),
            self.inputs,
        )

    def pull_part(self, part: Narrow) -> Gradients | None:
        begin = 0
        for source, size in zip(self.sources, self.sizes, strict=True):
            if part.axis == self.axis and begin <= part.start and part.start + part.length <= begin + size:
                found: Gradients = [None] * self.inputs
                if source is not None:
                    found[source] = Narrow(part.values, part.axis, part.start - begin, size)
                return found
            begin += size
        return None

    def absorbed(self, gradient: Tensor) -> Tensor:
        total = gradient.new_zeros(gradient.shape[:2])
        for constant, part in zip(self.constants, gradient.split(self.sizes, dim=self.axis + 1), strict=True):
            if constant is not None:
                total = total + by_row(part * constant)
        return total
