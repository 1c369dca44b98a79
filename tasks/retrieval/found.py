"""What a worker searches for and gives back: queries of a gallery, and their candidates."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tasks.shards import ShardResult
from tasks.store.warehouse import shard_name


@dataclass(frozen=True, eq=False)
class RetrieveShard:
    """Photos of the gallery that is kept under the name of its state: the queries.

    Without `base` the queries are `first` to `last` (exclusive). With it they are the gallery rows `asked`,
    and the other photos take in what reaches the horizons that are kept for the state `base`.
    """

    state: str
    first: int
    last: int
    base: str | None = None
    asked: NDArray[np.int32] | None = None

    @property
    def name(self) -> str:
        """The gallery's state and which queries."""
        if self.asked is None:
            return f"{self.state}-{self.first}"
        return shard_name([self.state, str(self.base), self.asked.astype("<i4").tobytes().hex()])

    @property
    def rows(self) -> NDArray[np.int64]:
        """Gallery rows of the queries."""
        return np.arange(self.first, self.last) if self.asked is None else self.asked.astype(np.int64)


@dataclass(frozen=True, kw_only=True, eq=False)
class Candidates(ShardResult):
    """Directed candidates of some queries: gallery rows and cosines."""

    query: NDArray[np.int32]
    neighbour: NDArray[np.int32]
    cosine: NDArray[np.float32]


@dataclass(frozen=True, kw_only=True, eq=False)
class Retrieved(Candidates):
    """Candidates, by which rule and at which place, and what each is for.

    Those of the queries have a place, from 1. What another photo takes in has place 0; whether it is a pair
    is seen beside what that photo has already.
    """

    rule: NDArray[np.int8]
    place: NDArray[np.int32]
    is_pair: NDArray[np.bool_]
    is_near: NDArray[np.bool_]
