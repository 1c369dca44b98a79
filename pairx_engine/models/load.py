"""Find, build and load a model: the embedded one, a folder, a weights file, or a hub id."""

from __future__ import annotations

import json
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies

import numpy as np
import torch
from torch import Tensor, nn

from pairx_engine.errors import ModelError
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

EMBEDDED = "embedded"
EMBEDDED_FOLDER = Path(__file__).resolve().parent / "embedded"
PINNED_REVISIONS = {"conservationxlabs/miewid-msv3": "4f1d7f2b521149e5fe34bb85f377248ce9971a7d"}
_WEIGHT_FILES = ("model.safetensors", "pytorch_model.bin")
_TO_ANSWER = 5.0
"""Seconds within which the hub must take a connection."""
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
    config_path, weights_path = _locate(str(source), revision)
    config = _read_config(config_path)
    state = read_state(weights_path)
    network, chip, layer, architecture = _build(config, state, str(source), resize)
    network.eval().requires_grad_(False).to(device)
    return ReIdModel(str(source), network, chip, architecture, file_sha256(weights_path), layer)


def _locate(source: str, revision: str | None) -> tuple[Path | None, Path]:
    folder = EMBEDDED_FOLDER if source == EMBEDDED else _path(source)
    if folder.is_dir():
        weights = next((folder / name for name in _WEIGHT_FILES if (folder / name).is_file()), None)
        config = folder / "config.json"
        if weights is None:
            neither = "" if config.is_file() else ", and no config.json either"
            raise ModelError(f"{folder} has no weights; expected one of {', '.join(_WEIGHT_FILES)}{neither}")
        return (config if config.is_file() else None), weights
    if folder.is_file():
        config = folder.parent / "config.json"
        return (config if config.is_file() else None), folder
    if _means_a_place(source):
        raise ModelError(
            f"no model at {source!r}: no folder at {folder.absolute()}; name an existing folder, a weights file, or a hub id "
            "like owner/name"
        )
    return _fetch(source, revision or PINNED_REVISIONS.get(source))


def _means_a_place(source: str) -> bool:
    """Whether a name, at which there is nothing, is a mistyped path and no hub id."""
    owner, _, name = source.partition("/")
    return not name or "/" in name or "\\" in source or source[0] in ".~" or Path(owner).is_dir()


def _path(source: str) -> Path:
    """The source as a path, whether or not it exists; raises `ModelError` where it cannot be a path."""
    try:
        path = Path(source).expanduser()
        path.exists()
    except (OSError, RuntimeError, ValueError) as error:
        raise ModelError(f"no model at {source[:120]!r}: {error.__class__.__name__}") from error
    return path


def _fetch(hub_id: str, revision: str | None) -> tuple[Path | None, Path]:
    """Fetch a hub model's config and weights (never its code) through the hub client's cache."""
    for name in _WEIGHT_FILES:
        # One kind of weights at a time, since many repositories hold the same weights twice.
        folder = _snapshot(hub_id, revision, ["config.json", name])
        if (folder / name).is_file():
            config = folder / "config.json"
            return (config if config.is_file() else None), folder / name
    raise ModelError(
        f"{hub_id!r} offers none of {', '.join(_WEIGHT_FILES)}; fetch its weights and name their folder"
    )


def _snapshot(hub_id: str, revision: str | None, patterns: list[str]) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError

    only_kept = not _hub_answers()
    try:
        return Path(
            snapshot_download(
                hub_id,
                revision=revision,
                allow_patterns=patterns,
                max_workers=2,
                local_files_only=only_kept,
            )
        )
    except HFValidationError as error:
        raise ModelError(f"{hub_id!r} is neither a folder nor a valid hub id: {error}") from error
    except Exception as error:  # the client raises a different family for each kind of network failure
        raise ModelError(
            f"{hub_id!r} (revision {revision or 'newest'}) could not be fetched: {type(error).__name__}"
            f"{', and the hub does not answer' * only_kept}. Check the name and the network; without network, copy config.json and model.safetensors into a folder and name it: --model FOLDER"
        ) from error


def _hub_answers() -> bool:
    """Whether a connection to the hub can be made, where no proxy makes it.

    Without one the client would try each request six times, for half a minute, before it looks at its cache.
    """
    from huggingface_hub import constants

    place = urlsplit(constants.ENDPOINT)
    if getproxies():
        return True
    try:
        socket.create_connection((place.hostname or "", place.port or 443), _TO_ANSWER).close()
    except OSError:
        return False
    return True


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
