"""Learned detectors matched by LightGlue (Lindenberger, Sarlin and Pollefeys 2023), from kornia.

Adaptive depth and width are off: with them, the matches of a pair depend on the other pairs of its batch.
kornia's LightGlue is built with `features=None`, the only form of its constructor that downloads nothing.
Detectors are built by their constructors, which initialise at random and fetch nothing, and filled from the
user's folder. Their `from_pretrained`, which would download, is never called. Each matcher is a module of its
own beside this one.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import kornia
import numpy as np
import torch
from kornia.feature import LightGlue
from torch import Tensor

from pairx_engine.errors import ModelError
from pairx_engine.local.features import (
    Identity,
    LocalFeatures,
    Matches,
    Pixels,
    Rated,
    no_matches,
    require_view,
    strongest_features,
)
from pairx_engine.local.weights import Loaded, WeightsFile, load_into

FILTER_THRESHOLD = 0.1
MIN_SIDE = 16
"""Least side in pixels: pooling leaves nothing of a thinner strip, which gets no features."""
MIN_INLIERS = 12
"""Least inliers of a homography that counts.

It is larger than SIFT's. LightGlue weighs the arrangement of points, so two similar animals get consistent
matches too.
"""
KORNIA = ".".join(kornia.__version__.split(".")[:2])
Found = tuple[Tensor, Tensor, Tensor]
"""Points (n, 2) in edge coordinates of the image, scores (n,), descriptors (n, d)."""
Detect = Callable[[Tensor], Found]
"""From an image (1, 3, H, W) float32 RGB in [0, 1] to its strongest keypoints."""


@dataclass(frozen=True)
class Extractor:
    """A detector with what identifies it; `width` is the length of a descriptor."""

    detect: Detect
    width: int
    identity: Identity


Extract = Callable[[Path | None, torch.device, int], Extractor]
"""An extractor with weights from a folder, on a device, for at most so many keypoints."""


def identity_of(name: str, sha256: str, settings: Mapping[str, float]) -> Identity:
    """What identifies an extractor that comes with kornia or runs beside it."""
    return {"extractor": name, "extractor_weights": sha256, "kornia": KORNIA, **settings}


def lightglue_weights(extractor: str) -> WeightsFile:
    """The published LightGlue for an extractor."""
    return WeightsFile(
        (f"{extractor}_lightglue.safetensors",),
        f"https://github.com/cvg/LightGlue/releases/download/v0.1_arxiv/{extractor}_lightglue.pth (Apache-2.0)",
    )


class LightGlueMatcher:
    """A detector and the LightGlue trained for it, with weights from a folder, on one device.

    `inner_width` and `heads` are those of that LightGlue's attention.
    """

    min_inliers = MIN_INLIERS

    def __init__(
        self,
        name: str,
        extract: Extract,
        weights: WeightsFile,
        folder: Path | None,
        device: str,
        max_keypoints: int,
        inner_width: int = 256,
        heads: int = 4,
    ) -> None:
        if max_keypoints < 1:
            raise ValueError(f"max_keypoints must be at least 1, not {max_keypoints}")
        self.name = name
        self.max_keypoints = max_keypoints
        self._device = torch.device(device)
        self._extractor = extract(folder, self._device, max_keypoints)
        loaded = weights.read(folder)
        self._network = _build(loaded, self._extractor.width, inner_width, heads).to(self._device)
        self._matcher_sha256 = loaded.sha256

    @property
    def threads(self) -> bool:
        """False: its networks run on the device, where pairs queue up anyway."""
        return False

    def extraction_identity(self) -> Identity:
        """Detector, hash of its weights, its thresholds and limit, kornia's minor version."""
        return {**self._extractor.identity, "max_keypoints": self.max_keypoints}

    def identity(self) -> Identity:
        """Those of the extraction, the hash of the matcher's weights, and its threshold."""
        return {
            **self.extraction_identity(),
            "matcher": self.name,
            "matcher_weights": self._matcher_sha256,
            "filter_threshold": FILTER_THRESHOLD,
        }

    @torch.inference_mode()
    def extract(self, view: Pixels) -> LocalFeatures:
        """Features of a view (H, W, 3) uint8 RGB; scores are the detector's."""
        require_view(view)
        size = (view.shape[1], view.shape[0])
        if min(size) < MIN_SIDE:
            empty = np.empty((0, 2)), np.empty((0, self._extractor.width)), np.empty(0)
            return strongest_features(*empty, size, self.max_keypoints)
        image = (
            torch.from_numpy(np.ascontiguousarray(view)).to(self._device).permute(2, 0, 1)[None].float() / 255
        )
        points, scores, descriptors = (found.float().cpu().numpy() for found in self._extractor.detect(image))
        return strongest_features(points, descriptors, scores, size, self.max_keypoints)

    def match(self, first: LocalFeatures, second: LocalFeatures) -> Matches:
        """Matches (m, 2) above LightGlue's threshold, mutual by construction, sorted by the first index."""
        return self.rated_match(first, second)[0]

    @torch.inference_mode()
    def rated_match(self, first: LocalFeatures, second: LocalFeatures) -> Rated:
        """The same, and LightGlue's assignment score as the confidence in each."""
        if not len(first) or not len(second):
            return no_matches(), np.zeros(0)
        found = self._network({"image0": self._side(first), "image1": self._side(second)})
        matches, scores = (found[name][0].cpu().numpy() for name in ("matches", "scores"))
        return matches.astype(np.int64), scores.astype(np.float64)

    def _side(self, features: LocalFeatures) -> dict[str, Tensor]:
        # LightGlue was trained on pixel-centre coordinates, and refuses points outside the picture.
        centred = torch.from_numpy(np.maximum(features.points - np.float32(0.5), 0))
        return {
            "keypoints": centred[None].to(self._device),
            "descriptors": torch.from_numpy(features.descriptors)[None].to(self._device),
            "image_size": torch.tensor([features.view_size], device=self._device),
        }


def _build(loaded: Loaded, width: int, inner_width: int, heads: int) -> LightGlue:
    state = _layout(loaded.state)
    layers = _depth(state, loaded.source)
    flash_allowed = torch.backends.cuda.flash_sdp_enabled()
    network = LightGlue(
        features=None,
        input_dim=width,
        descriptor_dim=inner_width,
        n_layers=layers,
        num_heads=heads,
        # Flash attention computes in half precision: a GPU would give other matches than a CPU.
        flash=False,
        depth_confidence=-1,
        width_confidence=-1,
        filter_threshold=FILTER_THRESHOLD,
    )
    # kornia's constructor switches flash attention off for the whole process.
    torch.backends.cuda.enable_flash_sdp(flash_allowed)
    # With adaptive depth and width off only the last layer's assignment is read, and no confidence at all.
    unused = rf"confidence_thresholds|token_confidence\..*|log_assignment\.(?!{layers - 1}\.)\d+\..*"
    load_into(network, Loaded(state, loaded.sha256, loaded.source), may_be_absent=unused)
    return network


def _layout(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Rename the published keys of LightGlue to kornia's; keys that are kornia's already stay."""
    layout = {}
    for key, value in state.items():
        key = key.removeprefix("matcher.")
        layout[re.sub(r"^(self_attn|cross_attn)\.(\d+)\.", r"transformers.\2.\1.", key)] = value
    return layout


def _depth(state: dict[str, Tensor], source: str) -> int:
    """Number of transformer layers in a LightGlue state dict in kornia's layout."""
    layers = {int(found[1]) for key in state if (found := re.match(r"transformers\.(\d+)\.", key))}
    if layers != set(range(len(layers))) or not layers:
        raise ModelError(f"{source} is no LightGlue state dict: its transformer layers are {sorted(layers)}")
    return len(layers)
