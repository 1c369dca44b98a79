"""What a card asks and what its buttons mean, above all where a photo's name is in doubt."""

from __future__ import annotations

from typing import Any

import pytest

from tasks.pages.review.words import choices, naming, question_words

NAME = {
    "asks": "name", "blamed_photo": "p1", "photo_a": "p1", "photo_b": "p2", "identity_a": "Own", "identity_b": "New",
    "other_name": "New", "photos_a": None, "photos_b": None,
}  # fmt: skip


def said(question: dict[str, Any]) -> list[tuple[str, str, str, str | None]]:
    return [
        (each.key, each.answer, "".join(word.text for word in each.effect), each.right_name)
        for each in choices(question)
    ]


def asked(question: dict[str, Any]) -> str:
    return "".join(word.text for word in question_words(question))


def test_the_photo_beside_it_has_the_proposed_name() -> None:
    assert asked(NAME) == "Is p1, called Own, rather New?"
    assert said(NAME) == [
        ("same", "same", "becomes New", None),
        ("different", "different", "stays Own", None),
    ]


def test_the_blamed_photo_may_stand_on_the_right() -> None:
    turned = NAME | {"blamed_photo": "p2", "identity_a": "New", "identity_b": "Own"}
    assert asked(turned) == "Is p2, called Own, rather New?"
    assert said(turned) == said(NAME)


def test_same_means_the_animal_that_is_shown_whatever_was_proposed() -> None:
    for proposed in (None, "Third"):
        other = NAME | {"other_name": proposed}
        assert said(other)[0] == ("same", "same", "becomes New", "New")


def test_beside_a_photo_of_its_own_name_same_means_that_the_name_is_right() -> None:
    alone = NAME | {"identity_b": "Own", "other_name": None}
    assert asked(alone) == "Is p1 really Own, as the other photo is?"
    assert said(alone) == [
        ("same", "different", "stays Own", None),
        ("different", "other", "is not Own", None),
    ]


@pytest.mark.parametrize(("kind", "answer"), [("name", "other"), ("names", "same"), ("split", "different")])
def test_a_name_is_asked_for_where_an_answer_can_hold_one(kind: str, answer: str) -> None:
    given = naming(NAME | {"asks": kind})
    assert given is not None
    assert given.answer == answer
    assert naming(NAME | {"asks": "copy"}) is None


def test_a_name_is_a_word_of_its_own_and_steers_nothing() -> None:
    hostile = question_words(NAME | {"asks": "names", "identity_a": "\u202e<b>"})
    assert [word.text for word in hostile if word.name] == ["\N{REPLACEMENT CHARACTER}<b>", "New"]
