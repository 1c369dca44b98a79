"""The fast path: a network compiled into steps with rules, one forward pass per chip, many starts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor, nn

from pairx_engine.device.tuning import Layout
from pairx_engine.errors import EngineError
from pairx_engine.relevance.descriptors import as_tokens, entry_of, has_keys, keys_at, path_of
from pairx_engine.relevance.gradient_tape import GradientTape, Ledger
from pairx_engine.relevance.layout import laid_out
from pairx_engine.relevance.precision import Precision
from pairx_engine.relevance.presets import GENERAL, Preset, presets_by
from pairx_engine.relevance.reading import Reading
from pairx_engine.relevance.recorder import Recorder
from pairx_engine.relevance.rules.base import Answers
from pairx_engine.relevance.rules.rows import AnyRule, RuleSet
from pairx_engine.relevance.rules.rule_sets import RULE_SETS
from pairx_engine.relevance.suitable import attention_in, presets_for_attention
from pairx_engine.relevance.tape import Tape
from pairx_engine.relevance.trace import CHIP, Untraceable, trace
from pairx_engine.relevance.window import Window


class PullAbove(Protocol):
    """Relevance of the embedding, (S, D), to the channels of each layer (S, C, h, w).

    If several photos are recorded together, the first photo's starts come first, and all have equally many.
    """

    def __call__(self, starts: Tensor) -> dict[str, Tensor]:
        """Pull all starts at once."""


class PullBelow(Protocol):
    """Relevance of a layer, (S, C, h', w') in a window of its map, to the chips' pixels (S, 3, H, W).

    Of a layer that gives no map it is that of its whole output, and the window is None.
    """

    def __call__(self, layer: str, starts: Tensor, held: Window | None) -> Tensor:
        """Pull all starts at once."""


class PullThrough(Protocol):
    """Relevance of the embedding, (S, D), to the chips' pixels (S, 3, H, W)."""

    def __call__(self, starts: Tensor, ledger: Ledger | None = None) -> Tensor:
        """Pull all starts at once; what steps keep for themselves (S,) goes into the ledger."""


@dataclass(frozen=True)
class Pulls:
    """Both halves of one recorded forward pass, and the way through both.

    Holds the terms of every step: hundreds of megabytes for a large model.
    """

    above: PullAbove
    below: PullBelow
    through: PullThrough | None = None
    """None where passes are replayed."""


class FastPath:
    """Forward passes and relevances of one network at some layers, without touching the network.

    `forward` and `pull` say how maps lie in memory on the way up and down (None: as the forward pass leaves
    them). Raises `Untraceable` for a network, or a layer, that cannot be read into known steps, and
    `EngineError` where the preset has no rule for a step. `stale` notices later changes of the network.
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
        chosen = RULE_SETS.named(preset.rules)
        self.trace = trace(network, chosen.whole)
        self.precision = precision
        self.layout = forward
        self.layers = {name: self._value_of(path_of(name)) for name in layers}
        self.pulls_gradients = chosen.form == "gradient"
        reading = Reading(self.trace, precision, pull, chosen.ruled, chosen.holds, preset.gammas)
        rules = _rules(reading, chosen, preset.name)
        self._keys = {name: keys_at(reading, name) for name in layers if has_keys(name)}
        fixed = {CHIP, *self.layers.values()}
        self._recorder = Recorder(self.trace, rules, precision, fixed, reading.carrying, self.pulls_gradients)
        self._everything = reading.carrying
        self._above = self.trace.depending_on(set(self.layers.values()), reading.stops)
        unused = [
            name
            for name, value in self.layers.items()
            if self.trace.result not in self.trace.depending_on({value}, reading.stops)
        ]
        if unused:
            raise EngineError(f"the embedding does not depend on {', '.join(unused)}; choose other layers")
        self._entries = self._lowest()
        self._parts = list(network.modules())
        self._stamp = self._versions()

    @property
    def stale(self) -> bool:
        """Whether a parameter, buffer or module was changed, moved or replaced since this was made."""
        return self._stamp != self._versions()

    def forward(self, chip: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Embeddings (N, D) and outputs (N, ...) by layer of chips (N, 3, H, W).

        Beside them keys as tokens (N, T, C), by `entry_of` the layer that asks for them.
        """
        values = self._recorder.run(laid_out(chip, self.layout), self._wanted, self.trace.result)
        return values[self.trace.result], self._outputs(values)

    @property
    def _wanted(self) -> set[int]:
        return {*self.layers.values(), *self._keys.values()}

    def _outputs(self, values: Mapping[int, Tensor]) -> dict[str, Tensor]:
        keys = {entry_of(name): as_tokens(values[value]) for name, value in self._keys.items()}
        return {**{name: values[value] for name, value in self.layers.items()}, **keys}

    def record(self, chip: Tensor, answers: Answers | None = None) -> tuple[Tensor, dict[str, Tensor], Pulls]:
        """As `forward`, keeping the terms of every step.

        Relevance can then be pulled to the layers, and from them to the pixels. `answers` says what to assume
        where results of the device are not waited for.
        """
        values, tape = self._recorder.record(
            {CHIP: laid_out(chip, self.layout)}, self.trace.result, self._everything, self._wanted, answers
        )
        features = self._outputs(values)
        pulls = Pulls(
            self._above_pull(tape, values[self.trace.result]),
            self._below_pull(tape),
            lambda starts, ledger=None: tape.pull(self.trace.result, starts, None, {CHIP}, ledger)[CHIP],
        )
        return values[self.trace.result], features, pulls

    def record_above(
        self, chip: Tensor, features: dict[str, Tensor], answers: Answers | None = None
    ) -> PullAbove:
        """Record the chips' forward pass above their layers, whose features are known."""
        known = {CHIP: laid_out(chip, self.layout)} if self._entries is None else {}
        for name in self._entries or ():
            known[self.layers[name]] = self._laid_out(features[name])
        values, tape = self._recorder.record(known, self.trace.result, self._above, answers=answers)
        return self._above_pull(tape, values[self.trace.result])

    def record_below(
        self, chip: Tensor, layer: str, answers: Answers | None = None
    ) -> tuple[Tensor, PullBelow]:
        """Record the chips' forward pass up to a layer; also returns the layer's features (N, C, h, w)."""
        value = self.layers[layer]
        values, tape = self._recorder.record(
            {CHIP: laid_out(chip, self.layout)}, value, self._everything, answers=answers
        )
        return values[value], self._below_pull(tape)

    def _above_pull(self, tape: Tape | GradientTape, embedding: Tensor) -> PullAbove:
        def pull(starts: Tensor, ledger: Ledger | None = None) -> dict[str, Tensor]:
            if starts.shape[1:] != embedding.shape[1:]:
                raise EngineError(
                    f"starts have shape {tuple(starts.shape)}, embeddings {tuple(embedding.shape)}"
                )
            found = tape.pull(self.trace.result, starts, None, set(self.layers.values()), ledger)
            return {name: found[value] for name, value in self.layers.items()}

        return pull

    def _below_pull(self, tape: Tape | GradientTape) -> PullBelow:
        def pull(layer: str, starts: Tensor, held: Window | None, ledger: Ledger | None = None) -> Tensor:
            return tape.pull(self.layers[layer], self._laid_out(starts), held, {CHIP}, ledger)[CHIP]

        return pull

    def _laid_out(self, values: Tensor) -> Tensor:
        """Maps of convolutions as they are to lie in memory; outputs of transformers as they are."""
        return values if self.pulls_gradients else laid_out(values, self.layout)

    def _value_of(self, layer: str) -> int:
        values = self.trace.outputs.get(layer, ())
        if len(values) != 1:
            raise Untraceable(
                f"layer {layer} {'runs more than once' if values else 'lies inside a single step, or does not run'}"
            )
        return values[0]

    def _lowest(self) -> tuple[str, ...] | None:
        """The layers from which the part above can start.

        None if something passes around them, from the chip on.
        """
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
        # Read from the modules' own tables: a walk down from the network by name takes three times as long.
        stamp: list[int] = []
        for module in self._parts:
            stamp.extend(map(id, module._modules.values()))
            for held in (*module._parameters.values(), *module._buffers.values()):
                if held is not None:
                    stamp += (id(held), held.data_ptr(), 0 if held.is_inference() else held._version)
        return stamp


def _rules(reading: Reading, rules: RuleSet, preset: str) -> dict[int, AnyRule]:
    """Rules of all steps that relevance can pass."""
    found: dict[int, AnyRule] = {}
    if reading.attending and rules.form != "gradient":
        # Plain gradients through its softmax would pass as relevance.
        raise EngineError(
            f"the network has attention, for which preset {preset} has no rule; choose preset "
            f"{' or '.join(presets_for_attention())}"
        )
    for step in reading.trace.steps:
        if step.index not in reading.carrying:
            continue
        place = reading.at(step)
        rule = rules.rule_of(place)
        if rule is None:
            what = type(step.module).__name__ if step.module is not None else place.name
            if step.module is not None and attention_in(step.module):
                raise Untraceable(f"its step {step.name}, a {what}, hides what it does")
            raise EngineError(
                f"preset {preset} has no rule for {what} (step {step.name}); "
                f"choose {' or '.join(presets_by(GENERAL))}"
            )
        found[step.index] = rule
    return found
