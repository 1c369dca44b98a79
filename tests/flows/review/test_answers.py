"""Answers held in memory are those that the view shows, whatever people said and took back."""

from __future__ import annotations

import random
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import duckdb
import pytest

from flows.review.answers import Answers
from flows.review.session import Session
from schemas.tables.reviews import Review
from schemas.views.wanted import install_wanted
from tasks.reviews.questions import ANSWERED
from tasks.reviews.verdicts import ANSWERS, BAD_PHOTO, Said, record, review_of, withdrawn
from tasks.store.warehouse import Warehouse


@pytest.mark.parametrize("seed", range(3))
def test_memory_agrees_with_the_view(session: Session, seed: int) -> None:
    draw = random.Random(seed)
    cards = list(session.catalogue.cards.values())
    given: list[Review] = []
    start = datetime(2026, 3, 1, tzinfo=UTC)
    for i in range(40):
        question = draw.choice(cards).question
        answer = draw.choice([*ANSWERS[question["asks"]], BAD_PHOTO])
        review = review_of(question, Said(answer, draw.choice(["ann", "bob", None])), "r", "s")
        if given and draw.random() < 0.3:
            review = withdrawn(draw.choice(given))
        if draw.random() < 0.2:  # it was about another chip or name
            review = replace(review, chip_a="old")
        if draw.random() < 0.1 and review.kind == "name":
            review = replace(review, identity_a="old")
        given.append(replace(review, at=start + timedelta(seconds=draw.randrange(30)), review_id=f"v{i:02}"))
    for review in given:
        record(session.warehouse, review)
    answers = Answers(session.warehouse, session.catalogue.photos)
    answers.refresh()
    with duckdb.connect(":memory:", config={"threads": 1}) as connection:
        install_wanted(connection, session.warehouse, {"reviews", "contradicted_reviews"})
        shown = connection.sql(ANSWERED).to_arrow_table().to_pylist()
    found = {(row["kind"], row["subject"], row["other"]): row["verdict"] for row in shown}
    assert len(found) > 3
    ours = {key: rows[0]["verdict"] for key in answers.questions() if (rows := answers.on(key))}
    assert ours == found


def test_only_new_files_are_read(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    question = next(iter(session.catalogue.cards.values())).question
    first, second = (review_of(question, Said("same", who), None, None) for who in ("ann", "bob"))
    record(session.warehouse, first)
    session.answers.refresh()
    record(session.warehouse, second)
    read: list[object] = []
    whole = Warehouse.read

    def reading(self: Warehouse, table: str, fingerprint: str, shards: set[str]) -> object:
        read.append(shards)
        return whole(self, table, fingerprint, shards)

    monkeypatch.setattr(Warehouse, "read", reading)
    for _ in range(2):
        session.answers.refresh()
    assert read == [{second.review_id}]
    assert session.answers.version == 2
    assert session.answers.reviewers() == ["ann", "bob"]
