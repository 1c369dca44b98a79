"""One chip's forward pass with the terms of every rule on the way, and relevance pulled through it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import torch
from torch import Tensor

from pairx_engine.propagation.folding import folded
from pairx_engine.propagation.precision import FULL, Precision, tensor_cores
from pairx_engine.propagation.rules import Recording, Rule, to_window
from pairx_engine.propagation.trace import CHIP, Step, Trace, Untraceable, no_grad_needed
from pairx_engine.propagation.window import Window, fitted, whole

Ledger = dict[str, Tensor]


class Leaking(Protocol):
    """A recording that may keep relevance for itself."""

    def left(self, relevance: Tensor, held: Window | None) -> Tensor:
        """What stays at this step, per start (P,)."""


@dataclass(frozen=True)
class _Recorded:
    """A recorded step: the inputs that carry relevance, in the rule's order."""

    step: Step
    inputs: tuple[int, ...]
    recording: Recording


@dataclass(frozen=True)
class Tape:
    """Recorded steps in the order of the forward pass, and the maps' extents by value."""

    recorded: tuple[_Recorded, ...]
    extents: Mapping[int, Window]
    precision: Precision

    def pull(
        self,
        source: int,
        relevance: Tensor,
        held: Window | None,
        wanted: Collection[int],
        ledger: Ledger | None = None,
    ) -> dict[int, Tensor]:
        """Relevance (P, ...) of the values `wanted`, whole, from that of the value `source` in the window `held`.

        With a `ledger`, what each step keeps for itself (P,) is written there under the step's name.
        """
        path = self._path(source, set(wanted))
        windows = self._windows(source, held, path, set(wanted))
        format_ = self.precision.relevance or relevance.dtype
        at: dict[int, Tensor] = {source: to_window(relevance.to(format_), held, windows.get(source))}
        with torch.inference_mode(False), torch.no_grad(), tensor_cores(self.precision):
            for item, reads in reversed(path):
                index = item.step.index
                given = at[index] if index in wanted else at.pop(index)
                leaking: Any = item.recording
                if ledger is not None and hasattr(leaking, "left"):
                    ledger[item.step.name] = leaking.left(given, windows.get(index))
                pulled = item.recording.pull(given, windows.get(index), [windows.get(i) for i in item.inputs])
                for value, part in zip(item.inputs, pulled, strict=True):
                    if part is not None and value in reads:
                        # Never in place: a sum hands the same tensor to both of its summands.
                        at[value] = part if value not in at else at[value] + part
        return {value: at[value] for value in wanted if value in at}

    def _path(self, source: int, wanted: set[int]) -> list[tuple[_Recorded, set[int]]]:
        """Steps between the wanted values and the source, each with those of its inputs that lead on to a wanted one."""
        leading = set(wanted)
        for item in self.recorded:
            if any(value in leading for value in item.inputs):
                leading.add(item.step.index)
        reached, path = {source}, []
        for item in reversed(self.recorded):
            reads = {value for value in item.inputs if value in leading}
            if item.step.index in reached and reads:
                path.append((item, reads))
                reached |= reads
        return path[::-1]

    def _windows(
        self, source: int, held: Window | None, path: Sequence[tuple[_Recorded, set[int]]], wanted: set[int]
    ) -> dict[int, Window]:
        """A part of each map that holds all that relevance from the source can reach; wanted maps are taken whole."""
        spans: dict[int, Window] = {} if held is None else {source: held}
        for item, _ in reversed(path):
            index = item.step.index
            if index in self.extents and (index in wanted or index not in spans):
                spans[index] = self.extents[index]
            for value in item.inputs:
                if value not in self.extents:
                    continue
                reach = item.recording.reach(spans[index]) if index in spans else None
                if reach is None and index in spans:
                    spans[index] = self.extents[index]
                new = self.extents[value] if reach is None else reach
                spans[value] = spans[value].union(new) if value in spans else new
        whole_ones = {value: self.extents[value] for value in wanted & self.extents.keys()}
        return {value: fitted(span, self.extents[value]) for value, span in spans.items()} | whole_ones


@dataclass
class Recorder:
    """Runs a trace's steps, recording those that relevance will be pulled through."""

    trace: Trace
    rules: Mapping[int, Rule]
    precision: Precision
    fixed: Collection[int]
    """Values where relevance may be handed in or out."""
    _last_read: dict[int, int] = field(init=False)
    _alive: set[int] = field(init=False)

    def __post_init__(self) -> None:
        self._alive = self.trace.depending_on({CHIP})
        self._last_read = {value: step.index for step in self.trace.steps for value in step.reads}

    def record(
        self,
        known: Mapping[int, Tensor],
        until: int,
        carrying: Collection[int],
        keep: Collection[int] = (),
    ) -> tuple[dict[int, Tensor], Tape]:
        """Run from the known values to the value `until`; steps that read a value in `carrying` are recorded.

        Also returns the values `keep` and `until`.
        """
        kept: dict[int, Tensor] = {}
        with torch.inference_mode(False):
            known = {i: v.clone() if v.is_inference() else v for i, v in known.items()}
        needed = self.trace.leading_to(until, set(known))
        values: dict[int, Any] = {**self.trace.constants, **known}
        recorded: list[_Recorded] = []
        extents = {index: whole(v) for index, v in known.items() if v.ndim == 4}
        with torch.inference_mode(False), torch.no_grad(), tensor_cores(FULL):
            for step in self.trace.steps:
                if step.index not in needed or step.index in known:
                    continue
                # All inputs, also those that relevance is not wanted of: a sum's shares depend on every summand.
                inputs = tuple(i for i in step.reads if i in self._alive and not no_grad_needed(values[i]))
                if step.index in self.rules and any(i in carrying for i in inputs):
                    output, recording = self.rules[step.index].record(
                        _runner(step, values, inputs), [values[i] for i in inputs]
                    )
                    recorded.append(_Recorded(step, inputs, recording))
                else:
                    output = step.run(values)
                values[step.index] = output
                if step.index in keep or step.index == until:
                    kept[step.index] = output
                if isinstance(output, Tensor) and output.ndim == 4:
                    extents[step.index] = whole(output)
                self._forget(step, values)
        made = folded(
            {item.step.index: item.recording for item in recorded},
            {item.step.index: item.inputs for item in recorded},
            {*keep, *known, until, *self.fixed},
        )
        finished = tuple(replace(item, recording=made[item.step.index]) for item in recorded)
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


def _runner(step: Step, values: Mapping[int, Any], inputs: tuple[int, ...]) -> Callable[..., Tensor]:
    def run(*given: Tensor) -> Tensor:
        output = step.run({**values, **dict(zip(inputs, given, strict=True))})
        if no_grad_needed(output):
            raise Untraceable(f"its step {step.name} gives no tensor of floating-point numbers")
        tensor: Tensor = output
        return tensor

    return run
