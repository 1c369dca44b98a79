"""Stored embeddings of a gallery's photos: in blocks for a search, or those of some rows."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray

from pairx_engine.retrieval.proposals import Block
from tasks.gallery import Gallery
from tasks.job import Job

_BLOCK = 8192


def blocks_of(job: Job, gallery: Gallery) -> Iterator[Block]:
    """The gallery's vectors, file by file, in blocks of a few thousand; memory stays bounded."""
    rows: list[NDArray[np.int64]] = []
    vectors: list[torch.Tensor] = []
    held = 0
    for name in sorted(job.warehouse.shards("embeddings", job.prints.embeddings)):
        table = job.warehouse.read(
            "embeddings", job.prints.embeddings, [name], ["photo_id", "chip_id", "embedding"]
        )
        keys = zip(table["photo_id"].to_pylist(), table["chip_id"].to_pylist(), strict=True)
        at = np.array([gallery.rows.get(key, -1) for key in keys], dtype=np.int64)
        if not (at >= 0).any():
            continue
        rows.append(at[at >= 0])
        vectors.append(_matrix(table["embedding"])[torch.from_numpy(at >= 0)])
        held += len(rows[-1])
        if held >= _BLOCK:
            yield np.concatenate(rows), torch.cat(vectors)
            rows, vectors, held = [], [], 0
    if held:
        yield np.concatenate(rows), torch.cat(vectors)


def tensors_of(job: Job, gallery: Gallery, rows: NDArray[np.int64]) -> torch.Tensor:
    """Stored vectors (len(rows), D) of gallery rows, in that order."""
    place = {int(row): i for i, row in enumerate(rows)}
    found: torch.Tensor | None = None
    for columns, vectors in blocks_of(job, gallery):
        mask = np.isin(columns, rows)
        if found is None:
            found = torch.empty(len(rows), vectors.shape[1], dtype=vectors.dtype)
        found[torch.tensor([place[int(c)] for c in columns[mask]], dtype=torch.int64)] = vectors[
            torch.from_numpy(mask)
        ]
    if found is None:
        raise ValueError("none of these photos has an embedding")
    return found


def vectors_of(job: Job, gallery: Gallery, rows: NDArray[np.int64]) -> NDArray[np.float16]:
    """Stored embeddings (len(rows), D) of gallery rows, in that order; (0, 0) for no rows.

    Without a row D is not known.
    """
    if not len(rows):
        return np.empty((0, 0), dtype=np.float16)
    return tensors_of(job, gallery, rows).numpy()


def _matrix(column: pa.ChunkedArray) -> torch.Tensor:
    array = column.combine_chunks()
    flat = array.flatten().to_numpy(zero_copy_only=False)
    return torch.from_numpy(np.array(flat, dtype=np.float16).reshape(len(array), -1))
