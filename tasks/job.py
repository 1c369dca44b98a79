"""What every shard task is told, and the engine that a worker process makes of it once.

Torch and the engine are imported where they are needed: a night without news needs neither.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, fields, replace
from functools import cache, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from pairx_engine.errors import ModelError
from pairx_engine.model_files import EMBEDDED
from schemas.errors import AcceleratorFailure
from schemas.fingerprints import Fingerprints, fingerprints
from schemas.paths import local_path
from schemas.settings import Settings
from tasks.costs import spent_on
from tasks.store.warehouse import Warehouse

if TYPE_CHECKING:
    import torch

    from pairx_engine.engine import Engine, Recipe
    from pairx_engine.local.features import LocalMatcher
    from pairx_engine.models import ReIdModel
    from pairx_engine.relevance.explainer import LayerExplainer

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
    seen_bytes: int = 0
    """Bytes of what the model sees of a chip; 0 where no model was asked.

    They are those of the normalised chip, its embedding and the layers' features.
    """
    follows_from: str | None = None
    """A hash of what all this follows from, besides the warehouse; None where nobody asked: `tasks.runs.remembered`."""

    @property
    def recipe(self) -> Recipe:
        """The recipe from which each process makes its engine."""
        return replace(recipe_of(self.settings), layers=self.layers)

    @property
    def batch_size(self) -> int:
        """Chips per forward on this process's device."""
        return self.settings.batch_size or (_GPU_BATCH if device().type == "cuda" else _CPU_BATCH)


def recipe_of(settings: Settings) -> Recipe:
    """The engine that the settings name."""
    from pairx_engine.engine import Recipe

    return Recipe(**{field.name: getattr(settings, field.name) for field in fields(Recipe)})


def prepare_job(warehouse: Warehouse, settings: Settings) -> Job:
    """Load model and matcher once to learn what they are, resolve the layers, and derive the fingerprints.

    Paths of weights become absolute: workers have current folders of their own. Raises `ModelError` for a
    model or layer that cannot be used, before any work starts.
    """
    from pairx_engine import figure
    from pairx_engine.copies import verification as copies
    from pairx_engine.photo.chips import CONVENTION, DECODER
    from pairx_engine.relevance.presets import preset_named

    settings = with_absolute_paths(settings)
    engine = _engine(recipe_of(settings), "cpu")
    model, matcher, layers = engine.model, engine.matcher, engine.layers
    settings = settings.model_copy(update={"preset": engine.preset})
    seen = engine.try_layers()
    prints = fingerprints(
        settings,
        {"decoder": DECODER, "convention": CONVENTION, "hash": "difference-64"},
        model.identity(),
        matcher.extraction_identity(),
        matcher.identity(),
        layers,
        copies.identity(),
        preset_named(engine.preset).parameters,
        figure.identity(),
    )
    return Job(
        warehouse,
        settings,
        prints,
        layers,
        model.weights_sha256,
        model.chip.size,
        engine.explainer.notice,
        seen.nbytes,
    )


def with_absolute_paths(settings: Settings) -> Settings:
    """The settings with absolute paths of weights: workers have current folders of their own."""
    weights = settings.matcher_weights and absolute(settings.matcher_weights)
    return settings.model_copy(update={"model": absolute(settings.model), "matcher_weights": weights})


def absolute(place: str) -> str:
    """The absolute path of an existing file or folder; any other name, such as a hub id, unchanged."""
    return local_path(place) if place != EMBEDDED and Path(place).expanduser().exists() else place


@cache
def device() -> torch.device:
    """The device of this process: the first visible GPU, else the CPU.

    A cluster shows each worker its own GPU. Whatever computes asks here first, so that the device is
    settled before anything is done on it. Raises `AcceleratorFailure` where the process was given GPUs
    and torch finds none: when a device is lost, the rest of the night's rows must not come from a CPU.
    """
    import torch

    from pairx_engine.device import accelerator

    given = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    found = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if found.type == "cpu" and torch.backends.cuda.is_built() and given not in ("", "-1", "NoDevFiles"):
        raise AcceleratorFailure(
            f"this process was given the GPUs {given} (CUDA_VISIBLE_DEVICES), but torch finds none",
            "see that nvidia-smi lists them; to compute on the CPU, use --cluster local or set CUDA_VISIBLE_DEVICES to nothing",
        )
    accelerator.settle(found)
    return found


@cache
def device_kind() -> str:
    """The kind of this process's device, as `runs` stores it."""
    from pairx_engine.device.accelerator import describe

    return describe(device())


def engine_of(job: Job) -> Engine:
    """This process's engine; refuses other weights than those in the run's fingerprints."""
    engine = engine_on(job, str(device()))
    if engine.model.weights_sha256 != job.weights_sha256:
        raise ModelError(
            f"the weights of {job.settings.model} on this machine differ from those that the run started with; "
            "give every worker the same file and start again"
        )
    return engine


def engine_on(job: Job, on: str) -> Engine:
    """This process's engine on a device, with any weights that it finds."""
    return _engine(job.recipe, on)


def model_of(job: Job) -> ReIdModel:
    """This process's model."""
    with spent_on("loading"):
        return engine_of(job).model


def matcher_of(job: Job) -> LocalMatcher:
    """This process's local matcher; needs no model."""
    with spent_on("loading"):
        return engine_on(job, str(device())).matcher


def explainer_of(job: Job) -> LayerExplainer:
    """This process's explainer for the run's layers, preset, reduction and precision."""
    with spent_on("loading"):
        return engine_of(job).explainer


@lru_cache(maxsize=2)
def _engine(recipe: Recipe, on: str) -> Engine:
    from pairx_engine.engine import Engine

    return Engine(recipe, on)
