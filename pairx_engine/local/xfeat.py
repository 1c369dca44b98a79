"""XFeat (Potje and others 2024) matched by its own small LightGlue.

Both were tested with the published weights.
"""

from __future__ import annotations

from pathlib import Path

import torch
from kornia.feature import XFeat

from pairx_engine.local.features import LocalMatcher
from pairx_engine.local.lightglue import Extractor, Found, LightGlueMatcher, identity_of
from pairx_engine.local.weights import WeightsFile, load_into

_ORIGIN = "https://github.com/verlab/accelerated_features (weights/{}, Apache-2.0)"
WEIGHTS = WeightsFile(("xfeat.safetensors", "xfeat_kornia.safetensors"), _ORIGIN.format("xfeat.pt"))
LIGHTERGLUE = WeightsFile(
    ("lighterglue.safetensors", "lighterglue_l3_kornia.safetensors"), _ORIGIN.format("xfeat-lighterglue.pt")
)


def load(folder: Path | None, device: str, max_keypoints: int) -> LocalMatcher:
    """The matcher with weights from a folder, its networks on a device."""
    return LightGlueMatcher(
        "xfeat+lighterglue", _extractor, LIGHTERGLUE, folder, device, max_keypoints, inner_width=96, heads=1
    )


def _extractor(folder: Path | None, device: torch.device, max_keypoints: int) -> Extractor:
    """XFeat, 64 wide, without its refinement of dense matches."""
    settings = {"detection_threshold": 0.05}
    loaded = WEIGHTS.read(folder)
    network = XFeat(top_k=max_keypoints, **settings)
    del network.net.fine_matcher
    load_into(network.net, loaded, may_be_left=r"fine_matcher\..*")
    network.eval().to(device)

    def detect(image: torch.Tensor) -> Found:
        found = network.detectAndCompute(image, top_k=max_keypoints)[0]
        height, width = image.shape[-2:]
        # XFeat shrinks the image to multiples of 32 and scales its pixel indices back, not pixel centres.
        pixel = image.new_tensor([width / _multiple_of_32(width), height / _multiple_of_32(height)])
        return found["keypoints"] + 0.5 * pixel, found["scores"], found["descriptors"]

    return Extractor(detect, 64, identity_of("xfeat", loaded.sha256, settings))


def _multiple_of_32(side: int) -> int:
    return max(32, side // 32 * 32)
