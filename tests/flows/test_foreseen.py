"""How many pairs a dry run foresees, against what retrieval chooses."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import numpy as np
import pytest
from numpy.typing import NDArray

from flows.commands import plan
from flows.commands.foreseen import (
    by_chance,
    keys_of,
    pairs_foreseen,
    per_photo_of,
    sample,
    share_new,
    stored_per_photo,
)
from schemas.catalogue.reader import CatalogueEntry
from schemas.settings import Settings
from tasks.store.warehouse import Warehouse
from tests.toy_warehouse import Pair, Photo, Toy

SETTINGS = Settings()


def animals(count: int, photos: int, encounter: str | None = None) -> list[CatalogueEntry]:
    return [
        CatalogueEntry(
            f"{a:03}-{p:02}",
            f"{a}-{p}.jpg",
            identity=f"animal {a}",
            encounter=encounter and f"{encounter}{a}",
        )
        for a in range(count)
        for p in range(photos)
    ]


def embedded(entries: Sequence[CatalogueEntry], spread: float, seed: int = 0) -> NDArray[np.float32]:
    """Unit vectors around one centre for each animal."""
    generator = np.random.default_rng(seed)
    centres = {name: generator.normal(size=32) for name in sorted({e.identity or "" for e in entries})}
    found = np.array([centres[e.identity or ""] + spread * generator.normal(size=32) for e in entries])
    return (found / np.linalg.norm(found, axis=1, keepdims=True)).astype(np.float32)


def chosen(entries: Sequence[CatalogueEntry], vectors: NDArray[np.float32]) -> set[tuple[str, str]]:
    """The pairs that the rules choose, one photo after the other."""
    found = set()
    for i, one in enumerate(entries):
        near = sorted(
            (j for j in range(len(entries)) if j != i), key=lambda j: -float(vectors[i] @ vectors[j])
        )
        near = [j for j in near if one.encounter is None or entries[j].encounter != one.encounter]
        same = [j for j in near if entries[j].identity == one.identity]
        other = [j for j in near if entries[j].identity != one.identity]
        for j in (*near[:5], *same[:2], *other[:2]):
            found.add((min(one.photo_id, entries[j].photo_id), max(one.photo_id, entries[j].photo_id)))
    return found


@pytest.mark.parametrize("encounter", [None, "e"])
@pytest.mark.parametrize("spread", [0.3, 1.0, 3.0])
def test_pairs_of_a_sample_are_counted_as_retrieval_chooses_them(
    spread: float, encounter: str | None
) -> None:
    entries = animals(8, 5, encounter)
    vectors = embedded(entries, spread)
    assert per_photo_of(vectors, keys_of(entries), SETTINGS) * 40 == pytest.approx(
        len(chosen(entries, vectors))
    )


@pytest.mark.parametrize("spread", [0.3, 1.0, 3.0])
@pytest.mark.parametrize("photos", [2, 6, 12])
def test_a_first_night_is_foreseen_within_a_tenth_from_a_few_animals(spread: float, photos: int) -> None:
    entries = animals(240 // photos, photos)
    vectors = embedded(entries, spread)
    rows = {entry.photo_id: vector for entry, vector in zip(entries, vectors, strict=True)}
    few = sample(entries, 64, 8)
    density = per_photo_of(np.array([rows[e.photo_id] for e in few]), keys_of(few), SETTINGS)
    assert pairs_foreseen(density, entries, 240, 0, 240) == pytest.approx(
        len(chosen(entries, vectors)), rel=0.1
    )


@pytest.mark.parametrize("spread", [0.3, 1.0, 3.0])
def test_a_small_night_is_foreseen_within_a_tenth_from_the_pairs_that_are_stored(spread: float) -> None:
    entries = animals(40, 6)
    vectors = embedded(entries, spread)
    whole = chosen(entries, vectors)
    new, foreseen = 0, 0
    for seed in range(4):
        # One night's photos differ from the next's by more than a tenth, as their animals do.
        old = sorted(np.random.default_rng(seed).permutation(len(entries))[12:])
        before = chosen([entries[i] for i in old], vectors[old])
        new += len(whole - before)
        foreseen += pairs_foreseen(len(before) / len(old), entries, 12, 0, len(entries))
    assert foreseen == pytest.approx(new, rel=0.1)


def test_a_pair_is_new_where_one_of_its_photos_is() -> None:
    for photos, new in ((10, 3), (7, 7), (5, 0), (2, 1)):
        counted = sum(a < new or b < new for a, b in combinations(range(photos), 2))
        assert share_new(new, photos) == pytest.approx(counted / len(list(combinations(range(photos), 2))))
    assert share_new(1, 1) == 0


def test_no_more_pairs_are_foreseen_than_there_can_be() -> None:
    assert pairs_foreseen(9.0, animals(2, 2), 4, 40, 4) == 6
    assert pairs_foreseen(4.0, animals(2, 2), 0, 40, 4) == 0
    assert pairs_foreseen(4.0, [], 0, 40, 0) == 0
    # Three animals of two photos: of 15 pairs 12 are of two names, and 6 of all are retrieved: 6 + 12 * 9 / 15.
    assert pairs_foreseen(1.0, animals(3, 2), 6, 40, 6) == 13


def test_a_sample_holds_whole_animals_and_every_unknown_photo_is_one() -> None:
    entries = animals(30, 5)
    taken = sample(entries, 32, 8)
    assert len(taken) == 35
    assert all(sum(e.identity == name for e in taken) == 5 for name in {e.identity for e in taken})
    assert sample(entries[::-1], 32, 8)[0].identity == taken[0].identity
    unknown = [CatalogueEntry(f"u{k}", f"{k}.jpg") for k in range(50)]
    assert len(sample(unknown, 10, 8)) == 10
    assert len(sample(animals(1, 90), 64, 8)) == 8


def test_likeness_by_chance_pairs_as_its_formula_says() -> None:
    entries = [CatalogueEntry(f"{k:04}", f"{k}.jpg") for k in range(600)]
    likeness = np.random.default_rng(0).normal(size=(600, 600))
    likeness += likeness.T
    np.fill_diagonal(likeness, -np.inf)
    k = SETTINGS.top_k + 2
    near = np.argsort(-likeness, axis=1)[:, :k]
    pairs = {(min(i, j), max(i, j)) for i in range(len(entries)) for j in near[i].tolist()}
    assert by_chance(SETTINGS) == pytest.approx(len(pairs) / 600, rel=0.03)


def test_a_warehouse_tells_its_own_pairs(tmp_path) -> None:  # type: ignore[no-untyped-def]
    photos = [Photo(f"{k:02}", "A" if k < 15 else "B", f"e{k}") for k in range(30)]
    pairs = [Pair(f"{k:02}", f"{k + 1:02}", 0.5) for k in range(29)]
    from tasks.sql.console import connect_analyst

    connection = connect_analyst(Toy(photos, pairs).write(Warehouse(str(tmp_path / "w"))).url)
    assert stored_per_photo(connection, 30) == pytest.approx(29 / 30)
    assert stored_per_photo(connection, 5) is None


def test_the_start_counts_the_run_its_workers_and_the_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    assert plan.startup(10, 2) == 10 + 10 + plan._SERVER_SECONDS
    assert plan.startup(10, 4) == 10 + 20 + plan._SERVER_SECONDS
    monkeypatch.setenv("PREFECT_API_URL", "http://server/api")
    assert plan.startup(10, 1) == 20
    assert plan.startup(10, 2, small=True) == 15
