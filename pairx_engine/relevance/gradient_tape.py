"""Pulls of modified gradients through a recorded forward pass, relevances at both ends.

Between the ends gradients G flow, and the relevance of an activation A is A * G
(`pairx_engine.relevance.rules.modified_gradients`). A start of relevance R at a value A becomes G = R / A;
where A is zero, so that its relevance would be, nothing starts.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from pairx_engine.relevance.precision import Precision, tensor_cores
from pairx_engine.relevance.rules.modified_gradients import Absorbing, GradientRecording, Gradients
from pairx_engine.relevance.rules.narrow import Gradient, Narrow, Narrowing, added, narrowed, whole_of
from pairx_engine.relevance.trace import Step
from pairx_engine.relevance.window import Window, move, whole

Ledger = dict[str, Tensor]


@dataclass(frozen=True)
class GradientStep:
    """A recorded step: the inputs that carry relevance, in the rule's order."""

    step: Step
    inputs: tuple[int, ...]
    recording: GradientRecording


@dataclass(frozen=True)
class GradientTape:
    """Recorded steps in the order of the forward pass, and the values where relevance goes in or out."""

    recorded: Sequence[GradientStep]
    values: Mapping[int, Tensor]
    precision: Precision
    _paths: dict[tuple[int, frozenset[int]], list[GradientStep]] = field(
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
        """Relevance (S, ...) of the values `wanted`, from that of the value `source`, (S, ...).

        S = N P: the P starts of the first of N photos first. The relevance of a map may fill the window
        `held` of it. With a `ledger`, what steps keep for what they add of their own (S,) is added up there
        by kind.
        """
        at_source = self.values[source]
        if held is not None:
            relevance = move(relevance, held, whole(at_source))
        photos = len(at_source)
        path = self._path(source, frozenset(wanted))
        with torch.inference_mode(False), torch.no_grad(), tensor_cores(self.precision):
            given = relevance.to(at_source.dtype).unflatten(0, (photos, -1)).transpose(0, 1)
            zero = at_source == 0
            start = torch.where(zero, 0, given / torch.where(zero, 1, at_source))
            gradients: dict[int, Gradient] = {source: start}
            if start.ndim > 3 and not start.is_cuda:
                # A cell's row: looking for it would make a GPU wait.
                gradients[source] = narrowed(start, axis=1)
            found: dict[int, Gradient] = {}
            for item in path:
                value = item.step.index
                if value not in gradients:
                    continue
                gradient = gradients.pop(value)
                if value in wanted:
                    found[value] = gradient
                if ledger is not None and isinstance(item.recording, Absorbing):
                    _note(ledger, item.recording, whole_of(gradient), photos)
                for read, part in zip(item.inputs, _pulled(item.recording, gradient), strict=True):
                    if part is not None:
                        gradients[read] = added(gradients[read], part) if read in gradients else part
            found.update({value: gradients[value] for value in wanted if value in gradients})
            return {
                value: (whole_of(gradient) * self.values[value]).transpose(0, 1).flatten(0, 1)
                for value, gradient in found.items()
            }

    def _path(self, source: int, wanted: frozenset[int]) -> list[GradientStep]:
        """Steps from the source down, the last first, as far as they lead to wanted values.

        All of their inputs are pulled to: what leads nowhere ends at the step that made it.
        """
        if (source, wanted) not in self._paths:
            leading = set(wanted)
            for item in self.recorded:
                if leading.intersection(item.inputs):
                    leading.add(item.step.index)
            reached = {source}
            path = []
            for item in reversed(self.recorded):
                if item.step.index in reached and leading.intersection(item.inputs):
                    path.append(item)
                    reached.update(item.inputs)
            self._paths[source, wanted] = path
        return self._paths[source, wanted]


def _pulled(recording: GradientRecording, gradient: Gradient) -> Gradients:
    if isinstance(gradient, Narrow):
        found = recording.pull_part(gradient) if isinstance(recording, Narrowing) else None
        if found is not None:
            return found
    return recording.pull(whole_of(gradient))


def _note(ledger: Ledger, recording: Absorbing, gradient: Tensor, photos: int) -> None:
    stays = recording.absorbed(gradient)
    by_start = stays.unflatten(1, (photos, -1)).sum(dim=2).transpose(0, 1).flatten()
    before = ledger.get(recording.absorbs)
    ledger[recording.absorbs] = by_start if before is None else before + by_start
