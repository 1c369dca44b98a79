"""Retrieve: exact nearest photos of photos, by several rules in one pass."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from pairx_engine.retrieval.rules import PairRule
from pairx_engine.retrieval.topk import Neighbours, exact_top_k, exact_top_k_both_ways
from schemas import stages
from schemas.settings import Settings
from schemas.stages import StageFacts
from tasks.gallery import Gallery, kept_gallery
from tasks.job import Job, device
from tasks.retrieval.found import Candidates, Retrieved, RetrieveShard
from tasks.retrieval.horizons import carried, read_horizons
from tasks.retrieval.kept import places
from tasks.retrieval.rules import pair_rules, search_rules
from tasks.shards import Stage, Stopwatch
from tasks.vectors import blocks_of, tensors_of


def retrieve_shard(job: Job, shard: RetrieveShard) -> Retrieved:
    """The nearest photos of some queries over the whole gallery, for pairs and neighbours.

    Where the shard has a base, also what other photos take in of the queries.
    """
    watch, rules = Stopwatch(), search_rules(job.settings)
    gallery = _gallery(job, shard)
    queries = tensors_of(job, gallery, shard.rows).to(device())
    with watch.in_engine():
        if shard.base is None:
            found = exact_top_k(queries, shard.rows, lambda: blocks_of(job, gallery), gallery.keys, rules)
            taken: dict[str, Neighbours] = {}
        else:
            floors = _floors(job, shard, gallery)
            found, taken = exact_top_k_both_ways(
                queries, shard.rows, lambda: blocks_of(job, gallery), gallery.keys, rules, floors
            )
    return _retrieved(found, taken, job.settings, shard, watch)


def _floors(job: Job, shard: RetrieveShard, gallery: Gallery) -> dict[str, NDArray[np.float32]]:
    """Cosine that a query must reach to enter a photo's list; inf for photos that were not there before."""
    assert shard.base is not None
    base = kept_gallery(job.warehouse, job.prints.of("galleries"), shard.base)
    new = base.places_of(gallery) < 0
    horizons = carried(read_horizons(job, shard.base, base), base, gallery)
    return {
        name: np.where(new, np.float32(np.inf), horizon.cosine).astype(np.float32)
        for name, horizon in horizons.items()
    }


def _retrieved(
    found: Mapping[str, Neighbours],
    taken: Mapping[str, Neighbours],
    settings: Settings,
    shard: RetrieveShard,
    watch: Stopwatch,
) -> Retrieved:
    names = list(search_rules(settings))
    both = [*found.items(), *taken.items()]
    place = np.concatenate(
        [
            *(places(n.query) for n in found.values()),
            *(np.zeros(len(n.query), np.int64) for n in taken.values()),
        ]
    )
    rule = np.concatenate([np.full(len(n.query), names.index(name), np.int8) for name, n in both])
    k = np.array([pair_rules(settings)[name][1] for name in names])
    candidates = _candidates([n for _, n in both], shard, RETRIEVE, watch)
    return Retrieved(
        **vars(candidates),
        rule=rule,
        place=place.astype(np.int32),
        is_pair=(place >= 1) & (place <= k[rule]),
        is_near=place <= settings.neighbours,
    )


def nearest(
    job: Job, shard: RetrieveShard, rules: Mapping[str, tuple[PairRule, int]], stage: StageFacts
) -> Candidates:
    """The nearest photos of some queries under each rule, one rule after the other."""
    watch, gallery = Stopwatch(), _gallery(job, shard)
    queries = tensors_of(job, gallery, shard.rows).to(device())
    with watch.in_engine():
        found = exact_top_k(queries, shard.rows, lambda: blocks_of(job, gallery), gallery.keys, rules)
    return _candidates(list(found.values()), shard, stage, watch)


def _gallery(job: Job, shard: RetrieveShard) -> Gallery:
    return kept_gallery(job.warehouse, job.prints.of("galleries"), shard.state)


def _candidates(
    found: list[Neighbours], shard: RetrieveShard, stage: StageFacts, watch: Stopwatch
) -> Candidates:
    query, neighbour, cosine = (
        np.concatenate([getattr(n, field) for n in found]) for field in ("query", "neighbour", "cosine")
    )
    return Candidates(
        **vars(watch.result(stage.name, shard.name, len(query), 0)),
        query=query.astype(np.int32),
        neighbour=neighbour.astype(np.int32),
        cosine=cosine,
    )


RETRIEVE = Stage.of(stages.RETRIEVE, retrieve_shard, lambda shard: shard.last - shard.first)
