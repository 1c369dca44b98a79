"""Verdicts that cannot all be true, each with the chain of verdicts that leads there.

Verdicts say of photos and names that they are one animal or two. What is one is joined by union-find; where a
verdict sets apart what the others join, the shortest chain of verdicts between the two is the explanation.
Nothing is resolved here: both sides are a person's.

A name is a node of its own, the animal that bears it. A verdict on names or on the parts of a name speaks for
all photos that it showed, except those that another verdict says are under the wrong name.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import duckdb

_STANDING = """
SELECT * FROM reviews WHERE applies AND verdict <> 'cannot_tell' ORDER BY "at", review_id, carried
"""
VIEWS = ("reviews", "photos")
"""The views that `standing` reads."""

Node = tuple[str, str]
"""A photo or a name: `("photo", id)` or `("name", name)`."""


@dataclass(frozen=True)
class Link:
    """What one verdict says of two nodes: that they are one animal (`same`), or two."""

    one: Node
    two: Node
    same: bool
    review_id: str


@dataclass(frozen=True)
class Contradiction:
    """Two nodes that one verdict sets apart and others join: the shortest chain of links, in its order.

    `involved` are all verdicts that take part in joining the two by any way, and the one that sets them apart.
    """

    apart: Link
    chain: tuple[Link, ...]
    involved: frozenset[str]

    @property
    def reviews(self) -> tuple[str, ...]:
        """The ids of the verdicts that contradict each other: those of the chain, then the one against it."""
        return tuple(dict.fromkeys([*(link.review_id for link in self.chain), self.apart.review_id]))

    def words(self) -> str:
        """The chain in one line: `a = A (r1) = b (r2), but a ≠ b (r3)`."""
        place, text = self.apart.one, self.apart.one[1]
        for link in self.chain:
            place = link.two if link.one == place else link.one
            text += f" = {place[1]} ({link.review_id})"
        return f"{text}, but {self.apart.one[1]} ≠ {self.apart.two[1]} ({self.apart.review_id})"


def standing(connection: duckdb.DuckDBPyConnection) -> list[dict[str, Any]]:
    """The rows of `reviews` to compare, from a connection with the `VIEWS`.

    Sides hold only photos that still bear the name that was asked about.
    """
    names = dict(connection.execute("SELECT photo_id, identity FROM photos").fetchall())
    rows: list[dict[str, Any]] = connection.sql(_STANDING).to_arrow_table().to_pylist()
    for row in rows:
        for side in "ab":
            photos = row[f"photos_{side}"]
            if photos is not None:
                row[f"photos_{side}"] = [p for p in photos if names.get(p) == row[f"identity_{side}"]]
    return rows


def links_of(reviews: Iterable[Mapping[str, Any]]) -> list[Link]:
    """What the rows of the view `reviews` say of photos and names."""
    rows = list(reviews)
    wrong = {(r["photo_a"], r["identity_a"]) for r in rows if (r["kind"], r["verdict"]) == ("name", "wrong")}
    return [link for row in rows for link in _links(row, wrong)]


def contradictions(links: Sequence[Link]) -> list[Contradiction]:
    """All pairs of nodes that a link sets apart and others join; the shortest chain of each."""
    forest: dict[Node, Node] = {}
    edges: dict[Node, dict[Node, list[Link]]] = defaultdict(lambda: defaultdict(list))
    for link in links:
        if link.same and link.one != link.two:
            forest[_root(forest, link.one)] = _root(forest, link.two)
            edges[link.one][link.two].append(link)
            edges[link.two][link.one].append(link)
    found: list[Contradiction] = []
    seen: set[tuple[frozenset[Node], str]] = set()
    for link in links:
        key = frozenset((link.one, link.two)), link.review_id
        if link.same or key in seen or _root(forest, link.one) != _root(forest, link.two):
            continue
        seen.add(key)
        chain = _shortest(edges, link.one, link.two)
        found.append(Contradiction(link, chain, _involved(edges, link) | {link.review_id}))
    return found


def _root(forest: dict[Node, Node], node: Node) -> Node:
    while (parent := forest.setdefault(node, node)) != node:
        forest[node] = forest.setdefault(parent, parent)  # halves the way
        node = parent
    return node


def _shortest(edges: Mapping[Node, Mapping[Node, list[Link]]], start: Node, end: Node) -> tuple[Link, ...]:
    """The links of a shortest way, by breadth; ties by the order in which the verdicts were given."""
    came: dict[Node, Link] = {}
    left = deque([start])
    while left and end not in came:
        node = left.popleft()
        for other, between in edges.get(node, {}).items():
            if other != start and other not in came:
                came[other] = between[0]
                left.append(other)
    chain: list[Link] = []
    while end != start:
        link = came[end]
        chain.append(link)
        end = link.one if link.two == end else link.two
    return tuple(reversed(chain))


def _involved(edges: Mapping[Node, Mapping[Node, list[Link]]], apart: Link) -> frozenset[str]:
    """The verdicts on any way between two nodes: of all that is joined to them, what is no dead end."""
    near: dict[Node, set[Node]] = {}
    left = [apart.one]
    while left:
        node = left.pop()
        if node not in near:
            near[node] = set(edges.get(node, ()))
            left += near[node]
    ends = {apart.one, apart.two}
    dead = [node for node, others in near.items() if len(others) < 2 and node not in ends]
    while dead:
        node = dead.pop()
        for other in near.pop(node):
            near[other].discard(node)
            if len(near[other]) == 1 and other not in ends:
                dead.append(other)
    return frozenset(
        link.review_id for node, others in near.items() for other in others for link in edges[node][other]
    )


def _links(row: Mapping[str, Any], wrong: set[tuple[str, str]]) -> list[Link]:
    kind, verdict, review = row["kind"], row["verdict"], row["review_id"]
    a, b = ("photo", row["photo_a"]), ("photo", row["photo_b"] or "")
    name_a, name_b = ("name", row["identity_a"] or ""), ("name", row["identity_b"] or "")

    def side(which: str, name: str | None) -> list[Node]:
        return [("photo", p) for p in row[f"photos_{which}"] or () if (p, name) not in wrong]

    def joined(nodes: Sequence[Node], to: Node) -> list[Link]:
        return [Link(node, to, True, review) for node in nodes]

    match kind, verdict:
        case ("pair", "same_animal") | ("copy", "copy"):
            return [Link(a, b, True, review)]
        case ("pair", "different_animals"):
            return [Link(a, b, False, review)]
        case ("name", "right"):
            return [Link(a, name_a, True, review)]
        case ("name", "wrong"):
            right = [Link(a, ("name", row["right_name"]), True, review)] if row["right_name"] else []
            return [Link(a, name_a, False, review), *right]
        case ("names", "one_animal"):
            sides = joined(side("a", row["identity_a"]), name_a) + joined(
                side("b", row["identity_b"]), name_b
            )
            return [Link(name_a, name_b, True, review), *sides]
        case ("names", "two_animals"):
            return [Link(name_a, name_b, False, review)]
        case ("split", "one_animal"):
            return joined(side("a", row["identity_a"]) + side("b", row["identity_a"]), name_a)
        case ("split", "two_animals"):
            first, second = side("a", row["identity_a"]), side("b", row["identity_a"])
            if not first or not second:
                return []
            return [
                *joined(first[1:], first[0]),
                *joined(second[1:], second[0]),
                Link(first[0], second[0], False, review),
            ]
    return []
