"""Any timm model as a re-identification model: its pooled features are the embedding."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import timm
from torch import Tensor, nn

from pairx_engine.errors import ModelError

_STRIDE_TO_EXPLAIN = 16
"""PAIR-X explains a middle layer: at stride 16 a cell is small enough to point at and deep enough to mean something."""


class PooledFeatures(nn.Module):
    """Chips (N, 3, H, W), normalised, to a timm model's pooled features (N, D)."""

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone

    def forward(self, chips: Tensor) -> Tensor:
        """Embed normalised chips."""
        embeddings: Tensor = self.backbone(chips)
        return embeddings.flatten(1)


@dataclass(frozen=True)
class TimmDescription:
    """What a config.json says of a timm model, from our own layout or timm's hub layout."""

    name: str
    kwargs: Mapping[str, Any]
    size: tuple[int, int] | None
    mean: tuple[float, ...] | None
    std: tuple[float, ...] | None


def describe_timm(config: Mapping[str, Any]) -> TimmDescription:
    """Read `{"architecture": "timm", "timm_name": …, "timm_kwargs": …, "input": …}` or timm's own hub layout."""
    if config.get("architecture") == "timm":
        chip = config.get("input", {})
        size = tuple(int(v) for v in chip["size"]) if "size" in chip else None
        if "timm_name" not in config:
            raise ModelError("config.json has architecture 'timm' but no timm_name")
        return TimmDescription(
            str(config["timm_name"]),
            dict(config.get("timm_kwargs", {})),
            size,
            chip.get("mean"),
            chip.get("std"),
        )  # type: ignore[arg-type]
    pretrained = config.get("pretrained_cfg", config)
    shape = pretrained.get("input_size")
    size = (int(shape[1]), int(shape[2])) if shape else None
    return TimmDescription(
        str(config["architecture"]),
        dict(config.get("model_args", {})),
        size,
        pretrained.get("mean"),
        pretrained.get("std"),
    )  # type: ignore[arg-type]


def build_timm(description: TimmDescription) -> PooledFeatures:
    """Build the model without weights and without its classifier; raises `ModelError` for names timm does not know."""
    kwargs = {
        k: v
        for k, v in description.kwargs.items()
        if k not in ("pretrained", "num_classes", "checkpoint_path")
    }
    try:
        return PooledFeatures(timm.create_model(description.name, pretrained=False, num_classes=0, **kwargs))
    except (RuntimeError, TypeError) as error:
        raise ModelError(f"timm cannot build {description.name!r} with {kwargs}: {error}") from error


def classifier_keys(network: PooledFeatures) -> tuple[str, ...]:
    """Prefixes of the classifier's weights, which a checkpoint may hold and a feature extractor does not."""
    named = getattr(network.backbone, "pretrained_cfg", {}).get("classifier") or ()
    return (named,) if isinstance(named, str) else tuple(named)


def layer_to_explain(network: PooledFeatures) -> str | None:
    """The last stage at stride 16 by timm's feature table; None where the model has no such map."""
    table = getattr(network.backbone, "feature_info", None)
    entries = getattr(table, "info", table) or []
    names = [e["module"] for e in entries if e.get("reduction") == _STRIDE_TO_EXPLAIN and e.get("module")]
    for name in reversed(names):
        try:
            network.backbone.get_submodule(name)
        except AttributeError:
            continue
        return f"backbone.{name}"
    return None
