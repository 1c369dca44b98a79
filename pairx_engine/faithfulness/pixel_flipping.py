"""Selectivity by pixel flipping: how fast a pair's cosine falls when a map's pixels are replaced.

Superpixels of 5 x 5 pixels are flipped in the order of their relevance over 20 steps, and the area under the
cosine's curve is taken (ExplainLFS, doi 10.1016/j.inffus.2024.102407; after the region perturbation of Samek
et al. 2017). The source leaves open how many superpixels a step flips, what their relevance is and what the
noise is. Here `Flipping.share` gives the number of superpixels, the relevance of a superpixel is the sum over
its pixels, and `Flipping.fill` gives the noise.

The area alone ranks maps wrongly. Scattered flips hurt a network more than connected ones wherever they lie,
so under noise a pixel-wise random map can get a lower area than an explanation. The area is therefore
compared with that of the same map's flips in the opposite order, the least relevant first. The difference
says whether the order matters: a map that knows nothing has the same area both ways on average.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from pairx_engine.errors import EngineError
from pairx_engine.photo.fills import FILLS, Fill, fill_chip
from pairx_engine.photo.value_range import ValueRange
from pairx_engine.relevance.precision import FULL, tensor_cores
from pairx_engine.relevance.starts import SMALLEST_NORM

Embed = Callable[[Tensor], Tensor]
Order = Literal["most", "least"]
_TIES, _NOISE = 0, 1


@dataclass(frozen=True)
class Flipping:
    """How a photo is flipped.

    `superpixel` is the side of a superpixel in pixels; superpixels at the right and lower edges are cut off
    where the chip's size is no multiple. After step k of `n_steps`, round(k / n_steps * `share` * all)
    superpixels are flipped. With the default of one half the two orders flip different superpixels, except
    for ties and an odd one. A share of n_steps / all flips one superpixel a step. `order` is `most` relevant
    first or `least`. Equally relevant superpixels come in an order drawn by `seed`, the same for both orders,
    so that a constant map does no better than chance. The seed also draws the noise.
    """

    superpixel: int = 5
    n_steps: int = 20
    share: float = 0.5
    fill: Fill = "noise"
    seed: int = 0
    order: Order = "most"

    def __post_init__(self) -> None:
        if self.superpixel < 1 or self.n_steps < 1 or self.seed < 0:
            raise ValueError("superpixel and n_steps must be at least 1, and the seed not negative")
        if not 0 < self.share <= 1:
            raise ValueError(f"the share of superpixels to flip must lie in (0, 1], not {self.share}")
        if self.fill not in FILLS or self.order not in ("most", "least"):
            raise ValueError(
                f"fill is one of {', '.join(FILLS)} and order most or least, not {self.fill!r} and {self.order!r}"
            )

    def counts(self, n_superpixels: int) -> list[int]:
        """Superpixels flipped after steps 0 to n_steps."""
        last = self.share * n_superpixels
        return [int(step / self.n_steps * last + 0.5) for step in range(self.n_steps + 1)]


@dataclass(frozen=True)
class FlippingCurve:
    """The cosine of a pair after steps 0 to n_steps, `similarity` (n_steps + 1,).

    Step 0 is the untouched pair.
    """

    similarity: NDArray[np.float64]

    @property
    def auc(self) -> float:
        """Area under the curve by the trapezoidal rule, divided by the number of steps: a cosine."""
        return float(np.trapezoid(self.similarity) / (len(self.similarity) - 1))

    @property
    def aopc(self) -> float:
        """Mean drop of the cosine (Samek et al. 2017).

        It is 1 / (L + 1) sum over k = 0 to L of s(0) - s(k), with L the number of steps.
        """
        return float((self.similarity[0] - self.similarity).mean())


def flip(
    embed: Embed,
    chip_a: Tensor,
    chip_b: Tensor,
    relevance_a: Tensor,
    relevance_b: Tensor,
    how: Flipping,
    similar: bool,
    values: ValueRange,
    batch_size: int = 8,
    untouched: tuple[Tensor, Tensor] | None = None,
) -> FlippingCurve:
    """The curve of one pair of chips (3, H, W), normalised, and relevances (H, W) of their pixels.

    `embed` maps chips (N, 3, H, W) to embeddings (N, D) and runs without gradients, on at most `batch_size`
    chips at once. Of a `similar` pair only the first photo is flipped, as in the source; to flip the other
    photo, exchange the two. Of a dissimilar pair both photos are flipped, each by its own map and with its
    own noise. Relevances are ranked with their sign. `untouched` are the embeddings (1, D) of both chips as they
    are, where they are known already. Raises `EngineError` for maps that do not fit their
    chips or are not finite.
    """
    if batch_size < 1:
        raise EngineError(f"the batch size must be at least 1, not {batch_size}")
    for chip, relevance in ((chip_a, relevance_a), (chip_b, relevance_b)):
        _check(chip, relevance)
    a, b = untouched or (None, None)
    with torch.no_grad(), tensor_cores(FULL):
        embeddings_a = _embeddings(embed, chip_a, relevance_a, 0, how, values, batch_size, a)
        if similar:
            embeddings_b = embed(chip_b[None]) if b is None else b
        else:
            embeddings_b = _embeddings(embed, chip_b, relevance_b, 1, how, values, batch_size, b)
    similarity = functional.cosine_similarity(
        embeddings_a.double(), embeddings_b.double(), dim=1, eps=SMALLEST_NORM
    )
    return FlippingCurve(similarity.cpu().numpy())


def _check(chip: Tensor, relevance: Tensor) -> None:
    if chip.ndim != 3 or relevance.shape != chip.shape[1:]:
        raise EngineError(
            f"a chip (C, H, W) needs a map (H, W), not {tuple(chip.shape)} and {tuple(relevance.shape)}"
        )
    if not relevance.isfinite().all():
        raise EngineError("a relevance map holds values that are not finite")


def _embeddings(
    embed: Embed,
    chip: Tensor,
    relevance: Tensor,
    side: int,
    how: Flipping,
    values: ValueRange,
    batch_size: int,
    untouched: Tensor | None,
) -> Tensor:
    """Embeddings (n_steps + 1, D) of a chip after each step; that of step 0 may be known."""
    ranks = superpixel_ranks(relevance, how, side).to(chip.device)
    fill = fill_chip(chip, how.fill, values, np.random.default_rng([how.seed, side, _NOISE]))
    counts = torch.tensor(how.counts(int(ranks.max()) + 1), device=chip.device).view(-1, 1, 1, 1)
    known, counts = ([], counts) if untouched is None else ([untouched], counts[1:])
    return torch.cat(
        known + [embed(torch.where(ranks < some, fill, chip)) for some in counts.split(batch_size)]
    )


def superpixel_sums(relevance: Tensor, side: int) -> Tensor:
    """Relevance (H, W) summed over superpixels of `side` pixels.

    Returns (ceil(H / side), ceil(W / side)) in double precision on the CPU.
    """
    height, width = relevance.shape
    padded = functional.pad(relevance.detach().cpu().double(), (0, -width % side, 0, -height % side))
    rows, columns = padded.shape[0] // side, padded.shape[1] // side
    return padded.view(rows, side, columns, side).sum(dim=(1, 3))


def superpixel_ranks(relevance: Tensor, how: Flipping, side: int = 0) -> Tensor:
    """For each pixel (H, W) the place of its superpixel in the order of flipping, from 0.

    `side` is the photo, 0 or 1.
    """
    sums = superpixel_sums(relevance, how.superpixel)
    keys = sums.flatten() if how.order == "least" else -sums.flatten()
    # In the order of the array, ties would be flipped from the top down, which is background in most photos.
    drawn = torch.from_numpy(np.random.default_rng([how.seed, side, _TIES]).permutation(len(keys)))
    order = drawn[keys[drawn].argsort(stable=True)]
    ranks = torch.empty_like(order)
    ranks[order] = torch.arange(len(order))
    spread = ranks.view_as(sums).repeat_interleave(how.superpixel, 0).repeat_interleave(how.superpixel, 1)
    return spread[: relevance.shape[0], : relevance.shape[1]]
