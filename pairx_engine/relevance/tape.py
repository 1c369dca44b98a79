"""Pulls of relevance through a recorded forward pass, down to earlier values."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from pairx_engine.relevance.flow import Flow, Recorded
from pairx_engine.relevance.gradient_tape import Ledger
from pairx_engine.relevance.precision import Precision, tensor_cores
from pairx_engine.relevance.rules.base import Pass
from pairx_engine.relevance.window import Window


@runtime_checkable
class Leaking(Protocol):
    """A recording that may keep relevance for itself."""

    def left(self, relevance: Tensor, held: Window | None) -> Tensor:
        """The relevance that stays at this step, per start (P,)."""


_Passed = tuple[Recorded, frozenset[int]]
"""A recorded step that relevance passes, and those of its inputs to which it goes on."""


@dataclass(frozen=True)
class Tape:
    """Recorded steps in the order of the forward pass, and the maps' extents by value."""

    recorded: tuple[Recorded, ...]
    extents: Mapping[int, Window]
    precision: Precision
    _paths: dict[tuple[int, frozenset[int]], tuple[_Passed, ...]] = field(
        init=False, repr=False, compare=False, default_factory=dict
    )

    def pull(
        self,
        source: int,
        relevance: Tensor,
        held: Window | None,
        wanted: Collection[int],
        ledger: Ledger | None = None,
    ) -> dict[int, Tensor]:
        """Relevance (P, ...) of the values `wanted`, from that of the value `source`.

        The relevance of `source` fills the window `held`; that of `wanted` is whole. With a `ledger`, what
        each step keeps for itself (P,) is written there under the step's name. What a short format leaves out
        at the edges of a receptive field (`Precision.negligible`) is in neither.
        """
        path = self._path(source, frozenset(wanted))
        flow = Flow(self.extents, frozenset(wanted))
        flow.start(source, relevance.to(self.precision.relevance or relevance.dtype), held)
        negligible = self._negligible(path, relevance, held, self.extents.get(source))
        with torch.inference_mode(False), torch.no_grad(), tensor_cores(self.precision):
            for item, reads in path:
                if item.step.index not in flow.at:
                    # Nothing came down: a step above has no gradient.
                    continue
                if negligible and len(reads) > 1:
                    flow.drop_light_edges(item, negligible)
                given, window, windows = flow.take(item)
                if ledger is not None and isinstance(item.recording, Leaking):
                    ledger[item.step.name] = item.recording.left(given, window)
                pulled = item.recording.pull(given, window, windows)
                for value, part in zip(item.inputs, pulled, strict=True):
                    if part is not None and value in reads:
                        flow.add(value, part, item)
        return {value: flow.relevance_of(value) for value in wanted if value in flow.at}

    def _negligible(
        self, path: Sequence[_Passed], relevance: Tensor, held: Window | None, extent: Window | None
    ) -> float:
        """Share of the relevance that may be left out at each place where branches meet.

        Zero where maps are pulled whole. It applies to one start alone, since what is left out must not
        depend on other starts. On other devices than a CPU, looking would cost more than it saves.
        """
        if held is None or held == extent or len(relevance) > 1 or relevance.device.type != "cpu":
            return 0.0
        return self.precision.negligible / max(1, sum(len(reads) > 1 for _, reads in path))

    def _path(self, source: int, wanted: frozenset[int]) -> tuple[_Passed, ...]:
        """Steps from the source down to the wanted values.

        With each step stand those of its inputs that lead on to a wanted value.
        """
        if (source, wanted) not in self._paths:
            recorded = self._without_passing({source, *wanted})
            leading = set(wanted)
            for item in recorded:
                if any(value in leading for value in item.inputs):
                    leading.add(item.step.index)
            reached, path = {source}, []
            for item in reversed(recorded):
                reads = frozenset(value for value in item.inputs if value in leading)
                if item.step.index in reached and reads:
                    path.append((item, reads))
                    reached |= reads
            self._paths[source, wanted] = tuple(path)
        return self._paths[source, wanted]

    def _without_passing(self, kept: set[int]) -> list[Recorded]:
        """The steps without those that hand relevance on as it is.

        Where a step is left out, its readers read its input instead.
        """
        names: dict[int, int] = {}
        steps = []
        for item in self.recorded:
            inputs = tuple(names.get(value, value) for value in item.inputs)
            index = item.step.index
            # A step may also stretch its input.
            same = self.extents.get(index) == self.extents.get(inputs[0])
            if type(item.recording) is Pass and same and index not in kept:
                names[index] = inputs[0]
            else:
                steps.append(replace(item, inputs=inputs))
        return steps
