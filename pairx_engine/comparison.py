"""One pair explained by many methods, side by side."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pairx_engine.device.accelerator import device_failed
from pairx_engine.engine import Engine
from pairx_engine.errors import EngineError, PairxError
from pairx_engine.explanations import (
    Explained,
    Explanation,
    State,
    Subject,
    explain,
    explanation_named,
    explanations,
    usual,
)
from pairx_engine.faithfulness.agreement import rank_correlation
from pairx_engine.figure import (
    Comparison,
    ComparisonInput,
    FigurePhoto,
    MethodPanel,
    draw_comparison,
    encode_png,
)
from pairx_engine.pair.finding import Grids, as_array
from pairx_engine.photo.chips import Pixels
from pairx_engine.relevance.locking import exclusive
from pairx_engine.relevance.precision import FULL, tensor_cores
from pairx_engine.relevance.starts import cosine

_OF_A_PRESET = ("pairx", "relevance", "lrp")
_OTHERS = ("gradient_x_input", "grad_cam", "layer_cam", "simexpert", "correspondence", "random_smooth")


def few(preset: str) -> tuple[str, ...]:
    """A selection to be read in a minute: a method or two of each family, and a control."""
    known = explanations()
    wanted = (*(f"{kind}_{preset}" for kind in _OF_A_PRESET), *_OTHERS)
    return tuple(name for name in wanted if name in known)


def chosen_methods(
    preset: str,
    named: Sequence[str] = (),
    everything: bool = False,
    presets: Collection[str] | None = None,
) -> tuple[str, ...]:
    """The methods to compare by: those named, or few, or with `everything` all affordable ones.

    `presets` are those that suit the network; None takes all.

    Those named come on top of `everything`. Raises `EngineError` for an unknown name.
    """
    for name in named:
        explanation_named(name)
    several = usual(presets) if everything else () if named else few(preset)
    return tuple(dict.fromkeys((*several, *named)))


@dataclass(frozen=True)
class Compared:
    """What one method says of a pair, and what that took.

    `explained` is None where the method failed, for `reason`. `seconds` is the wall time of this pair; the
    first pair also pays for what the method prepares once for the network.
    """

    method: Explanation
    seconds: float
    explained: Explained | None
    reason: str = ""

    @cached_property
    def maps(self) -> Grids | None:
        """The pixel maps (H, W) of both photos."""
        if self.explained is None:
            return None
        a, b = (as_array(one) for one in self.explained.maps)
        return a, b

    @property
    def remarks(self) -> tuple[str, ...]:
        """What a reader should know before believing the maps."""
        maps = dict(zip("ab", self.maps or (), strict=False))
        below = [letter for letter, one in maps.items() if one.max() <= 0]
        flat = [letter for letter, one in maps.items() if one.max() == one.min() > 0]
        return (
            *(() if self.method.sees_partner else ("does not see the partner",)),
            *((f"nothing is above 0 in {' and '.join(below)}",) if below else ()),
            *((f"the same everywhere in {' and '.join(flat)}",) if flat else ()),
        )

    def panel(self) -> MethodPanel:
        """What a comparison shows of it."""
        name, about = self.method.name, self.method.about
        if self.explained is None:
            return MethodPanel(name, about, remarks=self.remarks, reason=self.reason)
        shown, cost = self.explained.shown, f"{self.seconds:.2f} s"
        return MethodPanel(name, about, cost, self.remarks, self.maps, shown.points, shown.relevance)


@dataclass(frozen=True)
class ComparedPair:
    """A pair explained by several methods; in a notebook it shows its sheet.

    `settings` says how the pair was explained, in words; `n_lines` correspondences are drawn.
    """

    photos: tuple[FigurePhoto, FigurePhoto]
    cosine: float
    methods: tuple[Compared, ...]
    settings: Mapping[str, str]
    n_lines: int = 10

    @property
    def line(self) -> str:
        """The pair in a line."""
        worked = sum(one.explained is not None for one in self.methods)
        counted = f"{worked} of {len(self.methods)}" if worked < len(self.methods) else f"{worked}"
        seen = f"{self.settings['model']} at {self.settings['layer']}"
        return f"cosine {self.cosine:.3f} · {counted} methods · {seen}"

    @cached_property
    def likeness(self) -> NDArray[np.float64]:
        """How alike the maps of each two methods are, (n, n): Spearman's rho over areas, mean of both photos.

        NaN for methods that failed, and where a map is the same everywhere.
        """
        maps = [None if one.explained is None else one.explained.maps for one in self.methods]
        found = np.full((len(maps), len(maps)), math.nan)
        for i, one in enumerate(maps):
            for j, other in enumerate(maps[: i + 1]):
                if one is not None and other is not None:
                    rho = np.mean([rank_correlation(x, y) for x, y in zip(one, other, strict=True)])
                    found[i, j] = found[j, i] = rho
        return found

    def most_alike(self, index: int) -> tuple[str, float] | None:
        """The method whose maps are most like those of the method at `index`, and how alike they are."""
        row = np.delete(self.likeness[index], index)
        others = [one.method.name for i, one in enumerate(self.methods) if i != index]
        if not len(row) or np.isnan(row).all():
            return None
        best = int(np.nanargmax(row))
        return others[best], float(row[best])

    @cached_property
    def drawn(self) -> Comparison:
        """The drawn comparison and its parts."""
        panels = [one.panel() for one in self.methods]
        return draw_comparison(ComparisonInput(self.photos, self.line, panels, self.n_lines))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the sheet as PNG."""
        Path(path).write_bytes(self._repr_png_())

    def _repr_png_(self) -> bytes:
        return encode_png(self.drawn.sheet)


@dataclass
class Comparer:
    """Explains pairs by the same methods, one after another.

    `states` holds what methods have learned, by name. `told` hears of each method when it is done. Raises
    `EngineError` for an unknown method, and `ModelError` where the model names no layer.
    """

    engine: Engine
    methods: Sequence[str]
    k: int = 10
    states: Mapping[str, State] = field(default_factory=dict)
    told: Callable[[Compared], None] | None = None

    def __post_init__(self) -> None:
        if not self.methods:
            raise EngineError("there is no method to compare by; name one")
        self._known = {name: explanation_named(name) for name in self.methods}
        self._subject = self.engine.subject(self.k)

    @property
    def settings(self) -> dict[str, str]:
        """How pairs are explained, in words."""
        chosen = self.engine.recipe
        return {
            "model": chosen.model,
            "layer": self._subject.layer,
            "preset": self.engine.preset,
            "reduction": chosen.reduction or "that of the preset",
            "precision": chosen.precision,
            "matches in a map": str(self.k),
        }

    def compare(self, cuts: tuple[Pixels, Pixels], titles: tuple[str, str] = ("a", "b")) -> ComparedPair:
        """Explain two cut photos (H, W, 3) uint8 by every method; what one cannot do does not stop the others."""
        model = self.engine.model
        a, b = (FigurePhoto.of(cut, model.chip, title) for cut, title in zip(cuts, titles, strict=True))
        chips = model.normalise([a.chip])[0], model.normalise([b.chip])[0]
        found = []
        for name in self.methods:
            found.append(self._by(name, chips))
            if self.told is not None:
                self.told(found[-1])
        return ComparedPair((a, b), _cosine(self._subject, chips), tuple(found), self.settings, self.k)

    def _by(self, name: str, chips: tuple[Tensor, Tensor]) -> Compared:
        begun = time.perf_counter()
        explained, reason = None, ""
        try:
            explained = explain(name, self._subject, *chips, self.states.get(name))
            if not all(bool(torch.isfinite(one).all()) for one in explained.maps):
                explained, reason = None, "its maps hold NaN or infinity"
        except Exception as error:  # another method may explain this network
            if device_failed(error):
                raise
            reason = _said(error)
        return Compared(self._known[name], time.perf_counter() - begun, explained, reason)


def _said(error: Exception) -> str:
    """What an error says, on one line."""
    text = str(error) if isinstance(error, PairxError) else f"{type(error).__name__}: {error}"
    return " ".join(text.split())


def _cosine(subject: Subject, chips: tuple[Tensor, Tensor]) -> float:
    with exclusive(subject.network), tensor_cores(FULL), torch.no_grad():
        a, b = (subject.network(chip[None])[0] for chip in chips)
    return float(cosine(a, b))
