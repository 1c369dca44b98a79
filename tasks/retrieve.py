"""Retrieve: exact nearest photos of every photo, and near-identical pictures; unordered pairs that are not yet stored."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from itertools import pairwise

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray

from pairx_engine.near_identical import near_identical as copies_by_hash
from pairx_engine.perceptual_hash import hash_distances, least_distances, orientations_or_upright
from pairx_engine.topk import Block, PairRule, PhotoKeys, cosines, exact_top_k
from schemas import stages
from schemas.settings import Settings
from schemas.stages import StageFacts
from schemas.thresholds import NEAR_IDENTICAL_BITS
from tasks.job import Job, device
from tasks.shards import ShardResult, Stage, Stopwatch, commit
from tasks.warehouse import Warehouse, pair_id, shard_name

_QUERIES_PER_TASK = 8192
_BLOCK = 8192
_PAIRS_PER_FILE = 50_000


@dataclass(frozen=True, eq=False)
class Gallery:
    """The embedded photos of one moment, rows of `galleries` sorted by id: what a photo may be paired with.

    Names, encounters, species and viewpoints are compared by codes. What is worked out of the rows is kept.
    """

    photos: pa.Table

    @cached_property
    def photo_ids(self) -> tuple[str, ...]:
        """Ids of the photos in their order."""
        return tuple(self.photos["photo_id"].to_pylist())

    @cached_property
    def chip_ids(self) -> tuple[str, ...]:
        """What the model saw of each."""
        return tuple(self.photos["chip_id"].to_pylist())

    @cached_property
    def names(self) -> tuple[str | None, ...]:
        """The animal's name of each, None where it is unknown."""
        return tuple(self.photos["identity"].to_pylist())

    @cached_property
    def keys(self) -> PhotoKeys:
        """What decides which photos may be paired."""
        names = ("identity", "encounter", "species", "viewpoint")
        return PhotoKeys(**{name: _codes(self.photos[name].to_pylist()) for name in names})

    @cached_property
    def hashes(self) -> NDArray[np.uint64]:
        """Perceptual hashes (N,)."""
        return np.array(self.photos["perceptual_hash"].to_pylist(), dtype=np.uint64)

    @cached_property
    def orientation_hashes(self) -> NDArray[np.uint64]:
        """Perceptual hashes (N, 8) of the eight orientations; of a photo that has none, its own for all of them."""
        return orientations_or_upright(self.hashes, self.photos["orientation_hashes"].to_pylist())

    @cached_property
    def rows(self) -> dict[tuple[str, str], int]:
        """Row of each photo and chip."""
        return {key: i for i, key in enumerate(zip(self.photo_ids, self.chip_ids, strict=True))}

    @cached_property
    def state(self) -> str:
        """Hash of everything that decides which pairs are chosen and ranked, names included."""
        codes = (map(int, column) for column in vars(self.keys).values())
        rows = zip(self.photo_ids, self.chip_ids, map(repr, self.names), *codes, strict=True)
        return shard_name("\0".join(map(str, row)) for row in rows)

    def only(self, wanted: Collection[str]) -> Gallery:
        """The gallery of those photos alone."""
        return Gallery(
            self.photos.filter(pa.array([photo in wanted for photo in self.photo_ids], pa.bool_()))
        )


def _codes(values: Sequence[str | None]) -> NDArray[np.int32]:
    known = {v: i for i, v in enumerate(sorted({v for v in values if v is not None}))}
    return np.array([-1 if v is None else known[v] for v in values], dtype=np.int32)


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


def plan_retrieve(gallery: Gallery) -> list[RetrieveShard]:
    """Even ranges of queries, few enough that reading the gallery once per range stays cheap."""
    count = len(gallery.photo_ids)
    parts = max(1, -(-count // _QUERIES_PER_TASK))
    edges = np.linspace(0, count, parts + 1).astype(int)
    return [RetrieveShard(gallery.state, int(a), int(b)) for a, b in pairwise(edges) if b > a]


def pair_rules(settings: Settings) -> dict[str, tuple[PairRule, int]]:
    """Nearest over all, and nearest of the same name: a wrong name inside an identity never shows in a plain top-k."""
    base = PairRule(settings.same_species, settings.same_viewpoint)
    rules = {"top_k": (base, settings.top_k)}
    if settings.same_name_k:
        rules["same_name"] = (replace(base, same_name=True), settings.same_name_k)
    return rules


def retrieve_shard(job: Job, shard: RetrieveShard) -> Candidates:
    """The nearest photos of one range of queries, over the whole gallery."""
    return nearest(job, shard, pair_rules(job.settings), RETRIEVE)


def nearest(
    job: Job, shard: RetrieveShard, rules: Mapping[str, tuple[PairRule, int]], stage: StageFacts
) -> Candidates:
    """The nearest photos of one range of queries under each of several rules, one rule's after the other's."""
    watch = Stopwatch()
    gallery = _kept_gallery(job.warehouse, job.prints.of("galleries"), shard.state)
    rows = np.arange(shard.first, shard.last)
    queries = _vectors(job, gallery, rows).to(device())
    with watch.in_engine():
        found = exact_top_k(queries, rows, lambda: _blocks(job, gallery), gallery.keys, dict(rules))
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


def _blocks(job: Job, gallery: Gallery) -> Iterator[Block]:
    """The gallery's vectors, file by file, gathered into blocks of a few thousand; memory stays bounded."""
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


def _matrix(column: pa.ChunkedArray) -> torch.Tensor:
    array = column.combine_chunks()
    flat = array.flatten().to_numpy(zero_copy_only=False)
    return torch.from_numpy(np.array(flat, dtype=np.float16).reshape(len(array), -1))


def _vectors(job: Job, gallery: Gallery, rows: NDArray[np.int64]) -> torch.Tensor:
    """Stored vectors (len(rows), D) of gallery rows, in that order."""
    place = {int(row): i for i, row in enumerate(rows)}
    found: torch.Tensor | None = None
    for columns, vectors in _blocks(job, gallery):
        mask = np.isin(columns, rows)
        if found is None:
            found = torch.empty(len(rows), vectors.shape[1], dtype=vectors.dtype)
        found[torch.tensor([place[int(c)] for c in columns[mask]], dtype=torch.int64)] = vectors[
            torch.from_numpy(mask)
        ]
    if found is None:
        raise ValueError("none of these photos has an embedding")
    return found


def new_pairs(job: Job, gallery: Gallery, candidates: Iterable[Candidates], stored: set[str]) -> pa.Table:
    """Unordered pairs among all candidates and near-identical pictures that are not in `stored`, sorted by photo ids."""
    cosine_of: dict[tuple[int, int], float] = {}
    for part in candidates:
        low, high = np.minimum(part.query, part.neighbour), np.maximum(part.query, part.neighbour)
        cosine_of.update(
            zip(zip(low.tolist(), high.tolist(), strict=True), part.cosine.tolist(), strict=True)
        )
    rule = pair_rules(job.settings)["top_k"][0]
    missing = [pair for pair in near_identical(gallery, rule, job.settings.top_k) if pair not in cosine_of]
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
    """Pairs (a < b) of near-identical pictures under two names, or an unknown one, however turned; at most `limit` per photo."""
    return copies_by_hash(gallery.orientation_hashes, gallery.keys, rule, NEAR_IDENTICAL_BITS, limit)


def _cosines(job: Job, gallery: Gallery, pairs: list[tuple[int, int]]) -> list[float]:
    if not pairs:
        return []
    rows = np.unique(np.array(pairs))
    vectors = _vectors(job, gallery, rows)
    first, second = (torch.from_numpy(np.searchsorted(rows, np.array(pairs)[:, i])) for i in (0, 1))
    return [float(v) for v in cosines(vectors[first], vectors[second])]


def commit_pairs(job: Job, pairs: pa.Table) -> int:
    """Write new pairs in files of bounded size; returns how many."""
    for start in range(0, pairs.num_rows, _PAIRS_PER_FILE):
        part = pairs.slice(start, _PAIRS_PER_FILE)
        commit(job, RETRIEVE, shard_name(part["pair_id"].to_pylist()), {"pairs": part})
    return int(pairs.num_rows)


RETRIEVE = Stage.of(stages.RETRIEVE, retrieve_shard, lambda shard: shard.last - shard.first)
