"""Which photos may be paired: codes of names, encounters, species and viewpoints, and rules over them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import torch
    from torch import Tensor

UNKNOWN = -1


@dataclass(frozen=True)
class PhotoKeys:
    """What decides whether two photos may be paired.

    One integer code per photo in catalogue order, -1 for unknown.
    """

    identity: NDArray[np.int32]
    encounter: NDArray[np.int32]
    species: NDArray[np.int32]
    viewpoint: NDArray[np.int32]

    def __post_init__(self) -> None:
        lengths = {len(self.identity), len(self.encounter), len(self.species), len(self.viewpoint)}
        if len(lengths) != 1:
            raise ValueError(f"photo keys must have one length, not {sorted(lengths)}")

    def __len__(self) -> int:
        return len(self.identity)

    def on(self, device: torch.device) -> DeviceKeys:
        """The codes as tensors on a device."""
        import torch

        return DeviceKeys(**{name: torch.from_numpy(codes).to(device) for name, codes in vars(self).items()})


@dataclass(frozen=True)
class DeviceKeys:
    """`PhotoKeys` on a device: int32 tensors (N,)."""

    identity: Tensor
    encounter: Tensor
    species: Tensor
    viewpoint: Tensor


@dataclass(frozen=True)
class PairRule:
    """Which pairs are admissible; self pairs and pairs of one known encounter never are.

    `same_name` asks for one name, `other_name` for two different ones; both leave unknown names out.
    """

    same_species: bool = False
    same_viewpoint: bool = False
    same_name: bool = False
    other_name: bool = False

    @property
    def needs_a_name(self) -> bool:
        """Whether photos of unknown animals have no pairs under this rule."""
        return self.same_name or self.other_name

    def admits(self, keys: Any, rows: Any, columns: Any) -> Any:
        """Whether each pair of a row and a column may be ranked: a mask of their shape.

        `keys`, `rows` and `columns` are arrays with `PhotoKeys`, or tensors with `DeviceKeys`; rows and
        columns are broadcast against each other. Unknown species and viewpoints are compatible with all; an
        unknown name equals no other name.
        """
        mask = rows != columns
        encounter = keys.encounter[rows]
        mask = mask & ((encounter != keys.encounter[columns]) | (encounter == UNKNOWN))
        for wanted, codes in ((self.same_species, keys.species), (self.same_viewpoint, keys.viewpoint)):
            if wanted:
                first, second = codes[rows], codes[columns]
                mask &= (first == second) | (first == UNKNOWN) | (second == UNKNOWN)
        if self.needs_a_name:
            name, other = keys.identity[rows], keys.identity[columns]
            if self.same_name:
                mask &= (name == other) & (name != UNKNOWN)
            if self.other_name:
                mask &= (name != other) & (name != UNKNOWN) & (other != UNKNOWN)
        return mask

    def admissible(
        self, keys: PhotoKeys, rows: NDArray[np.int64], columns: NDArray[np.int64]
    ) -> NDArray[np.bool_]:
        """`admits` for all of `rows` with all of `columns`: a mask (len(rows), len(columns))."""
        mask: NDArray[np.bool_] = self.admits(keys, rows[:, None], columns[None, :])
        return mask
