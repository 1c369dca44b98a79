"""DISK (Tyszkiewicz, Fua and Trulls 2020) matched by LightGlue.

Both have been tested only with random weights of the right layout.
"""

from __future__ import annotations

from pathlib import Path

import torch
from kornia.feature import DISK

from pairx_engine.local.features import LocalMatcher
from pairx_engine.local.lightglue import Extractor, Found, LightGlueMatcher, identity_of, lightglue_weights
from pairx_engine.local.weights import WeightsFile, load_into

WEIGHTS = WeightsFile(
    ("disk_depth.safetensors",),
    "https://github.com/cvlab-epfl/disk (depth-save.pth, its entry 'extractor', Apache-2.0)",
)
LIGHTGLUE = lightglue_weights("disk")


def load(folder: Path | None, device: str, max_keypoints: int) -> LocalMatcher:
    """The matcher with weights from a folder, its networks on a device."""
    return LightGlueMatcher("disk+lightglue", _extractor, LIGHTGLUE, folder, device, max_keypoints)


def _extractor(folder: Path | None, device: torch.device, max_keypoints: int) -> Extractor:
    """DISK, 128 wide."""
    loaded = WEIGHTS.read(folder)
    network = DISK()
    load_into(network, loaded)
    network.to(device)

    def detect(image: torch.Tensor) -> Found:
        found = network(
            image, n=max_keypoints, window_size=5, score_threshold=0.0, pad_if_not_divisible=True
        )[0]
        return found.keypoints + 0.5, found.detection_scores, found.descriptors

    return Extractor(
        detect, 128, identity_of("disk", loaded.sha256, {"nms_window": 5, "score_threshold": 0.0})
    )
