"""How relevance passes each step, as in the general path, by terms kept of one forward pass.

The general path is `pairx_engine.relevance.hooks`. A rule records a step of the forward pass of N chips. The
recording then pulls relevances R of the step's output, (S, ...) for the S = N P starts of all chips
(`company`), down to its inputs. What a step's rule needs of the forward pass is computed once, in the
recording. Convolutions are in `convolution`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn
from torch.nn import functional

from pairx_engine.relevance.company import times
from pairx_engine.relevance.precision import Precision
from pairx_engine.relevance.rules.weights import Weights, product
from pairx_engine.relevance.trace import Step, Untraceable, Value, no_grad_needed
from pairx_engine.relevance.window import Window, move, whole

STABILISER = 1e-6
Pulled = list[Tensor | None]
Windows = Sequence[Window | None]


class Recording(Protocol):
    """One step of a forward pass with the terms of its rule.

    Windows are of maps (N, C, H, W). For any other value None stands for the whole.
    """

    def reach(self, window: Window) -> Window | None:
        """The part of the first input's map that relevance in `window` of the output can reach.

        None: all of it. Windows may hang over the map's edges.
        """

    def pull(self, relevance: Tensor, held: Window | None, wanted: Windows) -> Pulled:
        """Relevance of each input, in the windows wanted, from that of the output in the window held."""


@runtime_checkable
class Unsettled(Protocol):
    """A recording that depends on a question to the device.

    Each answer must be waited for, so the questions of all steps are asked at once. Whatever the answer, each
    photo's numbers are those that it has alone.
    """

    def question(self) -> Tensor:
        """A truth value on the device, ()."""

    def settled(self, answer: bool | None) -> Recording | Unsettled | None:
        """The recording, or one with the next question.

        For None: the recording that is right for either answer, if there is one.
        """


Answers = Callable[[Tensor], Sequence[bool]]
"""Reads the answers to questions (Q,) off the device."""


def settled(recordings: Sequence[Recording | Unsettled], answers: Answers | None = None) -> list[Recording]:
    """The recordings once all their questions are answered.

    The device is waited for once per round of questions. With `answers` nothing is waited for: a recording
    that is right for either answer is taken where there is one, and for the others `answers` says what to
    assume.
    """
    made = list(recordings)
    while asked := [(i, item) for i, item in enumerate(made) if isinstance(item, Unsettled)]:
        if answers is not None:
            certain = [(i, item, item.settled(None)) for i, item in asked]
            made = [*made]
            for i, _, found in certain:
                made[i] = made[i] if found is None else found
            asked = [(i, item) for i, item, found in certain if found is None]
        if asked:
            questions = torch.stack([item.question() for _, item in asked])
            given = questions.tolist() if answers is None else answers(questions)
            for (i, item), answer in zip(asked, given, strict=True):
                found = item.settled(answer)
                assert found is not None
                made[i] = found
    return [item for item in made if not isinstance(item, Unsettled)]


@dataclass(frozen=True)
class Run:
    """One step of a forward pass: called with other inputs it runs again.

    `values` are all values so far, and `inputs` those among them that carry relevance.
    """

    step: Step
    values: Mapping[int, Any]
    inputs: tuple[int, ...]

    def __call__(self, *given: Tensor) -> Tensor:
        """The step's output for these inputs; raises `Untraceable` where it is no tensor of floats."""
        output = self.step.run({**self.values, **dict(zip(self.inputs, given, strict=True))})
        if no_grad_needed(output):
            raise Untraceable(f"its step {self.step.name} gives no tensor of floating-point numbers")
        tensor: Tensor = output
        return tensor

    def argument(self, place: int, name: str, default: Any = None) -> Any:
        """The step's argument at a place, or of that name."""
        args, kwargs = self.step.given(self.values)
        return args[place] if place < len(args) else kwargs.get(name, default)

    def carries(self, place: int, name: str) -> int | None:
        """Which of the inputs the argument at a place, or of that name, is; None where it is none."""
        args, kwargs = self.step.args, self.step.kwargs
        given = args[place] if place < len(args) else kwargs.get(name)
        if isinstance(given, Value) and given.index in self.inputs:
            return self.inputs.index(given.index)
        return None


class Rule(Protocol):
    """How relevance passes one kind of step."""

    def record(self, run: Run, inputs: Sequence[Tensor]) -> tuple[Tensor, Recording | Unsettled]:
        """Run the step on its tensor inputs, keeping what the pull needs.

        `run` maps the inputs to the step's output.
        """


def stabilised(z: Tensor) -> Tensor:
    """z moved away from zero by 1e-6 in its own direction, upwards at zero."""
    return torch.where(z < 0, z - STABILISER, z + STABILISER)


class Pass:
    """R_in = R: activations, batch norms, dropout, and the signal of a gate."""

    def record(self, run: Callable[..., Tensor], inputs: Sequence[Tensor]) -> tuple[Tensor, Recording]:
        """Run the step; nothing is kept."""
        return run(*inputs), self

    def reach(self, window: Window) -> Window | None:
        """The same window, since each cell reaches only itself."""
        return window

    def pull(self, relevance: Tensor, held: Window | None, wanted: Windows) -> Pulled:
        """The same relevance for the first input."""
        return [to_window(relevance, held, wanted[0]), *[None] * (len(wanted) - 1)]


class Copy(Pass):
    """A sum differentiated plainly: every summand gets all of the relevance."""

    def record(self, run: Callable[..., Tensor], inputs: Sequence[Tensor]) -> tuple[Tensor, Recording]:
        """Run the step.

        If a summand is stretched to the others' shape, plain gradients sum its relevance.
        """
        output = run(*inputs)
        if any(value.shape != output.shape for value in inputs):
            return Plain().record(run, inputs)
        return output, self

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
        output, leaves = graph_of(run, inputs)
        return output.detach(), _PlainRecording(output, leaves)


def graph_of(run: Callable[..., Tensor], inputs: Sequence[Tensor]) -> tuple[Tensor, list[Tensor]]:
    """The output of a step with its graph, and the leaves that stand for the inputs."""
    with torch.enable_grad():
        leaves = [value.detach().requires_grad_() for value in inputs]
        return run(*leaves), leaves


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
    """J^T R of each leaf for R (S, ...), from the graph of N photos' output (N, ...).

    The graph is kept for further calls.
    """
    if not output.requires_grad:
        return [None] * len(leaves)
    # Contiguous, since the gradient of torch's instance norm is wrong for channels that are neighbours.
    given = relevance.to(output.dtype).contiguous()
    if len(given) == len(output):
        pulled = torch.autograd.grad(output, leaves, given, retain_graph=True, allow_unused=True)
    else:
        starts = given.unflatten(0, (len(output), -1)).transpose(0, 1)
        batched = torch.autograd.grad(
            output, leaves, starts, retain_graph=True, allow_unused=True, is_grads_batched=True
        )
        pulled = tuple(None if r is None else r.transpose(0, 1).flatten(0, 1) for r in batched)
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
        (r,) = transposed(self.output, [self.leaf], times(relevance, self.ratio))
        assert r is not None
        r = times(r, self.leaf.detach()).to(relevance.dtype)
        return [r if wanted[0] is None else move(r, whole(r), wanted[0])]


class Epsilon:
    """A linear layer on the last axis: R_in = A * W^T (R / z), z = W A + b.

    W and b include the batch norm after it.
    """

    def __init__(self, module: nn.Linear, folded: nn.Module | None, precision: Precision) -> None:
        self.weights = Weights(module, folded)
        self.precision = precision

    def record(self, run: Callable[..., Tensor], inputs: Sequence[Tensor]) -> tuple[Tensor, Recording]:
        """Run the step; keep A and 1 / z."""
        output, weight = run(*inputs), self.weights
        z = output if weight.folded is None else functional.linear(inputs[0], weight.weight, weight.bias)
        kept = self.precision.relevance or output.dtype
        return output, LinearRecording(
            (inputs[0].to(kept),),
            ((1 / stabilised(z)).to(kept),),
            (weight.operand("weight", self.precision),),
            self.precision,
        )


@dataclass(frozen=True)
class LinearRecording:
    """R_in = sum over parts of A_part * W_part^T (R q_part) on the last axis."""

    parts: tuple[Tensor, ...]
    ratios: tuple[Tensor, ...]
    weights: tuple[Tensor, ...]
    precision: Precision

    def reach(self, window: Window) -> Window | None:
        """All of it, since the last axis may be the channels or an axis of the map."""
        return None

    def pull(self, relevance: Tensor, held: Window | None, wanted: Windows) -> Pulled:
        """Relevance of the input by the class's equation."""
        total: Tensor | None = None
        for part, ratio, weight in zip(self.parts, self.ratios, self.weights, strict=True):
            r = times(product(times(relevance, ratio), weight, torch.matmul, self.precision), part)
            total = r if total is None else total + r
        return [total]
