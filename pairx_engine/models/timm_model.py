"""Any timm model as a re-identification model: its pooled features, or its outputs, are the embedding."""

from __future__ import annotations

import difflib
import importlib
import pkgutil
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import timm
import torch
from timm.layers import resample_abs_pos_embed
from timm.models.swin_transformer import SwinTransformer
from torch import Tensor, nn

from pairx_engine.errors import ModelError
from pairx_engine.models.cells import CellGrid, cell_grid, extra_tokens

_STRIDE_TO_EXPLAIN = 16
"""The stride of the middle layer that PAIR-X explains.

At stride 16 a cell is small enough to point at, and deep enough to mean something.
"""
_NOT_FROM_CONFIG = (
    "pretrained",
    "pretrained_cfg",
    "num_classes",
    "checkpoint_path",
    "features_only",
    "scriptable",
)
"""Arguments of `timm.create_model` that would fetch or load something, or change the output."""
_OLD_SWIN_STAGE = re.compile(r"^layers\.(\d+)\.downsample\.")


class PooledFeatures(nn.Module):
    """Chips (N, 3, H, W), normalised, to what a timm model makes of them (N, D): pooled features mostly."""

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
    """Of an architecture, or of a class in timm.models where the architecture is one of the user's own."""
    kwargs: Mapping[str, Any]
    size: tuple[int, int] | None
    mean: tuple[float, ...] | None
    std: tuple[float, ...] | None
    outputs: int = 0
    """Outputs of the classifier where these are the embedding; 0 where the pooled features are."""


def describe_timm(config: Mapping[str, Any]) -> TimmDescription:
    """Read what a config.json says of a timm model, in our own layout or timm's hub layout.

    Our own is `{"architecture": "timm", "timm_name": …, "timm_kwargs": …, "input": …}`, with a `timm_class` such
    as ``timm.models.swin_transformer.SwinTransformer`` in place of the name for sizes that timm has no name for.
    Where its `embedding_dim` is the `num_classes` among the arguments, the classifier's output is the embedding.
    Raises `ModelError` that names the key which is missing or of the wrong shape.
    """
    if config.get("architecture") == "timm":
        name = config.get("timm_name", config.get("timm_class"))
        if name is None:
            raise ModelError("config.json has architecture 'timm' but no timm_name")
        chip, size_key = section(config, "input"), "size"
        kwargs = section(config, "timm_kwargs")
        size = chip.get("size")
    else:
        chip, size_key = section(config, "pretrained_cfg") or config, "input_size"
        name, kwargs = config["architecture"], section(config, "model_args")
        shape = chip.get("input_size")
        size = shape[1:] if isinstance(shape, list) else shape
    try:
        return TimmDescription(
            str(name),
            dict(kwargs),
            None if size is None else (int(size[0]), int(size[1])),
            None if chip.get("mean") is None else tuple(map(float, chip["mean"])),
            None if chip.get("std") is None else tuple(map(float, chip["std"])),
            _outputs(config, kwargs),
        )
    except (TypeError, ValueError, OverflowError, LookupError) as error:
        raise ModelError(
            f"config.json: {size_key}, mean and std must be lists of numbers, one per side or channel ({error})"
        ) from error


def _outputs(config: Mapping[str, Any], kwargs: Mapping[str, Any]) -> int:
    if config.get("architecture") != "timm" or config.get("embedding_dim") != kwargs.get("num_classes"):
        return 0
    return int(kwargs.get("num_classes", 0))


def section(config: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    """An object within a config.json, empty where absent; raises `ModelError` for anything else."""
    value = config.get(key, {})
    if not isinstance(value, Mapping):
        raise ModelError(f"config.json, key {key}: expected an object, found {value!r}")
    return value


def known_to_timm(name: str, key: str) -> str:
    """The name itself, if timm has such an architecture.

    Otherwise raises `ModelError` that names `key` and similar names. timm would download names such as
    ``hf-hub:owner/name``; they are refused here.
    """
    if ":" in name or not timm.is_model(name):
        near = difflib.get_close_matches(name, timm.list_models(), n=4)
        hint = f"; near names: {', '.join(near)}" if near else ""
        raise ModelError(f"timm has no architecture {name!r} (config.json, key {key}){hint}")
    return name


def build_timm(description: TimmDescription) -> PooledFeatures:
    """Build the model without weights, without a classifier that is none of the embedding, for evaluation.

    Raises `ModelError` for names that timm does not know and arguments that it refuses.
    """
    make = _maker(description.name)
    kwargs = {k: v for k, v in description.kwargs.items() if k not in _NOT_FROM_CONFIG}
    try:
        backbone = make(num_classes=description.outputs, **kwargs)
    except ModelError:
        raise
    except Exception as error:  # arguments reach the architecture's own code, which may fail in any way
        raise ModelError(f"timm cannot build {description.name!r} with {kwargs}: {error}") from error
    return PooledFeatures(backbone).eval()


def _maker(name: str) -> Callable[..., nn.Module]:
    """What builds the architecture of that name, or the class at that place in timm.models."""
    module, _, kind = name.rpartition(".")
    if not module:
        return partial(timm.create_model, known_to_timm(name, "timm_name or architecture"), pretrained=False)
    known = pkgutil.iter_modules(timm.models.__path__, "timm.models.")
    found = (
        getattr(importlib.import_module(module), kind, None) if module in {m.name for m in known} else None
    )
    if not (isinstance(found, type) and issubclass(found, nn.Module)):
        raise ModelError(f"timm.models has no class {name!r} (config.json, key timm_class)")
    return found


def timm_layout(network: PooledFeatures, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Checkpoint keys as `network` names them, without the classifier's.

    Swin checkpoints of timm before 0.9, such as MegaDescriptor's, differ. They hold each downsampling at the
    end of a stage instead of the start of the next, and masks that are now computed.
    """
    bare = {k.removeprefix("backbone."): v for k, v in state.items()}
    heads = () if getattr(network.backbone, "num_classes", 0) else classifier_keys(network)
    if isinstance(network.backbone, SwinTransformer) and "layers.0.downsample.norm.weight" in bare:
        moved = {
            _OLD_SWIN_STAGE.sub(lambda m: f"layers.{int(m[1]) + 1}.downsample.", k): v
            for k, v in bare.items()
        }
        bare = {k: v for k, v in moved.items() if not k.endswith(("attn_mask", "relative_position_index"))}
        heads = (*heads, "head")
    kept = {k: v for k, v in bare.items() if not any(k.startswith(f"{head}.") for head in heads)}
    return {f"backbone.{k}": v for k, v in _for_this_grid(network.backbone, kept).items()}


def _for_this_grid(backbone: nn.Module, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Position embeddings that were learned for another grid of patches, resampled as timm does."""
    name = "pos_embed"
    own, its = getattr(backbone, name, None), state.get(name)
    if (
        own is None
        or its is None
        or own.shape == its.shape
        or its.ndim != 3
        or its.shape[-1] != own.shape[-1]
    ):
        return state
    prefix = (
        int(getattr(backbone, "num_prefix_tokens", 0))
        if not getattr(backbone, "no_embed_class", False)
        else 0
    )
    grid = list(getattr(backbone.patch_embed, "grid_size", ()))
    return state | {name: resample_abs_pos_embed(its, grid, num_prefix_tokens=prefix)}


def classifier_keys(network: PooledFeatures) -> tuple[str, ...]:
    """Prefixes of the classifier's weights, which a checkpoint may hold but a feature extractor lacks."""
    named = getattr(network.backbone, "pretrained_cfg", {}).get("classifier") or ()
    return (named,) if isinstance(named, str) else tuple(named)


def layer_to_explain(network: PooledFeatures, size: tuple[int, int]) -> str | None:
    """The layer that is explained unless another is named; tried with a chip of `size` (H, W).

    It is the last stage at stride 16 by timm's feature table, a map or with the channels last, as Swin's are.
    Vision transformers keep one grid from block to block: there it is the block at three quarters of their
    depth, whose tokens still tell parts of an animal apart. None where the model has neither.
    """
    table = getattr(network.backbone, "feature_info", None)
    entries = [e for e in getattr(table, "info", table) or [] if e.get("module")]
    modules = dict(network.backbone.named_modules())
    entries = [e for e in entries if e["module"] in modules]
    grids = {e.get("reduction") for e in entries}
    if len(entries) > 2 and len(grids) == 1:
        name = entries[3 * len(entries) // 4 - 1]["module"]
        return f"backbone.{name}" if _cells(network, name, size) else None
    for entry in reversed(entries):
        if entry.get("reduction") == _STRIDE_TO_EXPLAIN:
            grid = _cells(network, entry["module"], size)
            if grid is not None and all(
                abs(n - side / _STRIDE_TO_EXPLAIN) <= 1
                for n, side in zip((grid.height, grid.width), size, strict=True)
            ):
                return f"backbone.{entry['module']}"
    return None


class _Reached(Exception):
    """Leaves a forward pass once the wanted module has run."""

    def __init__(self, output: object) -> None:
        super().__init__()
        self.output = output


def _cells(network: PooledFeatures, name: str, size: tuple[int, int]) -> CellGrid | None:
    def stop(module: nn.Module, inputs: object, output: object) -> None:
        raise _Reached(output)

    handle = network.backbone.get_submodule(name).register_forward_hook(stop)
    try:
        with torch.no_grad():
            network(torch.zeros(1, 3, *size))
    except _Reached as reached:
        return cell_grid(reached.output, size, extra_tokens(network.backbone, name))
    except (RuntimeError, AssertionError):
        # A network of fixed input size reports that itself once a real chip arrives.
        return None
    finally:
        handle.remove()
    return None
