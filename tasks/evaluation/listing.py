"""The pairs of an evaluation: each named photo with its nearest of the same and of other names.

A plain top-k of a good model holds hardly any incorrect pair, so both classes are listed apart. The list is
stored, since every number of an evaluation depends on it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pairx_engine.retrieval.rules import PairRule
from schemas import stages
from schemas.fingerprints import fingerprint
from schemas.tables.registry import TABLES
from tasks.gallery import Gallery
from tasks.job import Job
from tasks.retrieval.found import Candidates, RetrieveShard
from tasks.retrieval.plan import ask_all
from tasks.retrieval.rules import pair_rules
from tasks.shards import Stage
from tasks.stages.retrieve import nearest
from tasks.store.warehouse import pair_id, shard_name


@dataclass(frozen=True)
class ListShard:
    """A range of queries, and how many pairs of each class are wanted for every photo."""

    queries: RetrieveShard
    per_photo: int


def list_fingerprint(job: Job, per_photo: int) -> str:
    """The partition of `evaluation_pairs`: all causes but the catalogue's state, which names the shard."""
    chosen = job.settings
    return fingerprint(
        embeddings=job.prints.embeddings,
        per_photo=per_photo,
        same_species=chosen.same_species,
        same_viewpoint=chosen.same_viewpoint,
    )


def list_shard_name(gallery: Gallery, photos: Mapping[str, Mapping[str, Any]]) -> str:
    """The shard of `evaluation_pairs` for one state of the catalogue.

    Its name follows from the gallery's state and the species' names.
    """
    return shard_name([gallery.state, *(f"{i}\0{photos[i]['species']}" for i in gallery.photo_ids)])


def plan_list(gallery: Gallery, per_photo: int) -> list[ListShard]:
    """Ranges of queries, as retrieval cuts them."""
    return [ListShard(shard, per_photo) for shard in ask_all(gallery).shards()]


def list_rules(job: Job, per_photo: int) -> dict[str, tuple[PairRule, int]]:
    """One rule per class; neither takes photos without a name or pairs of one encounter."""
    base = pair_rules(job.settings)["top_k"][0]
    return {
        "correct": (replace(base, same_name=True), per_photo),
        "incorrect": (replace(base, other_name=True), per_photo),
    }


def list_shard(job: Job, shard: ListShard) -> Candidates:
    """The nearest photos of each class of one range of queries."""
    return nearest(job, shard.queries, list_rules(job, shard.per_photo), LIST)


def listed_pairs(
    gallery: Gallery, photos: Sequence[Mapping[str, Any]], candidates: Iterable[Candidates]
) -> pa.Table:
    """Rows of `evaluation_pairs`, sorted by photo ids; `photos` are the gallery's rows in its order.

    A pair that each photo chose is one row with both ranks.
    """
    ranks: dict[tuple[int, int], list[Any]] = {}
    for part in candidates:
        correct = _names(gallery, part.query) == _names(gallery, part.neighbour)
        places = _places(part.query, correct)
        for query, neighbour, cosine, place in zip(
            part.query.tolist(), part.neighbour.tolist(), part.cosine.tolist(), places.tolist(), strict=True
        ):
            row = ranks.setdefault((min(query, neighbour), max(query, neighbour)), [cosine, None, None])
            row[1 if query < neighbour else 2] = place
    ids, chips = gallery.photo_ids, gallery.chip_ids
    rows = [
        {
            "pair_id": pair_id(ids[a], chips[a], ids[b], chips[b]),
            "photo_a": ids[a],
            "photo_b": ids[b],
            "chip_a": chips[a],
            "chip_b": chips[b],
            "cosine": cosine,
            "correct": gallery.names[a] == gallery.names[b],
            "identity_a": gallery.names[a],
            "identity_b": gallery.names[b],
            "species_a": photos[a]["species"],
            "species_b": photos[b]["species"],
            "rank_a": rank_a,
            "rank_b": rank_b,
        }
        for (a, b), (cosine, rank_a, rank_b) in sorted(ranks.items())
    ]
    return pa.Table.from_pylist(rows, schema=TABLES["evaluation_pairs"].schema)


def _names(gallery: Gallery, rows: NDArray[np.int32]) -> NDArray[np.int32]:
    codes: NDArray[np.int32] = gallery.keys.identity[rows]
    return codes


def _places(query: NDArray[np.int32], correct: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Place, from 1, of each candidate among those of its query and class; the best come first."""
    places = np.zeros(len(query), dtype=np.int64)
    for wanted in (True, False):
        rows = np.flatnonzero(correct == wanted)
        edges = np.flatnonzero(np.diff(query[rows])) + 1
        for first, last in pairwise([0, *edges, len(rows)]):
            places[rows[first:last]] = np.arange(1, last - first + 1)
    return places


LIST = Stage.of(stages.LIST, list_shard, lambda shard: shard.queries.last - shard.queries.first)
