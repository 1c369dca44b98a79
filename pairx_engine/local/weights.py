"""Weights of the learned matchers, as safetensors, always loaded strictly.

They are found by name in the user's folder.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn

from pairx_engine.errors import ModelError
from pairx_engine.local.features import MissingWeightsError
from pairx_engine.models.checkpoint import file_sha256, read_state, unusable

_SHOWN = 8


@dataclass(frozen=True)
class Loaded:
    """A state dict and the hash of the file it came from."""

    state: dict[str, Tensor]
    sha256: str
    source: str


@dataclass(frozen=True)
class WeightsFile:
    """A file of weights: the names it may have, the first preferred, and where it comes from."""

    names: tuple[str, ...]
    origin: str

    def find(self, folder: Path | None) -> Path:
        """The file in `folder`; raises `MissingWeightsError` that names file, origin and conversion."""
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

    def read(self, folder: Path | None) -> Loaded:
        """The file's state; raises `MissingWeightsError`, or `ModelError` for a damaged file."""
        path = self.find(folder)
        return Loaded(dict(read_state(path)), file_sha256(path), path.name)


def load_into(network: nn.Module, loaded: Loaded, may_be_absent: str = "", may_be_left: str = "") -> None:
    """Load every weight or refuse, then freeze the network in evaluation mode.

    `may_be_absent` and `may_be_left` are patterns (full match) of keys that inference never reads. Absent
    keys keep their initial values; keys of the second pattern that only the file has are dropped. Raises
    `ModelError` that lists what does not fit.
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
    if why := unusable(own, given):
        raise ModelError(f"{loaded.source}: {why}; fetch it again")
    network.load_state_dict(given, strict=False)
    network.eval().requires_grad_(False)
