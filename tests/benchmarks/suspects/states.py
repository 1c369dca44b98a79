"""The states of a set: which photos are there, under which names, and what was planted."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from tests.benchmarks.suspects.copies import Extra
from tests.benchmarks.suspects.photos import Words, words
from tests.benchmarks.suspects.planting import split_and_merged, wrong_names

CLEAN, NAMES, COPIES, BURSTS, ANIMALS, RETRIEVAL = (
    "clean",
    "names",
    "copies",
    "bursts",
    "animals",
    "retrieval",
)
KINDS = (CLEAN, NAMES, COPIES, BURSTS, ANIMALS, RETRIEVAL)
SHARES, SEEDS = (0.01, 0.05, 0.1, 0.2), (1, 2, 3, 4, 5)
RETRIEVED = 20
"""Nearest photos of each that are explained and judged when retrieval is measured."""

Names = Mapping[str, str | None]


@dataclass(frozen=True, eq=False)
class State:
    """One planting: names by photo id, and the names that they should be.

    A photo that is not among the names is absent.
    """

    kind: str
    share: float
    seed: int
    names: Names
    trusted: Names
    extras: Mapping[str, Extra] = field(default_factory=dict)
    split: frozenset[frozenset[str]] = frozenset()
    merged: frozenset[str] = frozenset()

    @property
    def name(self) -> str:
        """What the state's folder and shard are called."""
        return f"{self.kind}-{round(1000 * self.share):03d}-{self.seed}"


@dataclass(frozen=True)
class Plan:
    """Which states of a set are measured."""

    kinds: Sequence[str] = KINDS
    shares: Sequence[float] = SHARES
    seeds: Sequence[int] = SEEDS


def states(
    plan: Plan,
    ids: Sequence[str],
    trusted: Words,
    species: Words,
    encounters: Words,
    extras: Mapping[tuple[str, int], Sequence[Extra]],
) -> Iterator[State]:
    """All states of a plan.

    Photos come in the catalogue's order; `extras` are the planted files by kind and seed.
    """
    truth = dict(zip(ids, trusted, strict=True))
    for kind in (CLEAN, RETRIEVAL):
        if kind in plan.kinds:
            yield State(kind, 0.0, 0, truth, truth)
    for seed in plan.seeds:
        if NAMES in plan.kinds:
            for share in plan.shares:
                names = dict(zip(ids, wrong_names(trusted, species, share, seed), strict=True))
                yield State(NAMES, share, seed, names, truth)
        if ANIMALS in plan.kinds:
            planted = split_and_merged(trusted, species, encounters, seed)
            names = dict(zip(ids, planted.names, strict=True))
            yield State(ANIMALS, 0.0, seed, names, truth, split=planted.split, merged=planted.merged)
        for kind in (COPIES, BURSTS):
            if kind in plan.kinds:
                added = {extra.photo_id: extra for extra in extras[kind, seed]}
                names = truth | {photo: extra.name for photo, extra in added.items()}
                should = truth | {photo: extra.source.name for photo, extra in added.items()}
                yield State(kind, 0.0, seed, names, should, added)


def truth_of(state: State, ids: Sequence[str]) -> Words:
    """The names that photos should bear (N,).

    A split animal keeps its true name under both names that it has.
    """
    return words([state.trusted[photo] for photo in ids])


def misnamed(state: State, ids: Sequence[str]) -> np.ndarray:
    """Which photos bear another animal's name (N,); none where only animals were split and merged."""
    if state.kind == ANIMALS:
        return np.zeros(len(ids), dtype=bool)
    return np.array([state.names[photo] != state.trusted[photo] for photo in ids], dtype=bool)
