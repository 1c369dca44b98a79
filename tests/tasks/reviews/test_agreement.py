"""How far people agree: a published example, and all pairs counted one by one."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.reviews.agreement import agreement_of, pooled

KRIPPENDORFF = """
1 2 3 3 2 1 4 1 2 . . .
1 2 3 3 2 2 4 1 2 5 . 3
. 3 3 3 2 3 4 2 2 5 1 .
1 2 3 3 2 4 4 1 2 5 1 .
"""
"""Krippendorff, Computing Krippendorff's alpha-reliability (2011), C: four observers, twelve units, alpha .743."""


def test_the_published_example() -> None:
    rows = [line.split() for line in KRIPPENDORFF.split("\n") if line]
    units = [[value for value in unit if value != "."] for unit in zip(*rows, strict=True)]
    found = agreement_of(units)
    assert found.alpha == pytest.approx(0.743, abs=5e-4)
    assert (found.questions, found.answered_twice) == (12, 11)


@given(st.lists(st.lists(st.sampled_from("abc"), min_size=1, max_size=4), max_size=6))
def test_it_agrees_with_counting_all_pairs(units: list[list[str]]) -> None:
    found = agreement_of(units)
    several = [unit for unit in units if len(unit) > 1]
    pairs = [pair for unit in several for pair in itertools.combinations(unit, 2)]
    assert found.percent == (
        pytest.approx(100 * sum(a == b for a, b in pairs) / len(pairs)) if pairs else None
    )
    # Alpha from its definition: what two answers to one question differ by, over what any two differ by.
    everything = [value for unit in several for value in unit]
    chance = [a != b for a, b in itertools.permutations(everything, 2)]
    if not chance or not any(chance):
        assert found.alpha is None
        return
    observed = sum((a != b) / (len(u) - 1) for u in several for a, b in itertools.permutations(u, 2)) / len(
        everything
    )
    assert found.alpha == pytest.approx(1 - observed / (sum(chance) / len(chance)))


def test_kinds_are_not_compared_with_each_other() -> None:
    names = agreement_of([["right", "right"], ["wrong", "right"]])
    pairs = agreement_of([["same", "same"], ["different", "different"]])
    both = pooled([names, pairs])
    assert (names.percent, pairs.alpha, both.percent) == (50, 1, 75)
    # Names: n D_o = 2, n D_e = 6/3; pairs: 0 and 8/3.
    assert both.alpha == pytest.approx(1 - 2 / (2 + 8 / 3))
