"""What the choice of a step's rule may depend on: the step, and its network."""

from __future__ import annotations

import operator
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from timm.layers.activations import Sigmoid
from torch import Tensor, nn
from zennit.types import BatchNorm, Linear

from pairx_engine.device.tuning import Layout
from pairx_engine.relevance.batch_norms import following_batch_norms
from pairx_engine.relevance.hooks import SQUEEZE_EXCITE
from pairx_engine.relevance.precision import Precision
from pairx_engine.relevance.trace import CHIP, Step, Trace, Value, activation_within

SUMS = (operator.add, torch.add, Tensor.add)
IDENTITIES = (nn.Identity, nn.Dropout, nn.Dropout2d)
_DROPPING = ("dropout", "drop_path", "stochastic_depth")
_NEVER_NEGATIVE = (nn.ReLU, nn.ReLU6, nn.Sigmoid, nn.Hardsigmoid, nn.Softplus)
_KEEPS_SIGN = (nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d, *IDENTITIES)


class Reading:
    """A traced network as rules see it.

    `ruled` are the module types with a rule other than their gradient. `layout` says how maps lie in memory
    on the way down (None: as the forward pass leaves them).
    """

    def __init__(
        self,
        trace: Trace,
        precision: Precision,
        layout: Layout | None = None,
        ruled: tuple[type[nn.Module], ...] = (),
    ) -> None:
        self.trace = trace
        self.precision = precision
        self.layout = layout
        self.ruled = ruled
        self.uses = Counter(step.module for step in trace.steps if step.module is not None)
        """How many steps each module runs as."""
        self.carrying = trace.depending_on({CHIP})
        """Values that carry relevance."""

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
    def operands(self) -> int:
        """How many of its arguments carry relevance; an argument given twice counts twice."""
        return sum(isinstance(a, Value) and a.index in self.reading.carrying for a in self.step.args)

    @property
    def carried(self) -> list[int]:
        """The values read that carry relevance, each once."""
        return [value for value in self.step.reads if value in self.reading.carrying]

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
