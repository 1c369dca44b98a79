"""Score: PAIR-X matches, relevances and both plausibility scores of every current pair.

Relevance is not propagated to pixels here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import torch

from pairx_engine.local.evidence import LocalEvidence
from pairx_engine.local.features import LocalFeatures
from pairx_engine.pair.finding import Grids, match, pair_grids, weigh
from pairx_engine.photo.chips import Pixels
from pairx_engine.relevance.explainer import Seen
from schemas import stages
from schemas.failures import Failure
from tasks.finding_rows import rows_of, signal_row
from tasks.job import Job, explainer_of, matcher_of, model_of
from tasks.keypoints import evidence_between, local_features
from tasks.memory import photos_at_once
from tasks.pair_order import close_together, parts
from tasks.pairs import Pair, Photo, photos_of
from tasks.photo_files import SEEN_BY, VIEWS
from tasks.shards import ShardResult, Stage, Stopwatch, chunks, commit, or_failure
from tasks.store.warehouse import shard_name

R = TypeVar("R")
_MOST_PHOTOS = 2000
"""Most photos in one shard.

Of each photo a worker holds its features on the device (0.5 MB for MiewID's shape at 440 px: 152 x 28 x 28 in
single precision), and its chip and keypoints on the host (0.6 and 0.5 MB). That is at most 1 GB of a device.
The host holds no more than `photos_at_once` allows: larger shards are scored in parts.
"""
_BYTES_OF_A_KEYPOINT = 4 * (256 + 3)
"""A descriptor of the greatest length in single precision, with its place and strength."""


@dataclass(frozen=True)
class ScoreShard:
    """Pairs, the photos they need, and the keypoint shards that hold those photos' features."""

    pairs: tuple[Pair, ...]
    photos: tuple[Photo, ...]
    keypoint_shards: tuple[str, ...]

    @property
    def name(self) -> str:
        """Hash of the pair ids."""
        return shard_name(p.pair_id for p in self.pairs)

    def part(self, items: slice) -> ScoreShard:
        """Some of the pairs, with their photos."""
        pairs = self.pairs[items]
        return replace(self, pairs=pairs, photos=photos_of(pairs, self.photos))


def plan_score(
    pairs: Sequence[Pair], photos: Mapping[str, Photo], keypoints_in: Mapping[str, str], size: int
) -> list[ScoreShard]:
    """Shards of at most `size` pairs and few enough photos; a photo's partners mostly share a shard.

    `keypoints_in` maps photo ids to the keypoint shard that holds their current chip. After a killed run
    the pairs that are left form other shards; rows tell what is done.
    """
    return [shard_of(part, photos, keypoints_in) for part in parts(close_together(pairs), size, _MOST_PHOTOS)]


def shard_of(
    pairs: Sequence[Pair], photos: Mapping[str, Photo], keypoints_in: Mapping[str, str]
) -> ScoreShard:
    """The shard of these pairs, with what is needed of their photos."""
    ids = sorted({i for p in pairs for i in (p.photo_a, p.photo_b)})
    needed = sorted({keypoints_in[i] for i in ids if i in keypoints_in})
    lean = tuple({column: photos[i][column] for column in SEEN_BY} for i in ids)
    return ScoreShard(tuple(pairs), lean, tuple(needed))


@dataclass(frozen=True)
class Sight:
    """What a shard holds of a photo: its chip's pixels (H, W, 3), and what the model saw.

    The normalised chip is dropped and made again where it is needed: it is four times as large as all the
    rest, and on the device.
    """

    pixels: Pixels
    seen: Seen


def score_shard(job: Job, shard: ScoreShard) -> ShardResult:
    """Score the pairs of one shard and commit matches, relevances, signals and scores, in this order."""
    watch = Stopwatch()
    tables: dict[str, list[dict[str, Any]]] = {name: [] for name in stages.SCORE.tables}
    failures: list[Failure] = []
    for pairs in parts(shard.pairs, len(shard.pairs), photos_at_once(bytes_of_a_photo(job, job.seen_bytes))):
        part = replace(shard, pairs=tuple(pairs), photos=photos_of(pairs, shard.photos))
        rows, failed = _scored(job, part, watch)
        failures += failed
        for table, some in rows.items():
            tables[table] += some
    return commit(job, SCORE, shard.name, tables, {"scores": failures}, watch)


def bytes_of_a_photo(job: Job, seen_bytes: int) -> int:
    """Bytes that a photo takes while it waits for its pairs.

    They hold its chip, what the model sees of it, and its local features.
    """
    return 3 * math.prod(job.chip_size) + seen_bytes + _BYTES_OF_A_KEYPOINT * job.settings.max_keypoints


def _scored(
    job: Job, shard: ScoreShard, watch: Stopwatch
) -> tuple[dict[str, list[dict[str, Any]]], list[Failure]]:
    """Rows by table, and failures of pairs, for as many photos as are held at once."""
    lost: list[Failure] = []
    seen = _see(job, shard, lost, watch)
    local = local_features(job, shard.photos, shard.keypoint_shards)
    pairs = [p for p in shard.pairs if p.photo_a in seen and p.photo_b in seen]
    with _on_threads(job, pairs, local) as evidence_of:
        with watch.in_engine():
            relevance = _relevances(job, pairs, seen, lost)
        return _rows(job, shard, pairs, seen, relevance, evidence_of, lost, watch)


def _rows(
    job: Job,
    shard: ScoreShard,
    pairs: Sequence[Pair],
    seen: Mapping[str, Sight],
    relevance: Mapping[str, Mapping[str, Grids]],
    evidence_of: Callable[[Pair], LocalEvidence],
    lost: Sequence[Failure],
    watch: Stopwatch,
) -> tuple[dict[str, list[dict[str, Any]]], list[Failure]]:
    """Rows by table, and failures of pairs: those with a lost photo, or that cannot be scored."""
    reason = {f.item: f for f in lost}
    failures = [
        replace(reason[photo], stage="score", item=pair.pair_id)
        for pair in shard.pairs
        for photo in [next((x for x in (pair.photo_a, pair.photo_b) if x in reason), None)]
        if photo is not None
    ]
    tables: dict[str, list[dict[str, Any]]] = {name: [] for name in stages.SCORE.tables}
    for pair in pairs:
        if pair.photo_a in reason or pair.photo_b in reason:
            continue
        with watch.in_engine(), or_failure(failures, "score", pair.pair_id):
            found = evidence_of(pair)
            rows = [
                _score(job, pair, layer, seen, relevance[pair.pair_id][layer], found) for layer in job.layers
            ]
            for table, row in (item for layer in rows for item in layer.items()):
                tables[table].append(row)
    return tables, failures


@contextmanager
def _on_threads(
    job: Job, pairs: Sequence[Pair], local: Mapping[str, LocalFeatures]
) -> Iterator[Callable[[Pair], LocalEvidence]]:
    """The local evidence of each pair: on request, or computed on threads beside the device.

    Threads are used where this worker has more than one.
    """

    def of(pair: Pair) -> LocalEvidence:
        return evidence_between(job, local.get(pair.photo_a), local.get(pair.photo_b))

    count = torch.get_num_threads()
    if count == 1 or not matcher_of(job).threads:
        yield of
        return
    with ThreadPoolExecutor(count) as pool:
        found = {pair.pair_id: pool.submit(of, pair) for pair in pairs}
        try:
            yield lambda pair: found[pair.pair_id].result()
        finally:
            pool.shutdown(cancel_futures=True)


def _see(job: Job, shard: ScoreShard, lost: list[Failure], watch: Stopwatch) -> dict[str, Sight]:
    model, explainer = model_of(job), explainer_of(job).suited_to("score")
    seen: dict[str, Sight] = {}
    for photos in chunks(shard.photos, explainer.tuning.photos):
        chips: dict[str, Pixels] = {}
        for photo in photos:
            with or_failure(lost, "score", photo["photo_id"]):
                chips[photo["photo_id"]] = VIEWS.chip(photo, job.settings.max_pixels, model.chip)

        def see(ids: Sequence[str], chips: Mapping[str, Pixels] = chips) -> list[Seen]:
            # Normalised one by one, so that a photo's numbers do not depend on the other photos.
            return explainer.see_all([model.normalise([chips[i]])[0] for i in ids])

        with watch.in_engine():
            for name, found in _in_company(list(chips), see, lost):
                seen[name] = Sight(chips[name], replace(found, chip=found.chip.new_empty(0)))
    return seen


def _relevances(
    job: Job, pairs: Sequence[Pair], seen: Mapping[str, Sight], lost: list[Failure]
) -> dict[str, dict[str, Grids]]:
    """Relevance grids of both photos, by pair and layer; each photo is recorded once for all partners."""
    model, explainer = model_of(job), explainer_of(job).suited_to("score")

    def relevances(starts: Mapping[str, torch.Tensor]) -> Iterator[tuple[str, dict[str, torch.Tensor]]]:
        def work(photos: Sequence[str]) -> list[dict[str, torch.Tensor]]:
            sights = [replace(seen[i].seen, chip=model.normalise([seen[i].pixels])[0]) for i in photos]
            return explainer.relevances(sights, [starts[i] for i in photos])

        # Photos with equally many partners go together; those with fewer would wait for the others.
        for photos in chunks(sorted(starts, key=lambda i: -len(starts[i])), explainer.tuning.photos):
            yield from _in_company(photos, work, lost)

    triples = [(p.pair_id, p.photo_a, p.photo_b) for p in pairs]
    embeddings = {photo: sight.seen.embedding for photo, sight in seen.items()}
    return pair_grids(explainer.preset, triples, embeddings, relevances)


def _in_company(
    photos: Sequence[str], work: Callable[[Sequence[str]], Sequence[R]], lost: list[Failure]
) -> Iterator[tuple[str, R]]:
    """Photos with what `work` makes of them, all at once.

    Where that fails, `work` gets them one by one, so that the failure is one photo's.
    """
    if not photos:
        return
    failed: list[Failure] = []
    made: Sequence[R] = ()
    with or_failure(failed, "score", photos[0]):
        made = work(photos)
    if not failed:
        yield from zip(photos, made, strict=True)
    elif len(photos) == 1:
        lost.extend(failed)
    else:
        for photo in photos:
            yield from _in_company([photo], work, lost)


def _score(
    job: Job,
    pair: Pair,
    layer: str,
    seen: Mapping[str, Sight],
    grids: Grids,
    local: LocalEvidence,
) -> dict[str, dict[str, Any]]:
    """The rows of one pair and layer, by table."""
    matched = match([seen[photo].seen for photo in (pair.photo_a, pair.photo_b)], layer, job.chip_size)
    finding = weigh(matched, grids)
    key = {"pair_id": pair.pair_id, "photo_a": pair.photo_a, "photo_b": pair.photo_b, "layer": layer}
    rows = rows_of(finding, finding.plausibility(local.matrix), local)
    rows["signals"] = signal_row(finding, local, job.chip_size)
    return {table: key | row for table, row in rows.items()}


SCORE = Stage.of(stages.SCORE, score_shard, lambda shard: len(shard.pairs))
