"""The gallery: embedded photos of one state of the catalogue, and what decides their pairing."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pairx_engine.photo.perceptual_hash import orientations_or_upright
from tasks.store.warehouse import shard_name

if TYPE_CHECKING:
    from pairx_engine.retrieval.topk import PhotoKeys


@dataclass(frozen=True, eq=False)
class Gallery:
    """The embedded photos of one moment, rows of `galleries` sorted by id, that may be paired.

    Names, encounters, species and viewpoints are compared by codes. What is computed from the rows is
    kept.
    """

    photos: pa.Table

    @cached_property
    def photo_ids(self) -> tuple[str, ...]:
        """Ids of the photos in their order."""
        return tuple(self.photos["photo_id"].to_pylist())

    @cached_property
    def chip_ids(self) -> tuple[str, ...]:
        """Chip ids of the photos: what the model saw of each."""
        return tuple(self.photos["chip_id"].to_pylist())

    @cached_property
    def names(self) -> tuple[str | None, ...]:
        """The animal's name of each, None where it is unknown."""
        return tuple(self.photos["identity"].to_pylist())

    @cached_property
    def keys(self) -> PhotoKeys:
        """What decides which photos may be paired."""
        names = ("identity", "encounter", "species", "viewpoint")
        from pairx_engine.retrieval.topk import PhotoKeys

        return PhotoKeys(**{name: _codes(self.photos[name].to_pylist()) for name in names})

    @cached_property
    def hashes(self) -> NDArray[np.uint64]:
        """Perceptual hashes (N,)."""
        return np.array(self.photos["perceptual_hash"].to_pylist(), dtype=np.uint64)

    @cached_property
    def orientation_hashes(self) -> NDArray[np.uint64]:
        """Perceptual hashes (N, 8) of the eight orientations.

        A photo without them has its own hash eight times.
        """
        return orientations_or_upright(self.hashes, self.photos["orientation_hashes"].to_pylist())

    @cached_property
    def rows(self) -> dict[tuple[str, str], int]:
        """Row of each photo and chip."""
        return {key: i for i, key in enumerate(zip(self.photo_ids, self.chip_ids, strict=True))}

    @cached_property
    def state(self) -> str:
        """Hash of everything that decides which pairs are chosen and ranked, names included."""
        codes = (map(int, column) for column in vars(self.keys).values())
        rows = zip(self.photo_ids, self.chip_ids, map(repr, self.names), *codes, strict=True)
        return shard_name("\0".join(map(str, row)) for row in rows)

    def only(self, wanted: Collection[str]) -> Gallery:
        """The gallery of those photos alone."""
        return Gallery(
            self.photos.filter(pa.array([photo in wanted for photo in self.photo_ids], pa.bool_()))
        )


def _codes(values: Sequence[str | None]) -> NDArray[np.int32]:
    known = {v: i for i, v in enumerate(sorted({v for v in values if v is not None}))}
    return np.array([-1 if v is None else known[v] for v in values], dtype=np.int32)
