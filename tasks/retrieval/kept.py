"""What of a search is stored: neighbours, horizons, and the pairs that are wanted and new."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b

import duckdb
import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray

from pairx_engine.photo.perceptual_hash import hash_distances, least_distances
from pairx_engine.retrieval.near_identical import near_identical as copies_by_hash
from pairx_engine.retrieval.rules import PairRule
from pairx_engine.retrieval.topk import cosines
from schemas.stages import RETRIEVE
from schemas.thresholds import NEAR_IDENTICAL_BITS
from tasks.gallery import Gallery
from tasks.job import Job
from tasks.retrieval.found import Retrieved
from tasks.retrieval.horizons import can_reach_on, horizon_rows, horizons_name, no_horizons, take_in
from tasks.retrieval.known import Sides, not_stored, stored_codes, stored_sides
from tasks.retrieval.plan import Asked
from tasks.retrieval.references import reference_pairs
from tasks.retrieval.rules import pair_rules
from tasks.shards import commit
from tasks.store.warehouse import pair_id, shard_name
from tasks.vectors import tensors_of

PAIRS_PER_FILE = 50_000
NEIGHBOURS_PER_FILE = 500_000


def keep_gallery(job: Job, gallery: Gallery) -> None:
    """Store a gallery under the name of its state, once, for workers to read."""
    if not job.warehouse.exists("galleries", job.prints.of("galleries"), gallery.state):
        commit(job, RETRIEVE, gallery.state, {"galleries": gallery.photos})


def keep_found(
    job: Job, connection: duckdb.DuckDBPyConnection, asked: Asked, found: Sequence[Retrieved]
) -> int:
    """Store what was found and is not stored yet; returns the number of new pairs.

    Neighbours come before horizons, which say that all of them are there, and pairs last. `connection` shows
    `run_neighbours` and `run_pairs` as they were before.
    """
    gallery = asked.gallery
    pairs = new_pairs(job, connection, asked, found)
    commit_neighbours(job, gallery, new_neighbours(connection, asked, found))
    if can_reach_on(job.settings):
        horizons = asked.horizons or no_horizons(job.settings, len(gallery))
        take_in(horizons, found, asked.rows, job.settings)
        name = horizons_name(gallery.state, job.settings)
        commit(job, RETRIEVE, name, {"horizons": horizon_rows(horizons)})
    return commit_pairs(job, pairs)


def new_neighbours(
    connection: duckdb.DuckDBPyConnection, asked: Asked, found: Sequence[Retrieved]
) -> pa.Table:
    """Unordered pairs of neighbours that are not stored, sorted by photo ids, with their `code`.

    A pair's code is row a x number of photos + row b, for rows a < b of the gallery.
    """
    gallery = asked.gallery
    code, cosine = _coded([_found_sides(part, part.is_near) for part in found], len(gallery))
    # Whatever was found has a photo that was asked in it.
    stored = stored_codes(connection, gallery, None if asked.base is None else asked.rows)
    new = np.isin(code, stored, invert=True)
    code, cosine = code[new], cosine[new]
    a, b = (pa.array(rows) for rows in np.divmod(code, max(1, len(gallery))))
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
    for start in range(0, neighbours.num_rows, NEIGHBOURS_PER_FILE):
        part = neighbours.slice(start, NEIGHBOURS_PER_FILE)
        codes = blake2b(part["code"].to_numpy().astype("<i8").tobytes()).hexdigest()
        name = shard_name([gallery.state, codes])
        commit(job, RETRIEVE, name, {"neighbours": part.drop_columns(["code"])})
    return int(neighbours.num_rows)


def new_pairs(
    job: Job, connection: duckdb.DuckDBPyConnection, asked: Asked, found: Sequence[Retrieved]
) -> pa.Table:
    """Unordered pairs that are wanted and were never stored, sorted by photo ids.

    They are candidates of the photos that were asked, what is now among the first of the other photos' lists,
    near-identical pictures, and reference pairs.
    """
    gallery, (rule, limit) = asked.gallery, pair_rules(job.settings)["top_k"]
    chosen = [_found_sides(part, part.is_pair) for part in found]
    if asked.base is not None:
        chosen.append(_first_of_lists(job, connection, asked, found))
    code, cosine = _coded(chosen, len(gallery))
    besides = near_identical(gallery, rule, limit) + reference_pairs(gallery, rule, job.settings.references)
    more = np.array(besides, dtype=np.int64).reshape(-1, 2)
    missing = np.setdiff1d(more[:, 0] * len(gallery) + more[:, 1], code)
    code = np.concatenate([code, missing])
    cosine = np.concatenate([cosine, _cosines(job, gallery, missing)])
    order = np.argsort(code)
    return _new_among(connection, gallery, code[order], cosine[order])


def _first_of_lists(
    job: Job, connection: duckdb.DuckDBPyConnection, asked: Asked, found: Sequence[Retrieved]
) -> Sides:
    """The first k by each rule of the photos that took something in, or lost something, and were not asked."""
    gallery = asked.gallery
    taken = [_found_sides(part, part.place == 0) for part in found]
    took = np.concatenate([np.empty(0, np.int64), *(sides.photo for sides in taken)])
    assert asked.disturbed is not None
    photos = np.setdiff1d(np.union1d(took, asked.disturbed), asked.rows)
    sides = stored_sides(connection, gallery, photos)
    for part in found:
        # What a photo that was asked found is an entry of the other photo's list as well.
        every = _found_sides(part, np.ones(len(part.query), dtype=bool))
        sides = sides + every.of(photos) + every.turned().of(photos)
    first = np.zeros(len(sides.photo), dtype=bool)
    for rule, k in pair_rules(job.settings).values():
        admitted = np.flatnonzero(rule.admits(gallery.keys, sides.photo, sides.other))
        order = admitted[np.lexsort((sides.other[admitted], -sides.cosine[admitted], sides.photo[admitted]))]
        first[order[places(sides.photo[order]) <= k]] = True
    return Sides(sides.photo[first], sides.other[first], sides.cosine[first])


def places(query: NDArray[np.int64]) -> NDArray[np.int64]:
    """Place, from 1, of each candidate of its query; a query's candidates are consecutive, best first."""
    first = np.flatnonzero(np.diff(query, prepend=-1))
    return np.arange(1, len(query) + 1) - np.repeat(first, np.diff(first, append=len(query)))


def _found_sides(part: Retrieved, chosen: NDArray[np.bool_]) -> Sides:
    query, neighbour = (rows[chosen].astype(np.int64) for rows in (part.query, part.neighbour))
    return Sides(query, neighbour, part.cosine[chosen])


def _coded(parts: Sequence[Sides], count: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Codes of unordered pairs, sorted, each once, and their cosines."""
    codes, found = [np.empty(0, np.int64)], [np.empty(0, np.float32)]
    for sides in parts:
        low, high = np.minimum(sides.photo, sides.other), np.maximum(sides.photo, sides.other)
        codes.append(low * count + high)
        found.append(sides.cosine)
    code, first = np.unique(np.concatenate(codes), return_index=True)
    return code, np.concatenate(found)[first]


def _new_among(
    connection: duckdb.DuckDBPyConnection,
    gallery: Gallery,
    code: NDArray[np.int64],
    cosine: NDArray[np.float32],
) -> pa.Table:
    a, b = np.divmod(code, max(1, len(gallery)))
    photo, chip = gallery.photos["photo_id"], gallery.photos["chip_id"]
    sides = [column.take(pa.array(rows)) for rows in (a, b) for column in (photo, chip)]
    ids = pa.array(map(pair_id, *(column.to_pylist() for column in sides)), pa.string())
    turned = gallery.orientation_hashes
    table = pa.table(
        {
            "pair_id": ids,
            "photo_a": sides[0],
            "photo_b": sides[2],
            "chip_a": sides[1],
            "chip_b": sides[3],
            "cosine": pa.array(cosine),
            "hash_distance": pa.array(hash_distances(gallery.hashes[a], gallery.hashes[b]).astype(np.int32)),
            "least_hash_distance": pa.array(least_distances(turned[a], turned[b]).astype(np.int32)),
        }
    )
    return table.filter(pa.array(not_stored(connection, ids)))


def near_identical(gallery: Gallery, rule: PairRule, limit: int) -> list[tuple[int, int]]:
    """Pairs (a < b) of near-identical pictures, however turned, at most `limit` per photo.

    The two names differ, or one is unknown.
    """
    return copies_by_hash(gallery.orientation_hashes, gallery.keys, rule, NEAR_IDENTICAL_BITS, limit)


def _cosines(job: Job, gallery: Gallery, codes: NDArray[np.int64]) -> NDArray[np.float32]:
    """Cosines of pairs by their codes."""
    if not len(codes):
        return np.empty(0, np.float32)
    a, b = np.divmod(codes, len(gallery))
    rows = np.unique(np.concatenate([a, b]))
    vectors = tensors_of(job, gallery, rows)
    first, second = (torch.from_numpy(np.searchsorted(rows, side)) for side in (a, b))
    return np.asarray(cosines(vectors[first], vectors[second]).numpy(), dtype=np.float32)


def commit_pairs(job: Job, pairs: pa.Table) -> int:
    """Write new pairs in files of bounded size; returns how many."""
    for start in range(0, pairs.num_rows, PAIRS_PER_FILE):
        part = pairs.slice(start, PAIRS_PER_FILE)
        commit(job, RETRIEVE, shard_name(part["pair_id"].to_pylist()), {"pairs": part})
    return int(pairs.num_rows)
