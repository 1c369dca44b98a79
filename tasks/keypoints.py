"""Local features as rows of `keypoints` and back, and the local matches of two photos."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import pyarrow as pa

from pairx_engine.local.evidence import LocalEvidence, local_evidence
from pairx_engine.local.features import LocalFeatures
from tasks.costs import spent_on
from tasks.job import Job, matcher_of
from tasks.pairs import Key, Photo


def keypoint_row(photo: Photo, found: LocalFeatures) -> dict[str, Any]:
    """The row of a photo's features."""
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


def local_features(
    job: Job, photos: Iterable[Photo], keypoint_shards: Iterable[str]
) -> dict[str, LocalFeatures]:
    """The stored features of photos' chips in those shards, by photo id; photos without any are absent."""
    wanted = {(p["photo_id"], p["chip_id"]) for p in photos}
    with spent_on("reading"):
        table = job.warehouse.read(
            "keypoints", job.prints.keypoints, keypoint_shards, photos={photo for photo, _ in wanted}
        )
        return {key[0]: features for key, features in stored_features(table) if key in wanted}


def evidence_between(job: Job, a: LocalFeatures | None, b: LocalFeatures | None) -> LocalEvidence:
    """What the job's local matcher says of two photos' stored features; no evidence if either has none."""
    if a is None or b is None:
        return LocalEvidence(0, None, None, "no_keypoints")
    chosen = job.settings
    with spent_on("features"):
        return local_evidence(
            matcher_of(job), a, b, job.chip_size, chosen.homography, chosen.homography_threshold
        )
