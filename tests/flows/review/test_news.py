"""The filter by what is new since a run: the server's cards against the view, and runs to choose from."""

from __future__ import annotations

import pytest

from flows.review.session import Session
from tasks.store.warehouse import Warehouse
from tests.flows.review.conftest import client_of
from tests.flows.review.warehouses import TWO_ANIMALS, TWO_NAMES, earlier_runs


def asked(session: Session, **wanted: object) -> list[str]:
    """What the cards that the server then lists ask, in order; of photos' names the photo."""
    answer = client_of(session).post("/api/queue", json=wanted)
    assert answer.status_code == 200, answer.text
    cards = [session.card(each) for each in answer.json()["ids"]]
    return [card.blamed if card.question["asks"] == "name" else card.question["asks"] for card in cards]


@pytest.fixture
def session(warehouse: Warehouse) -> Session:
    """A review of a run before which others had the copy and both names, the copy alone, and nothing."""
    assert earlier_runs(warehouse, ["copy", TWO_NAMES, TWO_ANIMALS], ["copy"], []) == ["r0-1", "r0-2", "r0-3"]
    return Session(warehouse.url)


def test_only_what_is_new_since_a_run_is_listed(session: Session) -> None:
    everything = ["copy", "split", "a0", "names", "b2", "d0"]
    assert asked(session) == everything
    assert asked(session, since="r0-1") == ["a0", "b2", "d0"]
    assert asked(session, since="r0-2") == everything[1:]
    assert asked(session, since="r0-3") == everything
    assert asked(session, since="r0-2", kinds=["wrong_name"], least=0.65) == ["a0", "b2"]


def test_what_is_new_and_was_answered_is_listed_among_the_answers(session: Session) -> None:
    client = client_of(session)
    card = client.post("/api/queue", json={"since": "r0-1"}).json()["ids"][0]
    assert client.post("/api/verdict", json={"card": card, "key": "different"}).status_code == 200
    assert asked(session, since="r0-1") == ["b2", "d0"]
    assert asked(session, since="r0-1", answered="") == ["a0"]


def test_runs_to_choose_from_are_the_finished_ones_before(session: Session) -> None:
    earlier = client_of(session).get("/api/start").json()["earlier"]
    assert [each["run"] for each in earlier] == ["r0-1", "r0-2", "r0-3"]
    assert earlier[0]["at"].startswith("2026-01-08T03:00")
    for unknown in ("r1", "r9", "'; DROP TABLE runs; --"):
        refused = client_of(session).post("/api/queue", json={"since": unknown})
        assert (refused.status_code, "no such earlier run" in refused.json()["message"]) == (400, True)


def test_a_first_run_offers_no_news(warehouse: Warehouse) -> None:
    assert client_of(Session(warehouse.url)).get("/api/start").json()["earlier"] == []
