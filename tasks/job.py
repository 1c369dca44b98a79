"""What every shard task is told, and what every worker process loads once: the model and the local matcher."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path

import numpy as np
import torch

from pairx_engine.accelerator import describe, settle
from pairx_engine.chips import CONVENTION, DECODER
from pairx_engine.errors import ModelError
from pairx_engine.local.features import Identity, LocalMatcher
from pairx_engine.local.registry import load_local_matcher
from pairx_engine.memory import keep_freed_memory
from pairx_engine.models import ReIdModel, load_model
from pairx_engine.relevance import LayerExplainer
from schemas.errors import AcceleratorFailure
from schemas.fingerprints import Fingerprints, fingerprints
from schemas.settings import Settings
from tasks.warehouse import Warehouse

READER = {"decoder": DECODER, "convention": CONVENTION, "hash": "difference-64"}
_CPU_BATCH, _GPU_BATCH = 8, 64


@dataclass(frozen=True)
class Job:
    """A run as its tasks see it: small, picklable, the same for every shard."""

    warehouse: Warehouse
    settings: Settings
    prints: Fingerprints
    layers: tuple[str, ...]
    weights_sha256: str
    chip_size: tuple[int, int]
    notice: str | None = None
    """What the user should know about how this model is explained."""

    @property
    def batch_size(self) -> int:
        """Chips per forward on this process's device."""
        return self.settings.batch_size or (_GPU_BATCH if device().type == "cuda" else _CPU_BATCH)


def prepare_job(warehouse: Warehouse, settings: Settings) -> Job:
    """Load model and matcher once to learn what they are, resolve the layers, and derive the fingerprints.

    Raises `ModelError` for a model or layer that cannot be used, before any work starts.
    """
    model = _load(settings.model, settings.model_revision, settings.resize, "cpu")
    matcher = _matcher(settings.matcher, settings.matcher_weights, settings.max_keypoints, "cpu")
    layers = tuple(dict.fromkeys(settings.layers or ((model.layer,) if model.layer else ())))
    if not layers:
        raise ModelError(
            f"model {settings.model} has no convolutional layer to explain; name one with --layer"
        )
    notice = _try_layers(model, layers, settings)
    prints = fingerprints(
        settings, READER, model.identity(), matcher.extraction_identity(), matcher.identity(), tuple(layers)
    )
    return Job(warehouse, settings, prints, tuple(layers), model.weights_sha256, model.chip.size, notice)


def _try_layers(model: ReIdModel, layers: tuple[str, ...], settings: Settings) -> str | None:
    """Explain a grey chip once: a layer that cannot be explained must show before a night's photos are embedded.

    Returns the explainer's notice.
    """
    chip = model.normalise([np.full((*model.chip.size, 3), 128, dtype=np.uint8)])
    try:
        explainer = _explainer(model, layers, settings)
        seen = explainer.see(chip[0])
        explainer.relevance(seen, seen.embedding[None])
    except (ValueError, RuntimeError) as error:
        raise ModelError(f"{model.source} cannot be explained at {', '.join(layers)}: {error}") from error
    return explainer.notice


@cache
def device() -> torch.device:
    """The device of this process: the first visible GPU (a cluster shows each worker its own), else the CPU.

    Whatever computes asks here first, so that the device is settled before anything is done on it. Raises
    `AcceleratorFailure` where the process was given GPUs and torch finds none: a device that fell off the bus must not turn
    the rest of the night into rows from a CPU.
    """
    given = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    found = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if found.type == "cpu" and torch.backends.cuda.is_built() and given not in ("", "-1", "NoDevFiles"):
        raise AcceleratorFailure(
            f"this process was given the GPUs {given} (CUDA_VISIBLE_DEVICES), but torch finds none",
            "see that nvidia-smi lists them; to compute on the CPU, use --cluster local or set CUDA_VISIBLE_DEVICES to nothing",
        )
    settle(found)
    return found


@cache
def device_kind() -> str:
    """The kind of this process's device, as `runs` stores it."""
    return describe(device())


def model_of(job: Job) -> ReIdModel:
    """This process's model; refuses weights other than those that the run was fingerprinted with."""
    chosen = job.settings
    model = _load(chosen.model, chosen.model_revision, chosen.resize, str(device()))
    if model.weights_sha256 != job.weights_sha256:
        raise ModelError(
            f"the weights of {chosen.model} on this machine differ from those that the run started with; "
            "give every worker the same file and start again"
        )
    return model


def matcher_of(job: Job) -> LocalMatcher:
    """This process's local matcher."""
    return matcher_named(job, job.settings.matcher, job.settings.matcher_weights)


def matcher_named(job: Job, name: str, weights: str | None) -> LocalMatcher:
    """Another local matcher than the run's, with as many keypoints; kept by this process."""
    return _matcher(name, weights, job.settings.max_keypoints, str(device()))


def matcher_identity(job: Job, name: str, weights: str | None) -> Identity:
    """What that matcher says of itself; loads it on the CPU, since whoever plans work may have no use for a device."""
    return _identity(name, weights, job.settings.max_keypoints)


@lru_cache(maxsize=2)
def explainer_of(job: Job) -> LayerExplainer:
    """This process's explainer for the run's layers, preset, reduction and precision."""
    return _explainer(model_of(job), job.layers, job.settings)


def _explainer(model: ReIdModel, layers: tuple[str, ...], chosen: Settings) -> LayerExplainer:
    return LayerExplainer(model.network, layers, chosen.preset, chosen.precision, reduction=chosen.reduction)


@lru_cache(maxsize=2)
def _load(source: str, revision: str | None, resize: str | None, on: str) -> ReIdModel:
    keep_freed_memory()
    if "OMP_NUM_THREADS" in os.environ:
        torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    return load_model(source, on, revision, resize)


@lru_cache(maxsize=8)
def _identity(name: str, weights: str | None, max_keypoints: int) -> Identity:
    folder = Path(weights).expanduser() if weights else None
    return load_local_matcher(name, folder, "cpu", max_keypoints).identity()


@lru_cache(maxsize=8)
def _matcher(name: str, weights: str | None, max_keypoints: int, on: str) -> LocalMatcher:
    return load_local_matcher(name, Path(weights).expanduser() if weights else None, on, max_keypoints)
