"""The interface of every way to explain a pair: what it says of itself, and what it returns."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from pairx_engine.errors import EngineError
from pairx_engine.local.features import LocalMatcher
from pairx_engine.local.registry import load_local_matcher
from pairx_engine.pair.finding import Finding, Grids, Points, as_array
from pairx_engine.photo.value_range import ValueRange
from pairx_engine.relevance.explainer import LayerExplainer
from pairx_engine.relevance.ways import find_layer

Maps = tuple[Tensor, Tensor]
"""Pixel maps (H, W) of both chips, in arbitrary units, larger where the pixel counts for more."""
State = Mapping[str, NDArray[Any]]
"""What an explanation has learned, as named arrays."""


@dataclass(frozen=True)
class Shown:
    """What a figure draws of an explained pair, for either photo.

    `heat` (h, w) is of cells or pixels. `points` (n, 2) are the correspondences as (x, y) in chip pixels,
    `relevance` (n,) is theirs, descending, and `pixels` (k, H, W) are the maps of the first k of them.
    `matched` is false where `heat` is of pixels and the explanation knows of no correspondences.
    """

    heat: Grids
    points: tuple[Points, Points]
    relevance: NDArray[np.floating]
    pixels: Grids
    matched: bool = True

    @classmethod
    def of_finding(cls, finding: Finding, pixels: Grids) -> Shown:
        """A finding's grids and matches, most relevant first, and the pixel maps of its first matches."""
        a, b = finding.ordered().sides
        return cls((a.grid, b.grid), (a.points, b.points), finding.relevance[finding.order], pixels)

    @classmethod
    def of_maps(cls, maps: Maps) -> Shown:
        """Pixel maps without any correspondence."""
        a, b = (as_array(one) for one in maps)
        nowhere = np.zeros((0, 2))
        none = np.zeros((0, *a.shape)), np.zeros((0, *b.shape))
        return cls((a, b), (nowhere, nowhere), np.zeros(0), none, matched=False)


@dataclass(frozen=True)
class Explained:
    """An explanation of a pair.

    `maps` are pixel maps of both chips and `shown` is what a figure draws. `finding` is there where PAIR-X
    made one. `arrays` holds whatever else is worth keeping, by name. `remarks` are sentences for who looks at
    the pair: how far to trust this explanation.
    """

    maps: Maps
    shown: Shown
    finding: Finding | None = None
    arrays: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    remarks: tuple[str, ...] = ()

    @classmethod
    def of_maps(cls, map_a: Tensor, map_b: Tensor) -> Explained:
        """An explanation that is two maps and no more."""
        return cls(
            (map_a, map_b),
            Shown.of_maps((map_a, map_b)),
            arrays={"map0": as_array(map_a), "map1": as_array(map_b)},
        )


@dataclass
class Subject:
    """What is explained: a network at one of its layers.

    `k` is the number of matches, or of similar parts, that a map takes in. `seed` is that of all random
    draws, `precision` names an entry of `PRECISIONS`, and `reduction` replaces that of the presets. `values`
    are those of normalised chips, for explanations that look at the picture itself. `matchers` loads a local
    matcher by its name; without it there are those that need no weights.
    Explainers are made when first needed, and kept. `passes` keeps what was recorded of two chips for whoever
    explains the same two tensors next; None keeps nothing. Raises `EngineError` for an unknown layer.
    """

    network: nn.Module
    layer: str
    k: int = 10
    seed: int = 0
    precision: str = "float32"
    reduction: str | None = None
    values: ValueRange | None = None
    matchers: Callable[[str], LocalMatcher] = load_local_matcher
    passes: dict[tuple[int, int], Any] | None = field(default=None, repr=False)
    _explainers: dict[str, LayerExplainer] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        if self.k < 1 or self.seed < 0:
            raise EngineError(
                f"a map takes at least one match, and a seed is not negative; got {self.k} and {self.seed}"
            )
        find_layer(self.network, self.layer)

    def values_of(self, chip: Tensor) -> ValueRange:
        """What a chip (3, H, W) holds for black and white: `values`, or else its least and greatest value."""
        return self.values or ValueRange.spanned_by(chip)

    def explainer(self, preset: str) -> LayerExplainer:
        """The explainer of the layer under a preset."""
        if preset not in self._explainers:
            self._explainers[preset] = LayerExplainer(
                self.network, [self.layer], preset, self.precision, reduction=self.reduction
            )
        return self._explainers[preset]

    @property
    def notice(self) -> str | None:
        """What the explainers made so far say of the network; None where none was needed, or all is well."""
        return next((each.notice for each in self._explainers.values() if each.notice), None)


def stretched(grid: Tensor, chip: Tensor) -> Tensor:
    """A grid of cells (h, w), stretched bilinearly to a chip's size (H, W), in its format and on its device."""
    return functional.interpolate(
        grid[None, None].to(chip), chip.shape[-2:], mode="bilinear", align_corners=False
    )[0, 0]


class Explanation(Protocol):
    """One way to explain a pair.

    `name` is stored with every result, `about` describes the explanation in a line. `cost` is about how many
    forward passes of the network a pair takes (the costs here are rounded from CPU times of MiewID in
    miniature and MobileNetV2, with 10 matches). `sees_partner` is false where a photo's map does not depend
    on the other photo.
    """

    @property
    def name(self) -> str:
        """The name by which a user chooses it."""

    @property
    def about(self) -> str:
        """One line for a reader who has to choose."""

    @property
    def cost(self) -> float:
        """About how many forward passes of the network a pair costs."""

    @property
    def sees_partner(self) -> bool:
        """Whether the map of a photo depends on its partner."""

    def identity(self) -> Mapping[str, Any]:
        """Everything besides the name that changes its numbers.

        It is part of the fingerprint of what is stored.
        """

    def explain(
        self, subject: Subject, chip_a: Tensor, chip_b: Tensor, state: State | None = None
    ) -> Explained:
        """Explain two normalised chips (3, H, W) on the network's device; equal chips give equal results.

        Raises `EngineError` where the network does not allow it, or where `state` lacks what `train` makes.
        """


@dataclass(frozen=True)
class NamedChip:
    """A normalised chip (3, H, W) to learn from, with the name of its animal; None where nobody knows it."""

    chip: Tensor
    name: str | None


@runtime_checkable
class Trained(Protocol):
    """An explanation that must learn from a catalogue first.

    What it learned is kept and handed back to `explain`.
    """

    @property
    def photos(self) -> int:
        """The largest number of photos from which it learns."""

    def train(self, subject: Subject, photos: Iterable[NamedChip]) -> State:
        """Learn from named chips, in the order given: the same chips and names give the same state."""


@runtime_checkable
class Demanding(Protocol):
    """An explanation that asks for more than the network: a library, or weights of its own."""

    @property
    def needs(self) -> str:
        """What is missing here, as in "needs ..."; empty where nothing is."""


@runtime_checkable
class Matching(Protocol):
    """An explanation made of a local matcher's matches: whatever changes these changes its numbers, too."""

    @property
    def matcher(self) -> str:
        """The matcher's name; `Subject.matchers` loads it."""


def needs(explanation: Explanation) -> str:
    """What an explanation is missing here; empty where it can be used as it is."""
    return explanation.needs if isinstance(explanation, Demanding) else ""
