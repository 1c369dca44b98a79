"""What a card of the report asks, its buttons, and the row of a CSV that each answer is.

The page itself adds who answered and when, so that `pairx review import` reads what it downloads.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from schemas.tables.reviews import VERDICTS, WITHDRAWN
from tasks.pages.review.words import Choice, Word, choices, question_words

COLUMNS = ("kind", "subject", "other", "answer", "reviewer", "at", "note", "pair_id")
"""Columns of the CSV that the page downloads."""
_BAD = VERDICTS["photo"][0]
_CANNOT_TELL = Choice("unsure", "unsure", "Unsure", [Word("cannot tell")])


@dataclass(frozen=True)
class Card:
    """A question for somebody who knows the animals.

    `sentence` and the effects of `choices` come in words; `bad` says that the left or the right photo is too bad
    to tell, and `blamed` is the key of the one that the question is about. `data` is JSON of ASCII letters alone, so that nothing in it is changed on its
    way: `id` tells the question from others, whichever run asks it, `rows` holds for each answer its columns
    without reviewer, time and note, `bad` the keys of bad photos, the blamed one first.
    """

    sentence: Sequence[Word]
    choices: Sequence[Choice]
    bad: Sequence[Choice]
    blamed: str
    data: str


def card_of(question: Mapping[str, Any], key: tuple[str, str, str | None]) -> Card:
    """The card of a row of the view `questions`, which its `key` (`tasks.reviews.questions`) tells from others."""
    kind, subject, other = key
    # Of other kinds than names the other name says which was proposed.
    named = other or question["other_name"]
    pair = question["pair_id"]
    offered = [*choices(question), _CANNOT_TELL]
    rows = {
        choice.key: _row(kind, subject, choice.right_name or named, choice.answer, pair) for choice in offered
    }
    bad = [Choice("bad-a", _BAD, "Left is bad", ()), Choice("bad-b", _BAD, "Right is bad", ())]
    for choice, photo in zip(bad, (question["photo_a"], question["photo_b"]), strict=True):
        rows[choice.key] = _row("photo", photo, None, _BAD, None)
    blamed_first = bad[::-1] if question["blamed_photo"] == question["photo_b"] else bad
    keys = [choice.key for choice in blamed_first]
    text = json.dumps([kind, subject, other])
    name = hashlib.blake2b(text.encode(), digest_size=8).hexdigest()
    data = json.dumps({"id": name, "rows": rows, "bad": keys})
    return Card(question_words(question), offered, bad, keys[0], data)


def page_values(warehouse: str) -> str:
    """What the page's script is told besides: what its answers are kept under, and what a CSV consists of."""
    place = hashlib.blake2b(warehouse.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()
    return json.dumps({"place": place, "columns": COLUMNS, "withdrawn": WITHDRAWN})


def _row(kind: str, subject: str, other: str | None, answer: str, pair: str | None) -> dict[str, str]:
    return {"kind": kind, "subject": subject, "other": other or "", "answer": answer, "pair_id": pair or ""}
