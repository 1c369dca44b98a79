"""The forward pass of one or more chips with the terms of every rule."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from pairx_engine.relevance.flow import Recorded
from pairx_engine.relevance.folding import folded
from pairx_engine.relevance.gradient_tape import GradientStep, GradientTape
from pairx_engine.relevance.precision import FULL, Precision, tensor_cores
from pairx_engine.relevance.rules.base import Answers, Run, settled
from pairx_engine.relevance.rules.rows import AnyRule
from pairx_engine.relevance.tape import Tape
from pairx_engine.relevance.trace import CHIP, Step, Trace, no_grad_needed
from pairx_engine.relevance.window import whole


@dataclass
class Recorder:
    """Runs a trace's steps, recording those that relevance will be pulled through."""

    trace: Trace
    rules: Mapping[int, AnyRule]
    precision: Precision
    fixed: Collection[int]
    """Values where relevance may be handed in or out."""
    alive: Collection[int]
    """Values that carry relevance."""
    gradients: bool = False
    """Whether the rules pull gradients, which need the values where relevance is handed in or out."""
    _last_read: dict[int, int] = field(init=False)

    def __post_init__(self) -> None:
        self._last_read = {value: step.index for step in self.trace.steps for value in step.reads}

    def record(
        self,
        known: Mapping[int, Tensor],
        until: int,
        carrying: Collection[int],
        keep: Collection[int] = (),
        answers: Answers | None = None,
    ) -> tuple[dict[int, Tensor], Tape | GradientTape]:
        """Run from the known values to the value `until`; record the steps that read one in `carrying`.

        Also returns the values `keep` and `until`. `answers` says what to assume where results of the device
        are not waited for.
        """
        kept: dict[int, Tensor] = {}
        with torch.inference_mode(False):
            known = {i: v.clone() if v.is_inference() else v for i, v in known.items()}
        needed = self.trace.leading_to(until, set(known))
        values: dict[int, Any] = {**self.trace.constants, **known}
        recorded: list[tuple[Step, tuple[int, ...], Any]] = []
        extents = {index: whole(v) for index, v in known.items() if v.ndim == 4}
        with torch.inference_mode(False), torch.no_grad(), tensor_cores(FULL):
            for step in self.trace.steps:
                if step.index not in needed or step.index in known:
                    continue
                # All inputs, also those whose relevance is not wanted: a sum's shares depend on every
                # summand.
                inputs = tuple(i for i in step.reads if i in self.alive and not no_grad_needed(values[i]))
                if step.index in self.rules and any(i in carrying for i in inputs):
                    output, recording = self.rules[step.index].record(
                        Run(step, values, inputs), [values[i] for i in inputs]
                    )
                    recorded.append((step, inputs, recording))
                    if not (self.gradients or _on_gpu(output)):
                        # A CPU answers at once; a GPU would make us wait.
                        recorded[-1] = step, inputs, settled([recording])[0]  # type: ignore[list-item]
                else:
                    output = step.run(values)
                values[step.index] = output
                if step.index in keep or step.index == until or (self.gradients and step.index in self.fixed):
                    kept[step.index] = output
                if isinstance(output, Tensor) and output.ndim == 4:
                    extents[step.index] = whole(output)
                self._forget(step, values)
            if self.gradients:
                steps = [GradientStep(*item) for item in recorded]
                return kept, GradientTape(steps, {**known, **kept}, self.precision)
            recordings = settled([recording for *_, recording in recorded], answers)
            made = folded(
                {step.index: recording for (step, *_), recording in zip(recorded, recordings, strict=True)},
                {step.index: inputs for step, inputs, _ in recorded},
                {*keep, *known, until, *self.fixed},
            )
        finished = tuple(Recorded(step, inputs, made[step.index]) for step, inputs, _ in recorded)
        return kept, Tape(finished, extents, self.precision)

    def run(self, chip: Tensor, keep: Collection[int], until: int) -> dict[int, Tensor]:
        """Run from chips (N, 3, H, W) without recording; returns the values `keep` and `until`."""
        values: dict[int, Any] = {**self.trace.constants, CHIP: chip}
        kept: dict[int, Tensor] = {}
        with torch.no_grad(), tensor_cores(FULL):
            for step in self.trace.steps:
                values[step.index] = step.run(values)
                if step.index in keep or step.index == until:
                    kept[step.index] = values[step.index]
                self._forget(step, values)
        return kept

    def _forget(self, step: Step, values: dict[int, Any]) -> None:
        for value in step.reads:
            if self._last_read[value] == step.index:
                values.pop(value, None)


def _on_gpu(value: object) -> bool:
    return isinstance(value, Tensor) and value.is_cuda
