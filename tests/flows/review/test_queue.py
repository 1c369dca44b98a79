"""Which card comes next: filters, orders, what an answer does to others, and the advice to stop."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from flows.review.cards import Card
from flows.review.queue import AHEAD, ANSWERED, ECHO, LATER, OPEN, Queue, Wanted, _stop
from flows.review.session import Session
from tasks.reviews.verdicts import Said


def named(session: Session) -> dict[str, Card]:
    return {
        card.blamed if card.question["asks"] == "name" else card.question["asks"]: card
        for card in session.catalogue.cards.values()
    }  # type: ignore[return-value]


def answer(session: Session, name: str, said: str, **more: Any) -> dict[str, str]:
    """Answer a card, and return where those that are not simply open or answered stand now."""
    cards = named(session)
    session.answer(cards[name].card_id, Said(said, "ann", **more), None)
    standings = session.queue.standings()
    return {
        each: standings[card.card_id]
        for each, card in cards.items()
        if standings[card.card_id] in (LATER, ECHO)
    }


def order(session: Session, **wanted: Any) -> list[str]:
    names = {card.card_id: name for name, card in named(session).items()}
    return [names[each] for each in session.queue.line(Wanted(**wanted)).ids]


def test_a_photo_with_a_wrong_name_takes_its_other_cards_down(session: Session) -> None:
    assert answer(session, "a0", "same") == {"d0": LATER}
    assert order(session) == ["copy", "split", "names", "b2", "d0"]
    session.undo("ann")
    assert set(session.queue.standings().values()) == {OPEN}


def test_a_name_that_is_right_moves_nothing(session: Session) -> None:
    assert answer(session, "a0", "different") == {}


def test_a_bad_photo_takes_its_other_cards_down(session: Session) -> None:
    assert answer(session, "d0", "bad", bad_photo="a0") == {"d0": LATER}
    # a0 is blamed by its own card, which is therefore answered.
    assert order(session) == ["copy", "split", "names", "b2", "d0"]


def test_names_that_are_one_animal_answer_their_echo(session: Session) -> None:
    assert answer(session, "names", "same") == {"b2": ECHO}
    assert order(session) == ["copy", "split", "a0", "d0"]


def test_names_that_are_two_leave_their_photos_alone(session: Session) -> None:
    assert answer(session, "names", "different") == {}


def test_a_split_name_puts_its_photos_off(session: Session) -> None:
    # c2 is shown by b2's card but not blamed there; no photo of C is.
    assert answer(session, "split", "different") == {}
    b2 = named(session)["b2"]
    assert b2.blamed == "b2"


@pytest.mark.parametrize(
    ("wanted", "left"),
    [
        ({"kinds": ["wrong_name"]}, ["a0", "b2", "d0"]),
        ({"kinds": []}, []),
        ({"least": 0.75, "most": 0.95}, ["a0", "names"]),
        ({"name": "d"}, ["d0"]),
        ({"name": "B1"}, ["a0"]),
        ({"species": ["zebra"]}, ["copy", "split", "a0", "names", "b2", "d0"]),
        ({"species": ["cow"]}, []),
    ],
)
def test_filters_leave_what_was_asked_for(session: Session, wanted: dict[str, Any], left: list[str]) -> None:
    assert order(session, filters=wanted) == left


def test_answered_cards_are_found_by_who_answered(session: Session) -> None:
    answer(session, "a0", "same")
    cards = named(session)
    session.answer(cards["copy"].card_id, Said("same", "bob"), None)
    assert order(session, answered="") == ["copy", "a0"]
    assert order(session, answered="ann") == ["a0"]
    assert order(session, answered="eve") == []
    assert "a0" not in order(session)


def test_what_decides_most_is_doubtful_and_concerns_many(session: Session) -> None:
    cards = named(session)
    # .8 x .2 x 3 photos of either name; .6 x .4, .7 x .3, .9 x .1 x 1; the split's smaller side has one photo.
    decides = {name: card.decides for name, card in cards.items()}
    assert decides == pytest.approx(
        {"names": 0.48, "d0": 0.24, "b2": 0.21, "a0": 0.09, "split": 0.0196, "copy": 0.995 * 0.005}
    )
    assert order(session, order="decides") == ["names", "d0", "b2", "a0", "split", "copy"]


def test_the_errors_that_are_left_are_the_sum_of_probabilities(session: Session) -> None:
    assert session.queue.line(Wanted()).errors == pytest.approx(0.995 + 0.98 + 0.9 + 0.8 + 0.7 + 0.6)
    answer(session, "a0", "same")
    assert session.queue.line(Wanted()).errors == pytest.approx(0.995 + 0.98 + 0.8 + 0.7 + 0.6)


def test_advice_to_stop_looks_at_the_next_cards(session: Session) -> None:
    card = named(session)["a0"]
    cards = [
        Card(card.question | {"rank": i, "probability": p}) for i, p in enumerate([0.9] * 10 + [0.1] * 40)
    ]
    chances = np.array([each.probability for each in cards])
    # Of the next 20 from card i < 10 on, 10 - i have .9: their mean is below .3 when (8 (10 - i) + 20) / 200 < .3.
    at = _stop(cards, chances, 0.3)
    assert at == cards[6].card_id
    assert AHEAD == 20
    assert _stop(cards, chances, 0.05) is None
    assert _stop(cards, chances, 0.0) is None
    assert _stop([], chances[:0], 0.5) is None
    assert order(session)[0] == "copy"


def test_a_card_that_came_back_is_open_until_it_is_answered_again(session: Session) -> None:
    answer(session, "a0", "different")
    card = named(session)["a0"]
    (said,) = session.queue.said(card)
    # As the view says where newer photos speak against that answer.
    came_back = replace(card, question={**card.question, "answered_at": said["at"]})
    queue = Queue({**session.catalogue.cards, card.card_id: came_back}, session.answers)
    assert queue.standings()[card.card_id] == OPEN
    answer(session, "a0", "different")
    assert queue.standings()[card.card_id] == ANSWERED
