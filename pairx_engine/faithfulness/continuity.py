"""Continuity: how far an explanation moves when a photo is paired with a slightly moved copy.

A photo x is moved to the right by steps 1 to n and back by steps n + 1 to 2 n. At each step the pair (x, x')
of the photo and its moved copy is explained, and DIFF = ||H(x) - H(x')||_2 of the two maps is taken
(ExplainLFS, doi 10.1016/j.inffus.2024.102407).

The similarity of a photo and its near copy is almost as large as possible, so the cosine's gradient vanishes
there and its signed relevances are nearly opposite in the two photos. Explanations that start from the
gradient are then close to two apart, however smooth they are. With a `partner` y the pairs (x, y) and (x', y)
are explained instead, and H is the map of x and of x' therein.

A map that ignores the photo has a difference of zero; a map that moves along with the photo does not. So the
difference is also taken after the second map is moved back onto the first; then it is the map that ignores
the photo that differs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pairx_engine.errors import EngineError

ExplainPair = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""From two chips (3, H, W) to the pixel maps (H, W) of both."""
Norm = Literal["l2", "sum"]


@dataclass(frozen=True)
class Translation:
    """How a photo is moved and its maps compared.

    The photo moves `n_steps` to the right and as many back, by `pixels` each; columns that come in repeat the
    photo's left edge. Maps are scaled before they are compared, since relevances of different rules differ in
    size by orders of magnitude. With `l2` their length becomes one, so that DIFF^2 = 2 - 2 cos of the angle
    between them. With `sum` their sum of absolute values becomes one; then maps of few pixels differ by more
    than spread ones do for the same move.
    """

    n_steps: int = 10
    pixels: int = 1
    norm: Norm = "l2"

    def __post_init__(self) -> None:
        if self.n_steps < 1 or self.pixels < 1:
            raise ValueError("a translation has at least one step of at least one pixel")
        if self.norm not in ("l2", "sum"):
            raise ValueError(f"maps are scaled by l2 or sum, not {self.norm!r}")

    @property
    def offsets(self) -> list[int]:
        """Pixels to the right at each of the 2 n_steps steps; the last is 0."""
        there = list(range(1, self.n_steps + 1))
        return [self.pixels * step for step in [*there, *reversed([0, *there[:-1]])]]


@dataclass(frozen=True)
class ContinuityCurve:
    """DIFF at each step; all arrays are (2 n_steps,).

    `offset` is in pixels, and `difference` is that of the maps as they are. `aligned` is that of the columns
    that both photos show, with the second map moved back.
    """

    offset: NDArray[np.int64]
    difference: NDArray[np.float64]
    aligned: NDArray[np.float64]

    @property
    def mean(self) -> float:
        """Mean difference over all steps; 0 is best."""
        return float(self.difference.mean())

    @property
    def max(self) -> float:
        """Largest difference."""
        return float(self.difference.max())

    @property
    def aligned_mean(self) -> float:
        """Mean difference of the maps laid over each other; 0 is best."""
        return float(self.aligned.mean())


def continuity(
    explain: ExplainPair, chip: Tensor, how: Translation | None = None, partner: Tensor | None = None
) -> ContinuityCurve:
    """The curve of one chip (3, H, W) under a deterministic way to explain pairs.

    Each offset is explained once, although it occurs again on the way back. The chip is paired with its moved
    copy; if there is a `partner` (3, H', W'), both are paired with it. Raises `EngineError` where the last
    offset leaves nothing of the photo, and for maps that are not of the chip's size or not finite.
    """
    how = how or Translation()
    if max(how.offsets) >= chip.shape[-1]:
        raise EngineError(f"a chip {chip.shape[-1]} pixels wide cannot be moved by {max(how.offsets)}")
    found: dict[int, tuple[float, float]] = {}
    for offset, map_a, map_b in _explained(explain, chip, sorted(set(how.offsets)), partner):
        found[offset] = _differences(_checked(map_a, chip), _checked(map_b, chip), offset, how.norm)
    difference, aligned = np.array([found[offset] for offset in how.offsets]).T
    return ContinuityCurve(np.array(how.offsets), difference, aligned)


def moved_right(picture: Tensor, offset: int) -> Tensor:
    """A picture (..., H, W) moved right by `offset` pixels; what comes in repeats its left edge."""
    width = picture.shape[-1]
    edge = picture[..., :1].expand(*picture.shape[:-1], offset)
    return torch.cat([edge, picture[..., : width - offset]], dim=-1)


def _explained(
    explain: ExplainPair, chip: Tensor, offsets: list[int], partner: Tensor | None
) -> Iterator[tuple[int, Tensor, Tensor]]:
    """Each offset with the maps of the chip and of its moved copy."""
    if partner is None:
        for offset in offsets:
            yield offset, *explain(chip, moved_right(chip, offset))
        return
    still, _ = explain(chip, partner)
    for offset in offsets:
        yield offset, still, explain(moved_right(chip, offset), partner)[0]


def _checked(found: Tensor, chip: Tensor) -> Tensor:
    if found.shape != chip.shape[1:] or not found.isfinite().all():
        raise EngineError(f"a map must be finite and of the chip's size, not {tuple(found.shape)}")
    return found.detach().cpu().double()


def _differences(map_a: Tensor, map_b: Tensor, offset: int, norm: Norm) -> tuple[float, float]:
    common = map_a.shape[-1] - offset
    return _distance(map_a, map_b, norm), _distance(map_a[:, :common], map_b[:, offset:], norm)


def _distance(map_a: Tensor, map_b: Tensor, norm: Norm) -> float:
    return float((_scaled(map_a, norm) - _scaled(map_b, norm)).norm())


def _scaled(relevance: Tensor, norm: Norm) -> Tensor:
    size = float(relevance.norm() if norm == "l2" else relevance.abs().sum())
    # A map of zeros has no direction and stays zero.
    return relevance / size if size else relevance
