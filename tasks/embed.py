"""Embed: the model's embedding and the local features of every photo, once per chip."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray

from pairx_engine.chips import Pixels, chip_of, view_of
from pairx_engine.errors import PhotoError
from pairx_engine.groups import filled, in_groups
from pairx_engine.local.features import LocalFeatures
from schemas import stages
from schemas.failures import Failure, FailureCode
from tasks.job import Job, matcher_of, model_of
from tasks.photo_files import CUTS
from tasks.shards import ShardResult, Stage, Stopwatch, chunks, commit, or_failure
from tasks.warehouse import shard_name

Photo = Mapping[str, Any]
Key = tuple[str, str]
"""Photo id and chip id."""


@dataclass(frozen=True)
class EmbedShard:
    """Photos that lack an embedding, keypoints, or both."""

    photos: tuple[Photo, ...]
    embed: frozenset[str]
    detect: frozenset[str]

    @property
    def name(self) -> str:
        """Hash of the photos, their chips and what is wanted of each."""
        return shard_name(
            f"{p['photo_id']}\0{p['chip_id']}\0{p['photo_id'] in self.embed:d}{p['photo_id'] in self.detect:d}"
            for p in self.photos
        )

    def part(self, items: slice) -> EmbedShard:
        """Some of the photos."""
        return replace(self, photos=self.photos[items])


def plan_embed(
    photos: Sequence[Photo], embedded: set[Key], detected: set[Key], size: int
) -> list[EmbedShard]:
    """Shards of the current photos, sorted by id, whose chip is not settled in both respects.

    `embedded` and `detected` are the chips that have an embedding and keypoints, or have failed to get them.
    """
    shards = []
    keys = {p["photo_id"]: (p["photo_id"], p["chip_id"]) for p in photos if p["chip_id"] is not None}
    missing = [p for p in photos if (k := keys.get(p["photo_id"])) and not (k in embedded and k in detected)]
    for part in chunks(missing, size):
        ids = [p["photo_id"] for p in part]
        shards.append(
            EmbedShard(
                tuple(part),
                frozenset(i for i in ids if keys[i] not in embedded),
                frozenset(i for i in ids if keys[i] not in detected),
            )
        )
    return shards


def embed_shard(job: Job, shard: EmbedShard) -> ShardResult:
    """Embed and detect the photos of one shard and commit their rows, embeddings last."""
    watch = Stopwatch()
    unread: list[Failure] = []
    cuts: dict[str, Pixels] = {}
    for photo in shard.photos:
        with or_failure(unread, "embed", photo["photo_id"], chip_id=photo["chip_id"]):
            cuts[photo["photo_id"]] = CUTS.cut(photo, job.settings.max_pixels)
    wanted = {
        "keypoints": [p for p in shard.photos if p["photo_id"] in cuts.keys() & shard.detect],
        "embeddings": [p for p in shard.photos if p["photo_id"] in cuts.keys() & shard.embed],
    }
    failures: dict[str, list[Failure]] = {
        "keypoints": [f for f in unread if f.item in shard.detect],
        "embeddings": [f for f in unread if f.item in shard.embed],
    }
    with watch.in_engine():
        rows = {
            "keypoints": _detect(job, wanted["keypoints"], cuts, failures["keypoints"]),
            "embeddings": _embed(job, wanted["embeddings"], cuts, failures["embeddings"]),
        }
    due = {"keypoints": shard.detect, "embeddings": shard.embed}
    tables = {table: found for table, found in rows.items() if due[table]}
    return commit(job, EMBED, shard.name, tables, failures, watch)


def embed_chips(job: Job, chips: list[Pixels]) -> NDArray[np.float32]:
    """Raw embeddings (N, D) of chips, in batches of a fixed shape; where memory runs out, the batch is halved.

    The last batch is filled up: kernels are chosen by shape, and a photo's embedding must not depend on its batch mates.
    """
    made = in_groups(chips, job.batch_size, lambda part, size: _forward(job, part, size))
    # Fetched once, so that a device works on one batch while the next is laid out for it.
    found: NDArray[np.float32] = torch.cat(list(made)).cpu().numpy()
    return found


def _forward(job: Job, chips: Sequence[Pixels], size: int) -> torch.Tensor:
    model = model_of(job)
    with torch.inference_mode():
        embeddings: torch.Tensor = model.network(model.normalise(filled(chips, size)))
        return embeddings[: len(chips)].float()


def _embed(
    job: Job, photos: list[Photo], cuts: Mapping[str, Pixels], failures: list[Failure]
) -> list[dict[str, Any]]:
    if not photos:
        return []
    spec = model_of(job).chip
    raw = embed_chips(job, [chip_of(cuts[p["photo_id"]], spec) for p in photos])
    rows = []
    for photo, vector in zip(photos, raw, strict=True):
        norm = float(np.linalg.norm(vector.astype(np.float64)))
        with or_failure(failures, "embed", photo["photo_id"], chip_id=photo["chip_id"]):
            if not np.isfinite(norm) or norm == 0:
                raise PhotoError(FailureCode.EMBEDDING_NOT_FINITE, f"the embedding's norm is {norm}")
            unit = (vector / norm).astype(np.float16)
            rows.append(
                {"photo_id": photo["photo_id"], "chip_id": photo["chip_id"], "norm": norm, "embedding": unit}
            )
    return rows


def _detect(
    job: Job, photos: list[Photo], cuts: Mapping[str, Pixels], failures: list[Failure]
) -> list[dict[str, Any]]:
    rows = []
    for photo in photos:
        with or_failure(failures, "embed", photo["photo_id"], chip_id=photo["chip_id"]):
            view = view_of(cuts[photo["photo_id"]], job.settings.view_side)
            rows.append(_keypoint_row(photo, matcher_of(job).extract(view)))
    return rows


def _keypoint_row(photo: Photo, found: LocalFeatures) -> dict[str, Any]:
    return {
        "photo_id": photo["photo_id"],
        "chip_id": photo["chip_id"],
        "view_width": found.view_size[0],
        "view_height": found.view_size[1],
        "x": found.points[:, 0],
        "y": found.points[:, 1],
        "score": found.scores,
        "dimension": found.descriptors.shape[1],
        "descriptors": found.descriptors.astype(np.float16).ravel(),
    }


def stored_features(table: pa.Table) -> Iterator[tuple[Key, LocalFeatures]]:
    """The stored features of `keypoints` rows, as the matcher expects them, with photo id and chip id.

    Lists stay Arrow buffers until they are arrays: a photo has a hundred thousand numbers.
    """
    plain = {
        name: table[name].to_pylist()
        for name in ("photo_id", "chip_id", "view_width", "view_height", "dimension")
    }
    lists = {name: table[name].combine_chunks() for name in ("x", "y", "score", "descriptors")}
    for i in range(table.num_rows):
        x, y, score, flat = (lists[name][i].values.to_numpy(zero_copy_only=False) for name in lists)
        points = np.stack([x, y], axis=1).astype(np.float32)
        descriptors = np.asarray(flat, dtype=np.float32).reshape(len(points), plain["dimension"][i])
        size = (plain["view_width"][i], plain["view_height"][i])
        scores = np.array(score, dtype=np.float32)
        yield (plain["photo_id"][i], plain["chip_id"][i]), LocalFeatures(points, descriptors, scores, size)


EMBED = Stage.of(stages.EMBED, embed_shard, lambda shard: len(shard.photos))
