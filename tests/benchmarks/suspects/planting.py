"""Planted errors of names: wrong names, split animals, merged animals.

Pure functions of the trusted names and a seed.
"""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tests.benchmarks.suspects.photos import Bools, Words, known

_FEWEST_PHOTOS = 3
"""Fewest photos of an animal that may lose or gain one: the others still tell its name."""
_FEWEST_TO_SPLIT = 6
_SECOND = " (second)"


@dataclass(frozen=True, eq=False)
class PlantedNames:
    """Names with errors in them (N,), and which two names are one animal, and which names hold two."""

    names: Words
    split: frozenset[frozenset[str]] = frozenset()
    merged: frozenset[str] = frozenset()


def wrong_names(names: Words, species: Words, share: float, seed: int) -> Words:
    """Names of which a share are those of another animal of the same species.

    `names` (in the catalogue's order) are changed for `share` of all photos. Both animals have at least three
    photos. Raises `ValueError` where so many photos cannot be misnamed.
    """
    out = names.copy()
    species_of = dict(zip(names, species, strict=True))
    animals = swappable(names)
    able = [i for i, name in enumerate(names) if name in animals]
    rng = random.Random(f"{seed}-{share}")
    for i in sorted(rng.sample(able, round(share * len(names)))):
        out[i] = another_name(names[i], animals, species_of, rng)
    return out


def swappable(names: Words) -> list[str]:
    """Animals with at least three photos, sorted."""
    count = Counter(names[known(names)])
    return sorted(name for name, n in count.items() if n >= _FEWEST_PHOTOS)


def another_name(
    own: str, animals: Sequence[str], species_of: dict[str, str | None], rng: random.Random
) -> str:
    """The name of another of these animals, of one species."""
    return rng.choice([a for a in animals if a != own and species_of[a] == species_of[own]])


def split_and_merged(
    names: Words, species: Words, encounters: Words, seed: int, share: float = 0.1
) -> PlantedNames:
    """Names with split and merged animals; no animal has both errors.

    A tenth of the animals with at least six photos, two at least, are split: about half of an animal's
    photos, whole encounters, get a second name. As many pairs of animals of one species (three photos each)
    are merged: both get the first one's name.
    """
    rng = random.Random(f"names-{seed}")
    out, species_of = names.copy(), dict(zip(names, species, strict=True))
    photos = defaultdict(list)
    for i in np.flatnonzero(known(names)):
        photos[names[i]].append(int(i))
    large = sorted(a for a, rows in photos.items() if len(rows) >= _FEWEST_TO_SPLIT)
    count = min(len(large) // 2, max(2, round(share * len(large))))
    split = sorted(rng.sample(large, count))
    for animal in split:
        out[_half(photos[animal], encounters, rng)] = animal + _SECOND
    left = [a for a in swappable(names) if a not in split]
    rng.shuffle(left)
    merged: set[str] = set()
    while left and len(merged) < count:
        kept = left.pop()
        partner = next((a for a in left if species_of[a] == species_of[kept]), None)
        if partner is not None:
            left.remove(partner)
            out[photos[partner]] = kept
            merged.add(kept)
    return PlantedNames(out, frozenset(frozenset({a, a + _SECOND}) for a in split), frozenset(merged))


def _half(rows: Sequence[int], encounters: Words, rng: random.Random) -> list[int]:
    """About half of the photos: whole encounters until half is reached, never all."""
    groups = defaultdict(list)
    for i in rows:
        groups[encounters[i] or f"\0{i}"].append(i)
    order = sorted(groups)
    rng.shuffle(order)
    taken: list[int] = []
    for name in order[:-1]:
        if len(taken) + len(groups[name]) <= (len(rows) + 1) // 2 or not taken:
            taken += groups[name]
    return taken


def wrong(names: Words, trusted: Words) -> Bools:
    """Which photos have another name than they should (N,)."""
    return np.asarray(names != trusted, dtype=bool)
