"""Score: PAIR-X matches, relevances and both plausibility scores of every current pair; no pixel is propagated to."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from pairx_engine.chips import Pixels, chip_of
from pairx_engine.errors import PhotoError
from pairx_engine.local.evidence import LocalEvidence, local_evidence
from pairx_engine.local.features import LocalFeatures
from pairx_engine.matching import Matches, cell_points, match_relevance, mutual_matches
from pairx_engine.plausibility import Plausibility, plausibility
from pairx_engine.relevance import Seen
from pairx_engine.starts import starts_of
from schemas import stages
from schemas.failures import Failure, FailureCode
from tasks.embed import stored_features
from tasks.job import Job, explainer_of, matcher_of, model_of
from tasks.pair_order import close_together, parts
from tasks.photo_files import CUTS
from tasks.shards import ShardResult, Stage, Stopwatch, chunks, commit, or_failure
from tasks.warehouse import shard_name

R = TypeVar("R")
Photo = Mapping[str, Any]
Grids = tuple[NDArray[np.float32], NDArray[np.float32]]
_PHOTO_COLUMNS = ("photo_id", "chip_id", "root", "path", "sha256", "box", "theta")
"""What a worker needs to see a photo; a shard carries a hundred of them to the scheduler, on a GPU a thousand."""
_MOST_PHOTOS = 2000
"""Photos in one shard. Of each a worker holds its features on the device (0.5 MB for MiewID's shape at 440 px: 152 x 28 x 28 in
single precision), and its chip and its keypoints on the host (0.6 and 0.5 MB): 1 GB and 2.2 GB at most."""


@dataclass(frozen=True)
class Pair:
    """A pair to score: its id and the ids of its photos."""

    pair_id: str
    photo_a: str
    photo_b: str


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


def plan_score(
    pairs: Sequence[Pair], photos: Mapping[str, Photo], keypoints_in: Mapping[str, str], size: int
) -> list[ScoreShard]:
    """Shards of at most `size` pairs in an order in which partners of one photo mostly share a shard, and of few enough photos.

    `keypoints_in` maps photo ids to the keypoint shard that holds their current chip. After a killed run the pairs that are
    left form other shards; rows tell what is done.
    """
    return [shard_of(part, photos, keypoints_in) for part in parts(close_together(pairs), size, _MOST_PHOTOS)]


def shard_of(
    pairs: Sequence[Pair], photos: Mapping[str, Photo], keypoints_in: Mapping[str, str]
) -> ScoreShard:
    """The shard of these pairs, with what their photos need."""
    ids = sorted({i for p in pairs for i in (p.photo_a, p.photo_b)})
    needed = sorted({keypoints_in[i] for i in ids if i in keypoints_in})
    lean = tuple({column: photos[i][column] for column in _PHOTO_COLUMNS} for i in ids)
    return ScoreShard(tuple(pairs), lean, tuple(needed))


@dataclass(frozen=True)
class Sight:
    """What a shard holds of a photo: its chip's pixels (H, W, 3), and what the model saw, without the normalised chip.

    That one is four times as large as all the rest and on the device; it is made again where it is needed.
    """

    pixels: Pixels
    seen: Seen


def score_shard(job: Job, shard: ScoreShard) -> ShardResult:
    """Score the pairs of one shard and commit matches, relevances and scores, in this order."""
    watch = Stopwatch()
    lost: list[Failure] = []
    seen = _see(job, shard, lost, watch)
    local = _stored_features(job, shard)
    pairs = [p for p in shard.pairs if p.photo_a in seen and p.photo_b in seen]
    with _on_threads(job, pairs, local) as evidence_of:
        with watch.in_engine():
            relevance = _relevances(job, pairs, seen, lost)
        tables, failures = _rows(job, shard, pairs, seen, relevance, evidence_of, lost, watch)
    return commit(job, SCORE, shard.name, tables, {"scores": failures}, watch)


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
    """Rows by table, and the failures of pairs: of those with a lost photo, and of those that cannot be scored."""
    reason = {f.item: f for f in lost}
    failures = [
        replace(reason[photo], stage="score", item=pair.pair_id)
        for pair in shard.pairs
        for photo in [next((x for x in (pair.photo_a, pair.photo_b) if x in reason), None)]
        if photo is not None
    ]
    tables: dict[str, list[dict[str, Any]]] = {"matches": [], "relevances": [], "scores": []}
    for pair in pairs:
        if pair.photo_a in reason or pair.photo_b in reason:
            continue
        with watch.in_engine(), or_failure(failures, "score", pair.pair_id):
            found = evidence_of(pair)
            rows = [
                _score(job, pair, layer, seen, relevance[layer][pair.pair_id], found) for layer in job.layers
            ]
            for table, row in (item for layer in rows for item in layer.items()):
                tables[table].append(row)
    return tables, failures


@contextmanager
def _on_threads(
    job: Job, pairs: Sequence[Pair], local: Mapping[str, LocalFeatures]
) -> Iterator[Callable[[Pair], LocalEvidence]]:
    """The local evidence of each pair: on threads beside the device where this worker has more than one, else when asked."""

    def of(pair: Pair) -> LocalEvidence:
        return _local_evidence(job, local.get(pair.photo_a), local.get(pair.photo_b))

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
                chips[photo["photo_id"]] = chip_of(CUTS.cut(photo, job.settings.max_pixels), model.chip)

        def see(ids: Sequence[str], chips: Mapping[str, Pixels] = chips) -> list[Seen]:
            # Normalised one by one: a photo's numbers do not depend on its company.
            return explainer.see_all([model.normalise([chips[i]])[0] for i in ids])

        with watch.in_engine():
            for name, found in _in_company(list(chips), see, lost):
                seen[name] = Sight(chips[name], replace(found, chip=found.chip.new_empty(0)))
    return seen


def _relevances(
    job: Job, pairs: Sequence[Pair], seen: Mapping[str, Sight], lost: list[Failure]
) -> dict[str, dict[str, Grids]]:
    """Relevance grids of both photos, by layer and pair; each photo is recorded once for all of its partners."""
    model, explainer = model_of(job), explainer_of(job).suited_to("score")
    starts: dict[str, list[tuple[str, int, torch.Tensor]]] = defaultdict(list)
    for pair in pairs:
        both = starts_of(
            explainer.preset, seen[pair.photo_a].seen.embedding, seen[pair.photo_b].seen.embedding
        )
        for side, (photo, start) in enumerate(zip((pair.photo_a, pair.photo_b), both, strict=True)):
            starts[photo].append((pair.pair_id, side, start))

    def relevances(photos: Sequence[str]) -> list[dict[str, torch.Tensor]]:
        sights = [replace(seen[i].seen, chip=model.normalise([seen[i].pixels])[0]) for i in photos]
        return explainer.relevances(sights, [torch.stack([start for *_, start in starts[i]]) for i in photos])

    grids: dict[str, dict[str, list[Any]]] = {
        layer: {p.pair_id: [None, None] for p in pairs} for layer in job.layers
    }
    # Photos with as many partners go together: those with fewer would wait for the others.
    for photos in chunks(sorted(starts, key=lambda i: -len(starts[i])), explainer.tuning.photos):
        for photo, found in _in_company(photos, relevances, lost):
            for layer in job.layers:
                arrays = found[layer].float().cpu().numpy()
                for (pair_id, side, _), grid in zip(starts[photo], arrays, strict=True):
                    grids[layer][pair_id][side] = grid
    return {layer: {key: (a, b) for key, (a, b) in found.items()} for layer, found in grids.items()}


def _in_company(
    photos: Sequence[str], work: Callable[[Sequence[str]], Sequence[R]], lost: list[Failure]
) -> Iterator[tuple[str, R]]:
    """Photos with what `work` makes of them, all at once; where that fails one by one, so that the failure is one photo's."""
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


def _stored_features(job: Job, shard: ScoreShard) -> dict[str, LocalFeatures]:
    wanted = {(p["photo_id"], p["chip_id"]) for p in shard.photos}
    table = job.warehouse.read(
        "keypoints", job.prints.keypoints, shard.keypoint_shards, photos={photo for photo, _ in wanted}
    )
    return {key[0]: features for key, features in stored_features(table) if key in wanted}


def _local_evidence(job: Job, a: LocalFeatures | None, b: LocalFeatures | None) -> LocalEvidence:
    if a is None or b is None:
        return LocalEvidence(0, None, None, "no_keypoints")
    chosen = job.settings
    return local_evidence(
        matcher_of(job), a, b, job.chip_size, chosen.homography, chosen.homography_threshold
    )


def _score(
    job: Job,
    pair: Pair,
    layer: str,
    seen: Mapping[str, Sight],
    grids: Grids,
    local: LocalEvidence,
) -> dict[str, dict[str, Any]]:
    """The rows of one pair and layer, by table."""
    if not all(np.isfinite(grid).all() for grid in grids):
        raise PhotoError(FailureCode.SCORE_NOT_FINITE, f"the relevance at {layer} holds NaN or infinity")
    found = mutual_matches(seen[pair.photo_a].seen.features[layer], seen[pair.photo_b].seen.features[layer])
    points0, points1 = (
        cell_points(cells, grids[0].shape, job.chip_size) for cells in (found.cell0, found.cell1)
    )
    relevance = match_relevance(found, grids[0], grids[1])
    scores = plausibility(found.cell0, found.cell1, points0, points1, grids[0], grids[1], local.matrix)
    key = {"pair_id": pair.pair_id, "photo_a": pair.photo_a, "photo_b": pair.photo_b, "layer": layer}
    height, width = grids[0].shape
    return {
        "matches": key | _match_row(found, [points0, points1], relevance, scores),
        "relevances": key
        | {"height": height, "width": width, "grid_a": grids[0].ravel(), "grid_b": grids[1].ravel()},
        "scores": key | _score_row(scores, grids, local),
    }


def _match_row(
    found: Matches, points: list[NDArray[Any]], relevance: NDArray[np.float64], scores: Plausibility
) -> dict[str, Any]:
    order = np.argsort(-relevance, kind="stable")
    row: dict[str, Any] = {"distance": np.asarray(found.distance)[order], "relevance": relevance[order]}
    for side, cells, place in zip("ab", (found.cell0, found.cell1), points, strict=True):
        row |= {
            f"column_{side}": cells[order, 0].astype(np.int16),
            f"row_{side}": cells[order, 1].astype(np.int16),
        }
        row |= {
            f"x_{side}": place[order, 0].astype(np.float32),
            f"y_{side}": place[order, 1].astype(np.float32),
        }
    row["residual"] = None if scores.residuals is None else scores.residuals[order].astype(np.float32)
    return row


def _score_row(scores: Plausibility, grids: Grids, local: LocalEvidence) -> dict[str, Any]:
    return {
        "n_matches": scores.n_matches,
        "match_fraction": scores.match_fraction,
        "match_coverage": scores.match_coverage,
        "residual_mean": scores.residual_mean,
        "inverted_residual_mean": scores.inverted_residual_mean,
        "top_residual_mean": scores.top_residual_mean,
        "n_local_matches": local.n_matches,
        "n_inliers": local.n_inliers,
        "homography": None if local.matrix is None else local.matrix.ravel(),
        "no_homography_reason": local.reason,
        "relevance_a": float(grids[0].sum(dtype=np.float64)),
        "relevance_b": float(grids[1].sum(dtype=np.float64)),
    }


SCORE = Stage.of(stages.SCORE, score_shard, lambda shard: len(shard.pairs))
