"""ALIKED (Zhao and others 2023) matched by LightGlue.

The detector has been tested with the published weights, LightGlue only with random weights of the right
layout.
"""

from __future__ import annotations

from pathlib import Path

import torch
from kornia.feature import ALIKED

from pairx_engine.local.features import LocalMatcher
from pairx_engine.local.lightglue import Extractor, Found, LightGlueMatcher, identity_of, lightglue_weights
from pairx_engine.local.weights import WeightsFile, load_into

WEIGHTS = WeightsFile(
    ("aliked_n16.safetensors", "aliked_n16_kornia.safetensors"),
    "https://github.com/Shiaoming/ALIKED (models/aliked-n16.pth, BSD-3-Clause)",
)
LIGHTGLUE = lightglue_weights("aliked")


def load(folder: Path | None, device: str, max_keypoints: int) -> LocalMatcher:
    """The matcher with weights from a folder, its networks on a device."""
    return LightGlueMatcher("aliked+lightglue", _extractor, LIGHTGLUE, folder, device, max_keypoints)


def _extractor(folder: Path | None, device: torch.device, max_keypoints: int) -> Extractor:
    """ALIKED-n16, 128 wide."""
    settings = {"detection_threshold": 0.2, "nms_radius": 2}
    loaded = WEIGHTS.read(folder)
    network = ALIKED("aliked-n16", max_num_keypoints=max_keypoints, **settings)
    load_into(network, loaded)
    network.to(device)

    def detect(image: torch.Tensor) -> Found:
        found = network(image)[0]
        return found.keypoints + 0.5, found.keypoint_scores, found.descriptors

    return Extractor(detect, 128, identity_of("aliked-n16", loaded.sha256, settings))
