"""SuperPoint (DeTone, Malisiewicz and Rabinovich 2018), written from its paper, with LightGlue.

It is the matcher of the PAIR-X paper. Key names and shapes are those of the public checkpoints (conv1a ...
conv4b, convPa, convPb, convDa, convDb), so that such a state dict, saved as safetensors, loads strictly. Both
parts were tested only with random weights: the trained weights of SuperPoint may not be redistributed and
were not available.
"""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pairx_engine.local.features import LocalMatcher
from pairx_engine.local.lightglue import Extractor, Found, LightGlueMatcher, identity_of, lightglue_weights
from pairx_engine.local.weights import WeightsFile, load_into

WEIGHTS = WeightsFile(
    ("superpoint.safetensors",),
    "https://github.com/cvg/LightGlue/releases/download/v0.1_arxiv/superpoint_v1.pth (research use only)",
)
LIGHTGLUE = lightglue_weights("superpoint")
CELL = 8
"""Pixels per side of a detector cell: three poolings by two."""
_WIDTHS = ((1, 64), (64, 64), (64, 128), (128, 128))


def load(folder: Path | None, device: str, max_keypoints: int) -> LocalMatcher:
    """The matcher with weights from a folder, its networks on a device."""
    return LightGlueMatcher("superpoint+lightglue", _extractor, LIGHTGLUE, folder, device, max_keypoints)


def _extractor(folder: Path | None, device: torch.device, max_keypoints: int) -> Extractor:
    """SuperPoint, 256 wide, with the settings of the PAIR-X metric."""
    network = SuperPoint()
    settings = {
        "detection_threshold": network.threshold,
        "nms_radius": network.nms_radius,
        "border": network.border,
    }
    loaded = WEIGHTS.read(folder)
    load_into(network, loaded)
    network.to(device)

    def detect(image: Tensor) -> Found:
        weights = image.new_tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)
        points, scores, descriptors = network((image * weights).sum(dim=1, keepdim=True), max_keypoints)
        return points + 0.5, scores, descriptors

    return Extractor(detect, 256, identity_of("superpoint", loaded.sha256, settings))


class SuperPoint(nn.Module):
    """A shared encoder with a detector head and a descriptor head.

    The detector head has 64 places in a cell and a dustbin, the descriptor head 256 channels. `threshold` is
    the least detector probability of a keypoint, `nms_radius` (pixels) the distance within which a stronger
    keypoint suppresses it, `border` the width (pixels) of the rim without keypoints.
    """

    def __init__(self, threshold: float = 0.0005, nms_radius: int = 4, border: int = 4) -> None:
        super().__init__()
        self.threshold, self.nms_radius, self.border = threshold, nms_radius, border
        for stage, (width_in, width) in enumerate(_WIDTHS, start=1):
            self.add_module(f"conv{stage}a", nn.Conv2d(width_in, width, 3, padding=1))
            self.add_module(f"conv{stage}b", nn.Conv2d(width, width, 3, padding=1))
        self.convPa = nn.Conv2d(128, 256, 3, padding=1)
        self.convPb = nn.Conv2d(256, CELL * CELL + 1, 1)
        self.convDa = nn.Conv2d(128, 256, 3, padding=1)
        self.convDb = nn.Conv2d(256, 256, 1)

    def dense(self, grey: Tensor) -> tuple[Tensor, Tensor]:
        """Detector probabilities (1, 8h, 8w) and unit descriptors (1, 256, h, w) of a grey image.

        The image is (1, 1, H, W) in [0, 1]. h and w are H and W divided by 8, rounded down; a rim of up to 7
        pixels at the right and bottom is not seen.
        """
        x = grey
        for stage in range(1, len(_WIDTHS) + 1):
            x = F.relu(self.get_submodule(f"conv{stage}a")(x))
            x = F.relu(self.get_submodule(f"conv{stage}b")(x))
            if stage < len(_WIDTHS):
                x = F.max_pool2d(x, 2)
        logits = self.convPb(F.relu(self.convPa(x)))
        cells = logits.softmax(dim=1)[:, :-1]
        descriptors = self.convDb(F.relu(self.convDa(x)))
        return F.pixel_shuffle(cells, CELL)[:, 0], F.normalize(descriptors, dim=1)

    def forward(self, grey: Tensor, limit: int) -> tuple[Tensor, Tensor, Tensor]:
        """The strongest keypoints of a grey image (1, 1, H, W) in [0, 1], at least 8 pixels a side.

        Returns points (n, 2) as (x, y) in *centre* coordinates, probabilities (n,) and unit descriptors (n,
        256), n at most `limit`.
        """
        probability, descriptors = self.dense(grey)
        kept = suppress(probability, self.nms_radius)[0]
        rim = self.border
        inside = torch.zeros_like(kept)
        inside[rim : kept.shape[0] - rim, rim : kept.shape[1] - rim] = True
        row, column = torch.nonzero(kept & inside & (probability[0] > self.threshold), as_tuple=True)
        scores = probability[0, row, column]
        if len(scores) > limit:
            scores, best = scores.topk(limit)
            row, column = row[best], column[best]
        points = torch.stack([column, row], dim=1).to(grey.dtype)
        return points, scores, sample(descriptors, points)


def suppress(score: Tensor, radius: int) -> Tensor:
    """Non-maximum suppression of a map (1, H, W): True where a point survives.

    Maxima of their window of `radius` survive. Then, twice, the maxima among the points that no survivor
    reaches survive as well. The released SuperPoint matchers were trained on keypoints chosen in this way.
    """

    def window_maximum(values: Tensor) -> Tensor:
        return F.max_pool2d(values, 2 * radius + 1, stride=1, padding=radius)

    survives = score == window_maximum(score)
    for _ in range(2):
        reached = window_maximum(survives.to(score.dtype)) > 0
        remaining = score.masked_fill(reached, 0.0)
        survives = survives | ((remaining == window_maximum(remaining)) & ~reached)
    return survives


def sample(descriptors: Tensor, points: Tensor) -> Tensor:
    """Unit descriptors (n, C) at points (n, 2) from the map (1, C, h, w), bilinear.

    Cell c has its centre at pixel 8c + 3.5. As in the released network, that holds exactly only for the first
    cell: the grid is stretched so that the last cell lies at the last pixel. Matchers were trained on
    descriptors read in this way.
    """
    height, width = descriptors.shape[-2:]
    last = torch.tensor([width, height], dtype=points.dtype, device=points.device) * CELL - CELL / 2 - 0.5
    grid = (points - CELL / 2 + 0.5) / last * 2 - 1
    values = F.grid_sample(descriptors, grid.view(1, 1, -1, 2), mode="bilinear", align_corners=True)
    return F.normalize(values[0, :, 0].T, dim=1)
