"""Find, build and load a model: the embedded one, a folder, a weights file, or a hub id."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pairx_engine.errors import ModelError
from pairx_engine.model_files import EMBEDDED, locate
from pairx_engine.models.checkpoint import (
    State,
    file_sha256,
    is_miewid,
    load_strictly,
    miewid_layout,
    no_larger_than,
    read_state,
)
from pairx_engine.models.miewid import PUBLISHED_BACKBONE, build_miewid
from pairx_engine.models.timm_model import build_timm, describe_timm, layer_to_explain, section, timm_layout
from pairx_engine.photo.chips import ChipSpec, Pixels

_MIEWID_SIZE = (440, 440)
_MIEWID_LAYER = "backbone.blocks.3"
_IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


@dataclass(frozen=True)
class ReIdModel:
    """A loaded model in evaluation mode with frozen parameters.

    `network` maps normalised chips (N, 3, H, W) to embeddings (N, D), which are compared by cosine. `layer`
    is the layer that PAIR-X explains by default, None where the model has none with cells.
    """

    source: str
    network: nn.Module
    chip: ChipSpec
    architecture: str
    weights_sha256: str
    layer: str | None

    def identity(self) -> dict[str, Any]:
        """Everything of the model that changes an embedding; goes into the fingerprint.

        The source does not.
        """
        chip = self.chip
        return {
            "architecture": self.architecture,
            "weights": self.weights_sha256,
            "size": list(chip.size),
            "mean": list(chip.mean),
            "std": list(chip.std),
            "resize": chip.resize,
        }

    @property
    def device(self) -> torch.device:
        """The device of the parameters."""
        return next(self.network.parameters()).device

    def normalise(self, chips: list[Pixels]) -> Tensor:
        """Chips, each (H, W, 3) uint8, to the network's input (N, 3, H, W) float32 on its device."""
        # Bytes go to the device, a quarter of the size of floats, and become floats there.
        pixels = torch.from_numpy(np.stack(chips)).to(self.device).permute(0, 3, 1, 2)
        stacked = pixels.to(torch.float32, memory_format=torch.contiguous_format) / 255
        mean = torch.tensor(self.chip.mean, device=self.device).view(3, 1, 1)
        std = torch.tensor(self.chip.std, device=self.device).view(3, 1, 1)
        return (stacked - mean) / std

    def grey_chip(self) -> Tensor:
        """A chip that shows nothing (3, H, W), to try the network on."""
        return self.normalise([np.full((*self.chip.size, 3), 128, dtype=np.uint8)])[0]


def load_model(
    source: str | Path = EMBEDDED,
    device: str | torch.device = "cpu",
    revision: str | None = None,
    resize: str | None = None,
) -> ReIdModel:
    """Load a model for inference.

    `source` is ``embedded``, a folder with config.json and weights, a weights file, or a hub id such as
    ``conservationxlabs/miewid-msv3`` or ``timm/mobilenetv2_100.ra_in1k`` (`revision` pins it). `resize`
    overrides the resize back end. Raises `ModelError` with the cure when the model is absent, does not fit,
    or cannot be fetched.
    """
    config_path, weights_path = locate(str(source), revision)
    config = _read_config(config_path)
    state = read_state(weights_path)
    network, chip, layer, architecture = _build(config, state, str(source), resize)
    network.eval().requires_grad_(False).to(device)
    return ReIdModel(str(source), network, chip, architecture, file_sha256(weights_path), layer)


def _read_config(path: Path | None) -> Mapping[str, Any]:
    if path is None:
        return {}
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error.strerror}") from error
    except RecursionError as error:
        raise ModelError(f"{path} is nested absurdly deep") from error
    except ValueError as error:
        raise ModelError(f"{path} is no JSON: {error}") from error
    if not isinstance(config, dict):
        raise ModelError(f"{path} must hold one JSON object")
    return config


_Built = tuple[nn.Module, ChipSpec, str | None, str]
"""Network, chip, layer to explain, and the architecture in words."""


def _build(config: Mapping[str, Any], state: State, source: str, resize: str | None) -> _Built:
    if config.get("architecture") == "miewid" or is_miewid(state):
        return _build_miewid(config, state, source, resize)
    if "architecture" not in config:
        lacking = (
            "config.json has no 'architecture'"
            if config
            else "there is no config.json with an 'architecture'"
        )
        raise ModelError(
            f"{source}: the weights are not MiewID's and {lacking}; write one such as "
            '{"architecture": "timm", "timm_name": "resnet50"} beside them'
        )
    return _build_timm(config, state, source, resize)


def _build_miewid(config: Mapping[str, Any], state: State, source: str, resize: str | None) -> _Built:
    with no_larger_than(state, source):
        miewid = build_miewid(config)
    load_strictly(miewid, miewid_layout(state), source)
    chip = _chip(section(config, "input"), _MIEWID_SIZE, *_IMAGENET, resize)
    own = config.get("backbone")
    described = own if isinstance(own, Mapping) else config.get("model_name", PUBLISHED_BACKBONE)
    architecture = f"miewid:{json.dumps(described, sort_keys=True)}:eps={miewid.eps}"
    return miewid, chip, _layer(config) or _MIEWID_LAYER, architecture


def _build_timm(config: Mapping[str, Any], state: State, source: str, resize: str | None) -> _Built:
    description = describe_timm(config)
    with no_larger_than(state, source):
        network = build_timm(description)
    load_strictly(network, timm_layout(network, state), source)
    size = description.size or (224, 224)
    mean, std = description.mean or _IMAGENET[0], description.std or _IMAGENET[1]
    chip = _chip({"resize": section(config, "input").get("resize")}, size, mean, std, resize)
    layer = _layer(config) or layer_to_explain(network, chip.size)
    # Configs name layers as timm does, whose model is our backbone.
    if (
        layer is not None
        and layer not in (known := dict(network.named_modules()))
        and f"backbone.{layer}" in known
    ):
        layer = f"backbone.{layer}"
    kwargs = json.dumps(dict(description.kwargs), sort_keys=True)
    outputs = f":outputs={description.outputs}" if description.outputs else ""
    return network, chip, layer, f"timm:{description.name}:{kwargs}{outputs}"


def _layer(config: Mapping[str, Any]) -> str | None:
    layer = config.get("explain_layer")
    if layer is None or isinstance(layer, str):
        return layer
    raise ModelError(f"config.json, key explain_layer: expected the name of a layer, found {layer!r}")


def _chip(described: Mapping[str, Any], size: Any, mean: Any, std: Any, resize: str | None) -> ChipSpec:
    # Configs describe the back end in words, such as "stretch, PIL bilinear with antialias".
    own = "opencv" if "opencv" in str(described.get("resize")).lower() else "pil"
    try:
        height, width = described.get("size", size)
        return ChipSpec(
            (int(height), int(width)),
            tuple(map(float, described.get("mean", mean))),  # type: ignore[arg-type]
            tuple(map(float, described.get("std", std))),  # type: ignore[arg-type]
            resize or own,  # type: ignore[arg-type]
        )
    except (TypeError, ValueError, OverflowError) as error:
        raise ModelError(f"config.json, key input: {error}") from error
