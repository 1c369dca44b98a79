"""What a sweep tries by default.

It tries layers beside the default one, all presets and reductions, both homography estimators, and the local
matchers that need no weights.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from torch import Tensor

from pairx_engine.engine import matcher_identity
from pairx_engine.errors import EngineError
from pairx_engine.local.registry import LOCAL_MATCHERS
from pairx_engine.relevance.descriptors import path_of
from pairx_engine.relevance.explainer import LayerExplainer
from pairx_engine.relevance.presets import REDUCTIONS, preset_named
from schemas.settings import Settings
from tasks.evaluation.sweep import Sweep
from tasks.job import Job, engine_of, model_of

FEWEST_CELLS, MOST_CELLS = 36, 4096
"""Least and most cells of a layer's map: fewer say little about place, more take minutes to match."""
HOMOGRAPHIES = ("magsac", "least_squares")
SAME_COVERAGE = "signed_sum"
"""A reduction not tried by default: coverage takes magnitudes, so `abs_of_sum` gives the same."""


def sweep_of(job: Job, layers: Sequence[str] = (), matchers: Mapping[str, str | None] | None = None) -> Sweep:
    """The sweep for a job; the job's own settings are always among the candidates.

    Raises `EngineError` for a layer that gives no map and for a matcher whose weights cannot be loaded.
    """
    chosen = job.settings
    free = {name: None for name, matcher in LOCAL_MATCHERS.items() if not matcher.needs_weights}
    tried = dict(matchers or {}) | {chosen.matcher: chosen.matcher_weights} | free
    for name, weights in tried.items():
        matcher_identity(name, weights, job.settings.max_keypoints)
    for layer in layers:
        _features(job, layer)
    return Sweep(
        layers=tuple(dict.fromkeys([job.layers[0], *(layers or neighbouring_layers(job))])),
        presets=tuple(dict.fromkeys([chosen.preset, *engine_of(job).presets])),
        reductions=tuple(name for name in REDUCTIONS if name != SAME_COVERAGE),
        matchers=tuple(sorted(tried.items())),
        homographies=HOMOGRAPHIES,
    )


def default_candidate(settings: Settings, layer: str) -> dict[str, str]:
    """The settings, written as a candidate."""
    reduction = settings.reduction or preset_named(settings.preset).reduction
    return {
        "layer": layer,
        "preset": settings.preset,
        "reduction": "abs_of_sum" if reduction == SAME_COVERAGE else reduction,
        "matcher": settings.matcher,
        "homography": settings.homography,
    }


def neighbouring_layers(job: Job) -> list[str]:
    """The default layer and modules beside it with maps of a useful size, in the network's order."""
    network, default = model_of(job).network, job.layers[0]
    parent = path_of(default).rpartition(".")[0]
    siblings = [
        f"{parent}.{name}" if parent else name for name, _ in network.get_submodule(parent).named_children()
    ]
    found = []
    for name in siblings:
        try:
            features = _features(job, name)
        except (EngineError, RuntimeError, ValueError):
            continue
        if FEWEST_CELLS <= features.shape[-2] * features.shape[-1] <= MOST_CELLS:
            found.append(name)
    return found


def _features(job: Job, layer: str) -> Tensor:
    """The map (C, h, w) that a layer gives for a grey chip."""
    model = model_of(job)
    grey = model.normalise([np.full((*model.chip.size, 3), 128, dtype=np.uint8)])[0]
    return LayerExplainer(model.network, [layer], job.settings.preset).see(grey).features[layer]
