"""Exact nearest neighbours by cosine, blockwise.

Ties are broken by id, and exclusions are applied before the ranking. Single-precision products propose k + PAD
candidates per query (`proposals`). Those that may be among the k best are scored again in double precision. If
a query's k-th neighbour is not separated from the rejected candidates by more than the product's rounding
bound, the query is searched again in double precision. So the result never depends on block sizes, block order
or the device.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pairx_engine.device.tuning import NUMBERS_AT_ONCE
from pairx_engine.retrieval.proposals import Blocks, Proposals, propose
from pairx_engine.retrieval.rules import UNKNOWN, PairRule, PhotoKeys

PAD = 32
Rules = Mapping[str, tuple[PairRule, int]]
"""Rule and k by name."""
Floors = Mapping[str, NDArray[np.float32]]
"""Cosine (N,) that a query must reach by each rule to be of use to a photo of the catalogue; inf: never."""


@dataclass(frozen=True)
class Neighbours:
    """Directed neighbours, best first within each query.

    `query` and `neighbour` are rows in catalogue order, `cosine` is theirs.
    """

    query: NDArray[np.int64]
    neighbour: NDArray[np.int64]
    cosine: NDArray[np.float32]


def cosines(first: Tensor, second: Tensor) -> Tensor:
    """Cosine of matching rows of (n, D) and (n, D), accumulated in float64 and rounded once to float32.

    That with a vector of zeros is 0.
    """
    a, b = first.double(), second.double()
    return ((a * b).sum(-1) / _nonzero(a.norm(dim=-1) * b.norm(dim=-1))).float()


def _nonzero(norms: Tensor) -> Tensor:
    return norms.masked_fill(norms == 0, 1)


def exact_top_k(
    queries: Tensor, rows: NDArray[np.int64], blocks: Blocks, keys: PhotoKeys, rules: Rules
) -> dict[str, Neighbours]:
    """The k nearest admissible photos of each query, for several rules in one pass over the catalogue.

    `queries` (Q, D) are the vectors of catalogue rows `rows`; `blocks()` iterates over the whole catalogue,
    in any order. `rules` maps a name to (rule, k). A query with fewer than k admissible photos gets them all.
    Memory: one block, and Q x (TILE + rules x 2 (k + PAD)) floats. Order: cosine (float32) descending, then
    row ascending.
    """
    return _settled(queries, rows, blocks, keys, rules, _proposed(queries, rows, blocks, keys, rules, None))


def exact_top_k_both_ways(
    queries: Tensor, rows: NDArray[np.int64], blocks: Blocks, keys: PhotoKeys, rules: Rules, floors: Floors
) -> tuple[dict[str, Neighbours], dict[str, Neighbours]]:
    """`exact_top_k` of the queries, and what the queries are to the photos of the catalogue.

    The second has, by each rule, every admissible pair of a photo of the catalogue (`query`) and one of the
    queries (`neighbour`) whose cosine reaches the photo's floor, by photo, best first. Both come out of the
    same products.
    """
    proposals = _proposed(queries, rows, blocks, keys, rules, floors)
    taken = _taken(queries, rows, blocks, proposals, floors)
    return _settled(queries, rows, blocks, keys, rules, proposals), taken


def _proposed(
    queries: Tensor,
    rows: NDArray[np.int64],
    blocks: Blocks,
    keys: PhotoKeys,
    rules: Rules,
    floors: Floors | None,
) -> dict[str, Proposals]:
    device = queries.device
    there, at = keys.on(device), torch.from_numpy(rows).to(device)
    proposals = {}
    for name, (rule, k) in rules.items():
        floor = None if floors is None else torch.from_numpy(floors[name] - _bound(queries)).to(device)
        proposals[name] = Proposals.of(rule, k + PAD, there, at, floor)
    propose(queries, at, blocks, there, list(proposals.values()))
    return proposals


def _bound(queries: Tensor) -> float:
    """How far a cosine from single-precision products may be from the exact one."""
    return 2.0**-22 * queries.shape[1]


def _settled(
    queries: Tensor,
    rows: NDArray[np.int64],
    blocks: Blocks,
    keys: PhotoKeys,
    rules: Rules,
    proposals: Mapping[str, Proposals],
) -> dict[str, Neighbours]:
    """Score what may be among the k best in double precision, and keep k.

    A query whose margin is within rounding is searched again.
    """
    wanted = {name: _hopeful(proposals[name], k, _bound(queries)) for name, (_, k) in rules.items()}
    exact = _rescored(queries, list(wanted.values()), blocks)
    found = {}
    for (name, (rule, k)), column, cosine in zip(rules.items(), wanted.values(), exact, strict=True):
        column, cosine = _best(column, cosine, k)  # the best of those
        floor = proposals[name].floor.cpu().numpy()
        unsure = (
            np.flatnonzero(np.isfinite(floor) & (cosine[:, -1] <= floor + _bound(queries))) if k else rows[:0]
        )
        if len(unsure):
            again = queries[torch.from_numpy(unsure).to(queries.device)]
            column[unsure], cosine[unsure] = _search_exactly(again, rows[unsure], blocks, keys, rule, k)
        valid = column != UNKNOWN
        found[name] = Neighbours(np.repeat(rows, valid.sum(1)), column[valid], cosine[valid])
    return found


def _hopeful(proposals: Proposals, k: int, bound: float) -> NDArray[np.int64]:
    """Columns (Q, k + PAD) of the candidates that may be among the k best, -1 for the others.

    Each of the first k has at least the k-th similarity less the bound; others may exceed theirs by the bound.
    """
    similarity = proposals.similarity
    last = similarity[:, k - 1 : k] if k else torch.full_like(similarity[:, :1], torch.inf)
    hopeful = torch.isfinite(similarity) & (similarity >= last - 2 * bound)
    return torch.where(hopeful, proposals.column, UNKNOWN).cpu().numpy()


def _best(
    column: NDArray[np.int64], cosine: NDArray[np.float32], k: int
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """The k best of each row by falling cosine, ties by rising column."""
    order = np.lexsort((column, -cosine), axis=1)[:, :k]
    return np.take_along_axis(column, order, 1), np.take_along_axis(cosine, order, 1)


def _rescored(queries: Tensor, wanted: list[NDArray[np.int64]], blocks: Blocks) -> list[NDArray[np.float32]]:
    """Exact cosines of each query with its candidates under each rule, -inf where there is none.

    A pair that several rules want is scored once.
    """
    count = max((int(columns.max(initial=UNKNOWN)) for columns in wanted), default=UNKNOWN) + 1
    of_rules = []
    for columns in wanted:
        query, place = np.nonzero(columns != UNKNOWN)
        of_rules.append((query, place, query * count + columns[query, place]))
    codes = np.unique(np.concatenate([code for *_, code in of_rules])) if of_rules else np.empty(0, np.int64)
    cosine = exact_cosines(queries, *np.divmod(codes, max(1, count)), blocks)
    scored = []
    for columns, (query, place, code) in zip(wanted, of_rules, strict=True):
        exact = np.full(columns.shape, -np.inf, dtype=np.float32)
        exact[query, place] = cosine[np.searchsorted(codes, code)]
        scored.append(exact)
    return scored


def exact_cosines(
    queries: Tensor, query: NDArray[np.int64], column: NDArray[np.int64], blocks: Blocks
) -> NDArray[np.float32]:
    """`cosines` (M,) of queries, by their place, with rows of the catalogue, in one pass and bounded memory."""
    exact = np.full(len(query), -np.inf, dtype=np.float32)
    order = np.argsort(column, kind="stable")
    in_order = column[order]
    step = max(1, NUMBERS_AT_ONCE // max(1, queries.shape[1]))
    for columns, vectors in blocks() if len(query) else ():
        # Whole blocks go to the device and are gathered there, since a candidate belongs to many queries.
        vectors = vectors.to(queries.device)
        first, last = (np.searchsorted(in_order, columns, side=side) for side in ("left", "right"))
        counts = last - first
        ends = np.cumsum(counts)
        within = np.arange(int(counts.sum())) - np.repeat(ends - counts, counts)
        pairs, places = order[np.repeat(first, counts) + within], np.repeat(np.arange(len(columns)), counts)
        for start in range(0, len(pairs), step):
            part = pairs[start : start + step]
            at, of = (
                torch.from_numpy(index).to(queries.device)
                for index in (query[part], places[start : start + step])
            )
            exact[part] = cosines(queries[at], vectors[of]).cpu().numpy()
    return exact


def _taken(
    queries: Tensor,
    rows: NDArray[np.int64],
    blocks: Blocks,
    proposals: Mapping[str, Proposals],
    floors: Floors,
) -> dict[str, Neighbours]:
    """By each rule, of the pairs that came near a photo's floor those that reach it."""
    near = {name: proposal.near_a_floor() for name, proposal in proposals.items()}
    count = max(1, len(rows))
    of_rules = {name: column * count + query for name, (query, column) in near.items()}
    codes = np.unique(np.concatenate([np.empty(0, np.int64), *of_rules.values()]))
    column, query = np.divmod(codes, count)
    exact = exact_cosines(queries, query, column, blocks)
    taken = {}
    for name, (query, column) in near.items():
        cosine = exact[np.searchsorted(codes, of_rules[name])]
        kept = cosine >= floors[name][column]
        neighbour, photo, cosine = rows[query[kept]], column[kept], cosine[kept]
        order = np.lexsort((neighbour, -cosine, photo))
        taken[name] = Neighbours(photo[order], neighbour[order], cosine[order])
    return taken


def _search_exactly(
    queries: Tensor, rows: NDArray[np.int64], blocks: Blocks, keys: PhotoKeys, rule: PairRule, k: int
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """The k best of each query by double-precision products, all queries in one pass.

    -1 where there are fewer.
    """
    column = np.full((len(rows), k), UNKNOWN, dtype=np.int64)
    cosine = np.full((len(rows), k), -np.inf, dtype=np.float32)
    # As in `cosines` the product is divided once: products of unit vectors would break ties by their rounding.
    wanted = queries.double()
    norms = wanted.norm(dim=1)[:, None]
    step = max(1, NUMBERS_AT_ONCE // queries.shape[1])
    for columns, vectors in blocks():
        for start in range(0, len(columns), step):
            part = columns[start : start + step]
            others = vectors[start : start + step].to(queries.device).double()
            products = (wanted @ others.T) / _nonzero(norms * others.norm(dim=1))
            found = products.float().cpu().numpy()
            allowed = rule.admissible(keys, rows, part)
            names = np.where(allowed, part[None, :], UNKNOWN)
            scores = np.where(allowed, found, -np.inf).astype(np.float32)
            column, cosine = _best(np.hstack([column, names]), np.hstack([cosine, scores]), k)
    return np.where(np.isfinite(cosine), column, UNKNOWN), cosine
