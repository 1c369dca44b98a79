"""How far apart the same numbers may be, by device and number format; tests take it from here alone.

The reference is always the CPU's single precision (for goldens what the published code gave). A device may
sum in another order, so single precision differs in its last digits; and where two cells are all but equally
near to a third, the last digit decides which of them matches. Shorter formats are short in the pull alone:
forward passes, hence features and matches, are single precision everywhere.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Cells = NDArray[np.int64]


@dataclass(frozen=True)
class Tolerance:
    """Largest errors of relevances and pixel maps, relative to the largest value of the reference's array.

    `ties` is how much farther than the nearest, relative to its distance, a cell may be and still be taken
    for it. `rank` is the least rank correlation of match relevances, `top` the least share of the 20 most
    relevant matches that agree, and `pictures` the least correlation of pixel maps. `embedding` bounds the
    error of embeddings and features.
    """

    relevance: float
    maps: float
    embedding: float
    ties: float = 1e-4
    rank: float = 0.999
    top: float = 0.95
    pictures: float = 0.9999


_SHORT = {
    # Measured on a CPU: 1e-2 and 5e-4 of the maximum; a GPU's kernels may round sums of products once more.
    "bfloat16": (5e-2, 0.9, 0.85, 0.995),
    "float16": (1e-2, 0.98, 0.9, 0.999),
}


def tolerance(device: str, precision: str) -> Tolerance:
    """What a device may differ by from the CPU's single precision when it pulls in `precision`.

    `device` is cpu or cuda.
    """
    embedding = 1e-5 if device == "cpu" else 1e-4
    if precision in _SHORT:
        error, rank, top, pictures = _SHORT[precision]
        return Tolerance(error, error, embedding, rank=rank, top=top, pictures=pictures)
    if device == "cpu":
        # tf32 changes nothing on a CPU.
        return Tolerance(1e-5, 1e-5, embedding, ties=0)
    if precision == "tf32":
        # Operands of ten bits, as in float16.
        return Tolerance(1e-2, 1e-2, embedding, rank=0.98, top=0.9, pictures=0.999)
    return Tolerance(1e-4, 1e-4, embedding)


def double_tolerance(device: str, family: str) -> float:
    """What double precision on a device may differ by from the CPU's.

    The difference is relative to the largest value of the same map. torch's CUDA kernels of hard swish and
    hard sigmoid hold 1/6 in single precision: 2e-6 was measured for MobileNetV3.
    """
    hard = any(name in family for name in ("mobilenetv3", "mobilenet_v3"))
    return 1e-5 if device == "cuda" and hard else 1e-9


def unexplained_matches(
    features_a: Tensor,
    features_b: Tensor,
    found: tuple[Cells, Cells],
    wanted: tuple[Cells, Cells],
    ties: float,
) -> int:
    """How many matches only one of both has without a near tie in the reference that explains it.

    Features are the reference's maps (C, h, w); `found` and `wanted` are cells (n, 2) as (column, row) of
    both photos.
    """
    a, b = (f.flatten(1).T.double().cpu() for f in (features_a, features_b))
    distance = torch.cdist(a, b)
    widths = features_a.shape[-1], features_b.shape[-1]
    sets = [set(zip(*_flat(cells, widths), strict=True)) for cells in (found, wanted)]
    return sum(not _near_tie(distance, i, j, ties) for i, j in sets[0] ^ sets[1])


def _flat(cells: tuple[Cells, Cells], widths: tuple[int, int]) -> list[list[int]]:
    return [
        (np.asarray(c)[:, 1] * w + np.asarray(c)[:, 0]).tolist() for c, w in zip(cells, widths, strict=True)
    ]


def _near_tie(distance: Tensor, i: int, j: int, ties: float) -> bool:
    """Whether a change of relative size `ties` could make, or unmake, the two each other's nearest."""
    own = float(distance[i, j])
    near = [float(line.min()) for line in (distance[i], distance[:, j])]
    if any(own > best for best in near):
        return all(own <= (1 + ties) * best for best in near)
    rivals = [float(line.sort().values[:2][-1]) for line in (distance[i], distance[:, j])]
    return any(rival <= (1 + ties) * own for rival in rivals)
