"""DiffCAM: in which direction of a layer's features a pair differs from the catalogue.

Li et al. 2025 weigh channels by how a target's features differ from reference features, not by gradients of an
output. No code of theirs was found; this is our reading of it, for a pair. f is the mean of a photo's
activations (C,) over its cells. With m and S the mean and covariance of f over the catalogue's photos,

    w = S'^-1 (m_pair - m),  map = relu(sum_c w_c A_c),

where m_pair is the mean of both photos' f. w is Fisher's direction between the pair and the catalogue. S' is S
shrunk towards the multiple of the unit matrix with its trace (Ledoit and Wolf 2004): with fewer photos than
channels S has no inverse. A photo's map depends on its partner through m_pair alone, and on nothing that
follows the layer.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pairx_engine.errors import EngineError
from pairx_engine.explanations.recorded import activation_of
from pairx_engine.explanations.seam import Explained, NamedChip, State, Subject, stretched

Array = NDArray[np.floating]
LEAST_SHRINKAGE = 1e-3
"""However many photos there are, so that channels which never vary do no harm."""


@dataclass(frozen=True)
class DiffCam:
    """The method; its state is `mean` (C,) and the shrunk `covariance` (C, C)."""

    name: str = "diff_cam"
    about: str = "channels by how the pair differs from the catalogue (DiffCAM)"
    cost: float = 2
    photos: int = 256
    sees_partner: bool = True

    def identity(self) -> Mapping[str, Any]:
        """From how many photos it learns at most, and the least shrinkage."""
        return {"photos": self.photos, "least_shrinkage": LEAST_SHRINKAGE}

    def train(self, subject: Subject, photos: Iterable[NamedChip]) -> State:
        """Learn mean and covariance from photos; names mean nothing to it.

        Raises `EngineError` for fewer than two photos, and where their features do not differ.
        """
        features = [_pooled(activation_of(subject, photo.chip)) for photo in photos]
        if len(features) < 2:
            raise EngineError(f"diff_cam learns from at least two photos, not {len(features)}")
        mean, covariance = shrunk(torch.stack(features).cpu().numpy())
        if not np.trace(covariance) > 0:
            raise EngineError(
                f"the photos to learn from have all the same features at layer {subject.layer!r}; choose another layer"
            )
        return {"mean": mean, "covariance": covariance}

    def explain(
        self, subject: Subject, chip_a: Tensor, chip_b: Tensor, state: State | None = None
    ) -> Explained:
        """Explain two chips.

        Raises `EngineError` where the layer gives no cells, or where nothing, or another layer's features, was
        learned.
        """
        both = [activation_of(subject, chip) for chip in (chip_a, chip_b)]
        weights = torch.from_numpy(_direction(state, both)).to(both[0])
        grids = [torch.tensordot(weights, activation, dims=1).clamp(min=0) for activation in both]
        return Explained.of_maps(
            *(stretched(grid, chip) for grid, chip in zip(grids, (chip_a, chip_b), strict=True))
        )


def diff_cam() -> Sequence[DiffCam]:
    """The one."""
    return [DiffCam()]


def shrunk(features: Array) -> tuple[Array, Array]:
    """Mean (C,) and shrunk covariance (C, C) of features (n, C).

    S' = (1 - r) S + r t I with S over n, t the mean of its diagonal, and r as Ledoit and Wolf estimate it, but
    at least `LEAST_SHRINKAGE`.
    """
    mean = features.mean(0)
    centred = features - mean
    n, channels = centred.shape
    covariance = centred.T @ centred / n
    level = float(np.trace(covariance)) / channels
    distance = float((covariance**2).sum()) - channels * level**2
    # The mean over photos of |x x^T - S|^2 / n; |x x^T|^2 is |x|^4.
    noise = (float(((centred**2).sum(1) ** 2).sum()) / n - float((covariance**2).sum())) / n
    share = 1.0 if distance <= 0 else min(1.0, max(LEAST_SHRINKAGE, noise / distance))
    return mean, (1 - share) * covariance + share * level * np.eye(channels)


def _direction(state: State | None, both: Sequence[Tensor]) -> Array:
    """The weight of every channel, (C,)."""
    if state is None or not {"mean", "covariance"} <= state.keys():
        raise EngineError("diff_cam needs what it learned of a catalogue: its mean and its covariance")
    mean, covariance = (np.asarray(state[name], dtype=np.float64) for name in ("mean", "covariance"))
    pair = torch.stack([_pooled(activation) for activation in both]).mean(0).cpu().numpy()
    if mean.shape != pair.shape or covariance.shape != (len(pair), len(pair)):
        raise EngineError(
            f"diff_cam learned features of {len(mean)} channels, and this layer has {len(pair)}; let it learn again"
        )
    found: Array = np.linalg.solve(covariance, pair - mean)
    return found


def _pooled(activation: Tensor) -> Tensor:
    return activation.double().mean((1, 2))
