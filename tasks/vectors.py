"""Stored embeddings of a gallery's photos: in blocks for a search, or those of some rows.

They are read once per process, into one matrix in the gallery's order; a large one lies in a file without a name,
so that the system can put it aside when memory is short.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray

from pairx_engine.retrieval.proposals import Block
from tasks.gallery import Gallery
from tasks.job import Job
from tasks.store.warehouse import Warehouse

_BLOCK = 8192
_IN_MEMORY = 1 << 28
"""Bytes up to which a matrix is kept in memory."""
_FILES_AT_ONCE = 64


@dataclass(frozen=True, eq=False)
class Vectors:
    """Embeddings (N, D) of a gallery's photos in its order, and which rows have one (N,)."""

    matrix: NDArray[np.float16]
    there: NDArray[np.bool_]


def blocks_of(job: Job, gallery: Gallery) -> Iterator[Block]:
    """The gallery's vectors in blocks of a few thousand."""
    vectors = _vectors(job, gallery)
    for start in range(0, len(vectors.there), _BLOCK):
        rows = start + np.flatnonzero(vectors.there[start : start + _BLOCK])
        if len(rows):
            yield rows, torch.from_numpy(vectors.matrix[rows])


def tensors_of(job: Job, gallery: Gallery, rows: NDArray[np.int64]) -> torch.Tensor:
    """Stored vectors (len(rows), D) of gallery rows, in that order."""
    vectors = _vectors(job, gallery)
    if not vectors.there[rows].all():
        raise ValueError("some of these photos have no embedding")
    return torch.from_numpy(vectors.matrix[rows])


def vectors_of(job: Job, gallery: Gallery, rows: NDArray[np.int64]) -> NDArray[np.float16]:
    """Stored embeddings (len(rows), D) of gallery rows, in that order; (0, 0) for no rows.

    Without a row D is not known.
    """
    if not len(rows):
        return np.empty((0, 0), dtype=np.float16)
    return tensors_of(job, gallery, rows).numpy()


def _vectors(job: Job, gallery: Gallery) -> Vectors:
    return _read(job.warehouse, job.prints.embeddings, _ByState(gallery))


@dataclass(frozen=True, eq=False)
class _ByState:
    """A gallery that equals any other of its state."""

    gallery: Gallery

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _ByState) and other.gallery.state == self.gallery.state

    def __hash__(self) -> int:
        return hash(self.gallery.state)


@lru_cache(maxsize=1)
def _read(warehouse: Warehouse, partition: str, of: _ByState) -> Vectors:
    """All vectors of a gallery; of a photo that is stored twice the last file counts."""
    gallery = of.gallery
    there = np.zeros(len(gallery), dtype=bool)
    matrix = np.empty((0, 0), dtype=np.float16)
    names = sorted(warehouse.shards("embeddings", partition))
    for start in range(0, len(names), _FILES_AT_ONCE):
        part = names[start : start + _FILES_AT_ONCE]
        table = warehouse.read("embeddings", partition, part, ["photo_id", "chip_id", "embedding"])
        rows = gallery.places_of(table)
        used = np.flatnonzero(rows >= 0)
        if not len(used):
            continue
        found = _matrix(table["embedding"])
        if not matrix.size:
            matrix = _room(len(gallery), found.shape[1])
        matrix[rows[used]] = found[used]
        there[rows[used]] = True
    if not there.any():
        raise ValueError("none of these photos has an embedding")
    return Vectors(matrix, there)


def _room(count: int, width: int) -> NDArray[np.float16]:
    """A matrix of zeros in memory, or in a file that goes with the process."""
    if count * width * 2 <= _IN_MEMORY:
        return np.zeros((count, width), dtype=np.float16)
    with tempfile.TemporaryFile(prefix="pairx-vectors-") as file:
        return np.memmap(file, dtype=np.float16, mode="w+", shape=(count, width))


def _matrix(column: pa.ChunkedArray) -> NDArray[np.float16]:
    array = column.combine_chunks()
    flat = array.flatten().to_numpy(zero_copy_only=False)
    return np.asarray(flat, dtype=np.float16).reshape(len(array), -1)
