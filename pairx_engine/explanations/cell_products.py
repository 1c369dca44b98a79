"""Similarities of cells: what each cell of one photo has in common with all cells of the other.

a_u and b_v are the activations (C,) of two photos' cells at a layer, recorded as for class activation maps.

* `simexpert`: a_u . mean_v b_v / (n |mean a| |mean b|), with its sign (Stylianou et al. 2019, average pooling;
  the sum over u is the cosine of the pooled activations). It knows the layer, and not what comes after it.
* `simexpert_max`: the same for max pooling. A channel's product m_c m'_c / (|m| |m'|) of the maxima goes to the
  cell where its maximum lies, the first if there are several; the sum is the cosine of the max-pooled
  activations.
* `activation_intensity`: relu(a_u . d(e . e_b / (|e| |e_b|)) / d a_u), both norms held (Zhu et al. 2021). Where
  pooling and neck are linear this is their decomposition of the embedding; elsewhere it is its first order.
* `correspondence`: cells are moved onto the other photo's by optimal transport at the cost 1 - cos(a_u, b_v)
  (Zhao et al. 2021, as in Taesiri et al. 2022). Marginals are the positive parts of `simexpert`. A cell's value
  is what it sends, times how similar it is to where that goes; the largest flows are its correspondences.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from pairx_engine.explanations.recorded import Recorded, recorded
from pairx_engine.explanations.seam import Explained, Shown, State, Subject, stretched
from pairx_engine.pair.finding import as_array
from pairx_engine.pair.matching import cell_points

SMOOTHING, ITERATIONS, LEAST_SHARE = 0.05, 100, 0.1
"""Of the transport: its entropy, most iterations, and the share of the largest flow that counts."""
_TINY = 1e-12
Both = tuple[Recorded, Recorded]


@dataclass(frozen=True)
class CellProducts:
    """One of this module's methods."""

    name: str
    about: str
    how: Callable[[Subject, Both], Explained]
    cost: float = 6
    sees_partner: bool = True

    def identity(self) -> Mapping[str, Any]:
        """What the transport is made with; nothing for the others."""
        if self.how is not _correspondence:
            return {}
        return {"smoothing": SMOOTHING, "iterations": ITERATIONS, "least_share": LEAST_SHARE}

    def explain(
        self, subject: Subject, chip_a: Tensor, chip_b: Tensor, state: State | None = None
    ) -> Explained:
        """Explain two chips; raises `EngineError` where the layer gives no map of features."""
        with recorded(subject, chip_a, chip_b) as both:
            return self.how(subject, both)


def cell_products() -> Sequence[CellProducts]:
    """All of them."""
    return [
        CellProducts(
            "simexpert", "cells by their product with the other's mean (Stylianou 2019)", _simexpert
        ),
        CellProducts(
            "simexpert_max", "cells by the channels whose maximum they hold (Stylianou 2019)", _simexpert_max
        ),
        CellProducts(
            "activation_intensity",
            "cells by what they give to the embedding's product (Zhu 2021)",
            _intensity,
        ),
        CellProducts("correspondence", "cells by optimal transport onto the other's", _correspondence, 8),
    ]


def shares(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Each cell's share of the cosine of the average-pooled activations, (h, w) and (h', w').

    `a` (C, h, w) and `b` (C, h', w'); either grid sums to the cosine.
    """
    a, b = a.double(), b.double()
    mean_a, mean_b = a.mean((1, 2)), b.mean((1, 2))
    norm = (mean_a.norm() * mean_b.norm()).clamp(min=_TINY)
    return (
        torch.tensordot(mean_b, a, dims=1) / (a[0].numel() * norm),
        torch.tensordot(mean_a, b, dims=1) / (b[0].numel() * norm),
    )


def shares_of_maxima(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Each cell's share of the cosine of the max-pooled activations, (h, w) and (h', w').

    `a` (C, h, w) and `b` (C, h', w'); either grid sums to the cosine.
    """
    flat = [x.double().flatten(1) for x in (a, b)]
    maxima = [x.amax(1) for x in flat]
    product = maxima[0] * maxima[1] / (maxima[0].norm() * maxima[1].norm()).clamp(min=_TINY)
    found_a, found_b = (
        (product @ functional.one_hot(x.argmax(1), x.shape[1]).to(product)).view(grid.shape[-2:])
        for x, grid in zip(flat, (a, b), strict=True)
    )
    return found_a, found_b


def transport(cost: Tensor, from_share: Tensor, to_share: Tensor) -> Tensor:
    """The flow (n, m) of least cost between two distributions (n,) and (m,), by Sinkhorn's iterations.

    Both sum to 1; `SMOOTHING` times the flow's entropy is granted.
    """
    kernel = torch.exp(-cost / SMOOTHING)
    left, right = torch.ones_like(from_share), torch.ones_like(to_share)
    for _ in range(ITERATIONS):
        before = left
        left = from_share / (kernel @ right).clamp(min=_TINY)
        right = to_share / (kernel.T @ left).clamp(min=_TINY)
        if torch.allclose(left, before, rtol=1e-9, atol=0):
            break
    return left[:, None] * kernel * right[None]


def _simexpert(subject: Subject, both: Both) -> Explained:
    grids = shares(*(one.activation for one in both))
    return Explained.of_maps(*(stretched(g, one.chip) for g, one in zip(grids, both, strict=True)))


def _simexpert_max(subject: Subject, both: Both) -> Explained:
    grids = shares_of_maxima(*(one.activation for one in both))
    return Explained.of_maps(*(stretched(g, one.chip) for g, one in zip(grids, both, strict=True)))


def _intensity(subject: Subject, both: Both) -> Explained:
    return Explained.of_maps(*(stretched(_given_to_the_product(one), one.chip) for one in both))


def _given_to_the_product(one: Recorded) -> Tensor:
    return (one.activation * one.share).sum(0).clamp(min=0)


def _correspondence(subject: Subject, both: Both) -> Explained:
    a, b = (one.activation.double() for one in both)
    cells = [functional.normalize(x.flatten(1).T, dim=1) for x in (a, b)]
    likeness = cells[0] @ cells[1].T
    marginals = [_distribution(grid.flatten()) for grid in shares(a, b)]
    flow = transport(1 - likeness, *marginals)
    grids = [(flow * likeness).clamp(min=0).sum(side).view(x.shape[-2:]) for side, x in ((1, a), (0, b))]
    maps = tuple(stretched(grid, one.chip) for grid, one in zip(grids, both, strict=True))
    value = (flow * likeness).clamp(min=0).flatten()
    best = value.argsort(descending=True, stable=True)[: subject.k]
    best = best[value[best] > LEAST_SHARE * value.max().clamp(min=_TINY)].cpu()
    ends = best // flow.shape[1], best % flow.shape[1]
    points = [
        cell_points(
            np.stack([at % x.shape[-1], at // x.shape[-1]], axis=1),
            x.shape[-2:],
            (one.chip.shape[-2], one.chip.shape[-1]),
        )
        for at, x, one in zip((end.numpy() for end in ends), (a, b), both, strict=True)
    ]
    plain = Shown.of_maps((maps[0], maps[1]))
    shown = Shown(
        (as_array(grids[0]), as_array(grids[1])), (points[0], points[1]), as_array(value[best]), plain.pixels
    )
    return Explained((maps[0], maps[1]), shown, arrays={"flow": as_array(flow)})


def _distribution(values: Tensor) -> Tensor:
    """Values (n,) above 0, so that they sum to 1; where there are none, all alike."""
    kept = values.clamp(min=0)
    return kept / kept.sum() if float(kept.sum()) > 0 else torch.full_like(values, 1 / len(values))
