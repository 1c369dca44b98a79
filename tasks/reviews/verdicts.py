"""A person's answer to a question becomes a row of `reviews`, stored before anybody goes on.

Each verdict is a file of its own, so that a crash loses none and two people never write one file. Nothing is
changed or removed: to undo is to add a row.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

from schemas.errors import SettingsError
from schemas.tables.reviews import OF_ONE_PHOTO, REVIEW_PARTITION, WITHDRAWN, Review
from tasks.store.warehouse import Warehouse

ANSWERS: Mapping[str, Mapping[str, str]] = {
    "pair": {"same": "same_animal", "different": "different_animals", "unsure": "cannot_tell"},
    "name": {"same": "wrong", "other": "wrong", "different": "right", "unsure": "cannot_tell"},
    "copy": {"same": "copy", "different": "no_copy", "unsure": "cannot_tell"},
    "names": {"same": "one_animal", "different": "two_animals", "unsure": "cannot_tell"},
    "split": {"same": "one_animal", "different": "two_animals", "unsure": "cannot_tell"},
}
"""Kind of question -> what a person says of the two photos shown -> the verdict.

Of a photo's name `same` means that the photo shows the animal of the proposed name, `different` that its own
name stays, and `other` that it shows neither animal.
"""
BAD_PHOTO = "bad"
"""An answer to every question: the photo that it is about is too bad to tell."""
_SPACES = re.compile(r"\s+")
MOST_LETTERS = 2000
"""Of a note; names are bounded as those of a catalogue."""
_MOST_NAME = 200


@dataclass(frozen=True)
class Said:
    """What a person said: `answer` is a key of `ANSWERS` or `BAD_PHOTO`.

    `right_name` is the name that the reviewer gives instead of the proposed one. `bad_photo` names one of the
    two photos shown; without it the blamed one is meant.
    """

    answer: str
    reviewer: str | None = None
    note: str | None = None
    right_name: str | None = None
    bad_photo: str | None = None


def review_of(question: Mapping[str, Any], said: Said, run_id: str | None, state: str | None) -> Review:
    """The review of a row of the view `questions`, with a new id and the present time.

    Raises `SettingsError` for an answer that the question does not have, and for a bad photo that it did not
    show.
    """
    reviewer = one_line(said.reviewer, _MOST_NAME)
    common = {
        "review_id": uuid4().hex,
        "at": datetime.now(UTC),
        "reviewer": reviewer,
        "note": one_line(said.note, MOST_LETTERS),
        "run_id": run_id,
        "state": state,
        "suspect_kind": question["kind"],
        "rank": question["rank"],
        "probability": question["probability"],
        "proposed_name": question["other_name"],
    }
    if said.answer == BAD_PHOTO:
        return Review(kind="photo", verdict="bad", **_one(question, said.bad_photo), **common)
    kind = question["asks"]
    answers = ANSWERS.get(kind, {})
    if said.answer not in answers:
        raise SettingsError(
            f"{said.answer!r} is no answer to a question of kind {kind!r}",
            f"answers are {', '.join([*answers, BAD_PHOTO])}",
        )
    verdict = answers[said.answer]
    shown = _one(question, None) if kind in OF_ONE_PHOTO else _both(question)
    return Review(
        kind=kind, verdict=verdict, right_name=_right_name(question, said, verdict), **shown, **common
    )


def withdrawn(review: Review) -> Review:
    """The review that takes another one back, by the same person."""
    return replace(
        review, review_id=uuid4().hex, at=datetime.now(UTC), verdict=WITHDRAWN, right_name=None, note=None
    )


def record(warehouse: Warehouse, review: Review) -> None:
    """Store a review; when this returns it is on disk, or in the object store."""
    warehouse.write("reviews", REVIEW_PARTITION, review.review_id, [review.row()])


def _one(question: Mapping[str, Any], photo: str | None) -> dict[str, Any]:
    """The photo that the question blames, or the one given, which must be one of both."""
    wanted = photo or question["blamed_photo"] or question["photo_a"]
    for side in "ab":
        if question[f"photo_{side}"] == wanted:
            return {
                "photo_a": wanted,
                "chip_a": question[f"chip_{side}"],
                "identity_a": question[f"identity_{side}"],
            }
    raise SettingsError(f"the question does not show the photo {wanted!r}", "name one of its two photos")


def _both(question: Mapping[str, Any]) -> dict[str, Any]:
    names = ("pair_id", "photo_a", "photo_b", "chip_a", "chip_b", "identity_a", "identity_b")
    sides = {
        side: None if question[side] is None else tuple(question[side]) for side in ("photos_a", "photos_b")
    }
    return {name: question[name] for name in names} | sides


def _right_name(question: Mapping[str, Any], said: Said, verdict: str) -> str | None:
    if verdict not in ("wrong", "one_animal", "two_animals"):
        return None
    given = one_line(said.right_name, _MOST_NAME)
    if question["asks"] == "name":
        return given or (question["other_name"] if said.answer == "same" else None)
    wanted = {"names": "one_animal", "split": "two_animals"}[question["asks"]]
    return given if verdict == wanted else None


def one_line(text: str | None, most: int) -> str | None:
    """A person's text on one line; None where nothing is left."""
    if text is None:
        return None
    line = _SPACES.sub(" ", "".join(c for c in text if c.isprintable() or c.isspace())).strip()
    if len(line) > most:
        raise SettingsError(f"a text of {len(line)} letters is too long", f"use at most {most}")
    return line or None
