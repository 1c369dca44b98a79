"""What a card asks in words, and what each answer means.

Words come in parts, so that a name, whatever it holds, stands apart from the sentence around it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from schemas.foreign_text import printable

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Word:
    """A part of a sentence: the page's own words, or with `name` a text of the catalogue."""

    text: str
    name: bool = False


@dataclass(frozen=True)
class Choice:
    """One button: the key of the answer, what it says, and what comes of it.

    `answer` is that of `tasks.reviews.verdicts.ANSWERS`; `right_name` is the name that goes with it.
    """

    key: str
    answer: str
    label: str
    effect: Sequence[Word]
    right_name: str | None = None


def question_words(question: Row) -> list[Word]:
    """The sentence above the photos for a row of the view `questions`."""
    kind, one, two = question["asks"], question["identity_a"], question["identity_b"]
    if kind == "name":
        blamed, own, partner = _sides_of_name(question)
        if partner == own:
            return _words("Is ", _n(blamed), " really ", _n(own), ", as the other photo is?")
        return _words("Is ", _n(blamed), ", called ", _n(own), ", rather ", _n(partner), "?")
    if kind == "copy":
        return _words("Are these two one picture, filed under ", _n(one), " and ", _n(two), "?")
    if kind == "names":
        return _words("Are ", _n(one), " and ", _n(two), " one animal?")
    if kind == "split":
        return _words("Is ", _n(one), " two animals, one on either side?")
    return _words("Do both photos show one animal?")


def choices(question: Row) -> list[Choice]:
    """What can be said of the two photos shown: same and different."""
    kind, one, two = question["asks"], question["identity_a"], question["identity_b"]
    if kind == "name":
        return _of_name(question)
    if kind == "copy":
        return [
            Choice("same", "same", "One picture", _words("one picture under two names")),
            Choice("different", "different", "Two pictures", _words("two pictures")),
        ]
    if kind == "names":
        return [
            Choice("same", "same", "One animal", _words(_n(one), " and ", _n(two), " are one animal")),
            Choice("different", "different", "Two animals", _words(_n(one), " and ", _n(two), " stay two")),
        ]
    if kind == "split":
        count = len(question["photos_b"] or ())
        return [
            Choice("same", "same", "One animal", _words(_n(one), " stays one animal")),
            Choice(
                "different",
                "different",
                "Two animals",
                _words(f"{count} photo{'s' * (count != 1)} of the second side leave ", _n(one)),
            ),
        ]
    return [
        Choice("same", "same", "Same animal", _words("one animal")),
        Choice("different", "different", "Different", _words("two animals")),
    ]


def naming(question: Row) -> Choice | None:
    """The answer that takes a name which the reviewer gives; None where no name is asked for."""
    kind, one = question["asks"], question["identity_a"]
    if kind == "name":
        blamed, _, _ = _sides_of_name(question)
        return Choice("other", "other", "Other name", _words(_n(blamed), " shows another animal, called"))
    if kind == "names":
        return Choice("other", "same", "Other name", _words("they are one animal, called"))
    if kind == "split":
        return Choice(
            "other", "different", "Other name", _words("two of ", _n(one), ": the second side is called")
        )
    return None


def verdict_words(row: Row) -> str:
    """What a stored verdict says, in a word or two; a name that goes with it is apart."""
    return {
        "same_animal": "one animal",
        "different_animals": "two animals",
        "cannot_tell": "cannot tell",
        "right": "the name is right",
        "wrong": "the name is wrong",
        "copy": "one picture",
        "no_copy": "two pictures",
        "one_animal": "one animal",
        "two_animals": "two animals",
        "bad": "bad photo",
        "good": "good photo",
    }.get(str(row["verdict"]), str(row["verdict"]))


def _of_name(question: Row) -> list[Choice]:
    _, own, partner = _sides_of_name(question)
    stays, goes = _words("stays ", _n(own)), _words("becomes ", _n(partner))
    if partner == own:
        # The only photo to compare with has the photo's own name.
        leaves = _words("is not ", _n(own))
        return [
            Choice("same", "different", "Same animal", stays),
            Choice("different", "other", "Different", leaves),
        ]
    return [
        Choice("same", "same", "Same animal", goes, partner if partner != question["other_name"] else None),
        Choice("different", "different", "Different", stays),
    ]


def _sides_of_name(question: Row) -> tuple[str, str | None, str | None]:
    """The photo whose name is asked about, its name, and the name of the other photo."""
    blamed = question["blamed_photo"] or question["photo_a"]
    own, partner = question["identity_a"], question["identity_b"]
    return (blamed, own, partner) if blamed == question["photo_a"] else (blamed, partner, own)


def _n(name: str | None) -> Word:
    return Word(printable(name or "unknown"), True)


def _words(*parts: str | Word) -> list[Word]:
    return [Word(part) if isinstance(part, str) else part for part in parts]
