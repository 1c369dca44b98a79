"""Exact nearest neighbours by cosine, blockwise, with ties broken by id and exclusions applied before the ranking.

A single-precision matrix product proposes k + PAD candidates per query. They are scored again in double precision, and a
query whose k-th neighbour is not separated from the rejected ones by more than the product's rounding bound is searched
once more in double precision, so the result never depends on block sizes, block order or the device.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

PAD = 32
_UNKNOWN = -1

Block = tuple[NDArray[np.int64], Tensor]
"""Rows (G,) of the catalogue's order, and their vectors (G, D) of any float type."""
Blocks = Callable[[], Iterable[Block]]


@dataclass(frozen=True)
class PhotoKeys:
    """What decides whether two photos may be paired: one integer code per photo in catalogue order, -1 for unknown."""

    identity: NDArray[np.int32]
    encounter: NDArray[np.int32]
    species: NDArray[np.int32]
    viewpoint: NDArray[np.int32]

    def __post_init__(self) -> None:
        lengths = {len(self.identity), len(self.encounter), len(self.species), len(self.viewpoint)}
        if len(lengths) != 1:
            raise ValueError(f"photo keys must have one length, not {sorted(lengths)}")

    def __len__(self) -> int:
        return len(self.identity)


@dataclass(frozen=True)
class PairRule:
    """Which pairs are admissible. Self pairs and pairs of one known encounter never are."""

    same_species: bool = False
    same_viewpoint: bool = False
    same_name: bool = False

    def admissible(
        self, keys: PhotoKeys, rows: NDArray[np.int64], columns: NDArray[np.int64]
    ) -> NDArray[np.bool_]:
        """Mask (len(rows), len(columns)) of the pairs that may be ranked.

        Unknown species and viewpoints are compatible with all; an unknown name is the same as none.
        """
        mask = rows[:, None] != columns[None, :]
        encounter, other = keys.encounter[rows][:, None], keys.encounter[columns][None, :]
        mask &= (encounter != other) | (encounter == _UNKNOWN)
        for wanted, codes in ((self.same_species, keys.species), (self.same_viewpoint, keys.viewpoint)):
            if wanted:
                first, second = codes[rows][:, None], codes[columns][None, :]
                mask &= (first == second) | (first == _UNKNOWN) | (second == _UNKNOWN)
        if self.same_name:
            name = keys.identity[rows][:, None]
            mask &= (name == keys.identity[columns][None, :]) & (name != _UNKNOWN)
        return mask


@dataclass(frozen=True)
class Neighbours:
    """Directed neighbours: query row, neighbour row (catalogue order) and cosine, best first within each query."""

    query: NDArray[np.int64]
    neighbour: NDArray[np.int64]
    cosine: NDArray[np.float32]


def cosines(first: Tensor, second: Tensor) -> Tensor:
    """Cosine of matching rows of (n, D) and (n, D), accumulated in float64 and rounded once to float32."""
    a, b = first.double(), second.double()
    return ((a * b).sum(-1) / (a.norm(dim=-1) * b.norm(dim=-1))).float()


def exact_top_k(
    queries: Tensor,
    rows: NDArray[np.int64],
    blocks: Blocks,
    keys: PhotoKeys,
    rules: dict[str, tuple[PairRule, int]],
) -> dict[str, Neighbours]:
    """The k nearest admissible photos of each query, for several rules in one pass over the catalogue.

    `queries` (Q, D) are the vectors of catalogue rows `rows`; `blocks()` iterates over the whole catalogue, any order.
    `rules` maps a name to (rule, k). A query with fewer than k admissible photos gets them all. Memory: Q x (largest
    block + k + PAD) floats. Order: cosine (float32) descending, then row ascending.
    """
    unit = torch.nn.functional.normalize(queries.float(), dim=1)
    kept = {name: _Kept.empty(len(rows), k + PAD, unit.device) for name, (_, k) in rules.items()}
    for columns, vectors in blocks():
        vectors = vectors.to(unit.device)
        similarity = unit @ torch.nn.functional.normalize(vectors.float(), dim=1).T
        for name, (rule, _) in rules.items():
            mask = torch.from_numpy(rule.admissible(keys, rows, columns)).to(unit.device)
            kept[name].update(similarity.masked_fill(~mask, -torch.inf), columns)
    return {
        name: _settle(queries, rows, blocks, keys, rule, k, kept[name]) for name, (rule, k) in rules.items()
    }


@dataclass
class _Kept:
    """The best approximate candidates so far, (Q, size), -inf where there are fewer."""

    similarity: Tensor
    column: Tensor

    @classmethod
    def empty(cls, queries: int, size: int, device: torch.device) -> _Kept:
        return cls(
            torch.full((queries, size), -torch.inf, device=device),
            torch.full((queries, size), _UNKNOWN, dtype=torch.int64, device=device),
        )

    def update(self, similarity: Tensor, columns: NDArray[np.int64]) -> None:
        size = self.similarity.shape[1]
        best, at = similarity.topk(min(size, similarity.shape[1]), dim=1)
        names = torch.from_numpy(columns).to(at.device)[at]
        self.similarity, order = torch.cat([self.similarity, best], 1).topk(size, dim=1)
        self.column = torch.cat([self.column, names], 1).gather(1, order)


def _settle(
    queries: Tensor,
    rows: NDArray[np.int64],
    blocks: Blocks,
    keys: PhotoKeys,
    rule: PairRule,
    k: int,
    kept: _Kept,
) -> Neighbours:
    """Score the candidates in double precision, keep k, and search again where the margin is within rounding."""
    column = torch.where(torch.isfinite(kept.similarity), kept.column, _UNKNOWN)
    exact = _rescore(queries, column, blocks)
    order = np.lexsort((column.cpu().numpy(), -exact), axis=1)[:, :k]
    chosen, cosine = np.take_along_axis(column.cpu().numpy(), order, 1), np.take_along_axis(exact, order, 1)
    bound = 2.0**-22 * queries.shape[1]
    floor = kept.similarity[:, -1].cpu().numpy()
    for i in np.flatnonzero(np.isfinite(floor) & (cosine[:, -1] <= floor + bound)) if k else ():
        chosen[i], cosine[i] = _search_exactly(queries[i], int(rows[i]), blocks, keys, rule, k)
    valid = chosen != _UNKNOWN
    return Neighbours(np.repeat(rows, valid.sum(1)), chosen[valid], cosine[valid])


def _rescore(queries: Tensor, column: Tensor, blocks: Blocks) -> NDArray[np.float32]:
    wanted = column.cpu().numpy()
    exact = np.full(wanted.shape, -np.inf, dtype=np.float32)
    for columns, vectors in blocks():
        order = np.argsort(columns)
        slot = np.minimum(np.searchsorted(columns, wanted, sorter=order), len(columns) - 1)
        found = order[slot]
        query, place = np.nonzero(columns[found] == wanted)
        if len(query):
            pairs = vectors[torch.from_numpy(found[query, place])].to(queries.device)
            exact[query, place] = (
                cosines(queries[torch.from_numpy(query).to(queries.device)], pairs).cpu().numpy()
            )
    return exact


def _search_exactly(
    query: Tensor, row: int, blocks: Blocks, keys: PhotoKeys, rule: PairRule, k: int
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    columns, scores = (
        np.concatenate(parts) for parts in zip(*_exact_rows(query, row, blocks, keys, rule), strict=True)
    )
    order = np.lexsort((columns, -scores))[:k]
    return columns[order], scores[order]


def _exact_rows(
    query: Tensor, row: int, blocks: Blocks, keys: PhotoKeys, rule: PairRule
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]]:
    for columns, vectors in blocks():
        mask = rule.admissible(keys, np.array([row]), columns)[0]
        vectors = vectors.to(query.device)[torch.from_numpy(mask).to(query.device)]
        yield columns[mask], cosines(query.expand(len(vectors), -1), vectors).cpu().numpy()
