"""Verify: compares pairs that may be one picture, saved again, pixel by pixel, whatever their names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from pairx_engine.copies.registration import Picture
from pairx_engine.copies.verification import CopyVerdict, verify_copy
from schemas import stages
from schemas.failures import Failure
from tasks.costs import spent_on
from tasks.job import Job
from tasks.pair_order import close_together, parts
from tasks.pairs import Pair, Photo, photos_of
from tasks.photo_files import SEEN_BY, read_cut
from tasks.shards import ShardResult, Stage, Stopwatch, commit, or_failure
from tasks.store.warehouse import shard_name

_MOST_PHOTOS = 500
"""Most photos in one shard: about 1 MB is kept for each until all its pairs are done."""


@dataclass(frozen=True)
class VerifyShard:
    """Pairs to compare and the photos they need."""

    pairs: tuple[Pair, ...]
    photos: tuple[Photo, ...]

    @property
    def name(self) -> str:
        """Hash of the pair ids."""
        return shard_name(p.pair_id for p in self.pairs)

    def part(self, items: slice) -> VerifyShard:
        """Some of the pairs, with their photos."""
        pairs = self.pairs[items]
        return VerifyShard(pairs, photos_of(pairs, self.photos))


def plan_verify(pairs: Sequence[Pair], photos: Mapping[str, Photo], size: int) -> list[VerifyShard]:
    """Shards of at most `size` pairs and few enough photos; a photo's partners mostly share a shard."""
    return [
        VerifyShard(tuple(part), tuple({column: photos[i][column] for column in SEEN_BY} for i in ids))
        for part in parts(close_together(pairs), size, _MOST_PHOTOS)
        for ids in [sorted({i for p in part for i in (p.photo_a, p.photo_b)})]
    ]


def verify_shard(job: Job, shard: VerifyShard) -> ShardResult:
    """Compare the pairs of one shard and commit their verdicts."""
    watch = Stopwatch()
    lost: list[Failure] = []
    pictures: dict[str, Picture] = {}
    for photo in shard.photos:
        with or_failure(lost, "verify", photo["photo_id"]):
            pictures[photo["photo_id"]] = Picture.of(read_cut(photo, job.settings.max_pixels))
    reason = {failure.item: failure for failure in lost}
    chips = {photo["photo_id"]: photo["chip_id"] for photo in shard.photos}
    rows: list[dict[str, Any]] = []
    failures: list[Failure] = []
    for pair in shard.pairs:
        missing = next((photo for photo in (pair.photo_a, pair.photo_b) if photo in reason), None)
        if missing is not None:
            failures.append(replace(reason[missing], item=pair.pair_id))
            continue
        with or_failure(failures, "verify", pair.pair_id):
            with spent_on("device"):
                found = verify_copy(pictures[pair.photo_a], pictures[pair.photo_b])
            rows.append(_row(pair, chips, found))
    return commit(job, VERIFY, shard.name, {"copies": rows}, {"copies": failures}, watch)


def _row(pair: Pair, chips: Mapping[str, str], found: CopyVerdict) -> dict[str, Any]:
    return {
        "pair_id": pair.pair_id,
        "photo_a": pair.photo_a,
        "photo_b": pair.photo_b,
        "chip_a": chips[pair.photo_a],
        "chip_b": chips[pair.photo_b],
        "hash_distance": found.hash_distance,
        "transform": found.transform,
        "mirrored": found.mirrored,
        "matrix": None if found.matrix is None else found.matrix.ravel().tolist(),
        "agreement": found.agreement,
        "weakest": found.weakest,
        "overlap": found.overlap,
        "inliers": found.inliers,
        "same_picture": found.same_picture,
    }


VERIFY = Stage.of(stages.VERIFY, verify_shard, lambda shard: len(shard.pairs), on_device=False)
