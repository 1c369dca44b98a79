"""Candidates for the nearest neighbours, from single-precision products at nearly the price of the product.

The products of all queries with a tile of columns are looked at in groups of cells: only a group whose largest
product exceeds what its query has already is opened. What decides whether a pair is admissible is then looked
up for these cells alone. Pairs of one name are few, and found by their codes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits
from torch import Tensor

from pairx_engine.device.tuning import topk_tile
from pairx_engine.retrieval.rules import UNKNOWN, DeviceKeys, PairRule

Block = tuple[NDArray[np.int64], Tensor]
"""Rows (G,) of the catalogue's order, and their vectors (G, D) of any float type."""
Blocks = Callable[[], Iterable[Block]]

_GROUP = 16
"""Cells of a group: fewer are more to look at, more are more to open."""
_DENSE = 8
"""Where more than one in so many cells would be opened, all of them are masked instead."""
_WAITING = 24
"""Candidates per query that wait, on average, before they are sorted in."""

Cells = tuple[Tensor, Tensor, Tensor]
"""Queries, columns and similarities (M,)."""


@dataclass
class Proposals:
    """The best candidates of each query by one rule so far, and pairs that come near a photo's floor.

    `similarity` and `column` (Q, size) are best first; -inf and -1 where there are fewer. `column_floor` (N,)
    holds the similarity from which a query is of use to a photo of the catalogue.
    """

    rule: PairRule
    similarity: Tensor
    column: Tensor
    never: Tensor
    """Queries (Q,) without a pair under this rule."""
    column_floor: Tensor | None = None
    _waiting: list[tuple[Tensor, Tensor, Tensor]] = field(default_factory=list)
    _count: int = 0
    _near: list[tuple[Tensor, Tensor]] = field(default_factory=list)

    @classmethod
    def of(
        cls, rule: PairRule, size: int, keys: DeviceKeys, rows: Tensor, column_floor: Tensor | None = None
    ) -> Proposals:
        """None yet, for queries that are these rows of the catalogue."""
        shape = (len(rows), size)
        similarity = torch.full(shape, -torch.inf, device=rows.device)
        column = torch.full(shape, UNKNOWN, dtype=torch.int64, device=rows.device)
        never = (
            (keys.identity[rows] == UNKNOWN)
            if rule.needs_a_name
            else torch.zeros_like(rows, dtype=torch.bool)
        )
        return cls(rule, similarity, column, never, column_floor)

    @property
    def floor(self) -> Tensor:
        """Similarity (Q,) that a candidate must exceed to be kept; inf where none can be admissible."""
        return self.similarity[:, -1].masked_fill(self.never, torch.inf)

    def offer(self, query: Tensor, column: Tensor, similarity: Tensor) -> None:
        """Take admissible candidates (M,) in, sooner or later."""
        if len(query):
            self._waiting.append((query, column, similarity))
            self._count += len(query)
        if self._count > _WAITING * len(self.similarity):
            self.sort_in()

    def offer_all(self, similarity: Tensor, columns: Tensor) -> None:
        """Take products (Q, n) with columns (n,) in; what is not admissible is -inf."""
        best, at = similarity.topk(min(self.similarity.shape[1], similarity.shape[1]), dim=1)
        self._merge(slice(None), best, columns[at])

    def sort_in(self) -> None:
        """Sort the waiting candidates in."""
        if not self._waiting:
            return
        query, column, similarity = (torch.cat(parts) for parts in zip(*self._waiting, strict=True))
        self._waiting, self._count = [], 0
        width = self.similarity.shape[1]
        while len(query):
            query, order = query.sort(stable=True)
            column, similarity = column[order], similarity[order]
            touched, of, counts = query.unique_consecutive(return_inverse=True, return_counts=True)
            place = torch.arange(len(query), device=query.device) - (counts.cumsum(0) - counts)[of]
            now = place < width
            shape = (len(touched), min(width, int(counts.max())))
            more = torch.full(shape, -torch.inf, device=query.device)
            names = torch.full(shape, UNKNOWN, dtype=torch.int64, device=query.device)
            more[of[now], place[now]], names[of[now], place[now]] = similarity[now], column[now]
            self._merge(touched, more, names)
            left = ~now & (similarity > self.floor[query])
            query, column, similarity = query[left], column[left], similarity[left]

    def _merge(self, queries: Tensor | slice, similarity: Tensor, column: Tensor) -> None:
        size = self.similarity.shape[1]
        best, order = torch.cat([self.similarity[queries], similarity], 1).topk(size, dim=1)
        self.similarity[queries] = best
        self.column[queries] = torch.cat([self.column[queries], column], 1).gather(1, order)

    def note(self, query: Tensor, column: Tensor) -> None:
        """Remember admissible pairs that come near the floor of their column."""
        if len(query):
            self._near.append((query, column))

    def near_a_floor(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Places of queries and rows of the catalogue (M,) of the pairs remembered."""
        if not self._near:
            return np.empty(0, np.int64), np.empty(0, np.int64)
        query, column = (torch.cat(parts).cpu().numpy() for parts in zip(*self._near, strict=True))
        return query, column


def propose(
    queries: Tensor, rows: Tensor, blocks: Blocks, keys: DeviceKeys, proposals: Sequence[Proposals]
) -> None:
    """Fill the proposals from one pass over the catalogue, on as many threads as torch has."""
    with threadpool_limits(torch.get_num_threads(), user_api="blas"):
        _propose(queries, rows, blocks, keys, proposals)


def _propose(
    queries: Tensor, rows: Tensor, blocks: Blocks, keys: DeviceKeys, proposals: Sequence[Proposals]
) -> None:
    unit = torch.nn.functional.normalize(queries.float(), dim=1)
    width = topk_tile(len(rows), unit.device)
    buffer = torch.empty(len(rows), width, device=unit.device)
    for columns, vectors in blocks():
        # Those without a name last, so that whole tiles have none.
        there = torch.from_numpy(columns).to(unit.device)
        order = (keys.identity[there] == UNKNOWN).int().argsort(stable=True)
        there = there[order]
        normal = torch.nn.functional.normalize(vectors.to(unit.device)[order].float(), dim=1)
        for start in range(0, len(there), width):
            part = there[start : start + width]
            product = buffer[:, : len(part)] if len(part) == width else buffer.new_empty(len(rows), len(part))
            _multiply(unit, normal[start : start + width], product)
            tile = _Tile(product, rows, part, keys)
            for proposal in proposals:
                tile.offer_to(proposal)
    for proposal in proposals:
        proposal.sort_in()


def _multiply(queries: Tensor, others: Tensor, out: Tensor) -> None:
    """Products (Q, n) of all queries with all others.

    On a CPU NumPy makes them, since its kernels know more processors than torch's: on an AMD EPYC a search at
    2152 numbers took 1.05 times the bare product of torch, and 1.47 times with torch's own tiles.
    """
    if queries.device.type == "cpu":
        np.matmul(queries.numpy(), others.numpy().T, out=out.numpy())
    else:
        torch.mm(queries, others.T, out=out)


class _Tile:
    """The products (Q, n) of all queries with some columns."""

    def __init__(self, similarity: Tensor, rows: Tensor, columns: Tensor, keys: DeviceKeys) -> None:
        self._similarity = similarity
        self._rows = rows
        self._columns = columns
        self._keys = keys
        self._most = similarity.numel() // _DENSE
        self._edge = similarity.shape[1] // _GROUP * _GROUP
        self._largest: Tensor | None = None

    def offer_to(self, proposals: Proposals) -> None:
        """Give a rule's proposals all cells that may be of use to them."""
        rule, floor = proposals.rule, proposals.column_floor
        if rule.needs_a_name and bool((self._keys.identity[self._columns] == UNKNOWN).all()):
            return
        one_name = self._of_one_name() if rule.same_name else None
        cells = (
            self._above(proposals.floor) if one_name is None else self._kept(one_name, proposals.floor, None)
        )
        if cells is None:
            allowed = rule.admits(self._keys, self._rows[:, None], self._columns[None, :])
            proposals.offer_all(self._similarity.masked_fill(~allowed, -torch.inf), self._columns)
        else:
            query, column, similarity = self._admitted(rule, cells)
            proposals.offer(query, column, similarity)
        if floor is not None:
            here = floor[self._columns]
            near = self._reaching(here) if one_name is None else self._kept(one_name, None, here)
            query, column, _ = self._admitted(rule, near)
            proposals.note(query, column)

    def _admitted(self, rule: PairRule, cells: Cells) -> Cells:
        """Of the cells those that a rule admits, with rows of the catalogue for places of columns."""
        query, place, similarity = cells
        column = self._columns[place]
        allowed = rule.admits(self._keys, self._rows[query], column)
        return query[allowed], column[allowed], similarity[allowed]

    def _of_one_name(self) -> tuple[Tensor, Tensor] | None:
        """Places of queries and columns of one known name, by their codes; None where they are many."""
        names, order = self._keys.identity[self._columns].sort()
        wanted = self._keys.identity[self._rows]
        first, last = (torch.searchsorted(names, wanted, side=side) for side in ("left", "right"))
        counts = torch.where(wanted == UNKNOWN, 0, last - first)
        total = int(counts.sum())
        if total > self._most:
            return None
        query = torch.repeat_interleave(torch.arange(len(counts), device=counts.device), counts)
        within = torch.arange(total, device=counts.device) - (counts.cumsum(0) - counts)[query]
        return query, order[first[query] + within]

    def _kept(self, cells: tuple[Tensor, Tensor], floor: Tensor | None, column_floor: Tensor | None) -> Cells:
        """Of these cells those above the floor (Q,) of their query, or that reach the one (n,) of their column."""
        query, place = cells
        similarity = self._similarity[query, place]
        if floor is not None:
            kept = similarity > floor[query]
        else:
            assert column_floor is not None
            kept = similarity >= column_floor[place]
        return query[kept], place[kept], similarity[kept]

    def _above(self, floor: Tensor) -> Cells | None:
        """Cells above the floor (Q,) of their query; None where they are many.

        Only groups whose largest product is above it are opened. A group's cells lie apart, so that the
        largest of many groups are found side by side.
        """
        edge = self._edge
        if self._largest is None:
            self._largest = self._similarity[:, :edge].unflatten(1, (_GROUP, -1)).amax(1)
        query, group = (self._largest > floor[:, None]).nonzero(as_tuple=True)
        if len(query) * _GROUP > self._most:
            return None
        inside = torch.arange(0, edge, max(1, edge // _GROUP), device=floor.device)
        at = (query * self._similarity.stride(0) + group)[:, None] + inside
        similarity = self._flat(at)
        opened, step = (similarity > floor[query][:, None]).nonzero(as_tuple=True)
        rest = self._similarity[:, edge:]
        rest_query, rest_place = (rest > floor[:, None]).nonzero(as_tuple=True)
        return (
            torch.cat([query[opened], rest_query]),
            torch.cat([group[opened] + inside[step], rest_place + edge]),
            torch.cat([similarity[opened, step], rest[rest_query, rest_place]]),
        )

    def _reaching(self, floor: Tensor) -> Cells:
        """Cells that reach the floor (n,) of their column; groups are of cells of one column."""
        edge = len(self._similarity) // _GROUP * _GROUP
        largest = self._similarity[:edge].unflatten(0, (_GROUP, -1)).amax(0)
        group, place = (largest >= floor).nonzero(as_tuple=True)
        inside = torch.arange(0, edge, max(1, edge // _GROUP), device=floor.device)
        query = group[:, None] + inside
        similarity = self._flat(query * self._similarity.stride(0) + place[:, None])
        opened, step = (similarity >= floor[place][:, None]).nonzero(as_tuple=True)
        rest = self._similarity[edge:]
        rest_query, rest_place = (rest >= floor).nonzero(as_tuple=True)
        return (
            torch.cat([query[opened, step], rest_query + edge]),
            torch.cat([place[opened], rest_place]),
            torch.cat([similarity[opened, step], rest[rest_query, rest_place]]),
        )

    def _flat(self, at: Tensor) -> Tensor:
        """Products at places of the memory that they lie in."""
        base = self._similarity
        return base.as_strided((base.stride(0) * (len(base) - 1) + base.shape[1],), (1,))[at]
