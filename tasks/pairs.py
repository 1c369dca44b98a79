"""What stages work on: photos, pairs of photos, scored pairs, and pairs to draw."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Photo = Mapping[str, Any]
"""A row of `photos`."""
Key = tuple[str, str]
"""Photo id and chip id."""


@dataclass(frozen=True)
class Pair:
    """A pair to score: its id and the ids of its photos."""

    pair_id: str
    photo_a: str
    photo_b: str


@dataclass(frozen=True)
class ScoredPair:
    """A pair whose rows lie in one score shard, `scored_in`."""

    pair_id: str
    photo_a: str
    photo_b: str
    chip_a: str
    chip_b: str
    scored_in: str


@dataclass(frozen=True)
class DrawItem:
    """One pair and layer to draw: its stored rows, its photos, and the scores below the title."""

    matches: Mapping[str, Any]
    relevances: Mapping[str, Any]
    photo_a: Photo
    photo_b: Photo
    subtitle: str

    @property
    def key(self) -> tuple[str, str]:
        """Pair id and layer."""
        return self.matches["pair_id"], self.matches["layer"]


def photos_of(pairs: Sequence[Pair], photos: Sequence[Photo]) -> tuple[Photo, ...]:
    """The photos that occur in any of the pairs."""
    needed = {i for p in pairs for i in (p.photo_a, p.photo_b)}
    return tuple(photo for photo in photos if photo["photo_id"] in needed)
