"""One card: a question, what tells it from others, and how many photos its answer concerns."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from tasks.reviews.questions import key_of

Key = tuple[str, str, str | None]


@dataclass(frozen=True)
class Card:
    """A row of the view `questions` with the species of its photos."""

    question: Mapping[str, Any]
    species: str | None = None

    @cached_property
    def key(self) -> Key:
        """What tells the question from others, whichever run asks it."""
        return key_of(self.question)

    @cached_property
    def card_id(self) -> str:
        """16 hex digits that stay the same when the server starts again, and after another run."""
        text = json.dumps([self.question["kind"], *self.key])
        return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()

    @property
    def kind(self) -> str:
        """The kind of the suspect."""
        return str(self.question["kind"])

    @property
    def blamed(self) -> str | None:
        """The photo that may have the wrong name."""
        return self.question["blamed_photo"]

    @property
    def photos(self) -> tuple[str, str]:
        """The two photos shown."""
        return self.question["photo_a"], self.question["photo_b"]

    @cached_property
    def names(self) -> frozenset[str]:
        """The names that it is about."""
        listed = (self.question["identity_a"], self.question["identity_b"], self.question["other_name"])
        return frozenset(name for name in listed if name is not None)

    @property
    def probability(self) -> float:
        """That the names are wrong so; 0 where the rule does not say."""
        return float(self.question["probability"] or 0.0)

    @property
    def affected(self) -> int:
        """Photos whose name the answer may change: one, or those of the smaller side of names."""
        sides = [len(self.question[f"photos_{side}"] or ()) for side in "ab"]
        return max(1, min(sides))

    @property
    def decides(self) -> float:
        """How much an answer decides: p (1 - p) times the photos whose name it may change."""
        return self.probability * (1 - self.probability) * self.affected


def cards_of(questions: Iterable[Mapping[str, Any]], species: Mapping[str, str | None]) -> dict[str, Card]:
    """Cards by id, in the order of the questions; two rules that ask the same are two cards."""
    made = (Card(row, species.get(row["photo_a"]) or species.get(row["photo_b"])) for row in questions)
    found: dict[str, Card] = {}
    for card in made:
        found.setdefault(card.card_id, card)
    return found
