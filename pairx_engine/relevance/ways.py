"""Which path explains a network at some layers: the fast one, or the general one where it must be."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Hashable, Sequence
from typing import Literal, TypeVar

from torch import Tensor, nn

from pairx_engine.device.tuning import Tuning
from pairx_engine.errors import EngineError
from pairx_engine.models.cells import CellGrid
from pairx_engine.relevance.descriptors import has_keys, path_of
from pairx_engine.relevance.fast import FastPath
from pairx_engine.relevance.general import GeneralPath
from pairx_engine.relevance.graphs import GraphedPath
from pairx_engine.relevance.precision import Precision
from pairx_engine.relevance.presets import GENERAL, Preset, presets_by
from pairx_engine.relevance.rules.rule_sets import RULE_SETS
from pairx_engine.relevance.seen import cells_of
from pairx_engine.relevance.suitable import attention_in
from pairx_engine.relevance.trace import Untraceable

Result = TypeVar("Result")
PathChoice = Literal["auto", "fast", "general"]
Way = FastPath | GraphedPath | GeneralPath


def find_layer(network: nn.Module, name: str) -> nn.Module:
    """The submodule at a dotted path such as ``backbone.blocks.3``; raises `EngineError` with near names.

    What a layer's name says of its descriptors is left out.
    """
    known = {path: module for path, module in network.named_modules() if path}
    name = path_of(name)
    if name in known:
        return known[name]
    near = difflib.get_close_matches(name, known, n=5, cutoff=0.5) or [n for n, _ in network.named_children()]
    raise EngineError(f"the network has no layer {name!r}; near names: {', '.join(near)}")


class Ways:
    """The path that explains a network, read again where the network was changed since.

    Raises `EngineError` for layers that the network does not have, and where preset, precision or `choice`
    ask for what the network's path does not offer. `notice` says why the general path explains it, unless
    that was asked for.
    """

    def __init__(
        self,
        network: nn.Module,
        layers: Sequence[str],
        preset: Preset,
        precision: Precision,
        tuning: Tuning,
        choice: PathChoice,
    ) -> None:
        for name in layers:
            find_layer(network, name)
        self.network, self.layers, self.preset = network, tuple(layers), preset
        self.notice: str | None = None
        self.reads_tokens = RULE_SETS.named(preset.rules).form == "gradient"
        """Whether the rules serve layers whose cells do not lie in a map."""
        self._precision, self._tuning, self._choice = precision, tuning, choice
        self._grids: dict[Hashable, CellGrid] = {}
        self._way = self._general("asked for") if choice == "general" else self._fast()

    @property
    def path(self) -> Literal["fast", "general"]:
        """Which path it is."""
        return "general" if isinstance(self._way, GeneralPath) else "fast"

    def recorded(self, record: Callable[[Way], Result]) -> Result:
        """What `record` makes of the path; of the general one where a step turns out to be unreadable."""
        if self._way.stale:
            self._way = self._fast()
        try:
            return record(self._way)
        except Untraceable as reason:
            # Some steps show only when they run that they cannot be recorded.
            self._way = self._general(str(reason))
            return record(self._way)

    def cells(self, layer: str, output: Tensor, chip: Tensor) -> CellGrid:
        """Where a layer's output (N, ...) has its cells; worked out once for chips (3, H, W) of one size."""
        key = layer, tuple(chip.shape), tuple(output.shape[1:]) if isinstance(output, Tensor) else ()
        if key not in self._grids:
            self._grids[key] = cells_of(self.network, layer, output, chip, self.reads_tokens)
        return self._grids[key]

    def _fast(self) -> Way:
        tuning = self._tuning
        try:
            path = FastPath(
                self.network, self.layers, self.preset, self._precision, tuning.forward, tuning.pull
            )
        except Untraceable as reason:
            return self._general(str(reason))
        return GraphedPath(path) if tuning.graphs else path

    def _general(self, reason: str) -> GeneralPath:
        if self._choice == "fast":
            raise EngineError(f"the fast path cannot explain this network: {reason}")
        if keys := [name for name in self.layers if has_keys(name)]:
            raise EngineError(
                f"keys of {', '.join(keys)} need the fast path, which cannot read this network: {reason}"
            )
        if attention := attention_in(self.network):
            raise EngineError(
                f"the network has attention ({attention}), which only the fast path explains, and that cannot "
                f"read it ({reason}); see `pairx explain --methods` for explanations of other kinds"
            )
        for what, value, offered in (
            ("preset", self.preset.name, presets_by(GENERAL)),
            ("precision", self._precision.name, ("float32", "tf32")),
        ):
            if value not in offered:
                raise EngineError(
                    f"{what} {value} needs the fast path, which cannot explain this network ({reason}); "
                    f"choose {' or '.join(offered)}"
                )
        if self._choice == "auto":
            self.notice = f"explained by the general path, several times slower: {reason}"
        return GeneralPath(self.network, self.layers)
