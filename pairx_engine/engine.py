"""The engine: a model, its explainer and a local matcher on one device.

It knows photos, but no catalogue or warehouse.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from pairx_engine.device.memory import keep_freed_memory
from pairx_engine.errors import ModelError
from pairx_engine.explained_pair import ExplainedPair, evidence_arrays
from pairx_engine.explanations import State, Subject, explain
from pairx_engine.explanations.seam import Shown
from pairx_engine.figure import FigurePhoto
from pairx_engine.local.evidence import LocalEvidence, local_evidence
from pairx_engine.local.features import Identity, LocalMatcher
from pairx_engine.local.homography import Method
from pairx_engine.local.registry import load_local_matcher
from pairx_engine.models import ReIdModel, load_model
from pairx_engine.pair.explain import explain_with
from pairx_engine.photo.chips import Pixels, view_of
from pairx_engine.photo.value_range import ValueRange
from pairx_engine.relevance.explainer import LayerExplainer
from pairx_engine.relevance.locking import exclusive
from pairx_engine.relevance.precision import FULL, tensor_cores
from pairx_engine.relevance.seen import Seen
from pairx_engine.relevance.starts import cosine
from pairx_engine.relevance.suitable import has_attention, preset_for, suitable_presets


@dataclass(frozen=True)
class Recipe:
    """What an engine is made of: only names and numbers, so that it can be sent.

    Its fields are the settings of the same names.
    """

    model: str
    model_revision: str | None
    resize: str | None
    layers: tuple[str, ...]
    preset: str
    reduction: str | None
    precision: str
    matcher: str
    matcher_weights: str | None
    max_keypoints: int
    view_side: int
    homography: Method
    homography_threshold: float


class Engine:
    """All that a recipe names, loaded on a device when first needed and kept by the process.

    Raises `ModelError` for a model that cannot be used, `EngineError` for unknown names.
    """

    def __init__(self, recipe: Recipe, device: torch.device | str = "cpu") -> None:
        self.recipe, self.device = recipe, str(device)

    @property
    def model(self) -> ReIdModel:
        """The model."""
        chosen = self.recipe
        return _model(chosen.model, chosen.model_revision, chosen.resize, self.device)

    @property
    def matcher(self) -> LocalMatcher:
        """The local matcher."""
        return self.matcher_named(self.recipe.matcher, self.recipe.matcher_weights)

    def matcher_named(self, name: str, weights: str | None) -> LocalMatcher:
        """Another local matcher than the recipe's, with the same number of keypoints."""
        return _matcher(name, weights, self.recipe.max_keypoints, self.device)

    def matcher_of(self, name: str) -> LocalMatcher:
        """Any matcher that needs no weights, or whose weights lie in the recipe's folder."""
        return self.matcher_named(name, self.recipe.matcher_weights)

    @cached_property
    def layers(self) -> tuple[str, ...]:
        """The layers to explain: those of the recipe, or else the model's own."""
        named = self.recipe.layers or ((self.model.layer,) if self.model.layer else ())
        if not named:
            raise ModelError(
                f"model {self.recipe.model} has no layer whose cells lie in the chip; name one with --layer"
            )
        return tuple(dict.fromkeys(named))

    @cached_property
    def preset(self) -> str:
        """The preset's name: that of the recipe, or the default of such networks."""
        return preset_for(self.model.network, self.recipe.preset)

    @cached_property
    def presets(self) -> list[str]:
        """Names of the presets that suit the network."""
        return suitable_presets(self.model.network)

    @cached_property
    def explainer(self) -> LayerExplainer:
        """The explainer of these layers under the recipe's preset, reduction and precision."""
        chosen = self.recipe
        return LayerExplainer(
            self.model.network, self.layers, self.preset, chosen.precision, reduction=chosen.reduction
        )

    def subject(self, k: int = 10) -> Subject:
        """What explanations explain: the model at its first layer; `k` matches enter maps."""
        chosen = self.recipe
        return Subject(
            self.model.network,
            self.layers[0],
            max(1, k),
            precision=chosen.precision,
            reduction=chosen.reduction,
            values=ValueRange.of(self.model.chip),
            matchers=self.matcher_of,
        )

    def try_layers(self) -> Seen:
        """Explain a grey chip once, which tests the layers before a night's photos are embedded.

        Returns what was seen of it. Raises `ModelError` if a layer cannot be explained.
        """
        model = self.model
        try:
            seen = self.explainer.see(model.grey_chip())
            found = self.explainer.relevance(seen, seen.embedding.abs()[None])
        except (ValueError, RuntimeError) as error:
            raise ModelError(
                f"{model.source} cannot be explained at {', '.join(self.layers)}: {error}"
            ) from error
        if unseen := [
            layer for layer in self.layers if not found[layer].any() and has_attention(model.network)
        ]:
            raise ModelError(
                f"{model.source} reads its embedding from a token of its own: cells of {', '.join(unseen)} count for "
                "nothing; choose an earlier block with --layer"
            )
        return seen

    def explain(
        self,
        cuts: tuple[Pixels, Pixels],
        titles: tuple[str, str] = ("a", "b"),
        n_pixel_maps: int = 10,
        n_lines: int = 20,
        method: str | None = None,
        state: State | None = None,
    ) -> ExplainedPair:
        """Explain two cut photos (H, W, 3) uint8, by PAIR-X under the recipe's preset or otherwise.

        `method` names another of the explanations; `state` is what that method has learned, if it must learn.
        """
        a, b = (FigurePhoto.of(cut, self.model.chip, title) for cut, title in zip(cuts, titles, strict=True))
        own = f"pairx_{self.preset}"
        if method not in (None, own):
            return self._explain_otherwise((a, b), cuts, n_pixel_maps, n_lines, method, state)
        found = explain_with(self.explainer, self.model, (a.chip, b.chip), self.layers[0], n_pixel_maps)
        local = self.local_evidence(cuts)
        shown = Shown.of_finding(found.finding, (found.photos[0].pixels, found.photos[1].pixels))
        scores = found.finding.plausibility(local.matrix)
        arrays = found.arrays() | evidence_arrays(scores, local) | self._how(own)
        accounts = [one.account for one in found.photos]
        pixels = (accounts[0]["pixels"], accounts[1]["pixels"]) if all(accounts) else None
        remarks = tuple(_account_line(title, one) for title, one in zip(titles, accounts, strict=True) if one)
        return ExplainedPair(
            (a, b),
            float(found.cosine),
            shown,
            arrays,
            own,
            scores,
            local,
            n_lines,
            pixels,
            self.explainer.notice,
            remarks,
            self.recipe.matcher,
        )

    def _explain_otherwise(
        self,
        photos: tuple[FigurePhoto, FigurePhoto],
        cuts: tuple[Pixels, Pixels],
        k: int,
        n_lines: int,
        method: str,
        state: State | None,
    ) -> ExplainedPair:
        chips = [self.model.normalise([photo.chip])[0] for photo in photos]
        subject = self.subject(k)
        found = explain(method, subject, chips[0], chips[1], state)
        network = self.model.network
        # By the network itself: it may be one that no explainer reads, and few methods need one.
        with exclusive(network), tensor_cores(FULL), torch.no_grad():
            alike = cosine(*(network(chip[None])[0] for chip in chips))
        scores = local = None
        arrays = dict(found.arrays) | self._how(method)
        if found.finding is not None:
            local = self.local_evidence(cuts)
            scores = found.finding.plausibility(local.matrix)
            arrays |= evidence_arrays(scores, local)
        return ExplainedPair(
            photos,
            alike,
            found.shown,
            arrays,
            method,
            scores,
            local,
            n_lines,
            notice=subject.notice,
            remarks=found.remarks,
            matcher=self.recipe.matcher,
        )

    def _how(self, method: str) -> dict[str, NDArray[Any]]:
        """How a pair is explained, as texts: `model`, `layer`, `preset`, `matcher` and `method`."""
        named = {"model": self.recipe.model, "layer": self.layers[0], "preset": self.preset}
        return {
            name: np.asarray(text)
            for name, text in (*named.items(), ("matcher", self.recipe.matcher), ("method", method))
        }

    def local_evidence(self, cuts: tuple[Pixels, Pixels]) -> LocalEvidence:
        """A homography between two cuts from the independent matcher, on larger views of them."""
        chosen, matcher = self.recipe, self.matcher
        a, b = (matcher.extract(view_of(cut, chosen.view_side)) for cut in cuts)
        return local_evidence(
            matcher, a, b, self.model.chip.size, chosen.homography, chosen.homography_threshold
        )


def matcher_identity(name: str, weights: str | None, max_keypoints: int) -> Identity:
    """What a matcher says of itself.

    It is loaded on the CPU, since whoever plans work may have no device.
    """
    return _matcher(name, weights, max_keypoints, "cpu").identity()


@lru_cache(maxsize=2)
def _model(source: str, revision: str | None, resize: str | None, on: str) -> ReIdModel:
    keep_freed_memory()
    # A list, as OpenMP allows, has one number for each nested level.
    threads = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()
    if threads.isdecimal() and int(threads):
        torch.set_num_threads(int(threads))
    return load_model(source, on, revision, resize)


@lru_cache(maxsize=8)
def _matcher(name: str, weights: str | None, max_keypoints: int, on: str) -> LocalMatcher:
    return load_local_matcher(name, Path(weights).expanduser() if weights else None, on, max_keypoints)


def _account_line(title: str, account: Mapping[str, float]) -> str:
    parts = ", ".join(f"{kind} {share:+.3f}" for kind, share in account.items() if share)
    return f"where the cosine of {title} ends: {parts}"
