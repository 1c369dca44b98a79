"""A curator who knows the truth: answers the first cards of the review as `truth.csv` says."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flows.demo.run import Truth
from flows.review.queue import Wanted
from flows.review.session import Session
from tasks.reviews.verdicts import Said

WHO = "script"


@dataclass(frozen=True)
class Sitting:
    """How many cards were answered, how many of them were real errors, and seconds per answer."""

    answered: int
    errors: int
    seconds: float


def sitting(warehouse: Path, truth: Truth, most: int) -> Sitting:
    """Answer the first `most` open cards, the likeliest errors first."""
    session = Session(str(warehouse))
    done: set[str] = set()
    errors = 0
    begun = time.perf_counter()
    try:
        while len(done) < most:
            following = [each for each in session.queue.line(Wanted()).ids if each not in done]
            if not following:
                break
            question = session.card(following[0]).question
            said, error = answer(question, truth)
            session.answer(following[0], said, None)
            done.add(following[0])
            errors += error
    finally:
        session.catalogue.close()
    return Sitting(len(done), errors, (time.perf_counter() - begun) / max(1, len(done)))


def answer(question: Mapping[str, Any], truth: Truth) -> tuple[Said, bool]:
    """What the truth says to a row of `questions`, and whether something is wrong there."""
    a, b = question["photo_a"], question["photo_b"]
    match question["asks"]:
        case "name":
            blamed = question["blamed_photo"]
            own, right = question["identity_a" if blamed == a else "identity_b"], truth.animal[blamed]
            if right == own:
                return Said("different", WHO), False
            if right == question["other_name"]:
                return Said("same", WHO), True
            return Said("other", WHO, right_name=right), True
        case "copy":
            copied = "copy" in (truth.planted[a], truth.planted[b])
            return Said("same" if copied else "different", WHO), copied
        case kind:
            one, two = (_most(question[f"photos_{side}"], truth) for side in "ab")
            return Said("same" if one == two else "different", WHO), (one == two) == (kind == "names")


def _most(photos: Collection[str], truth: Truth) -> str:
    """The animal that most of these photos show."""
    return Counter(sorted(truth.animal[photo] for photo in photos)).most_common(1)[0][0]
