"""Weights of the learned matchers: found by name in the user's folder, as safetensors, loaded strictly."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from pairx_engine.errors import ModelError
from pairx_engine.local.features import MissingWeightsError
from pairx_engine.models.checkpoint import file_sha256, read_state

_SHOWN = 8


@dataclass(frozen=True)
class WeightsFile:
    """A file of weights: the names it may have (the first is the one to use) and where they come from."""

    names: tuple[str, ...]
    origin: str

    def find(self, folder: Path | None) -> Path:
        """The file in `folder`. Raises `MissingWeightsError` naming file, origin and conversion."""
        if folder is not None:
            for name in self.names:
                if (folder / name).is_file():
                    return folder / name
        place = (
            f"{folder} has no {self.names[0]}"
            if folder is not None
            else f"no folder of weights was named; it must hold {self.names[0]}"
        )
        raise MissingWeightsError(
            f"{place}. Nothing is downloaded: fetch {self.origin}, save its state dict once with "
            "safetensors.torch.save_file(state, path), and name the folder as the matcher's weights"
        )


_LIGHTGLUE = "https://github.com/cvg/LightGlue/releases/download/v0.1_arxiv/{}_lightglue.pth (Apache-2.0)"
_XFEAT = "https://github.com/verlab/accelerated_features (weights/{}, Apache-2.0)"
FILES = {
    "aliked": WeightsFile(
        ("aliked_n16.safetensors", "aliked_n16_kornia.safetensors"),
        "https://github.com/Shiaoming/ALIKED (models/aliked-n16.pth, BSD-3-Clause)",
    ),
    "aliked_lightglue": WeightsFile(("aliked_lightglue.safetensors",), _LIGHTGLUE.format("aliked")),
    "disk": WeightsFile(
        ("disk_depth.safetensors",),
        "https://github.com/cvlab-epfl/disk (depth-save.pth, its entry 'extractor', Apache-2.0)",
    ),
    "disk_lightglue": WeightsFile(("disk_lightglue.safetensors",), _LIGHTGLUE.format("disk")),
    "xfeat": WeightsFile(("xfeat.safetensors", "xfeat_kornia.safetensors"), _XFEAT.format("xfeat.pt")),
    "lighterglue": WeightsFile(
        ("lighterglue.safetensors", "lighterglue_l3_kornia.safetensors"),
        _XFEAT.format("xfeat-lighterglue.pt"),
    ),
    "superpoint": WeightsFile(
        ("superpoint.safetensors",),
        "https://github.com/cvg/LightGlue/releases/download/v0.1_arxiv/superpoint_v1.pth (research use only)",
    ),
    "superpoint_lightglue": WeightsFile(
        ("superpoint_lightglue.safetensors",), _LIGHTGLUE.format("superpoint")
    ),
}


@dataclass(frozen=True)
class Loaded:
    """A state dict and the hash of the file it came from."""

    state: dict[str, Tensor]
    sha256: str
    source: str


def read_weights(part: str, folder: Path | None) -> Loaded:
    """Read one part's weights. Raises `MissingWeightsError`, or `ModelError` for a damaged file."""
    path = FILES[part].find(folder)
    return Loaded(dict(read_state(path)), file_sha256(path), path.name)


def lightglue_layout(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Bring the published keys of LightGlue to kornia's; keys that are kornia's already stay as they are."""
    layout = {}
    for key, value in state.items():
        key = key.removeprefix("matcher.")
        layout[re.sub(r"^(self_attn|cross_attn)\.(\d+)\.", r"transformers.\2.\1.", key)] = value
    return layout


def lightglue_depth(state: dict[str, Tensor], source: str) -> int:
    """Number of transformer layers in a LightGlue state dict in kornia's layout."""
    layers = {int(found[1]) for key in state if (found := re.match(r"transformers\.(\d+)\.", key))}
    if layers != set(range(len(layers))) or not layers:
        raise ModelError(f"{source} is no LightGlue state dict: its transformer layers are {sorted(layers)}")
    return len(layers)


def load_into(network: nn.Module, loaded: Loaded, may_be_absent: str = "", may_be_left: str = "") -> None:
    """Load every weight or refuse, then freeze the network in evaluation mode.

    `may_be_absent` and `may_be_left` are patterns (full match) of keys that inference never reads: absent
    ones keep their initial values, left ones in the file are dropped. Raises `ModelError` that lists what
    does not fit.
    """
    own = network.state_dict()
    given = {
        key: value for key, value in loaded.state.items() if key in own or not re.fullmatch(may_be_left, key)
    }
    missing = sorted(key for key in own.keys() - given.keys() if not re.fullmatch(may_be_absent, key))
    unexpected = sorted(given.keys() - own.keys())
    shapes = sorted(key for key in own.keys() & given.keys() if own[key].shape != given[key].shape)
    if missing or unexpected or shapes:
        lines = [f"{loaded.source} does not fit {type(network).__name__}; fetch the weights of this matcher"]
        for title, names in (("missing", missing), ("unexpected", unexpected), ("wrong shape", shapes)):
            if names:
                more = " …" if len(names) > _SHOWN else ""
                lines.append(f"  {title} ({len(names)}): {', '.join(names[:_SHOWN])}{more}")
        raise ModelError("\n".join(lines))
    if bad := [
        key for key, value in given.items() if value.is_floating_point() and not torch.isfinite(value).all()
    ]:
        raise ModelError(
            f"{loaded.source} holds weights that are not finite, {bad[0]} among them; fetch it again"
        )
    network.load_state_dict(given, strict=False)
    network.eval().requires_grad_(False)
