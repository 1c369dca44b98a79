"""Contradictions: the chains are those that a naive closure finds, and each link of a chain is a verdict."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.reviews.contradictions import Link, contradictions, links_of

NODES = [("photo", name) for name in "abcdef"]
LINKS = st.lists(
    st.tuples(st.integers(0, 5), st.integers(0, 5), st.sampled_from([True, True, False])), max_size=12
).map(lambda rows: [Link(NODES[a], NODES[b], same, f"r{i}") for i, (a, b, same) in enumerate(rows) if a != b])


def closure(links: list[Link]) -> set[tuple[Any, Any]]:
    """All pairs of nodes that are one, by trying every way."""
    one = {(n, n) for n in NODES} | {p for k in links if k.same for p in ((k.one, k.two), (k.two, k.one))}
    while more := {(a, d) for (a, b), (c, d) in itertools.product(one, one) if b == c} - one:
        one |= more
    return one


def simple_ways(links: list[Link], start: Any, end: Any, used: frozenset[Any]) -> list[tuple[Link, ...]]:
    if start == end:
        return [()]
    found = []
    for link in links:
        if link.same and start in (link.one, link.two):
            other = link.two if link.one == start else link.one
            if other not in used:
                found += [(link, *rest) for rest in simple_ways(links, other, end, used | {other})]
    return found


@given(LINKS)
@settings(max_examples=200, deadline=None)
def test_contradictions_are_those_of_the_closure_with_a_shortest_chain(links: list[Link]) -> None:
    one = closure(links)
    expected = {link.review_id for link in links if not link.same and (link.one, link.two) in one}
    found = contradictions(links)
    assert {each.apart.review_id for each in found} == expected
    for each in found:
        ways = simple_ways(links, each.apart.one, each.apart.two, frozenset([each.apart.one]))
        assert each.chain in ways
        assert len(each.chain) == min(map(len, ways))
        on_a_way = {link.review_id for way in ways for link in way} | {each.apart.review_id}
        assert on_a_way <= each.involved
        assert set(each.reviews) <= each.involved


def row(number: int, kind: str, verdict: str, a: str, b: str = "", **more: Any) -> dict[str, Any]:
    return {
        "review_id": f"r{number}", "kind": kind, "verdict": verdict, "photo_a": a, "photo_b": b or None,
        "identity_a": None, "identity_b": None, "photos_a": None, "photos_b": None, "right_name": None, **more,
    }  # fmt: skip


AB = {"identity_a": "A", "identity_b": "B", "photos_a": ["a1", "a2"], "photos_b": ["b1", "b2"]}
NN = {"identity_a": "N", "identity_b": "N", "photos_a": ["n1", "n2"], "photos_b": ["n3"]}


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        (
            [row(1, "pair", "same_animal", "a", "b"), row(2, "pair", "same_animal", "b", "c"), row(3, "pair", "different_animals", "a", "c")],
            "a = b (r1) = c (r2), but a ≠ c (r3)",
        ),
        (
            [row(1, "name", "right", "a", identity_a="A"), row(2, "name", "right", "b", identity_a="A"), row(3, "pair", "different_animals", "a", "b")],
            "a = A (r1) = b (r2), but a ≠ b (r3)",
        ),
        (
            [row(1, "names", "one_animal", "a1", "b1", **AB), row(2, "pair", "different_animals", "a2", "b2")],
            "a2 = A (r1) = B (r1) = b2 (r1), but a2 ≠ b2 (r2)",
        ),
        (
            [row(1, "copy", "copy", "a", "b"), row(2, "name", "wrong", "a", identity_a="A"), row(3, "name", "right", "b", identity_a="A")],
            "a = b (r1) = A (r3), but a ≠ A (r2)",
        ),
        (
            [row(1, "split", "two_animals", "n1", "n3", **NN), row(2, "pair", "same_animal", "n2", "n3")],
            "n1 = n2 (r1) = n3 (r2), but n1 ≠ n3 (r1)",
        ),
        (
            [row(1, "split", "one_animal", "n1", "n3", **NN), row(2, "pair", "different_animals", "n1", "n3")],
            "n1 = N (r1) = n3 (r1), but n1 ≠ n3 (r2)",
        ),
        (
            [
                row(1, "names", "two_animals", "a1", "b1", **AB),
                row(2, "name", "wrong", "x", identity_a="C", right_name="A"),
                row(3, "name", "right", "x2", identity_a="B"),
                row(4, "copy", "copy", "x", "x2"),
            ],
            "A = x (r2) = x2 (r4) = B (r3), but A ≠ B (r1)",
        ),
    ],
)  # fmt: skip
def test_each_kind_of_contradiction_is_told_by_its_chain(rows: list[dict[str, Any]], words: str) -> None:
    (found,) = contradictions(links_of(rows))
    assert found.words() == words


@pytest.mark.parametrize(
    "rows",
    [
        # A photo under the wrong name is not spoken for by a verdict on that name.
        [row(1, "names", "one_animal", "a1", "b1", **AB), row(2, "name", "wrong", "a2", identity_a="A"), row(3, "pair", "different_animals", "a2", "b2")],
        [row(1, "copy", "no_copy", "a", "b"), row(2, "pair", "same_animal", "a", "b")],
        [row(1, "name", "wrong", "a", identity_a="A", right_name="B"), row(2, "names", "two_animals", "a1", "b1", **AB)],
        [row(1, "photo", "bad", "a"), row(2, "name", "right", "a", identity_a="A")],
    ],
)  # fmt: skip
def test_what_can_all_be_true_is_no_contradiction(rows: list[dict[str, Any]]) -> None:
    assert contradictions(links_of(rows)) == []


def test_what_leads_nowhere_is_not_involved() -> None:
    links = links_of(
        [
            row(1, "pair", "same_animal", "a", "b"),
            row(2, "pair", "different_animals", "a", "b"),
            row(3, "pair", "same_animal", "b", "c"),
            row(4, "pair", "same_animal", "c", "d"),
        ]
    )
    (found,) = contradictions(links)
    assert found.involved == {"r1", "r2"}


def test_long_chains_take_no_recursion() -> None:
    links = [Link(("photo", str(i)), ("photo", str(i + 1)), True, f"r{i}") for i in range(20_000)]
    (found,) = contradictions([*links, Link(("photo", "0"), ("photo", "20000"), False, "x")])
    assert len(found.chain) == 20_000
    assert len(found.reviews) == 20_001
