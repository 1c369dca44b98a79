"""A review under way: what is shown, what was answered, and the verdicts that go to disk."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from threading import Lock
from typing import Any

from flows.review.answers import Answers
from flows.review.cards import Card
from flows.review.catalogue import ReviewedCatalogue
from flows.review.queue import Queue
from schemas.errors import PairxError, SettingsError
from schemas.foreign_text import printable
from tasks.reviews.verdicts import Said, record, review_of, withdrawn
from tasks.store.warehouse import Warehouse

LOOK_AGAIN = 3.0
"""Seconds after which the files of verdicts are looked at again."""
LOOK_FOR_RUNS = 20.0
"""Seconds after which a page that is loaded, or has been idle, looks for a newer run."""
_RUNS = "all"


class Unknown(PairxError):
    """There is no such card, photo or verdict."""

    ends_the_run = False


class AnsweredMeanwhile(PairxError):
    """Somebody else answered the question while it was being looked at."""

    ends_the_run = False


class Session:
    """One server's review of a warehouse; any number of threads may use it.

    `catalogue`, `answers` and `queue` are those of the newest run; another run replaces all three.
    """

    def __init__(self, url: str) -> None:
        self.warehouse = Warehouse(url)
        self._lock, self._renewing = Lock(), Lock()
        self._runs = self._finished()
        self._show(ReviewedCatalogue(url))
        self._looked = self._looked_for_runs = time.monotonic()

    def refresh(self) -> None:
        """See what others answered, at most every `LOOK_AGAIN` seconds."""
        if time.monotonic() - self._looked > LOOK_AGAIN:
            self._looked = time.monotonic()
            self.answers.refresh()

    def renew(self) -> None:
        """Show the questions of a newer run where one has finished, looking at most every `LOOK_FOR_RUNS` seconds."""
        with self._renewing:
            if time.monotonic() - self._looked_for_runs < LOOK_FOR_RUNS:
                return
            self._looked_for_runs = time.monotonic()
            if (finished := self._finished()) != self._runs:
                self._show(ReviewedCatalogue(self.warehouse.url))
                self._runs = finished

    def _show(self, catalogue: ReviewedCatalogue) -> None:
        answers = Answers(self.warehouse, catalogue.photos)
        answers.refresh()
        # Requests under way go on with what they hold.
        self.catalogue, self.answers, self.queue = catalogue, answers, Queue(catalogue.cards, answers)

    def _finished(self) -> frozenset[str]:
        return frozenset(name for name in self.warehouse.shards("runs", _RUNS) if name.endswith("-finished"))

    def card(self, card_id: str) -> Card:
        """A card by its id; raises `Unknown`."""
        if card_id not in self.catalogue.cards:
            raise Unknown("there is no such card; a newer run may ask other questions: load the page again")
        return self.catalogue.cards[card_id]

    def photo(self, key: str) -> Mapping[str, Any]:
        """A row of `photos` by the key of its pictures; raises `Unknown`."""
        if key not in self.catalogue.by_key:
            raise Unknown("there is no such photo; load the page again")
        return self.catalogue.by_key[key]

    def answer(self, card_id: str, said: Said, seen: str | None) -> str:
        """Store a verdict and return its id; when this returns it is on disk.

        `seen` is the newest verdict on the card that the reviewer knew of. Where another person's has come
        since, nothing is stored and `AnsweredMeanwhile` is raised, once: whoever has seen it may answer, too.
        """
        card = self.card(card_id)
        review = review_of(card.question, said, self.catalogue.run_id, self.catalogue.state)
        if said.right_name in self.catalogue.counts and review.right_name is not None:
            review = replace(review, right_name=said.right_name)  # a name of the catalogue, sign by sign
        with self._lock:
            self.refresh()
            newest = next(iter(self.queue.said(card)), None)
            if newest is not None and newest["review_id"] != seen and newest["reviewer"] != review.reviewer:
                raise AnsweredMeanwhile("somebody else answered this card while you looked at it")
            record(self.warehouse, review)
            self.answers.add([review.row()])
        return review.review_id

    def undo(self, reviewer: str | None, review_id: str | None = None) -> str | None:
        """Take back a verdict of this reviewer, by default the newest; returns the card that asks again.

        None where the verdict belongs to no card of this run. Raises `Unknown` where there is none to take back.
        """
        with self._lock:
            self.answers.refresh()
            rows = self.answers.newest_by(reviewer)
            row = next((each for each in rows if review_id in (None, each["review_id"])), None)
            if row is None:
                raise Unknown("there is no verdict of yours to take back")
            review = self.answers.named(row["review_id"])
            assert review is not None
            card = self._card_of(row)
            taken = withdrawn(review)
            record(self.warehouse, taken)
            self.answers.add([taken.row()])
        return card

    def _card_of(self, row: Mapping[str, Any]) -> str | None:
        for name, card in self.catalogue.cards.items():
            if any(each["review_id"] == row["review_id"] for each in self.queue.said(card)):
                return name
        return None


def known_name(names: Mapping[str, int], text: str | None) -> str | None:
    """The name of the catalogue that a reviewer's text means, as the page shows it; else the text itself."""
    if text is None or text in names:
        return text
    alike = [name for name in names if printable(name) == text]
    if len(alike) > 1:
        raise SettingsError(
            f"{len(alike)} names of the catalogue look like this one", "give it in the catalogue"
        )
    return alike[0] if alike else text
