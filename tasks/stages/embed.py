"""Embed: the model's embedding and the local features of every photo, once per chip."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from pairx_engine.device.groups import filled, in_groups
from pairx_engine.errors import PhotoError
from pairx_engine.photo.chips import Pixels
from schemas import stages
from schemas.failures import Failure, FailureCode
from tasks.costs import spent_on
from tasks.job import Job, matcher_of, model_of
from tasks.keypoints import keypoint_row
from tasks.memory import photos_at_once
from tasks.pairs import Key, Photo
from tasks.photo_files import VIEWS
from tasks.shards import ShardResult, Stage, Stopwatch, chunks, commit, or_failure
from tasks.store.warehouse import shard_name

Row = dict[str, Any]


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
    """Shards of the current photos, sorted by id, that lack an embedding or keypoints.

    `embedded` and `detected` are the chips that have an embedding and keypoints, or have failed to get
    them.
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
    """Embed and detect the photos of one shard and commit their rows, embeddings last.

    After a photo was read only its chip and view are kept, and the chips of a few batches wait for the
    model.
    """
    watch = Stopwatch()
    spec, side, most = model_of(job).chip, job.settings.view_side, job.settings.max_pixels
    unread, undetected, unembedded = list[Failure](), list[Failure](), list[Failure]()
    keypoints, embeddings = list[Row](), list[Row]()
    waiting: list[tuple[Photo, Pixels]] = []
    at_once = _chips_at_once(job)
    for photo in shard.photos:
        with or_failure(unread, "embed", photo["photo_id"], chip_id=photo["chip_id"]):
            chip, view = VIEWS.views(photo, most, spec, side).pictures
            if photo["photo_id"] in shard.detect:
                with watch.in_engine():
                    keypoints += _detect(job, photo, view, undetected)
            if photo["photo_id"] in shard.embed:
                waiting.append((photo, chip))
        if len(waiting) == at_once:
            with watch.in_engine():
                embeddings += _embed(job, waiting, unembedded)
            waiting = []
    with watch.in_engine():
        embeddings += _embed(job, waiting, unembedded)
    rows = {"keypoints": keypoints, "embeddings": embeddings}
    failures = {
        "keypoints": [f for f in unread if f.item in shard.detect] + undetected,
        "embeddings": [f for f in unread if f.item in shard.embed] + unembedded,
    }
    due = {"keypoints": shard.detect, "embeddings": shard.embed}
    tables = {table: found for table, found in rows.items() if due[table]}
    return commit(job, EMBED, shard.name, tables, failures, watch)


def _chips_at_once(job: Job) -> int:
    """How many chips wait for the model: whole batches, as many as memory allows.

    A device works on one batch while the next is prepared.
    """
    height, width = job.chip_size
    size = job.batch_size
    return max(1, photos_at_once(3 * height * width) // size) * size


def embed_chips(job: Job, chips: list[Pixels]) -> NDArray[np.float32]:
    """Raw embeddings (N, D) of chips, in batches of fixed shape, halved where memory runs out.

    The last batch is filled up: kernels are chosen by shape, and a photo's embedding must not depend on
    the other photos of its batch.
    """
    made = in_groups(chips, job.batch_size, lambda part, size: _forward(job, part, size))
    # Fetched once, at the end, so that the device works on one batch while the next is prepared.
    found: NDArray[np.float32] = torch.cat(list(made)).cpu().numpy()
    return found


def _forward(job: Job, chips: Sequence[Pixels], size: int) -> torch.Tensor:
    model = model_of(job)
    with torch.inference_mode():
        embeddings: torch.Tensor = model.network(model.normalise(filled(chips, size)))
        return embeddings[: len(chips)].float()


def _embed(job: Job, given: Sequence[tuple[Photo, Pixels]], failures: list[Failure]) -> list[Row]:
    if not given:
        return []
    raw = embed_chips(job, [chip for _, chip in given])
    rows = []
    for (photo, _), vector in zip(given, raw, strict=True):
        norm = float(np.linalg.norm(vector.astype(np.float64)))
        with or_failure(failures, "embed", photo["photo_id"], chip_id=photo["chip_id"]):
            if not np.isfinite(norm) or norm == 0:
                raise PhotoError(FailureCode.EMBEDDING_NOT_FINITE, f"the embedding's norm is {norm}")
            unit = (vector / norm).astype(np.float16)
            rows.append(
                {"photo_id": photo["photo_id"], "chip_id": photo["chip_id"], "norm": norm, "embedding": unit}
            )
    return rows


def _detect(job: Job, photo: Photo, view: Pixels, failures: list[Failure]) -> list[Row]:
    with spent_on("features"), or_failure(failures, "embed", photo["photo_id"], chip_id=photo["chip_id"]):
        return [keypoint_row(photo, matcher_of(job).extract(view))]
    return []


EMBED = Stage.of(stages.EMBED, embed_shard, lambda shard: len(shard.photos))
