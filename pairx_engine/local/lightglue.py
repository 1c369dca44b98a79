"""Learned detectors matched by LightGlue (Lindenberger, Sarlin and Pollefeys 2023), as kornia carries it.

Adaptive depth and width are off: with them, what a pair matches depends on its batch mates. kornia's
LightGlue is built with `features=None`, the one form of its constructor that downloads nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from kornia.feature import LightGlue
from torch import Tensor

from pairx_engine.local.extractors import EXTRACTORS
from pairx_engine.local.features import (
    DEFAULT_KEYPOINTS,
    Identity,
    LocalFeatures,
    Matches,
    Pixels,
    no_matches,
    require_view,
    strongest_features,
)
from pairx_engine.local.weights import Loaded, lightglue_depth, lightglue_layout, load_into, read_weights

FILTER_THRESHOLD = 0.1
MIN_SIDE = 16
"""Pixels; pooling leaves nothing of a thinner strip, which therefore gets no features."""
MIN_INLIERS = 12
"""More than SIFT's: LightGlue weighs the arrangement of points, so lookalikes get consistent matches too."""


@dataclass(frozen=True)
class Recipe:
    """Which detector goes with which LightGlue (names in `weights.FILES`), and the matcher's widths."""

    extractor: str
    matcher: str
    descriptor_width: int
    inner_width: int = 256
    heads: int = 4


RECIPES = {
    "aliked+lightglue": Recipe("aliked", "aliked_lightglue", 128),
    "disk+lightglue": Recipe("disk", "disk_lightglue", 128),
    "xfeat+lighterglue": Recipe("xfeat", "lighterglue", 64, inner_width=96, heads=1),
    "superpoint+lightglue": Recipe("superpoint", "superpoint_lightglue", 256),
}


class LightGlueMatcher:
    """One of `RECIPES` with weights from a folder, on one device.

    With trained weights of both parts only `xfeat+lighterglue` has been tested; of `aliked+lightglue` the
    detector has, of `disk+lightglue` and `superpoint+lightglue` neither part: those ran with random weights
    of the right layout.
    """

    min_inliers = MIN_INLIERS

    def __init__(
        self,
        name: str,
        folder: Path | None,
        device: str | torch.device = "cpu",
        max_keypoints: int = DEFAULT_KEYPOINTS,
    ) -> None:
        if max_keypoints < 1:
            raise ValueError(f"max_keypoints must be at least 1, not {max_keypoints}")
        recipe = RECIPES[name]
        self.name = name
        self.max_keypoints = max_keypoints
        self._device = torch.device(device)
        self._extractor = EXTRACTORS[recipe.extractor](folder, self._device, max_keypoints)
        loaded = read_weights(recipe.matcher, folder)
        self._network = _build(recipe, loaded).to(self._device)
        self._matcher_sha256 = loaded.sha256

    @property
    def threads(self) -> bool:
        """Its networks run on the device, where pairs queue up anyway."""
        return False

    def extraction_identity(self) -> Identity:
        """Detector, hash of its weights, its thresholds and limit, kornia's minor version."""
        return {**self._extractor.identity, "max_keypoints": self.max_keypoints}

    def identity(self) -> Identity:
        """Those of the extraction, the hash of the matcher's weights and its threshold."""
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

    @torch.inference_mode()
    def match(self, first: LocalFeatures, second: LocalFeatures) -> Matches:
        """Matches (m, 2) above LightGlue's threshold, mutual by construction, sorted by the first index."""
        if not len(first) or not len(second):
            return no_matches()
        found = self._network({"image0": self._side(first), "image1": self._side(second)})["matches"][0]
        return np.asarray(found.cpu().numpy(), dtype=np.int64)

    def _side(self, features: LocalFeatures) -> dict[str, Tensor]:
        # LightGlue was trained on pixel-centre coordinates, and refuses points outside the picture.
        centred = torch.from_numpy(np.maximum(features.points - np.float32(0.5), 0))
        return {
            "keypoints": centred[None].to(self._device),
            "descriptors": torch.from_numpy(features.descriptors)[None].to(self._device),
            "image_size": torch.tensor([features.view_size], device=self._device),
        }


def _build(recipe: Recipe, loaded: Loaded) -> LightGlue:
    state = lightglue_layout(loaded.state)
    layers = lightglue_depth(state, loaded.source)
    flash_allowed = torch.backends.cuda.flash_sdp_enabled()
    network = LightGlue(
        features=None,
        input_dim=recipe.descriptor_width,
        descriptor_dim=recipe.inner_width,
        n_layers=layers,
        num_heads=recipe.heads,
        # Flash attention computes in half precision: a GPU would match the same pair otherwise than a CPU.
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
