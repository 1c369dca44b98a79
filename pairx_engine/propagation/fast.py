"""The fast path: a network compiled into steps with rules, one forward per chip, many starts."""

from __future__ import annotations

import operator
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from timm.layers import Conv2dSame
from timm.layers.activations import Sigmoid
from torch import Tensor, nn
from zennit.types import Activation, AvgPool, BatchNorm, Linear

from pairx_engine.errors import EngineError
from pairx_engine.lrp import SQUEEZE_EXCITE, Preset, following_batch_norms
from pairx_engine.models.miewid import GeneralisedMeanPool
from pairx_engine.propagation import conserving
from pairx_engine.propagation.convolution import ZPlus
from pairx_engine.propagation.layout import Layout, laid_out
from pairx_engine.propagation.precision import Precision
from pairx_engine.propagation.rules import Answers, Copy, Epsilon, Norm, Pass, Plain, Rule
from pairx_engine.propagation.tape import Ledger, Recorder, Tape
from pairx_engine.propagation.trace import (
    CHIP,
    Step,
    Trace,
    Untraceable,
    Value,
    activation_within,
    runs_without_rules,
    trace,
)
from pairx_engine.propagation.window import Window

_MEASURES = (getattr, Tensor.size, Tensor.dim, Tensor.numel)
"""What tells a map's shape: whole numbers, which carry no relevance."""
_SEVERAL = ("chunk", "split", "split_with_sizes", "tensor_split", "unbind")
_SUMS = (operator.add, torch.add, Tensor.add)
_MEANS = (torch.mean, Tensor.mean)
_NEVER_NEGATIVE = (nn.ReLU, nn.ReLU6, nn.Sigmoid, nn.Hardsigmoid, nn.Softplus)
_DROPPING = ("dropout", "drop_path", "stochastic_depth")
_IDENTITIES = (nn.Identity, nn.Dropout, nn.Dropout2d)
_KEEPS_SIGN = (nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d, *_IDENTITIES)


class PullAbove(Protocol):
    """Relevance of the embedding, (S, D), to the channels of each layer (S, C, h, w).

    Of several photos recorded together the first's starts come first, and all have as many.
    """

    def __call__(self, starts: Tensor) -> dict[str, Tensor]:
        """Pull all starts at once."""


class PullBelow(Protocol):
    """Relevance of a layer, (S, C, h', w') in a window of its map, to the chips' pixels (S, 3, H, W)."""

    def __call__(self, layer: str, starts: Tensor, held: Window) -> Tensor:
        """Pull all starts at once."""


@dataclass(frozen=True)
class Pulls:
    """Both halves of one recorded forward pass. Holds the terms of every step: hundreds of megabytes for a large model."""

    above: PullAbove
    below: PullBelow


class FastPath:
    """Forward passes and relevances of one network at some layers, without touching the network.

    `forward` and `pull` say how maps lie in memory on the way up and down (None: as the forward pass leaves them).
    Raises `Untraceable` for a network, or a layer, that cannot be read into known steps, and `EngineError` where the
    preset has no rule for a step. What is changed in the network afterwards is noticed by `stale`.
    """

    def __init__(
        self,
        network: nn.Module,
        layers: Sequence[str],
        preset: Preset,
        precision: Precision,
        forward: Layout = "channels_last",
        pull: Layout | None = None,
    ) -> None:
        self.trace = trace(network)
        self.precision = precision
        self.layout = forward
        self.layers = {name: self._value_of(name) for name in layers}
        rules = _Rules(self.trace, preset, precision, pull).all()
        self._recorder = Recorder(self.trace, rules, precision, {CHIP, *self.layers.values()})
        self._above = self.trace.depending_on(set(self.layers.values()))
        unused = [n for n, v in self.layers.items() if self.trace.result not in self.trace.depending_on({v})]
        if unused:
            raise EngineError(f"the embedding does not depend on {', '.join(unused)}; choose other layers")
        self._entries = self._lowest()
        self._parts = list(network.modules())
        self._stamp = self._versions()

    @property
    def stale(self) -> bool:
        """Whether a parameter or buffer was changed or moved since, or any of them or a module replaced."""
        return self._stamp != self._versions()

    def forward(self, chip: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Embeddings (N, D) and features (N, C, h, w) by layer of chips (N, 3, H, W)."""
        wanted = set(self.layers.values())
        values = self._recorder.run(laid_out(chip, self.layout), wanted, self.trace.result)
        return values[self.trace.result], {name: values[value] for name, value in self.layers.items()}

    def record(self, chip: Tensor, answers: Answers | None = None) -> tuple[Tensor, dict[str, Tensor], Pulls]:
        """As `forward`, keeping the terms of every step: relevance can be pulled to the layers and from them to the pixels.

        `answers` says what to assume where numbers are not to be waited for.
        """
        everything = self.trace.depending_on({CHIP})
        wanted = set(self.layers.values())
        values, tape = self._recorder.record(
            {CHIP: laid_out(chip, self.layout)}, self.trace.result, everything, wanted, answers
        )
        features = {name: values[value] for name, value in self.layers.items()}
        pulls = Pulls(self._above_pull(tape, values[self.trace.result]), self._below_pull(tape))
        return values[self.trace.result], features, pulls

    def record_above(
        self, chip: Tensor, features: dict[str, Tensor], answers: Answers | None = None
    ) -> PullAbove:
        """Record the chips' forward pass above their layers, whose features are known."""
        known = {CHIP: laid_out(chip, self.layout)} if self._entries is None else {}
        for name in self._entries or ():
            known[self.layers[name]] = laid_out(features[name], self.layout)
        values, tape = self._recorder.record(known, self.trace.result, self._above, answers=answers)
        return self._above_pull(tape, values[self.trace.result])

    def record_below(
        self, chip: Tensor, layer: str, answers: Answers | None = None
    ) -> tuple[Tensor, PullBelow]:
        """Record the chips' forward pass up to a layer; also returns the layer's features (N, C, h, w)."""
        value = self.layers[layer]
        everything = self.trace.depending_on({CHIP})
        values, tape = self._recorder.record(
            {CHIP: laid_out(chip, self.layout)}, value, everything, answers=answers
        )
        return values[value], self._below_pull(tape)

    def _above_pull(self, tape: Tape, embedding: Tensor) -> PullAbove:
        def pull(starts: Tensor, ledger: Ledger | None = None) -> dict[str, Tensor]:
            if starts.shape[1:] != embedding.shape[1:]:
                raise EngineError(
                    f"starts have shape {tuple(starts.shape)}, embeddings {tuple(embedding.shape)}"
                )
            found = tape.pull(self.trace.result, starts, None, set(self.layers.values()), ledger)
            return {name: found[value] for name, value in self.layers.items()}

        return pull

    def _below_pull(self, tape: Tape) -> PullBelow:
        def pull(layer: str, starts: Tensor, held: Window, ledger: Ledger | None = None) -> Tensor:
            return tape.pull(self.layers[layer], laid_out(starts, self.layout), held, {CHIP}, ledger)[CHIP]

        return pull

    def _value_of(self, layer: str) -> int:
        values = self.trace.outputs.get(layer, ())
        if len(values) != 1:
            raise Untraceable(
                f"layer {layer} {'runs more than once' if values else 'lies inside a single step, or does not run'}"
            )
        return values[0]

    def _lowest(self) -> tuple[str, ...] | None:
        """The layers that the part above can start from; None if something passes around them, from the chip on."""
        values = self.layers
        lowest = tuple(
            name
            for name, value in values.items()
            if not any(
                value in self.trace.depending_on({other}) for other in values.values() if other != value
            )
        )
        known = {values[name] for name in lowest}
        return None if CHIP in self.trace.leading_to(self.trace.result, known) else lowest

    def _versions(self) -> list[int]:
        # Read from the modules' own tables: walking down from the network by name takes three times as long.
        stamp: list[int] = []
        for module in self._parts:
            stamp.extend(map(id, module._modules.values()))
            for held in (*module._parameters.values(), *module._buffers.values()):
                if held is not None:
                    stamp += (id(held), held.data_ptr(), 0 if held.is_inference() else held._version)
        return stamp


class _Rules:
    """Chooses every step's rule under a preset."""

    def __init__(self, trace: Trace, preset: Preset, precision: Precision, layout: Layout | None) -> None:
        self.trace = trace
        self.precision = precision
        self.layout = layout
        self.conserving = preset.conserving
        self.readers = trace.readers()
        self.uses = Counter(step.module for step in trace.steps if step.module is not None)
        self.carrying = trace.depending_on({CHIP})
        self.folds = self._by_data_flow() if self.conserving else following_batch_norms(trace.shadow)
        self.nonnegative = self._never_negative()

    def all(self) -> dict[int, Rule]:
        """Rules of all steps that relevance can pass."""
        return {
            step.index: self.of(step)
            for step in self.trace.steps
            if step.index in self.carrying and step.call not in _MEASURES
        }

    def of(self, step: Step) -> Rule:
        """One step's rule."""
        module = step.module
        name = getattr(step.call, "__name__", "")
        if isinstance(module, nn.MultiheadAttention) or (module is None and name in _SEVERAL):
            raise Untraceable(f"its step {step.name} gives several tensors")
        if isinstance(module, (*SQUEEZE_EXCITE, Activation, BatchNorm)) or _is_identity(step):
            return Pass()
        if isinstance(module, (Linear, AvgPool)) and self.uses[module] > 1:
            raise Untraceable(f"its step {step.name} is one of several that share a layer")
        if isinstance(module, Linear):
            return self._linear(step, module)
        if self.conserving:
            return self._conserving(step)
        if isinstance(module, AvgPool):
            return Norm()
        if module is not None and not runs_without_rules(module):
            raise Untraceable(
                f"its step {step.name}, a {type(module).__name__}, holds layers used in unknown ways"
            )
        return Copy() if self._sums_two(step) else Plain()

    def _linear(self, step: Step, module: Any) -> Rule:
        folded = self.folds.get(module)
        if _is_known_convolution(module):
            make = conserving.ConservingConv if self.conserving else ZPlus
            return make(module, folded, step.reads[0] in self.nonnegative, self.precision, self.layout)
        if type(module) is nn.Linear:
            make_linear = conserving.ConservingLinear if self.conserving else Epsilon
            return make_linear(module, folded, self.precision)
        raise Untraceable(f"its step {step.name} is a {type(module).__name__}")

    def _conserving(self, step: Step) -> Rule:
        module, name = step.module, getattr(step.call, "__name__", "")
        operands = sum(isinstance(a, Value) and a.index in self.carrying for a in step.args)
        if isinstance(module, AvgPool) or step.call in _MEANS or name in conserving.POOLING:
            return conserving.SharedPool()
        if isinstance(module, GeneralisedMeanPool):
            return conserving.SharedGeM(module)
        if self._sums_two(step):
            return conserving.Shared()
        if step.call in _SUMS and len(set(step.reads) & self.carrying) == 1:
            return Pass()
        rule = conserving.conserving_rule(name, module, operands)
        if rule is None:
            what = type(module).__name__ if module else name
            raise EngineError(
                f"preset conserving has no rule for {what} (step {step.name}); choose published or paper"
            )
        return rule

    def _sums_two(self, step: Step) -> bool:
        carrying = [value for value in step.reads if value in self.carrying]
        return step.call in _SUMS and not step.kwargs and len(carrying) == 2

    def _by_data_flow(self) -> dict[nn.Module, nn.Module]:
        """Linear modules to the batch norm that alone reads their output."""
        folds: dict[nn.Module, nn.Module] = {}
        for step in self.trace.steps:
            readers = self.readers.get(step.index, [])
            if not isinstance(step.module, Linear) or len(readers) != 1 or step.index == self.trace.result:
                continue
            norm = readers[0].module
            if isinstance(norm, BatchNorm) and getattr(norm, "running_var", None) is not None:
                folds[step.module] = norm
        return folds

    def _never_negative(self) -> set[int]:
        """Values that cannot be negative, whatever the chip."""
        known: set[int] = set()
        for step in self.trace.steps:
            module = step.module
            if module is not None:
                kept = type(module) in _KEEPS_SIGN or _gates_by_positive(module)
                never = type(activation_within(module)) in _NEVER_NEGATIVE
            else:
                kept, never = self._sums_two(step), False
            if never or (kept and set(step.reads) <= known):
                known.add(step.index)
        return known


def _is_identity(step: Step) -> bool:
    """Whether a step hands its input on in evaluation mode: dropout of numbers or of whole branches."""
    if step.module is not None:
        return type(step.module) in _IDENTITIES
    not_training = step.kwargs.get("training", (None, *step.args)[-1]) is False
    return getattr(step.call, "__name__", "") in _DROPPING and not_training


def _is_known_convolution(module: Any) -> bool:
    """Whether a module convolves exactly as its type says; subclasses may do anything to their weights."""
    return (
        type(module) in (nn.Conv2d, Conv2dSame)
        and module.padding_mode == "zeros"
        and not isinstance(module.padding, str)
    )


def _gates_by_positive(module: nn.Module) -> bool:
    gate = getattr(module, "gate", None) or getattr(module, "scale_activation", None)
    return isinstance(module, SQUEEZE_EXCITE) and type(gate) in (nn.Sigmoid, nn.Hardsigmoid, Sigmoid)
