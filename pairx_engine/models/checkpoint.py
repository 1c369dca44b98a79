"""Weights from files, always loaded strictly.

Safetensors is preferred; torch archives are read only by the restricted loader.
"""

from __future__ import annotations

import hashlib
import pickle
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn.modules.module import register_module_parameter_registration_hook

from pairx_engine.errors import ModelError

State = Mapping[str, Tensor]
_SUFFIXES = (".safetensors", ".bin", ".pt", ".pth")
_WRAPPERS = ("model_state_dict", "state_dict", "model")
_SHOWN = 8


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's bytes, read in blocks."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def read_state(path: Path) -> State:
    """Read a state dict from a `.safetensors` file or a `.bin`, `.pt` or `.pth` archive.

    Archives are read by torch's weights-only unpickler. Nothing in the file is executed. Raises `ModelError`
    when the file is absent, damaged, of another type, or holds anything but tensors.
    """
    if path.suffix not in _SUFFIXES:
        raise ModelError(f"{path.name}: weights must be .safetensors (or a .bin/.pt/.pth state dict)")
    try:
        loaded: Any = (
            load_file(path)
            if path.suffix == ".safetensors"
            else torch.load(path, map_location="cpu", weights_only=True)
        )
    except FileNotFoundError as error:
        raise ModelError(f"no weights at {path}") from error
    except pickle.UnpicklingError as error:
        # torch's own message advises switching the protection off.
        raise ModelError(
            f"{path.name} is damaged or holds more than tensors, so it was not loaded; fetch it again, or have its owner "
            "save model.state_dict() as safetensors"
        ) from error
    except Exception as error:  # a damaged archive breaks in as many ways as the reader has parts
        raise ModelError(
            f"{path.name} holds no readable weights ({str(error).splitlines()[0] if str(error) else type(error).__name__}); "
            "fetch it again or save the state dict as safetensors"
        ) from error
    for wrapper in _WRAPPERS:
        if isinstance(loaded, Mapping) and isinstance(loaded.get(wrapper), Mapping):
            loaded = loaded[wrapper]
            break
    if not isinstance(loaded, Mapping) or not all(isinstance(v, Tensor) for v in loaded.values()):
        raise ModelError(
            f"{path.name} is not a state dict of tensors; save model.state_dict() as safetensors"
        )
    return loaded


def is_miewid(state: State) -> bool:
    """Whether the keys are MiewID's: a backbone, a batch-norm neck and one learned pooling power."""
    return "bn.running_mean" in state and any(k in state for k in ("backbone.global_pool.p", "pooling.p"))


def miewid_layout(state: State) -> dict[str, Tensor]:
    """Bring published (`backbone.global_pool.p`) and training (`pooling.p`) layouts to one.

    The unused heads are dropped.
    """
    layout = {}
    for key, value in state.items():
        if key.startswith(("final.", "backbone.classifier.")):
            continue
        layout["backbone.global_pool.p" if key == "pooling.p" else key] = value
    return layout


def load_strictly(network: nn.Module, state: State, source: str) -> None:
    """Load every weight or refuse: with `strict=False`, random weights have passed for trained ones.

    Raises `ModelError` that lists weights that are missing, unexpected or of another shape, and for
    `unusable` weights.
    """
    own = network.state_dict()
    missing, unexpected = sorted(own.keys() - state.keys()), sorted(state.keys() - own.keys())
    shapes = [
        f"{k} {tuple(state[k].shape)} for {tuple(own[k].shape)}"
        for k in own.keys() & state.keys()
        if own[k].shape != state[k].shape
    ]
    if missing or unexpected or shapes:
        lines = [
            f"the weights of {source} do not fit its architecture; name the folder with the matching config.json"
        ]
        for title, names in (
            ("missing", missing),
            ("unexpected", unexpected),
            ("wrong shape", sorted(shapes)),
        ):
            if names:
                lines.append(
                    f"  {title} ({len(names)}): {', '.join(names[:_SHOWN])}{' …' if len(names) > _SHOWN else ''}"
                )
        raise ModelError("\n".join(lines))
    if why := unusable(own, state):
        raise ModelError(f"{source}: {why}; fetch its weights again, in floating point")
    network.load_state_dict(dict(state), strict=True)


def unusable(own: State, state: State) -> str | None:
    """Why weights of the right shapes cannot be used, as a clause; None if they can.

    Reasons are whole numbers instead of floating point, NaN and infinity.
    """
    for key, value in state.items():
        if value.layout is not torch.strided or value.is_meta or value.is_quantized:
            return f"weight {key} is no plain tensor"
        if value.is_floating_point() != own[key].is_floating_point() or value.is_complex():
            return f"weight {key} holds {str(value.dtype).removeprefix('torch.')} numbers"
        if value.is_floating_point() and not bool(torch.isfinite(value.float()).all()):
            return f"weight {key} holds numbers that are not finite"
    return None


@contextmanager
def no_larger_than(state: State, source: str) -> Iterator[None]:
    """A block that builds a network for these weights, and refuses a network that is too large.

    A config of a few bytes can ask for a network of any size. A network with far more weights than the file
    is refused before memory is taken: weights that fit strictly are as large as their network.
    """
    # Twice as many are allowed, since a module may register parameters that it replaces while it is built.
    left = 2 * sum(value.numel() for value in state.values())

    def count(module: nn.Module, name: str, parameter: nn.Parameter | None) -> None:
        nonlocal left
        left -= 0 if parameter is None else parameter.numel()
        if left < 0:
            raise ModelError(
                f"the weights of {source} do not fit its architecture, which has far more of them; name the folder with the "
                "matching config.json"
            )

    handle = register_module_parameter_registration_hook(count)
    try:
        yield
    finally:
        handle.remove()
