"""What the choice of a step's rule may depend on: the step, and its network."""

from __future__ import annotations

import operator
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from timm.layers.activations import Sigmoid
from torch import Tensor, nn
from zennit.types import Activation, BatchNorm, Linear

from pairx_engine.device.tuning import Layout
from pairx_engine.relevance.batch_norms import following_batch_norms
from pairx_engine.relevance.hooks import SQUEEZE_EXCITE
from pairx_engine.relevance.precision import Precision
from pairx_engine.relevance.presets import Gammas
from pairx_engine.relevance.trace import CHIP, ByShape, Step, Trace, Value, activation_within

_MEASURES = (getattr, Tensor.size, Tensor.dim, Tensor.numel)
"""Calls that measure a map's shape: they give whole numbers, which carry no relevance."""
FUSED_ATTENTION = "scaled_dot_product_attention"
MATRIX_PRODUCTS = ("matmul", "bmm")
ACTIVATIONS = {
    **dict.fromkeys(("gelu", "silu", "hardswish"), 0.5),
    **{"mish": 0.6, "elu": 1.0, "tanh": 1.0},
    **dict.fromkeys(("relu", "relu6", "leaky_relu"), 0.0),
}
"""Functions that bend each number by itself, and their secant's slope at zero.

It is zero where a function has no slope there, since what is zero carries nothing.
"""
SUMS = (operator.add, torch.add, Tensor.add)
IDENTITIES = (nn.Identity, nn.Dropout, nn.Dropout2d)
_DROPPING = ("dropout", "drop_path", "stochastic_depth")
_NEVER_NEGATIVE = (nn.ReLU, nn.ReLU6, nn.Sigmoid, nn.Hardsigmoid, nn.Softplus)
_KEEPS_SIGN = (nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d, *IDENTITIES)


class Reading:
    """A traced network as rules see it.

    `ruled` are the module types with a rule other than their gradient. `layout` says how maps lie in memory
    on the way down (None: as the forward pass leaves them). `holds` says which steps give constants, and
    `gammas` what a preset adds to linear layers by kind.
    """

    def __init__(
        self,
        trace: Trace,
        precision: Precision,
        layout: Layout | None = None,
        ruled: tuple[type[nn.Module], ...] = (),
        holds: Callable[[Place], bool] = lambda at: False,
        gammas: Gammas | None = None,
    ) -> None:
        self.trace = trace
        self.gammas = gammas or Gammas()
        self._holds = holds
        self.precision = precision
        self.layout = layout
        self.ruled = ruled
        self.uses = Counter(step.module for step in trace.steps if step.module is not None)
        """How many steps each module runs as."""
        self.carrying = trace.depending_on({CHIP}, self.stops)
        """Values that carry relevance."""

    def stops(self, step: Step) -> bool:
        """Whether no relevance passes a step: it measures a map's shape, or its output is held."""
        return step.call in _MEASURES or isinstance(step.call, ByShape) or self._holds(self.at(step))

    def at(self, step: Step) -> Place:
        """A step of this network with its surroundings."""
        return Place(step, self)

    @cached_property
    def followed(self) -> Mapping[nn.Module, nn.Module]:
        """Linear modules, each with the batch norm that comes next in the module tree."""
        return following_batch_norms(self.trace.shadow)

    @cached_property
    def read_alone(self) -> Mapping[nn.Module, nn.Module]:
        """Linear modules, each with the batch norm that is the only reader of their output."""
        readers = self.trace.readers()
        found: dict[nn.Module, nn.Module] = {}
        for step in self.trace.steps:
            by = readers.get(step.index, [])
            if not isinstance(step.module, Linear) or len(by) != 1 or step.index == self.trace.result:
                continue
            norm = by[0].module
            if isinstance(norm, BatchNorm) and getattr(norm, "running_var", None) is not None:
                found[step.module] = norm
        return found

    @cached_property
    def attending(self) -> set[int]:
        """Steps that weigh tokens by a softmax over products of tokens."""
        found: set[int] = set()
        weights: set[int] = set()
        for step in self.trace.steps:
            at = self.at(step)
            if at.is_softmax or (at.is_identity and weights.intersection(step.reads)):
                weights.add(step.index)
            if at.name == FUSED_ATTENTION or (
                at.name in MATRIX_PRODUCTS and weights.intersection(step.reads)
            ):
                found.add(step.index)
        return found

    @cached_property
    def beside_attention(self) -> set[int]:
        """Linear layers that make queries, keys or values, or read what attention gives.

        Nothing but rearranging, norms, sums and products lies between.
        """
        readers = self.trace.readers()
        steps = {step.index: step for step in self.trace.steps if step.index in self.carrying}

        def before(index: int) -> Iterable[int]:
            return steps[index].reads

        def behind(index: int) -> Iterable[int]:
            return (step.index for step in readers.get(index, ()))

        found: set[int] = set()
        for onward in (before, behind):
            open_ = list(self.attending)
            seen = set(open_)
            while open_:
                for index in set(onward(open_.pop())) & steps.keys() - seen:
                    seen.add(index)
                    at = self.at(steps[index])
                    if at.is_linear:
                        found.add(index)
                    elif not (at.is_layer or at.is_activation):
                        open_.append(index)
        return found

    @cached_property
    def nonnegative(self) -> set[int]:
        """Values that cannot be negative, whatever the chip."""
        known: set[int] = set()
        for step in self.trace.steps:
            module = step.module
            if module is not None:
                kept = type(module) in _KEEPS_SIGN or _gates_by_positive(module)
                never = type(activation_within(module)) in _NEVER_NEGATIVE
            else:
                kept, never = self.at(step).sums_two, False
            if never or (kept and set(step.reads) <= known):
                known.add(step.index)
        return known


@dataclass(frozen=True)
class Place:
    """A step in its network."""

    step: Step
    reading: Reading

    @property
    def module(self) -> Any:
        """The module behind the step, if there is one."""
        return self.step.module

    @property
    def name(self) -> str:
        """The name of the function or method behind the step; empty for a module."""
        return getattr(self.step.call, "__name__", "")

    @property
    def precision(self) -> Precision:
        """The precision of the pull."""
        return self.reading.precision

    @property
    def constant_names(self) -> set[str]:
        """Names of parameters, buffers and steps that its arguments without relevance are computed from."""
        trace = self.reading.trace
        constant = {value for value in self.step.reads if value not in self.reading.carrying}
        lead = {index for value in constant for index in trace.leading_to(value, set())}
        steps = {step.name for step in trace.steps if step.index in lead}
        return steps | {trace.names[index] for index in lead if index in trace.names}

    @property
    def operands(self) -> int:
        """How many of its arguments carry relevance; an argument given twice counts twice."""
        return sum(isinstance(a, Value) and a.index in self.reading.carrying for a in self.step.args)

    @property
    def carried(self) -> list[int]:
        """The values read that carry relevance, each once."""
        return [value for value in self.step.reads if value in self.reading.carrying]

    @property
    def is_softmax(self) -> bool:
        """Whether its output sums to one along an axis."""
        return self.name == "softmax" or isinstance(self.module, nn.Softmax)

    @property
    def is_linear(self) -> bool:
        """Whether it is a linear layer on the last axis, as a module or a function."""
        return isinstance(self.module, nn.Linear) or self.name == "linear"

    @property
    def is_layer(self) -> bool:
        """Whether it is a layer with weights that mixes channels."""
        return self.is_linear or isinstance(self.module, Linear)

    @property
    def is_activation(self) -> bool:
        """Whether it bends each number by itself."""
        return self.name in ACTIVATIONS or isinstance(self.module, Activation)

    @property
    def sums(self) -> bool:
        """Whether it adds its arguments."""
        return self.step.call in SUMS

    @property
    def sums_two(self) -> bool:
        """Whether it adds two values that both carry relevance."""
        return self.sums and not self.step.kwargs and len(self.carried) == 2

    @property
    def input_nonnegative(self) -> bool:
        """Whether the first value that it reads cannot be negative."""
        return self.step.reads[0] in self.reading.nonnegative

    @property
    def is_identity(self) -> bool:
        """Whether it hands its input on in evaluation mode: dropout of numbers or of whole branches."""
        if self.step.module is not None:
            return type(self.step.module) in IDENTITIES
        not_training = self.step.kwargs.get("training", (None, *self.step.args)[-1]) is False
        return self.name in _DROPPING and not_training

    @property
    def is_shared(self) -> bool:
        """Whether its module runs as several steps."""
        return self.reading.uses[self.module] > 1

    @property
    def holds_ruled(self) -> bool:
        """Whether something inside its module has a rule of its own.

        Then the whole module may not be differentiated plainly.
        """
        module = self.step.module
        return module is not None and any(isinstance(inner, self.reading.ruled) for inner in module.modules())


def _gates_by_positive(module: nn.Module) -> bool:
    gate = getattr(module, "gate", None) or getattr(module, "scale_activation", None)
    return isinstance(module, SQUEEZE_EXCITE) and type(gate) in (nn.Sigmoid, nn.Hardsigmoid, Sigmoid)
