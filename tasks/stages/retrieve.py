"""Retrieve: exact nearest photos of every photo, and near-identical pictures.

It stores unordered pairs that are not stored yet.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from hashlib import blake2b
from itertools import pairwise

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray

from pairx_engine.photo.perceptual_hash import hash_distances, least_distances
from pairx_engine.retrieval.near_identical import near_identical as copies_by_hash
from pairx_engine.retrieval.rules import PairRule
from pairx_engine.retrieval.topk import Neighbours, cosines, exact_top_k
from schemas import stages
from schemas.settings import Settings
from schemas.stages import StageFacts
from schemas.thresholds import NEAR_IDENTICAL_BITS
from tasks.gallery import Gallery
from tasks.job import Job, device
from tasks.shards import ShardResult, Stage, Stopwatch, commit
from tasks.stages.references import reference_pairs
from tasks.store.warehouse import Warehouse, pair_id, shard_name
from tasks.vectors import blocks_of, tensors_of

_QUERIES_PER_TASK = 8192
_PAIRS_PER_FILE = 50_000
_NEIGHBOURS_PER_FILE = 500_000


def keep_gallery(job: Job, gallery: Gallery) -> None:
    """Store a gallery under the name of its state, once, for workers to read."""
    if not job.warehouse.exists("galleries", job.prints.of("galleries"), gallery.state):
        commit(job, RETRIEVE, gallery.state, {"galleries": gallery.photos})


@lru_cache(maxsize=2)
def _kept_gallery(warehouse: Warehouse, partition: str, state: str) -> Gallery:
    return Gallery(warehouse.read("galleries", partition, [state]))


@dataclass(frozen=True)
class RetrieveShard:
    """Queries `first` to `last` (exclusive) of the gallery that is kept under the name of its state."""

    state: str
    first: int
    last: int

    @property
    def name(self) -> str:
        """The gallery's state and the range of queries."""
        return f"{self.state}-{self.first}"


@dataclass(frozen=True, kw_only=True, eq=False)
class Candidates(ShardResult):
    """Directed candidates of some queries: gallery rows and cosines."""

    query: NDArray[np.int32]
    neighbour: NDArray[np.int32]
    cosine: NDArray[np.float32]


@dataclass(frozen=True, kw_only=True, eq=False)
class Retrieved(Candidates):
    """Candidates, and what each is for: a pair, a row of `neighbours`, or both."""

    is_pair: NDArray[np.bool_]
    is_near: NDArray[np.bool_]


def plan_retrieve(gallery: Gallery) -> list[RetrieveShard]:
    """Even ranges of queries, few enough that reading the gallery once per range stays cheap."""
    count = len(gallery.photo_ids)
    parts = max(1, -(-count // _QUERIES_PER_TASK))
    edges = np.linspace(0, count, parts + 1).astype(int)
    return [RetrieveShard(gallery.state, int(a), int(b)) for a, b in pairwise(edges) if b > a]


def pair_rules(settings: Settings) -> dict[str, tuple[PairRule, int]]:
    """The rules by which a photo chooses its partners, with the number for each rule, which may be 0.

    The rules are: nearest of all; nearest of the same name, since a wrong name inside an identity never
    shows in a plain top-k; and nearest of other names, so that pairs of either class are chosen on equal
    terms.
    """
    base = PairRule(settings.same_species, settings.same_viewpoint)
    return {
        "top_k": (base, settings.top_k),
        "same_name": (replace(base, same_name=True), settings.same_name_k),
        "other_name": (replace(base, other_name=True), settings.other_name_k),
    }


def retrieve_shard(job: Job, shard: RetrieveShard) -> Retrieved:
    """The nearest photos of one range of queries over the whole gallery, for pairs and neighbours."""
    watch, rules, near = Stopwatch(), pair_rules(job.settings), job.settings.neighbours
    wider = {name: (rule, max(k, near)) for name, (rule, k) in rules.items() if k or near}
    found = _search(job, shard, wider, watch)
    candidates = _candidates(found, shard, RETRIEVE, watch)
    place = np.concatenate([_places(n.query) for n in found.values()])
    k = np.concatenate([np.full(len(n.query), rules[name][1]) for name, n in found.items()])
    return Retrieved(**vars(candidates), is_pair=place <= k, is_near=place <= near)


def nearest(
    job: Job, shard: RetrieveShard, rules: Mapping[str, tuple[PairRule, int]], stage: StageFacts
) -> Candidates:
    """The nearest photos of one range of queries under each rule, one rule after the other."""
    watch = Stopwatch()
    return _candidates(_search(job, shard, rules, watch), shard, stage, watch)


def _search(
    job: Job, shard: RetrieveShard, rules: Mapping[str, tuple[PairRule, int]], watch: Stopwatch
) -> dict[str, Neighbours]:
    gallery = _kept_gallery(job.warehouse, job.prints.of("galleries"), shard.state)
    rows = np.arange(shard.first, shard.last)
    queries = tensors_of(job, gallery, rows).to(device())
    with watch.in_engine():
        return exact_top_k(queries, rows, lambda: blocks_of(job, gallery), gallery.keys, dict(rules))


def _candidates(
    found: Mapping[str, Neighbours], shard: RetrieveShard, stage: StageFacts, watch: Stopwatch
) -> Candidates:
    query, neighbour, cosine = (
        np.concatenate([getattr(n, field) for n in found.values()])
        for field in ("query", "neighbour", "cosine")
    )
    return Candidates(
        **vars(watch.result(stage.name, shard.name, len(query), 0)),
        query=query.astype(np.int32),
        neighbour=neighbour.astype(np.int32),
        cosine=cosine,
    )


def _places(query: NDArray[np.int64]) -> NDArray[np.int64]:
    """Place, from 1, of each candidate of its query; a query's candidates are consecutive, best first."""
    first = np.flatnonzero(np.diff(query, prepend=-1))
    return np.arange(1, len(query) + 1) - np.repeat(first, np.diff(first, append=len(query)))


def new_pairs(job: Job, gallery: Gallery, candidates: Iterable[Retrieved], stored: set[str]) -> pa.Table:
    """Unordered pairs that are wanted and not in `stored`, sorted by photo ids.

    They are candidates found as pairs, near-identical pictures, and reference pairs.
    """
    cosine_of: dict[tuple[int, int], float] = {}
    for part in candidates:
        query, neighbour = part.query[part.is_pair], part.neighbour[part.is_pair]
        low, high = np.minimum(query, neighbour).tolist(), np.maximum(query, neighbour).tolist()
        cosine_of.update(zip(zip(low, high, strict=True), part.cosine[part.is_pair].tolist(), strict=True))
    rule, chosen = pair_rules(job.settings)["top_k"][0], job.settings
    besides = {
        *near_identical(gallery, rule, chosen.top_k),
        *reference_pairs(gallery, rule, chosen.references),
    }
    missing = sorted(besides - cosine_of.keys())
    cosine_of.update(zip(missing, _cosines(job, gallery, missing), strict=True))
    rows = []
    for (a, b), cosine in sorted(cosine_of.items()):
        key = pair_id(gallery.photo_ids[a], gallery.chip_ids[a], gallery.photo_ids[b], gallery.chip_ids[b])
        if key not in stored:
            rows.append((key, a, b, cosine))
    return _table(gallery, rows)


def _table(gallery: Gallery, rows: list[tuple[str, int, int, float]]) -> pa.Table:
    a, b = (np.array([row[i] for row in rows], dtype=np.int64) for i in (1, 2))
    turned = gallery.orientation_hashes
    photo, chip = (np.array(ids, dtype=object) for ids in (gallery.photo_ids, gallery.chip_ids))
    return pa.table(
        {
            "pair_id": pa.array([row[0] for row in rows], pa.string()),
            "photo_a": pa.array(photo[a], pa.string()),
            "photo_b": pa.array(photo[b], pa.string()),
            "chip_a": pa.array(chip[a], pa.string()),
            "chip_b": pa.array(chip[b], pa.string()),
            "cosine": pa.array([row[3] for row in rows], pa.float32()),
            "hash_distance": pa.array(hash_distances(gallery.hashes[a], gallery.hashes[b]).astype(np.int32)),
            "least_hash_distance": pa.array(least_distances(turned[a], turned[b]).astype(np.int32)),
        }
    )


def near_identical(gallery: Gallery, rule: PairRule, limit: int) -> list[tuple[int, int]]:
    """Pairs (a < b) of near-identical pictures, however turned, at most `limit` per photo.

    The two names differ, or one is unknown.
    """
    return copies_by_hash(gallery.orientation_hashes, gallery.keys, rule, NEAR_IDENTICAL_BITS, limit)


def _cosines(job: Job, gallery: Gallery, pairs: list[tuple[int, int]]) -> list[float]:
    if not pairs:
        return []
    rows = np.unique(np.array(pairs))
    vectors = tensors_of(job, gallery, rows)
    first, second = (torch.from_numpy(np.searchsorted(rows, np.array(pairs)[:, i])) for i in (0, 1))
    return [float(v) for v in cosines(vectors[first], vectors[second])]


def commit_pairs(job: Job, pairs: pa.Table) -> int:
    """Write new pairs in files of bounded size; returns how many."""
    for start in range(0, pairs.num_rows, _PAIRS_PER_FILE):
        part = pairs.slice(start, _PAIRS_PER_FILE)
        commit(job, RETRIEVE, shard_name(part["pair_id"].to_pylist()), {"pairs": part})
    return int(pairs.num_rows)


def new_neighbours(gallery: Gallery, candidates: Iterable[Retrieved], stored: NDArray[np.int64]) -> pa.Table:
    """Unordered pairs of neighbours that are not stored, sorted by photo ids, with their `code`.

    A pair's code is row a x number of photos + row b, for rows a < b of the gallery; `stored` holds such
    codes.
    """
    count = len(gallery.photo_ids)
    codes, cosines_found = [np.empty(0, np.int64)], [np.empty(0, np.float32)]
    for part in candidates:
        query, neighbour = (rows[part.is_near].astype(np.int64) for rows in (part.query, part.neighbour))
        codes.append(np.minimum(query, neighbour) * count + np.maximum(query, neighbour))
        cosines_found.append(part.cosine[part.is_near])
    code, first = np.unique(np.concatenate(codes), return_index=True)
    new = np.isin(code, stored, invert=True)
    code, cosine = code[new], np.concatenate(cosines_found)[first[new]]
    a, b = (pa.array(rows) for rows in np.divmod(code, max(1, count)))
    photo, chip = gallery.photos["photo_id"], gallery.photos["chip_id"]
    return pa.table(
        {
            "photo_a": photo.take(a),
            "photo_b": photo.take(b),
            "chip_a": chip.take(a),
            "chip_b": chip.take(b),
            "cosine": pa.array(cosine),
            "code": pa.array(code),
        }
    )


def commit_neighbours(job: Job, gallery: Gallery, neighbours: pa.Table) -> int:
    """Write new neighbours in files of bounded size; returns how many.

    A file's name follows from the gallery's state and the codes of its rows, which determine its content.
    """
    for start in range(0, neighbours.num_rows, _NEIGHBOURS_PER_FILE):
        part = neighbours.slice(start, _NEIGHBOURS_PER_FILE)
        codes = blake2b(part["code"].to_numpy().astype("<i8").tobytes()).hexdigest()
        name = shard_name([gallery.state, codes])
        commit(job, RETRIEVE, name, {"neighbours": part.drop_columns(["code"])})
    return int(neighbours.num_rows)


RETRIEVE = Stage.of(stages.RETRIEVE, retrieve_shard, lambda shard: shard.last - shard.first)
