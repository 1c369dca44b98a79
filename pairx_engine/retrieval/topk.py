"""Exact nearest neighbours by cosine, blockwise.

Ties are broken by id, and exclusions are applied before the ranking. A single-precision matrix product
proposes k + PAD candidates per query. They are scored again in double precision. If a query's k-th neighbour
is not separated from the rejected candidates by more than the product's rounding bound, the query is searched
again in double precision. So the result never depends on block sizes, block order or the device.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pairx_engine.device.tuning import NUMBERS_AT_ONCE

PAD = 32
_UNKNOWN = -1

Block = tuple[NDArray[np.int64], Tensor]
"""Rows (G,) of the catalogue's order, and their vectors (G, D) of any float type."""
Blocks = Callable[[], Iterable[Block]]


@dataclass(frozen=True)
class PhotoKeys:
    """What decides whether two photos may be paired.

    One integer code per photo in catalogue order, -1 for unknown.
    """

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

    def on(self, device: torch.device) -> DeviceKeys:
        """The codes as tensors on a device."""
        return DeviceKeys(**{name: torch.from_numpy(codes).to(device) for name, codes in vars(self).items()})


@dataclass(frozen=True)
class DeviceKeys:
    """`PhotoKeys` on a device: int32 tensors (N,)."""

    identity: Tensor
    encounter: Tensor
    species: Tensor
    viewpoint: Tensor


@dataclass(frozen=True)
class PairRule:
    """Which pairs are admissible; self pairs and pairs of one known encounter never are.

    `same_name` asks for one name, `other_name` for two different ones; both leave unknown names out.
    """

    same_species: bool = False
    same_viewpoint: bool = False
    same_name: bool = False
    other_name: bool = False

    def admissible(
        self, keys: PhotoKeys, rows: NDArray[np.int64], columns: NDArray[np.int64]
    ) -> NDArray[np.bool_]:
        """Mask (len(rows), len(columns)) of the pairs that may be ranked.

        Unknown species and viewpoints are compatible with all; an unknown name equals no other name.
        """
        mask: NDArray[np.bool_] = self._mask(keys, rows, columns)
        return mask

    def admissible_there(self, keys: DeviceKeys, rows: Tensor, columns: Tensor) -> Tensor:
        """`admissible` on the device of keys, rows and columns: the same formula, and nothing is copied."""
        mask: Tensor = self._mask(keys, rows, columns)
        return mask

    def _mask(self, keys: Any, rows: Any, columns: Any) -> Any:
        """The mask of arrays or of tensors: both have these operators."""
        mask = rows[:, None] != columns[None, :]
        encounter, other = keys.encounter[rows][:, None], keys.encounter[columns][None, :]
        mask &= (encounter != other) | (encounter == _UNKNOWN)
        for wanted, codes in ((self.same_species, keys.species), (self.same_viewpoint, keys.viewpoint)):
            if wanted:
                first, second = codes[rows][:, None], codes[columns][None, :]
                mask &= (first == second) | (first == _UNKNOWN) | (second == _UNKNOWN)
        name, other_name = keys.identity[rows][:, None], keys.identity[columns][None, :]
        if self.same_name:
            mask &= (name == other_name) & (name != _UNKNOWN)
        if self.other_name:
            mask &= (name != other_name) & (name != _UNKNOWN) & (other_name != _UNKNOWN)
        return mask


@dataclass(frozen=True)
class Neighbours:
    """Directed neighbours, best first within each query.

    `query` and `neighbour` are rows in catalogue order, `cosine` is theirs.
    """

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

    `queries` (Q, D) are the vectors of catalogue rows `rows`; `blocks()` iterates over the whole catalogue,
    in any order. `rules` maps a name to (rule, k). A query with fewer than k admissible photos gets them all.
    Memory: Q x (largest block + k + PAD) floats. Order: cosine (float32) descending, then row ascending.
    """
    unit = torch.nn.functional.normalize(queries.float(), dim=1)
    there, rows_there = keys.on(unit.device), torch.from_numpy(rows).to(unit.device)
    kept = {name: _Kept.empty(len(rows), k + PAD, unit.device) for name, (_, k) in rules.items()}
    for columns, vectors in blocks():
        columns_there = torch.from_numpy(columns).to(unit.device)
        similarity = unit @ torch.nn.functional.normalize(vectors.to(unit.device).float(), dim=1).T
        for name, (rule, _) in rules.items():
            mask = rule.admissible_there(there, rows_there, columns_there)
            kept[name].update(similarity.masked_fill(~mask, -torch.inf), columns_there)
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

    def update(self, similarity: Tensor, columns: Tensor) -> None:
        size = self.similarity.shape[1]
        best, at = similarity.topk(min(size, similarity.shape[1]), dim=1)
        names = columns[at]
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
    """Score the candidates in double precision, and keep k.

    Queries whose margin is within rounding are searched again.
    """
    column = torch.where(torch.isfinite(kept.similarity), kept.column, _UNKNOWN).cpu().numpy()
    chosen, cosine = _best(column, _rescore(queries, column, blocks), k)
    bound = 2.0**-22 * queries.shape[1]
    floor = kept.similarity[:, -1].cpu().numpy()
    unsure = (
        np.flatnonzero(np.isfinite(floor) & (cosine[:, -1] <= floor + bound))
        if k
        else np.array([], dtype=int)
    )
    if len(unsure):
        at = torch.from_numpy(unsure).to(queries.device)
        chosen[unsure], cosine[unsure] = _search_exactly(queries[at], rows[unsure], blocks, keys, rule, k)
    valid = chosen != _UNKNOWN
    return Neighbours(np.repeat(rows, valid.sum(1)), chosen[valid], cosine[valid])


def _best(
    column: NDArray[np.int64], cosine: NDArray[np.float32], k: int
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """The k best of each row by falling cosine, ties by rising column."""
    order = np.lexsort((column, -cosine), axis=1)[:, :k]
    return np.take_along_axis(column, order, 1), np.take_along_axis(cosine, order, 1)


def _rescore(queries: Tensor, wanted: NDArray[np.int64], blocks: Blocks) -> NDArray[np.float32]:
    """Exact cosines of each query with its candidates, in slices of bounded memory."""
    exact = np.full(wanted.shape, -np.inf, dtype=np.float32)
    step = max(1, NUMBERS_AT_ONCE // queries.shape[1])
    for columns, vectors in blocks():
        order = np.argsort(columns)
        slot = np.minimum(np.searchsorted(columns, wanted, sorter=order), len(columns) - 1)
        found = order[slot]
        query, place = np.nonzero(columns[found] == wanted)
        # Whole blocks go to the device and are gathered there, since a candidate belongs to many queries.
        vectors = vectors.to(queries.device)
        for start in range(0, len(query), step):
            q, p = query[start : start + step], place[start : start + step]
            at, of = (torch.from_numpy(index).to(queries.device) for index in (q, found[q, p]))
            exact[q, p] = cosines(queries[at], vectors[of]).cpu().numpy()
    return exact


def _search_exactly(
    queries: Tensor, rows: NDArray[np.int64], blocks: Blocks, keys: PhotoKeys, rule: PairRule, k: int
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """The k best of each query by double-precision products, all queries in one pass.

    -1 where there are fewer.
    """
    column = np.full((len(rows), k), _UNKNOWN, dtype=np.int64)
    cosine = np.full((len(rows), k), -np.inf, dtype=np.float32)
    unit = torch.nn.functional.normalize(queries.double(), dim=1)
    step = max(1, NUMBERS_AT_ONCE // queries.shape[1])
    for columns, vectors in blocks():
        for start in range(0, len(columns), step):
            part = columns[start : start + step]
            others = torch.nn.functional.normalize(
                vectors[start : start + step].to(unit.device).double(), dim=1
            )
            found = (unit @ others.T).float().cpu().numpy()
            allowed = rule.admissible(keys, rows, part)
            names = np.where(allowed, part[None, :], _UNKNOWN)
            scores = np.where(allowed, found, -np.inf).astype(np.float32)
            column, cosine = _best(np.hstack([column, names]), np.hstack([cosine, scores]), k)
    return np.where(np.isfinite(cosine), column, _UNKNOWN), cosine
