"""Folds of animals: none is in two, none of a held-out pair was fitted on."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pairx_engine.evaluation.folds import folds_by_animal, split
from tests.pairx_engine.evaluation.labelled import random_pairs

seeds = st.integers(0, 10_000)


def animals_of(pairs):
    return {*pairs.animal_a.tolist(), *pairs.animal_b.tolist()}


@given(seeds, st.integers(2, 5))
def test_fitted_and_held_out_pairs_share_no_animal(seed, n_folds):
    pairs = random_pairs(seed)
    folds = folds_by_animal(np.concatenate([pairs.animal_a, pairs.animal_b]), n_folds, seed)
    held_out_correct = 0
    for fold in range(n_folds):
        train, test = split(pairs, folds, fold)
        assert not animals_of(train) & animals_of(test)
        held_out_correct += int(test.correct.sum())
        of = dict(zip(folds.animals.tolist(), folds.fold.tolist(), strict=True))
        sides = [
            (of[a] == fold) + (of[b] == fold) for a, b in zip(pairs.animal_a, pairs.animal_b, strict=True)
        ]
        assert (len(train), len(test)) == (sides.count(0), sides.count(2))
        assert np.array_equal(test.cosine, pairs.cosine[np.array(sides) == 2])
    assert held_out_correct == pairs.correct.sum()


@given(seeds, st.integers(2, 7), st.integers(7, 40))
def test_folds_are_even_seeded_and_the_same_for_any_order(seed, n_folds, n_animals):
    rng = np.random.default_rng(seed)
    codes = rng.permutation(np.repeat(rng.choice(1000, n_animals, replace=False), 2))
    folds = folds_by_animal(codes, n_folds, seed)
    sizes = np.bincount(folds.fold, minlength=n_folds)
    assert sizes.sum() == n_animals
    assert sizes.max() - sizes.min() <= 1
    again = folds_by_animal(rng.permutation(codes), n_folds, seed)
    assert np.array_equal(folds.of(codes), again.of(codes))


def test_another_seed_makes_other_folds():
    codes = np.arange(40)
    first, second = (folds_by_animal(codes, 5, seed).of(codes) for seed in (0, 1))
    assert not np.array_equal(first, second)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: folds_by_animal([1, 2, 1], 3, 0), "2 animals make no 3 folds"),
        (lambda: folds_by_animal([1, 2, 3], 1, 0), "no 1 folds"),
        (lambda: split(random_pairs(0), folds_by_animal(range(20), 4, 0), 4), "no fold 4"),
        (lambda: split(random_pairs(0), folds_by_animal(range(5), 2, 0), 0), "belongs to no fold"),
    ],
)
def test_refuses_what_are_no_folds(call, message):
    with pytest.raises(ValueError, match=message):
        call()
