"""Viewpoints: the side of an animal that a photo shows, in one spelling of a closed set.

The set is wbia's and MiewID's: up or down, front or back, left or right, or several of these in that order
without a space, such as `frontleft` and `upbackright`. Photos of two viewpoints are never compared where
pairs keep to one side, so one odd spelling would hide pairs. What is not understood counts as unknown, which
hides none.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Sequence

_AXES = (("up", "down"), ("front", "back"), ("left", "right"))
_WORDS = {
    "up": ("up", "top", "dorsal", "above"),
    "down": ("down", "bottom", "ventral", "below", "underside", "belly"),
    "front": ("front", "frontal", "anterior"),
    "back": ("back", "rear", "posterior", "behind"),
    "left": ("left", "lhs"),
    "right": ("right", "rhs"),
}
_LETTERS = {"l": "left", "r": "right"}
"""Letters that stand for a side by themselves; b or t would be the back or both, the top or the tail."""
_FILLERS = ("side", "sided", "hand", "flank", "view", "lateral", "profile")
_SIDE_OF = {word: side for side, words in _WORDS.items() for word in words}
_WORD = re.compile("|".join(sorted((*_SIDE_OF, *_FILLERS), key=len, reverse=True)))
_SHOWN, _SHOWN_LETTERS = 20, 40


def viewpoint_of(text: str) -> str | None:
    """The viewpoint that a text in any spelling means, or None where it is not understood."""
    sides: set[str] = set()
    for token in re.split(r"[\W_]+", text.lower()):
        if token in _LETTERS:
            sides.add(_LETTERS[token])
        elif _WORD.sub("", token):
            return None
        else:
            sides.update(_SIDE_OF[word] for word in _WORD.findall(token) if word in _SIDE_OF)
    if any(sides.issuperset(axis) for axis in _AXES):
        return None
    return "".join(side for axis in _AXES for side in axis if side in sides) or None


def viewpoint_in(keywords: str) -> str | None:
    """The viewpoint that keywords name, or None; they are separated by commas, semicolons or bars.

    Only a keyword that says nothing else is read: `left flank`, but not `left ear torn`. Those that contradict
    each other say nothing.
    """
    found = (viewpoint_of(keyword) for keyword in re.split(r"[,;|]", keywords))
    return viewpoint_of(" ".join(each for each in found if each is not None))


def with_keywords(
    viewpoints: Sequence[str | None], keywords: Sequence[str | None]
) -> tuple[list[str | None], list[str]]:
    """The viewpoints, taken from keywords where there is none; and a remark on how many."""
    sides = {text: viewpoint_in(text) for text in set(keywords) if text is not None}
    found = [
        sides.get(words or "") if viewpoint is None else viewpoint
        for viewpoint, words in zip(viewpoints, keywords, strict=True)
    ]
    new = Counter(
        after for before, after in zip(viewpoints, found, strict=True) if before is None and after is not None
    )
    parts = ", ".join(f"{side} {count}" for side, count in sorted(new.items()))
    return found, [f"viewpoints taken from keywords: {parts}"] if new else []


def read_viewpoints(texts: Sequence[str | None]) -> tuple[list[str | None], list[str]]:
    """The viewpoints of all rows, and remarks on what was mapped to what and what was not understood."""
    counts = Counter(text for text in texts if text is not None)
    found = {text: viewpoint_of(text) for text in counts}
    mapped: dict[str, list[str]] = defaultdict(list)
    for text, viewpoint in sorted(found.items()):
        if viewpoint is not None and text.lower() != viewpoint:
            mapped[viewpoint].append(text)
    notes = []
    if mapped:
        parts = [f"{_listed(spellings)} as {viewpoint}" for viewpoint, spellings in sorted(mapped.items())]
        notes.append(f"viewpoints are read in one spelling: {'; '.join(parts)}")
    unread = sorted(text for text, viewpoint in found.items() if viewpoint is None)
    if unread:
        words = ", ".join(side for axis in _AXES for side in axis)
        photos = sum(counts[text] for text in unread)
        notes.append(
            f"viewpoints that are not understood count as unknown (photos: {photos}): {_listed(unread)}; understood"
            f" are {words} and several of them, such as frontleft"
        )
    return [None if text is None else found[text] for text in texts], notes


def _listed(texts: Sequence[str]) -> str:
    shown = [
        repr(text if len(text) <= _SHOWN_LETTERS else f"{text[: _SHOWN_LETTERS - 1]}…")
        for text in texts[:_SHOWN]
    ]
    more = f" and {len(texts) - _SHOWN} more" if len(texts) > _SHOWN else ""
    return ", ".join(shown) + more
