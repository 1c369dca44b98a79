"""Learned keypoint detectors, each a function of one view, with the hash of its weights.

kornia's networks are built by their constructors, which initialise at random and fetch nothing (their
`from_pretrained`, which would, is never called), and filled from the user's folder.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import kornia
import torch
from kornia.feature import ALIKED, DISK, XFeat
from torch import Tensor

from pairx_engine.local.features import Identity
from pairx_engine.local.superpoint import SuperPoint
from pairx_engine.local.weights import load_into, read_weights

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


def aliked(folder: Path | None, device: torch.device, max_keypoints: int) -> Extractor:
    """ALIKED-n16, 128 wide. Tested with the published weights."""
    settings = {"detection_threshold": 0.2, "nms_radius": 2}
    loaded = read_weights("aliked", folder)
    network = ALIKED("aliked-n16", max_num_keypoints=max_keypoints, **settings)
    load_into(network, loaded)
    network.to(device)

    def detect(image: Tensor) -> Found:
        found = network(image)[0]
        return found.keypoints + 0.5, found.keypoint_scores, found.descriptors

    return Extractor(detect, 128, _identity("aliked-n16", loaded.sha256, settings))


def disk(folder: Path | None, device: torch.device, max_keypoints: int) -> Extractor:
    """DISK, 128 wide. Tested with random weights of the right layout only."""
    loaded = read_weights("disk", folder)
    network = DISK()
    load_into(network, loaded)
    network.to(device)

    def detect(image: Tensor) -> Found:
        found = network(
            image, n=max_keypoints, window_size=5, score_threshold=0.0, pad_if_not_divisible=True
        )[0]
        return found.keypoints + 0.5, found.detection_scores, found.descriptors

    return Extractor(detect, 128, _identity("disk", loaded.sha256, {"nms_window": 5, "score_threshold": 0.0}))


def xfeat(folder: Path | None, device: torch.device, max_keypoints: int) -> Extractor:
    """XFeat, 64 wide, without its refinement of dense matches. Tested with the published weights."""
    settings = {"detection_threshold": 0.05}
    loaded = read_weights("xfeat", folder)
    network = XFeat(top_k=max_keypoints, **settings)
    del network.net.fine_matcher
    load_into(network.net, loaded, may_be_left=r"fine_matcher\..*")
    network.eval().to(device)

    def detect(image: Tensor) -> Found:
        found = network.detectAndCompute(image, top_k=max_keypoints)[0]
        height, width = image.shape[-2:]
        # XFeat shrinks the image to multiples of 32 and scales its pixel indices back, not their centres.
        pixel = image.new_tensor([width / _multiple_of_32(width), height / _multiple_of_32(height)])
        return found["keypoints"] + 0.5 * pixel, found["scores"], found["descriptors"]

    return Extractor(detect, 64, _identity("xfeat", loaded.sha256, settings))


def superpoint(folder: Path | None, device: torch.device, max_keypoints: int) -> Extractor:
    """SuperPoint, 256 wide, with the settings of the PAIR-X metric. Tested with random weights only."""
    network = SuperPoint()
    settings = {
        "detection_threshold": network.threshold,
        "nms_radius": network.nms_radius,
        "border": network.border,
    }
    loaded = read_weights("superpoint", folder)
    load_into(network, loaded)
    network.to(device)

    def detect(image: Tensor) -> Found:
        weights = image.new_tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)
        points, scores, descriptors = network((image * weights).sum(dim=1, keepdim=True), max_keypoints)
        return points + 0.5, scores, descriptors

    return Extractor(detect, 256, _identity("superpoint", loaded.sha256, settings))


def _multiple_of_32(side: int) -> int:
    return max(32, side // 32 * 32)


def _identity(name: str, sha256: str, settings: dict[str, float]) -> Identity:
    return {"extractor": name, "extractor_weights": sha256, "kornia": KORNIA, **settings}


EXTRACTORS: dict[str, Callable[[Path | None, torch.device, int], Extractor]] = {
    "aliked": aliked,
    "disk": disk,
    "xfeat": xfeat,
    "superpoint": superpoint,
}
