"""Which card comes next: filters, orders, what one answer does to others, and when to stop.

**The rule.** An answer about an animal changes what is worth asking next. It follows from all answers that
stand, whoever gave them, so an undo undoes it, too:

* a photo that is said to have a wrong name, or to be bad: other open cards that show it come *later*, after
  all others, since what they ask rests on it;
* two names that are one animal: open cards about a photo or a copy between just these two names are *echoes*
  of the same defect and are not asked in this session;
* a name that is two animals: open cards about single photos of that name come later; the split may answer
  them.

Nothing is stored for a card that comes later or is an echo: the next run asks again what is still doubtful.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from flows.review.answers import Answers
from flows.review.cards import Card, Key

AHEAD = 20
"""Cards over which the expected share of errors is taken for the advice to stop."""
OPEN, LATER, ECHO, ANSWERED = "open", "later", "echo", "answered"
ORDERS: Mapping[str, Callable[[Card], float]] = {
    "probability": lambda card: card.probability,
    "decides": lambda card: card.decides,
}
"""What cards are ordered by, falling: how likely the names are wrong, or how much an answer decides."""


def _of_names(card: Card, text: str) -> bool:
    return any(text.casefold() in name.casefold() for name in (*card.names, *card.photos))


FILTERS: Mapping[str, Callable[[Card, Any], bool]] = {
    "kinds": lambda card, kinds: card.kind in kinds,
    "species": lambda card, species: (card.species or "") in species,
    "least": lambda card, least: card.probability >= least,
    "most": lambda card, most: card.probability <= most,
    "name": _of_names,
    "new": lambda card, asked: (card.kind, *card.key) in asked,
}
"""Filters of cards by name; each is asked with the value that the page sent.

For `new` that is a run, and `flows.review.news` knows what was asked since.
"""


@dataclass(frozen=True)
class Wanted:
    """What a curator wants to see: filters by name, an order, and whose answers.

    `answered` is None for open cards, an empty text for all that anybody answered, or a reviewer's name.
    """

    filters: Mapping[str, Any] = field(default_factory=dict)
    order: str = "probability"
    answered: str | None = None
    stop_below: float = 0.0


@dataclass(frozen=True)
class Line:
    """Ids of cards in order, and what is to be expected of them.

    `errors` is the sum of probabilities of the cards listed; `stop_at` is the first card from which the mean
    probability of the next `AHEAD` falls below the share that was asked for.
    """

    ids: Sequence[str]
    errors: float
    stop_at: str | None


class Queue:
    """All cards of a run with their standings."""

    def __init__(self, cards: Mapping[str, Card], answers: Answers) -> None:
        self.cards = cards
        self._answers = answers
        self._by_photo: dict[str, list[str]] = defaultdict(list)
        self._by_names: dict[frozenset[str], list[str]] = defaultdict(list)
        self._by_key: dict[Key, list[str]] = defaultdict(list)
        for name, card in cards.items():
            self._by_key[card.key].append(name)
            for photo in dict.fromkeys(card.photos):
                self._by_photo[photo].append(name)
            if card.question["asks"] in ("name", "copy"):
                self._by_names[card.names].append(name)
        self._seen = -1
        self._standings: dict[str, str] = {}

    def standings(self) -> Mapping[str, str]:
        """Where every card stands by the answers that are known now."""
        version = self._answers.version
        if version != self._seen:
            self._standings, self._seen = self._computed(), version
        return self._standings

    def line(self, wanted: Wanted) -> Line:
        """The cards that a curator wants, in order; those that come later are last."""
        standings = self.standings()
        chosen = [
            card
            for name, card in self.cards.items()
            if self._shown(card, standings[name], wanted.answered)
            and all(FILTERS[each](card, value) for each, value in wanted.filters.items())
        ]
        by = ORDERS[wanted.order]
        chosen.sort(key=lambda card: (standings[card.card_id] == LATER, -by(card), card.question["rank"]))
        chances = np.array([card.probability for card in chosen])
        return Line(
            [card.card_id for card in chosen], float(chances.sum()), _stop(chosen, chances, wanted.stop_below)
        )

    def _shown(self, card: Card, standing: str, answered: str | None) -> bool:
        if answered is None:
            return standing in (OPEN, LATER)
        said = self.said(card)
        return bool(said) and (not answered or any(row["reviewer"] == answered for row in said))

    def said(self, card: Card) -> list[Mapping[str, Any]]:
        """What people said of a card, newest first: on its question, and of its photos that they are bad."""
        found = self._answers.on(card.key)
        for photo in card.photos:
            found += [row for row in self._answers.on(("photo", photo, None)) if row["verdict"] == "bad"]
        return sorted(found, key=lambda row: row["at"], reverse=True)

    def _computed(self) -> dict[str, str]:
        found = dict.fromkeys(self.cards, OPEN)
        # Only what was ever answered is looked at: the cards may be ten thousand.
        said = {key: rows for key in self._answers.questions() if (rows := self._answers.on(key))}
        bad = {key[1] for key, rows in said.items() if key[0] == "photo" and rows[0]["verdict"] == "bad"}
        blaming = {
            name for photo in bad for name in self._by_photo.get(photo, ()) if self.cards[name].blamed in bad
        }
        answered = (
            name
            for key, rows in said.items()
            for name in self._by_key.get(key, ())
            if _still_answers(rows[0], self.cards[name])
        )
        for name in (*blaming, *answered):
            found[name] = ANSWERED
        for key, rows in said.items():
            for name in self._by_key.get(key, ()):
                self._follow(self.cards[name], rows[0], found)
        for photo in bad:
            _mark(found, self._by_photo.get(photo, ()), LATER)
        return found

    def _follow(self, card: Card, row: Mapping[str, Any], found: dict[str, str]) -> None:
        """Apply the rule of this module's docstring for one answer."""
        match row["kind"], row["verdict"]:
            case "name", "wrong":
                _mark(found, self._by_photo.get(row["photo_a"], ()), LATER)
            case "names", "one_animal":
                names = frozenset((row["identity_a"], row["identity_b"]))
                _mark(found, self._by_names.get(names, ()), ECHO)
            case "split", "two_animals":
                photos = {*(row["photos_a"] or ()), *(row["photos_b"] or ())}
                own = [n for p in photos for n in self._by_photo.get(p, ()) if self.cards[n].blamed == p]
                _mark(found, own, LATER)


def _still_answers(row: Mapping[str, Any], card: Card) -> bool:
    """Whether the newest answer stands: not where newer photos spoke against it, so that the card came back."""
    against = card.question.get("answered_at")
    return against is None or bool(row["at"] > against)


def _mark(found: dict[str, str], names: Iterable[str], standing: str) -> None:
    """Give open cards a standing; an echo stays one."""
    for name in names:
        if found[name] in (OPEN, LATER):
            found[name] = standing


def _stop(chosen: Sequence[Card], chances: np.ndarray[Any, Any], below: float) -> str | None:
    if below <= 0 or not len(chosen):
        return None
    sums = np.concatenate([[0.0], np.cumsum(chances)])
    starts = np.arange(len(chances))
    ends = np.minimum(starts + AHEAD, len(chances))
    means = (sums[ends] - sums[starts]) / (ends - starts)
    low = np.flatnonzero(means < below)
    return chosen[int(low[0])].card_id if len(low) else None
