"""What a pair's cosine owes to each superpixel of a photo, found by taking superpixels away.

A photo is cut into segments of like colour (SLIC, Achanta et al. 2012, by scikit-image, the extra `shap`).
v(S) is the cosine of the chip whose segments outside S are filled, with the partner's embedding held. Each
photo is explained with the other as its partner.

* `kernel_shap`: Shapley values of the segments (`shapley`). They sum to v(all) - v(none).
* `one_out`: v(all) - v(all without the segment).

A segment's value is spread evenly over its pixels, so a map sums to what its segments do.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from importlib import metadata
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pairx_engine.errors import EngineError
from pairx_engine.explanations.recorded import AT_ONCE, Cosines, partner_held
from pairx_engine.explanations.seam import Explained, State, Subject
from pairx_engine.explanations.shapley import (
    Members,
    Values,
    agreement,
    agreement_of_seeds,
    coalitions,
    fewest,
    solve,
)
from pairx_engine.photo.fills import FILLS, Fill, fill_chip

Segments = NDArray[np.int64]
_DRAWS, _FILL = 3, 4
"""Keep these random draws apart from each other and from others under the same seed."""
CURE = "pip install '.[shap]'"


@dataclass(frozen=True)
class Superpixels:
    """How a photo is cut into segments, and what replaces those that are taken away.

    `count` is about how many segments there are, `compactness` how much nearness counts beside colour (larger
    values give squarer segments), `fill` one of `FILLS`.
    """

    count: int = 35
    compactness: float = 10.0
    fill: Fill = "mean"

    def __post_init__(self) -> None:
        if self.count < 1 or not self.compactness > 0 or self.fill not in FILLS:
            raise ValueError(
                f"superpixels need a count of at least 1, a compactness above 0 and a fill of {', '.join(FILLS)}, "
                f"not {self.count}, {self.compactness} and {self.fill!r}"
            )

    def identity(self) -> Mapping[str, Any]:
        """All of it, and the library's version; raises `EngineError` without the library."""
        return {
            "segments": self.count,
            "compactness": self.compactness,
            "fill": self.fill,
            "scikit_image": _version(),
        }

    def of(self, subject: Subject, chip: Tensor) -> Segments:
        """The number (H, W) of each pixel's segment, from 0; raises `EngineError` without the library."""
        _version()
        from skimage.segmentation import slic

        picture = subject.values_of(chip).pixels(chip)
        found = slic(picture, self.count, self.compactness, start_label=0)
        numbers = np.unique(found, return_inverse=True)[1]
        return numbers.reshape(found.shape).astype(np.int64)

    def filling(self, subject: Subject, chip: Tensor) -> Tensor:
        """What the segments of a chip are filled with, a chip (3, H, W)."""
        draw = np.random.default_rng([subject.seed, _FILL])
        return fill_chip(chip, self.fill, subject.values_of(chip), draw)


@dataclass(frozen=True)
class Game:
    """A chip whose segments are kept or filled; `played` is v of coalitions of them."""

    segments: Segments
    played: Callable[[Members], Values]
    seed: int

    @property
    def players(self) -> int:
        """The number of segments."""
        return int(self.segments.max()) + 1


@dataclass(frozen=True)
class Found:
    """What a method says of one photo: `values` (n,) of its segments, and, where drawn, those of either half.

    `evaluations` is how often the network ran.
    """

    values: Values
    evaluations: int
    halves: Values | None = None


@dataclass(frozen=True)
class OfSuperpixels(ABC):
    """What both methods share: they ask for the same library and spread values of segments over pixels."""

    superpixels: Superpixels = field(default_factory=Superpixels)

    @property
    def needs(self) -> str:
        """The extra, where it is not installed."""
        return _needed()

    def identity(self) -> Mapping[str, Any]:
        """Those of the superpixels; raises `EngineError` without scikit-image."""
        return self.superpixels.identity()

    def explain(
        self, subject: Subject, chip_a: Tensor, chip_b: Tensor, state: State | None = None
    ) -> Explained:
        """Explain two chips; raises `EngineError` without scikit-image, and for too few samples."""
        return _explained(self.superpixels, subject, (chip_a, chip_b), self.values)

    @abstractmethod
    def values(self, game: Game) -> Found:
        """The value of each segment of a photo."""


@dataclass(frozen=True)
class OneOut(OfSuperpixels):
    """The cosine lost without a segment; n + 1 evaluations a photo, nothing is drawn but noise."""

    name: str = "one_out"
    about: str = "superpixels by the cosine lost without each"
    sees_partner: bool = True

    @property
    def cost(self) -> float:
        """One forward pass for each segment, and one for all."""
        return 2 * (self.superpixels.count + 1)

    def values(self, game: Game) -> Found:
        """The value of each segment of a photo."""
        n = game.players
        reached = game.played(np.concatenate([np.ones((1, n), dtype=bool), ~np.eye(n, dtype=bool)]))
        return Found(reached[0] - reached[1:], n + 1)


@dataclass(frozen=True)
class KernelShap(OfSuperpixels):
    """Shapley values of the segments, by at most `samples` evaluations a photo.

    Half of the drawn coalitions against the other tells how far the draw may be trusted. `arrays` holds their
    correlation over the segments of either photo (`half_agreement`), and what two seeds would agree to
    (`seed_agreement`). With as many evaluations as there are coalitions both are 1.
    """

    samples: int = 1000
    name: str = "kernel_shap"
    about: str = "superpixels by their Shapley value (Kernel SHAP)"
    sees_partner: bool = True

    def __post_init__(self) -> None:
        if self.samples < 2:
            raise ValueError(f"the whole and the empty photo are two samples already, not {self.samples}")

    @property
    def cost(self) -> float:
        """The evaluations of both photos."""
        return 2 * self.samples

    def identity(self) -> Mapping[str, Any]:
        """Those of the superpixels, and the evaluations; raises `EngineError` without scikit-image."""
        return {**super().identity(), "samples": self.samples}

    def values(self, game: Game) -> Found:
        """The value of each segment of a photo; raises `EngineError` where samples are too few for them."""
        n = game.players
        if self.samples < fewest(n):
            raise EngineError(
                f"{n} superpixels need at least {fewest(n)} samples, not {self.samples}",
                "give more samples or fewer superpixels",
            )
        drawn = coalitions(n, self.samples, np.random.default_rng([game.seed, _DRAWS]))
        ends = np.array([[False] * n, [True] * n])
        none, everyone, *rest = game.played(np.concatenate([ends, drawn.members]))
        reached = np.array(rest)
        values, *halves = (
            solve(drawn.members, weights, reached, none, everyone)
            for weights in (drawn.weights.mean(axis=0), *drawn.weights)
        )
        return Found(values, len(drawn.members) + 2, np.stack(halves))


def superpixel_methods() -> Sequence[OneOut | KernelShap]:
    """Both, the cheap one first."""
    return [OneOut(), KernelShap()]


def _explained(
    how: Superpixels, subject: Subject, chips: tuple[Tensor, Tensor], values: Callable[[Game], Found]
) -> Explained:
    with partner_held(subject, *chips) as cosines:
        games = [_game(how, subject, chip, of) for chip, of in zip(chips, cosines, strict=True)]
        found = [values(game) for game in games]
    maps = [
        _spread(one.values, game.segments, chip) for one, game, chip in zip(found, games, chips, strict=True)
    ]
    made = Explained.of_maps(*maps)
    arrays = dict(made.arrays)
    for side, (one, game) in enumerate(zip(found, games, strict=True)):
        arrays |= {f"segments{side}": game.segments, f"segment_values{side}": one.values}
    drawn = [one.halves for one in found if one.halves is not None]
    if not drawn:
        return replace(made, arrays=arrays)
    halves = np.array([agreement(both) for both in drawn])
    seeds = np.array([agreement_of_seeds(r) for r in halves])
    return replace(
        made,
        arrays=arrays | {"half_agreement": halves, "seed_agreement": seeds},
        remarks=(_remark(found, halves, seeds),),
    )


def _remark(found: Sequence[Found], halves: Values, seeds: Values) -> str:
    each = (
        f"{'ab'[side]}: {len(one.values)} superpixels, {one.evaluations} evaluations, halves agree to "
        f"r = {halves[side]:.2f}, two seeds to about {seeds[side]:.2f}"
        for side, one in enumerate(found)
    )
    return "; ".join(each)


def _game(how: Superpixels, subject: Subject, chip: Tensor, cosines: Cosines) -> Game:
    segments = how.of(subject, chip)
    numbers = torch.from_numpy(segments).to(chip.device)
    filling = how.filling(subject, chip)

    def played(members: Members) -> Values:
        found = [
            cosines(torch.where(part[:, numbers][:, None], chip, filling))
            for part in torch.from_numpy(members).to(chip.device).split(AT_ONCE)
        ]
        return np.asarray(torch.cat(found).cpu().numpy())

    return Game(segments, played, subject.seed)


def _spread(values: Values, segments: Segments, chip: Tensor) -> Tensor:
    """Values of segments (n,) shared out evenly among their pixels, (H, W)."""
    each = values / np.bincount(segments.ravel(), minlength=len(values))
    return torch.from_numpy(each[segments]).to(chip)


def _needed() -> str:
    return "" if find_spec("skimage") else f"needs scikit-image: {CURE}"


@cache
def _version() -> str:
    if find_spec("skimage") is None:
        raise EngineError("superpixels need scikit-image, which is not installed", CURE)
    return ".".join(metadata.version("scikit-image").split(".")[:2])
