"""Recorded passes and pulls as CUDA graphs: a thousand launches become one replay.

A graph is captured once per shape and replayed on other numbers in the same memory. So the terms of a pass
are those of the latest replay. A pull that comes after another pass has run must first replay its own pass.

A graph cannot stop to look at numbers. Where the rules ask a question, the graph holds a computation that is
right for either answer, if there is one; otherwise it assumes that the answer is no. Where that turns out to
be wrong, the pass is recorded without a graph.

Off by default (`Tuning.graphs`): no GPU has shown yet that it is faster.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable, Sequence
from typing import Any, Generic, Protocol, TypeVar

import torch
from torch import Tensor

from pairx_engine.relevance.fast import FastPath, PullAbove, PullBelow, Pulls
from pairx_engine.relevance.window import Window

T = TypeVar("T")


class Replayed(Protocol[T]):
    """Work that was captured; each replay leaves its outputs in the same memory."""

    outputs: T

    def replay(self, inputs: Sequence[Tensor]) -> None:
        """Run the work on other inputs of the same shapes."""


Capture = Callable[[Callable[[Sequence[Tensor]], T], Sequence[Tensor]], Replayed[T]]


class CudaGraph(Generic[T]):
    """Work on tensors, captured after one run that makes whatever is made on first use."""

    def __init__(self, work: Callable[[Sequence[Tensor]], T], inputs: Sequence[Tensor]) -> None:
        self._inputs = [given.clone() for given in inputs]
        aside, here = torch.cuda.Stream(), torch.cuda.current_stream()
        aside.wait_stream(here)
        with torch.cuda.stream(aside):
            work(self._inputs)
        here.wait_stream(aside)
        self._graph = torch.cuda.CUDAGraph()
        # Other threads may use the device meanwhile.
        with torch.cuda.graph(self._graph, capture_error_mode="thread_local"):
            self.outputs = work(self._inputs)

    def replay(self, inputs: Sequence[Tensor]) -> None:
        """Run the work on other inputs of the same shapes."""
        for mine, given in zip(self._inputs, inputs, strict=True):
            mine.copy_(given)
        self._graph.replay()


class _Recorded(Generic[T]):
    """One recorded pass under one shape: its graph, its pulls' graphs, and whose numbers it holds."""

    def __init__(self, capture: Capture[Any], record: Callable[..., T], inputs: Sequence[Tensor]) -> None:
        self._capture = capture
        self._record = record
        self._questions: list[Tensor] = []
        self._pulls: dict[Hashable, Replayed[Any]] = {}
        self._holds: object = None
        self.lock = threading.RLock()
        """Held while the graphs' memory holds numbers that others would overwrite."""
        self.graph: Replayed[T] = capture(self._as_if_no, inputs)

    def _as_if_no(self, inputs: Sequence[Tensor]) -> T:
        self._questions = []
        return self._record(*inputs, answers=self._no)

    def _no(self, questions: Tensor) -> list[bool]:
        self._questions.append(questions)
        return [False] * len(questions)

    def run(self, inputs: Sequence[Tensor]) -> bool:
        """Replay the pass; returns whether its numbers may be used. `inputs` identify its owner."""
        self.graph.replay(inputs)
        self._holds = inputs
        # One wait answers all questions.
        return not self._questions or not bool(torch.cat(self._questions).any())

    def pull(self, inputs: Sequence[Tensor], key: Hashable, pull: Callable[..., T], starts: Tensor) -> T:
        """Replay a pull of the owner's pass, captured at its first use of a key."""
        if self._holds is not inputs:
            self.run(inputs)
        if key not in self._pulls:
            self._pulls[key] = self._capture(lambda given: pull(given[0]), [starts])
        self._pulls[key].replay([starts])
        found: T = self._pulls[key].outputs
        return found


class GraphedPath:
    """A fast path whose passes are replayed, with the same interface.

    `capture` makes a graph of work on tensors.
    """

    def __init__(self, path: FastPath, capture: Capture[Any] = CudaGraph) -> None:
        self.path = path
        self._capture = capture
        self._passes: dict[Hashable, _Recorded[Any]] = {}
        self._lock = threading.Lock()
        """Held while a pass is captured, so that it is captured only once."""

    @property
    def stale(self) -> bool:
        """As of the path."""
        return self.path.stale

    def forward(self, chips: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """As of the path; the results are copies."""

        def work(chips: Tensor, answers: object) -> tuple[Tensor, dict[str, Tensor]]:
            return self.path.forward(chips)

        kept = self._pass("forward", work, [chips])
        with kept.lock:
            kept.run([chips])
            return _copied(kept.graph.outputs)

    def record(self, chips: Tensor) -> tuple[Tensor, dict[str, Tensor], Pulls]:
        """As of the path."""
        kept, inputs = self._pass("record", self.path.record, [chips]), [chips]
        with kept.lock:
            if not kept.run(inputs):
                return self.path.record(chips)
            embedding, features, pulls = kept.graph.outputs
            return (
                *_copied((embedding, features)),
                Pulls(_above(kept, inputs, pulls.above), _below(kept, inputs, pulls.below)),
            )

    def record_above(self, chips: Tensor, features: dict[str, Tensor]) -> PullAbove:
        """As of the path."""
        names, inputs = list(features), [chips, *features.values()]

        def work(chips: Tensor, *given: Tensor, answers: Any) -> PullAbove:
            return self.path.record_above(chips, dict(zip(names, given, strict=True)), answers)

        kept = self._pass("above", work, inputs)
        with kept.lock:
            if not kept.run(inputs):
                return self.path.record_above(chips, features)
        return _above(kept, inputs, kept.graph.outputs)

    def record_below(self, chips: Tensor, layer: str) -> tuple[Tensor, PullBelow]:
        """As of the path."""

        def work(chips: Tensor, answers: Any) -> tuple[Tensor, PullBelow]:
            return self.path.record_below(chips, layer, answers)

        kept, inputs = self._pass(("below", layer), work, [chips]), [chips]
        with kept.lock:
            if not kept.run(inputs):
                return self.path.record_below(chips, layer)
            features, pull = kept.graph.outputs
            return features.clone(), _below(kept, inputs, pull)

    def _pass(self, what: Hashable, record: Callable[..., Any], inputs: Sequence[Tensor]) -> _Recorded[Any]:
        key = what, *((given.shape, given.dtype) for given in inputs)
        with self._lock:
            if key not in self._passes:
                self._passes[key] = _Recorded(self._capture, record, inputs)
            return self._passes[key]


def _above(kept: _Recorded[Any], inputs: Sequence[Tensor], pull: PullAbove) -> PullAbove:
    def replayed(starts: Tensor) -> dict[str, Tensor]:
        with kept.lock:
            found: dict[str, Tensor] = _copied(kept.pull(inputs, ("above", starts.shape), pull, starts))
        return found

    return replayed


def _below(kept: _Recorded[Any], inputs: Sequence[Tensor], pull: PullBelow) -> PullBelow:
    def replayed(layer: str, starts: Tensor, held: Window | None) -> Tensor:
        key = layer, starts.shape, held
        with kept.lock:
            return kept.pull(inputs, key, lambda given: pull(layer, given, held), starts).clone()

    return replayed


def _copied(value: Any) -> Any:
    """Tensors in tuples and dictionaries, in memory of their own."""
    if isinstance(value, Tensor):
        return value.clone()
    if isinstance(value, dict):
        return {key: _copied(one) for key, one in value.items()}
    return tuple(_copied(one) for one in value)
