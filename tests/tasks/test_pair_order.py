from __future__ import annotations

import random
from itertools import combinations, pairwise
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from tasks.pair_order import close_together, parts
from tasks.pairs import Pair


def pairs_of(edges: Any) -> list[Pair]:
    return [Pair(f"{a}-{b}", str(a), str(b)) for a, b in sorted(edges)]


GRAPHS = st.sets(st.tuples(st.integers(0, 9), st.integers(10, 19)), max_size=40).map(pairs_of)


def recorded(shards: list[list[Pair]]) -> int:
    return sum(len({i for p in shard for i in (p.photo_a, p.photo_b)}) for shard in shards)


def naive_visits(pairs: list[Pair]) -> list[str]:
    """Maximum adjacency, written out: each time look at all photos that are left."""
    photos = sorted({i for p in pairs for i in (p.photo_a, p.photo_b)})
    placed: list[str] = []
    while len(placed) < len(photos):
        best: tuple[int, int, str] | None = None
        for photo in (i for i in photos if i not in placed):
            mine = [
                placed.index(o)
                for p in pairs
                for i, o in ((p.photo_a, p.photo_b), (p.photo_b, p.photo_a))
                if i == photo and o in placed
            ]
            key = (-len(mine), -max(mine, default=0), photo)
            best = key if best is None else min(best, key)
        assert best is not None
        placed.append(best[2])
    return placed


@given(GRAPHS, st.randoms(use_true_random=False))
def test_pairs_are_due_when_the_later_photo_is_visited(pairs: list[Pair], chance: random.Random) -> None:
    mixed = chance.sample(pairs, len(pairs))
    found, visits = close_together(mixed), naive_visits(pairs)
    assert found == close_together(pairs)
    assert sorted(found, key=lambda p: p.pair_id) == sorted(pairs, key=lambda p: p.pair_id)
    at = [sorted((visits.index(p.photo_a), visits.index(p.photo_b)), reverse=True) for p in found]
    assert at == sorted(at)


@given(GRAPHS, st.integers(1, 7), st.integers(2, 9))
def test_parts_keep_everything_in_order_within_both_bounds(
    pairs: list[Pair], most_pairs: int, most_photos: int
) -> None:
    found = list(parts(pairs, most_pairs, most_photos))
    assert [p for part in found for p in part] == pairs
    assert all(0 < len(part) <= most_pairs and recorded([part]) <= most_photos for part in found)
    for part, after in pairwise(found):
        assert len(part) == most_pairs or recorded([[*part, after[0]]]) > most_photos


def test_animals_whose_ids_are_mixed_come_together() -> None:
    """Fifty herds of eight, every two of a herd paired: one recording per photo is the least there can be."""
    names = [f"{i:03d}" for i in range(400)]
    random.Random(0).shuffle(names)
    herds = [names[i : i + 8] for i in range(0, 400, 8)]
    pairs = pairs_of({tuple(sorted(two)) for herd in herds for two in combinations(herd, 2)})
    for size in (28, 280):
        assert recorded(list(parts(close_together(pairs), size, 1000))) == 400
        assert recorded(list(parts(pairs, size, 1000))) > 600
