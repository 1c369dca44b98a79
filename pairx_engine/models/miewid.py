"""MiewID's architecture: a timm EfficientNet, generalised-mean pooling and a batch-norm neck.

Attribute names are those of the published checkpoints (`backbone.*`, `backbone.global_pool.p`, `bn.*`), so
that their state dicts load strictly.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import timm
import torch
from timm.layers import get_act_layer
from timm.models._efficientnet_builder import decode_arch_def
from timm.models.efficientnet import EfficientNet
from torch import Tensor, nn
from torch.nn import functional

from pairx_engine.errors import ModelError
from pairx_engine.models.timm_model import known_to_timm

PUBLISHED_BACKBONE = "efficientnetv2_rw_m"


class GeneralisedMeanPool(nn.Module):
    """GeM: (mean over the map of max(x, eps)^p)^(1/p) with a learned p; (N, C, h, w) to (N, C)."""

    def __init__(self, p: float = 3.0, eps: float = 1e-6) -> None:
        super().__init__()
        self.p = nn.Parameter(torch.full((1,), p))
        self.eps = eps

    def forward(self, features: Tensor) -> Tensor:
        """Pool (N, C, h, w) to (N, C)."""
        powered = features.clamp(min=self.eps).pow(self.p)
        return functional.avg_pool2d(powered, features.shape[-2:]).pow(1.0 / self.p).flatten(1)


class MiewID(nn.Module):
    """Chips (N, 3, H, W), normalised, to embeddings (N, D).

    Embeddings are not L2-normalised: compare them by cosine.
    """

    def __init__(self, backbone: nn.Module, features: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.eps = eps
        self.backbone = backbone
        self.backbone.global_pool = GeneralisedMeanPool(eps=eps)
        self.bn = nn.BatchNorm1d(features)

    def forward(self, chips: Tensor) -> Tensor:
        """Embed normalised chips."""
        embeddings: Tensor = self.bn(self.backbone(chips))
        return embeddings


def build_miewid(config: Mapping[str, Any] | None = None) -> MiewID:
    """Build MiewID without weights: the published backbone, or a miniature.

    `config["backbone"]` describes a miniature by timm block strings (`arch_def`), `stem_size` and
    `num_features`. Raises `ModelError` when the description is incomplete or timm refuses it.
    """
    config = config or {}
    described = config.get("backbone")
    eps = _eps(config.get("pool"))
    if not isinstance(described, Mapping):
        name = known_to_timm(str(config.get("model_name", PUBLISHED_BACKBONE)), "model_name")
        backbone = timm.create_model(name, pretrained=False, num_classes=0)
        return MiewID(backbone, int(backbone.num_features), eps)
    try:
        backbone = EfficientNet(
            block_args=decode_arch_def([list(map(str, stage)) for stage in described["arch_def"]]),
            num_classes=0,
            num_features=int(described["num_features"]),
            stem_size=int(described["stem_size"]),
            act_layer=get_act_layer(str(described.get("act_layer", "SiLU")).lower()),
            norm_layer=nn.BatchNorm2d,
        )
    except (
        LookupError,
        TypeError,
        ValueError,
        ArithmeticError,
        AttributeError,
        AssertionError,
        RuntimeError,
    ) as error:
        raise ModelError(
            f"config.json describes no usable backbone: {error!r} (keys arch_def, stem_size, num_features)"
        ) from error
    return MiewID(backbone, int(described["num_features"]), eps)


def _eps(pool: object) -> float:
    """The least value of which the pooling takes a power."""
    eps = pool.get("eps", 1e-6) if isinstance(pool, Mapping) else 1e-6
    try:
        if 0 < float(eps) < 1:
            return float(eps)
    except (TypeError, ValueError, OverflowError):
        pass
    raise ModelError(f"config.json, key pool.eps: expected a small number above 0, found {eps!r}")
