"""Relevance on its way down: which values hold some, and how far it has spread over their maps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from pairx_engine.device.tuning import WORTH_LOOKING
from pairx_engine.relevance.rules.base import Recording, to_window
from pairx_engine.relevance.rules.convolution import ConvRecording
from pairx_engine.relevance.trace import Step
from pairx_engine.relevance.window import (
    Window,
    cut,
    fitted,
    move,
    without_light_edges,
)


@dataclass(frozen=True)
class Recorded:
    """A recorded step: the inputs that carry relevance, in the rule's order."""

    step: Step
    inputs: tuple[int, ...]
    recording: Recording


@dataclass
class Flow:
    """The relevances that are on their way, by value, all from one start or group of starts.

    A map's span is all that relevance can have reached of it, the cells beyond its edges included. Its
    window, `fitted` to the span, is what tensors fill. Wanted maps are taken whole.
    """

    extents: Mapping[int, Window]
    wanted: frozenset[int]
    at: dict[int, tuple[Tensor, Window | None]] = field(default_factory=dict)
    """Relevance by value, and the window that it fills.

    The window is the one at the relevance's arrival, until relevance is added to it or taken.
    """
    spans: dict[int, Window] = field(default_factory=dict)

    def start(self, source: int, relevance: Tensor, held: Window | None) -> None:
        """Begin with the relevance of one value, all of it or that in the window `held`."""
        if source in self.extents:
            self._widen(source, held)
        self.at[source] = relevance, self.extents.get(source) if held is None else held

    def window(self, value: int) -> Window | None:
        """The part of a map that its relevance fills; None for a value that is not a map."""
        return fitted(self.spans[value], self.extents[value]) if value in self.spans else None

    def relevance_of(self, value: int) -> Tensor:
        """A value's relevance in all of its window."""
        relevance, filled = self.at[value]
        return to_window(relevance, filled, self.window(value))

    def drop_light_edges(self, item: Recorded, negligible: float) -> None:
        """Cut edges that hold a negligible share from the map that a step gives.

        Only if all relevance is in that map.
        """
        value = item.step.index
        held = self.window(value)
        if (
            held is None
            or len(self.at) > 1
            or value in self.wanted
            or held.size[0] * held.size[1] < WORTH_LOOKING
        ):
            return
        if item.recording.reach(held) is None:
            # The step reads whole maps.
            return
        relevance = self.relevance_of(value)
        mass = relevance[0].abs().sum(dim=0, dtype=torch.float32).numpy()
        kept = without_light_edges(mass, held, negligible)
        self.at[value] = move(relevance, held, kept), kept
        if kept != held:
            self.spans[value] = kept

    def take(self, item: Recorded) -> tuple[Tensor, Window | None, list[Window | None]]:
        """Relevance of a step's output, to be pulled down; its window, and those of the inputs."""
        value = item.step.index
        span = self.spans.get(value)
        reach = None if span is None else item.recording.reach(span)
        if reach is None and value in self.extents:
            self._widen(value, None)
        given, window = self.relevance_of(value), self.window(value)
        if value not in self.wanted:
            del self.at[value]
        for read in item.inputs:
            if read in self.extents:
                self._widen(read, reach)
        return given, window, [self.window(read) for read in item.inputs]

    def add(self, value: int, part: Tensor, item: Recorded) -> None:
        """Add what a step pulled to one of its inputs, in that input's window."""
        window = self.window(value)
        if value in self.at:
            before, filled = self.at[value]
            # In place only in what the step itself made: a sum hands the same tensor to both of its summands.
            own = isinstance(item.recording, ConvRecording)
            if own and filled is not None and window is not None and filled.within(window) == filled:
                cut(part, filled.seen_from(window)).add_(before)
            else:
                part = to_window(before, filled, window) + part
        self.at[value] = part, window

    def _widen(self, value: int, reach: Window | None) -> None:
        """Extend a map's span by what relevance reaches; None: all of the map."""
        span = self.extents[value] if reach is None or value in self.wanted else reach
        before = self.spans.get(value)
        self.spans[value] = span if before is None else before.union(span)
