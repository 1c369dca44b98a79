"""One defect is one row: suspects of three kinds that state the same defect become one.

The kinds are photos, pairs of names and single names. A wrong name of a photo, two names of one animal and
two animals under one name can each look like another: photos of an animal with two names point to its other
name, and a photo of another animal is a side of a cut. The rules, the first that applies wins:

1. *Two names, one animal*: the row of the names stands if most photos of either name point to the other,
   or if the pair is likely and no cut explains it. Rows of their photos that point from one to the other
   are dropped.
2. *One name, two animals*: the cut stands if it is likely and no two or more photos of its smaller side
   point to different names. Rows of these photos are dropped. Otherwise, if any of the photos has a row,
   the rows stand and the cut is dropped.
3. A pair of names is dropped for a cut if the names are near only because photos of one side of the cut
   belong to the other name.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from pairx_engine.judgement.names import NamePair
from pairx_engine.judgement.partition import Split

LIKELY = 0.5
"""Least probability at which a suspect is a claim.

A less likely suspect gives way to one that it could be mistaken for.
"""


@dataclass(frozen=True)
class PhotoSuspect:
    """A photo (index) that seems to have a wrong name.

    `name` is its own name, `proposed` the name proposed instead (None: a new animal), `probability` that of
    the name being wrong.
    """

    photo: int
    name: int
    proposed: int | None
    probability: float


@dataclass(frozen=True)
class Settled:
    """What is left of each kind, in the order given.

    With each split stands the name that its smaller side belongs to, if any.
    """

    photos: tuple[PhotoSuspect, ...]
    pairs: tuple[NamePair, ...]
    splits: tuple[tuple[Split, int | None], ...]


def settle(
    photos: Sequence[PhotoSuspect],
    pairs: Sequence[NamePair],
    splits: Sequence[Split],
    sizes: dict[int, int],
) -> Settled:
    """Rows of which no two state one defect.

    `sizes` holds the number of photos of each name. The order of the suspects does not matter.
    """
    claims = {p.photo: p for p in photos if p.probability >= LIKELY}
    moved = Counter((p.name, p.proposed) for p in claims.values())
    kept_splits, owner = [], {}
    for split in splits:
        said = [claims[photo] for photo in split.side_b if photo in claims]
        votes = Counter(p.proposed for p in said)
        target = min(votes, key=lambda name: (-votes[name], name is None, name), default=None)
        if said and (split.probability < LIKELY or (len(votes) > 1 and 2 * votes[target] <= len(said))):
            continue  # rows of photos say it
        if target is not None and 2 * moved[split.name, target] > sizes[split.name]:
            continue  # most of the name points there: the pair of names says it
        kept_splits.append((split, target))
        if split.probability >= LIKELY:
            owner[split.name] = (frozenset(split.side_b), target)
    kept_pairs = []
    for pair in pairs:
        a, b = pair.name_a, pair.name_b
        most = any(2 * moved[one, other] > sizes[one] for one, other in ((a, b), (b, a)))
        part = any(owner.get(one, (None, None))[1] == other for one, other in ((a, b), (b, a)))
        few = any(_of_one_side(owner.get(one), pair, place) for place, one in enumerate((a, b)))
        if most or not (part or few):
            kept_pairs.append(pair)
    together = {frozenset((p.name_a, p.name_b)) for p in kept_pairs if p.probability >= LIKELY}
    together |= {
        frozenset((p.name_a, p.name_b))
        for p in kept_pairs
        if any(2 * moved[x] > sizes[x[0]] for x in ((p.name_a, p.name_b), (p.name_b, p.name_a)))
    }
    cut_off = {photo for split, _ in kept_splits if split.probability >= LIKELY for photo in split.side_b}
    left = [
        p
        for p in photos
        if p.photo not in cut_off and (p.proposed is None or frozenset((p.name, p.proposed)) not in together)
    ]
    return Settled(tuple(left), tuple(kept_pairs), tuple(kept_splits))


def _of_one_side(cut: tuple[frozenset[int], int | None] | None, pair: NamePair, place: int) -> bool:
    """Whether all pairs that support two names come from the smaller side of a cut of one of them."""
    shown = [both[place] for both in pair.supporting]
    return cut is not None and bool(shown) and all(photo in cut[0] for photo in shown)
