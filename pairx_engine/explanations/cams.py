"""Class activation maps of a pair: the channels of a layer, weighted by what they mean for the cosine.

Each photo runs forward and backward once, with its partner's embedding held (`recorded`). A is the layer's
output, g the gradient of the cosine there, both (C, h, w); u is a position. Maps are stretched bilinearly to
the chip. `relu` keeps what is above 0.

| method | map | source |
| --- | --- | --- |
| `grad_cam` | relu(sum_c w_c A_c), w_c the mean of g_c | Selvaraju et al. 2017 |
| `grad_cam_plus` | the same, w_c = sum_u relu(g) g^2 / (2 g^2 + g^3 sum_u A) | Chattopadhay et al. 2018 |
| `xgrad_cam` | the same, w_c = sum_u g A / sum_u A | Fu et al. 2020 |
| `hires_cam` | sum_c g A, with its sign | Draelos and Carin 2020 |
| `elementwise_cam` | sum_c relu(g A) | library of pytorch-grad-cam |
| `layer_cam` | relu(sum_c relu(g) A) | Jiang et al. 2021 |
| `eigen_cam` | A along its first principal component | Muhammad and Yeasin 2020 |
| `eigen_grad_cam` | the same of g A | library of pytorch-grad-cam |
| `kpca_cam` | the first kernel principal component of A, sigmoid kernel | Karmani et al. 2024 |
| `score_cam` | relu(sum_c w_c A_c), w softmax of the cosines of masked chips | Wang et al. 2020 |
| `ablation_cam` | the same, w_c = (s - s without c) / s | Desai and Ramaswamy 2020 |

`eigen_cam` and `kpca_cam` ask nothing of the partner. A component has no sign of its own: it is turned so that
it grows with the size of the activations.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from pairx_engine.explanations.recorded import AT_ONCE, Recorded, recorded
from pairx_engine.explanations.seam import Explained, State, Subject, stretched

_TINY = 1e-12


@dataclass(frozen=True)
class Cam:
    """One of this module's methods: `grid` makes the map (h, w) of a recorded chip."""

    name: str
    about: str
    grid: Callable[[Recorded], Tensor]
    cost: float = 6
    sees_partner: bool = True

    def identity(self) -> Mapping[str, Any]:
        """Nothing besides the name."""
        return {}

    def explain(
        self, subject: Subject, chip_a: Tensor, chip_b: Tensor, state: State | None = None
    ) -> Explained:
        """Explain two chips; raises `EngineError` where the layer gives no map of features."""
        with recorded(subject, chip_a, chip_b) as both:
            return Explained.of_maps(*(stretched(self.grid(one), one.chip) for one in both))


def cams() -> Sequence[Cam]:
    """All of them, cheap ones first."""
    return [
        Cam("grad_cam", "channels by the mean of their gradient", _grad_cam),
        Cam("grad_cam_plus", "channels by the curvature of their gradient (Grad-CAM++)", _grad_cam_plus),
        Cam("xgrad_cam", "channels by gradient times activation, normalised (XGrad-CAM)", _xgrad_cam),
        Cam("hires_cam", "gradient times activation, cell by cell (HiResCAM)", _hires_cam),
        Cam("elementwise_cam", "the same, what speaks for the similarity alone", _elementwise_cam),
        Cam("layer_cam", "activation times gradient where that is above 0 (LayerCAM)", _layer_cam),
        Cam("eigen_cam", "the activations' first component; blind to the partner", _eigen_cam, 6, False),
        Cam("eigen_grad_cam", "the first component of gradient times activation", _eigen_grad_cam),
        Cam("kpca_cam", "the first kernel component; blind to the partner", _kpca_cam, 6, False),
        Cam("score_cam", "channels by the cosine of the chip that they mask (Score-CAM)", _score_cam, 100),
        Cam("ablation_cam", "channels by the cosine lost without them (Ablation-CAM)", _ablation_cam, 100),
    ]


def _grad_cam(one: Recorded) -> Tensor:
    return _weighted(one.activation, one.gradient.mean((1, 2)))


def _grad_cam_plus(one: Recorded) -> Tensor:
    g = one.gradient
    # g^2 / (2 g^2 + g^3 sum A), divided by g^2: slopes are small, and their powers fall below any threshold.
    bottom = 2 + one.activation.sum((1, 2), keepdim=True) * g
    alpha = torch.where(bottom.abs() > _TINY, 1 / bottom.where(bottom.abs() > _TINY, torch.ones_like(g)), 0)
    return _weighted(one.activation, (alpha * g.clamp(min=0)).sum((1, 2)))


def _xgrad_cam(one: Recorded) -> Tensor:
    total = one.activation.sum((1, 2))
    share = (one.gradient * one.activation).sum((1, 2))
    return _weighted(
        one.activation,
        torch.where(total.abs() > _TINY, share / total.where(total.abs() > _TINY, total + 1), 0),
    )


def _hires_cam(one: Recorded) -> Tensor:
    return (one.gradient * one.activation).sum(0)


def _elementwise_cam(one: Recorded) -> Tensor:
    return (one.gradient * one.activation).clamp(min=0).sum(0)


def _layer_cam(one: Recorded) -> Tensor:
    return (one.gradient.clamp(min=0) * one.activation).sum(0).clamp(min=0)


def _eigen_cam(one: Recorded) -> Tensor:
    return _turned(_first_component(one.activation), one.activation)


def _eigen_grad_cam(one: Recorded) -> Tensor:
    product = one.gradient * one.activation
    return _turned(_first_component(product), product)


def _kpca_cam(one: Recorded) -> Tensor:
    """The kernel is tanh(x y / C + 1) of centred cells x, y; it is centred in the space that it spans."""
    channels, height, width = one.activation.shape
    cells = one.activation.double().flatten(1).T
    cells = cells - cells.mean(0)
    kernel = torch.tanh(cells @ cells.T / channels + 1)
    kernel = kernel - kernel.mean(0) - kernel.mean(1, keepdim=True) + kernel.mean()
    values, vectors = torch.linalg.eigh(kernel)
    first = vectors[:, -1] * values[-1].clamp(min=0).sqrt()
    return _turned(first.view(height, width).to(one.activation), one.activation)


def _score_cam(one: Recorded) -> Tensor:
    masks = functional.interpolate(
        one.activation[None], one.chip.shape[-2:], mode="bilinear", align_corners=False
    )[0]
    least, most = masks.amin((1, 2), keepdim=True), masks.amax((1, 2), keepdim=True)
    masks = (masks - least) / (most - least).clamp(min=_TINY)
    scores = torch.cat([one.cosines_of_chips(one.chip * part[:, None]) for part in masks.split(AT_ONCE)])
    return _weighted(one.activation, scores.softmax(0).to(one.activation))


def _ablation_cam(one: Recorded) -> Tensor:
    scores = []
    for part in torch.arange(len(one.activation)).split(AT_ONCE):
        without = one.activation.expand(len(part), -1, -1, -1).clone()
        without[torch.arange(len(part)), part] = 0
        scores.append(one.cosines_of_maps(without))
    lost = one.cosine - torch.cat(scores)
    return _weighted(one.activation, (lost / (abs(one.cosine) + _TINY)).to(one.activation))


def _weighted(activation: Tensor, weights: Tensor) -> Tensor:
    return torch.tensordot(weights, activation, dims=1).clamp(min=0)


def _first_component(maps: Tensor) -> Tensor:
    """Cells of maps (C, h, w), centred over the cells, along the direction in which they differ most."""
    cells = maps.double().flatten(1).T
    cells = cells - cells.mean(0)
    _, _, directions = torch.linalg.svd(cells, full_matrices=False)
    return (cells @ directions[0]).view(maps.shape[-2:]).to(maps)


def _turned(component: Tensor, maps: Tensor) -> Tensor:
    """The component with the sign with which it grows with the size of the maps."""
    size = maps.double().norm(dim=0)
    along = (component.double() * (size - size.mean())).sum()
    return component if float(along) >= 0 else -component
