"""The gallery: embedded photos of one state of the catalogue, and what decides their pairing."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from functools import cached_property, lru_cache
from hashlib import blake2b
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pairx_engine.photo.perceptual_hash import orientations_or_upright
from pairx_engine.retrieval.rules import UNKNOWN, PhotoKeys
from tasks.store.warehouse import Warehouse

_KEYS = ("identity", "encounter", "species", "viewpoint")


@dataclass(frozen=True, eq=False)
class Gallery:
    """The embedded photos of one moment, rows of `galleries` sorted by id, that may be paired.

    Names, encounters, species and viewpoints are compared by codes. What is computed from the rows is
    kept.
    """

    photos: pa.Table

    def __len__(self) -> int:
        return int(self.photos.num_rows)

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
    def photo_id_array(self) -> NDArray[Any]:
        """Ids of the photos as an array of objects (N,), which sorts as they do."""
        return np.asarray(self.photos["photo_id"].to_numpy(), dtype=object)

    @cached_property
    def keys(self) -> PhotoKeys:
        """What decides which photos may be paired."""
        return PhotoKeys(**{name: _codes(self.photos[name]) for name in _KEYS})

    @cached_property
    def hashes(self) -> NDArray[np.uint64]:
        """Perceptual hashes (N,)."""
        return np.asarray(self.photos["perceptual_hash"].to_numpy(), dtype=np.uint64)

    @cached_property
    def orientation_hashes(self) -> NDArray[np.uint64]:
        """Perceptual hashes (N, 8) of the eight orientations.

        A photo without them has its own hash eight times.
        """
        return orientations_or_upright(self.hashes, self.photos["orientation_hashes"].to_pylist())

    def places_of(self, photos: Gallery | pa.Table) -> NDArray[np.int64]:
        """Row (M,) here of each of these photos, by `photo_id` and `chip_id`; -1 where there is none."""
        asked = photos.photos if isinstance(photos, Gallery) else photos
        at = pc.index_in(asked["photo_id"], self.photos["photo_id"].combine_chunks())
        same = pc.equal(self.photos["chip_id"].take(at), asked["chip_id"])
        found = pc.if_else(pc.fill_null(same, False), at, -1)
        return np.asarray(found.to_numpy(), dtype=np.int64)

    @cached_property
    def state(self) -> str:
        """Hash of everything that decides which pairs are chosen and ranked, names included."""
        found = blake2b(digest_size=10)
        for name in ("photo_id", "chip_id", "identity"):
            for data in _content(self.photos[name]):
                found.update(data)
        for codes in vars(self.keys).values():
            found.update(codes.astype("<i4").tobytes())
        return found.hexdigest()

    def only(self, wanted: Collection[str]) -> Gallery:
        """The gallery of those photos alone."""
        return Gallery(
            self.photos.filter(pc.is_in(self.photos["photo_id"], pa.array(sorted(wanted), pa.string())))
        )


@lru_cache(maxsize=2)
def kept_gallery(warehouse: Warehouse, partition: str, state: str) -> Gallery:
    """The gallery that is kept under the name of its state."""
    return Gallery(warehouse.read("galleries", partition, [state]))


def _codes(values: pa.ChunkedArray) -> NDArray[np.int32]:
    """A number for each text, the same for equal texts and in their order; -1 for null."""
    found = values.combine_chunks().dictionary_encode()
    order = pc.rank(found.dictionary, "ascending").to_numpy().astype(np.int32) - 1
    index = found.indices
    codes = np.full(len(index), UNKNOWN, dtype=np.int32)
    known = np.asarray(index.is_valid().to_numpy(zero_copy_only=False))
    codes[known] = order[index.drop_null().to_numpy()]
    return codes


def _content(texts: pa.ChunkedArray) -> tuple[bytes, bytes]:
    """Lengths of texts, -1 for null, and all of them in a row: together they say which texts in which order."""
    lengths = pc.fill_null(pc.cast(pc.binary_length(texts), pa.int32()), -1)
    known = texts.cast(pa.large_binary()).drop_null().combine_chunks()
    if not len(known):
        return lengths.to_numpy().astype("<i4").tobytes(), b""
    _, offsets, data = known.buffers()
    ends = np.frombuffer(offsets, dtype=np.int64)[known.offset : known.offset + len(known) + 1]
    return lengths.to_numpy().astype("<i4").tobytes(), memoryview(data)[
        int(ends[0]) : int(ends[-1])
    ].tobytes()
