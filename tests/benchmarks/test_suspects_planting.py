"""Planted names: who is misnamed as what, split and merged, and always the same."""

import random
from collections import Counter

import numpy as np
import pytest

from tests.benchmarks.suspects.photos import words
from tests.benchmarks.suspects.planting import split_and_merged, wrong, wrong_names

SIZES = {"a": 8, "b": 7, "c": 3, "d": 2, "e": 9, "f": 4, "g": 6, "h": 3, "": 5}
NAMES = words([name for name, n in SIZES.items() for _ in range(n)])
SPECIES = words(["cat" if name and name < "e" else "dog" for name in NAMES])
NOWHERE = words([""] * len(NAMES))


@pytest.mark.parametrize("share", [0.02, 0.05, 0.1, 0.2])
def test_so_many_photos_take_the_name_of_another_animal_of_their_species(share):
    names = wrong_names(NAMES, SPECIES, share, 3)
    changed = np.flatnonzero(wrong(names, NAMES))
    assert len(changed) == round(share * len(NAMES))
    species_of = dict(zip(NAMES, SPECIES, strict=True))
    for i in changed:
        assert {NAMES[i], names[i]} <= {"a", "b", "c", "e", "f", "g", "h"}
        assert species_of[names[i]] == SPECIES[i]
    assert (wrong_names(NAMES, SPECIES, share, 3) == names).all()
    assert (wrong_names(NAMES, SPECIES, 0.2, 4) != names).any()


def test_wrong_names_are_those_of_a_plain_loop():
    count = Counter(n for n in NAMES if n)
    animals = sorted(a for a, n in count.items() if n >= 3)
    expected, rng = list(NAMES), random.Random("5-0.2")
    able = [i for i, n in enumerate(NAMES) if n and count[n] >= 3]
    for i in sorted(rng.sample(able, round(0.2 * len(NAMES)))):
        cats = {"a", "b", "c"}
        kin = [a for a in animals if a != NAMES[i] and (a in cats) == (NAMES[i] in cats)]
        expected[i] = rng.choice(kin)
    assert list(wrong_names(NAMES, SPECIES, 0.2, 5)) == expected


def test_large_animals_are_split_and_other_ones_merged():
    for seed in range(5):
        planted = split_and_merged(NAMES, SPECIES, NOWHERE, seed)
        assert len(planted.split) == 2
        assert len(planted.merged) >= 1
        for first, second in map(sorted, planted.split):
            assert second == f"{first} (second)"
            shown = planted.names[first == NAMES]
            assert set(shown) == {first, second}
            assert abs(np.mean(shown == first) - 0.5) < 0.2
        for name in planted.merged:
            holds = set(NAMES[planted.names == name])
            assert len(holds) == 2
            assert len({s for n, s in zip(NAMES, SPECIES, strict=True) if n in holds}) == 1
        untouched = ~np.isin(planted.names, [n for pair in planted.split for n in pair])
        untouched &= ~np.isin(planted.names.astype(str), list(planted.merged))
        assert (planted.names[untouched] == NAMES[untouched]).all()


def test_photos_of_one_encounter_are_split_together():
    encounters = words([f"{name}{i % 3}" for i, name in enumerate(NAMES)])
    planted = split_and_merged(NAMES, SPECIES, encounters, 0)
    for first, second in map(sorted, planted.split):
        rows = first == NAMES
        for encounter in set(encounters[rows]):
            assert len(set(planted.names[rows & (encounters == encounter)])) == 1
        assert {first, second} == set(planted.names[rows])
