"""People's verdicts: the append-only table `reviews`, and the closed sets of questions and answers.

A verdict is about pictures and names, so it holds under all settings and lies in one partition,
`REVIEW_PARTITION`. Nothing is ever removed: to take a verdict back is to add a later one, `withdrawn`. The
view `reviews` shows the latest verdict on every question.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

import pyarrow as pa

from schemas.tables.columns import F64, I32, STRING, Table, column, required

REVIEW_PARTITION = "all"
STRINGS = pa.list_(STRING)
VERDICTS: Mapping[str, tuple[str, ...]] = {
    "pair": ("same_animal", "different_animals", "cannot_tell"),
    "name": ("right", "wrong", "cannot_tell"),
    "copy": ("copy", "no_copy", "cannot_tell"),
    "names": ("one_animal", "two_animals", "cannot_tell"),
    "split": ("one_animal", "two_animals", "cannot_tell"),
    "photo": ("bad", "good"),
}
"""Kind of question -> its answers.

The questions: do two photos show one animal, is a photo's name right, are two photos one picture, are two
names one animal, is one name two animals, is a photo good enough to tell an animal by.
"""
_OF_SIDES = ("names", "split")
_NAMING = {("name", "wrong"), ("names", "one_animal"), ("split", "two_animals")}
OF_ONE_PHOTO = ("name", "photo")
"""Kinds of questions about a single photo; all others show two."""
WITHDRAWN = "withdrawn"
"""An answer to any question, which takes back the earlier answer."""

REVIEWS = Table(
    "reviews",
    "one row per verdict of a person on a pair, a photo's name or a copy; the latest on each question counts",
    ("review_id",),
    pa.schema(
        [
            required("review_id", STRING, "random id that the verdict was given when it was made"),
            required("at", pa.timestamp("us", tz="UTC"), "when the verdict was given"),
            column(
                "reviewer", STRING, "who gave it, in whatever form the reviewer chose; null when not said"
            ),
            required("kind", STRING, f"what was asked: {', '.join(VERDICTS)}"),
            required(
                "verdict",
                STRING,
                "; ".join(f"{kind}: {', '.join(said)}" for kind, said in VERDICTS.items())
                + f"; any: {WITHDRAWN}",
            ),
            column("pair_id", STRING, "the pair of photos and chips; null for a single photo"),
            required("photo_a", STRING, "the photo, or the first of two (photo_a < photo_b)"),
            column("photo_b", STRING, "the second photo; null for a single photo"),
            required("chip_a", STRING, "chip of photo_a that was shown"),
            column("chip_b", STRING, "chip of photo_b that was shown; null for a single photo"),
            column(
                "identity_a", STRING, "name of photo_a when it was shown: the name that kind name asks about"
            ),
            column("identity_b", STRING, "name of photo_b when it was shown; null for a single photo"),
            column(
                "photos_a",
                STRINGS,
                "kinds names and split: all photos of photo_a's side when it was shown; null otherwise",
            ),
            column(
                "photos_b",
                STRINGS,
                "kinds names and split: all photos of photo_b's side when it was shown; null otherwise",
            ),
            column(
                "right_name",
                STRING,
                "the name that the reviewer gives: with verdict wrong that of the photo, with one_animal of names that of both, with "
                "two_animals of split that of photo_b's side; null when not known",
            ),
            column("proposed_name", STRING, "name that the program proposed for the blamed photo"),
            column("note", STRING, "what the reviewer wrote"),
            column("run_id", STRING, "run whose rows were shown"),
            column("state", STRING, "catalogue state of that run"),
            column(
                "suspect_kind", STRING, "kind of the suspect that led to the question; null when none did"
            ),
            column("rank", I32, "its rank in that run"),
            column(
                "probability", F64, "probability of the suspicion or the pair that was known then, in [0, 1]"
            ),
        ]
    ),
)


@dataclass(frozen=True)
class Review:
    """One verdict as a row of `reviews`; raises `ValueError` for what answers no question of `VERDICTS`."""

    review_id: str
    at: datetime
    kind: str
    verdict: str
    photo_a: str
    chip_a: str
    photo_b: str | None = None
    chip_b: str | None = None
    pair_id: str | None = None
    identity_a: str | None = None
    identity_b: str | None = None
    photos_a: tuple[str, ...] | None = None
    photos_b: tuple[str, ...] | None = None
    right_name: str | None = None
    proposed_name: str | None = None
    reviewer: str | None = None
    note: str | None = None
    run_id: str | None = None
    state: str | None = None
    suspect_kind: str | None = None
    rank: int | None = None
    probability: float | None = None

    def __post_init__(self) -> None:
        answers = (*VERDICTS.get(self.kind, ()), WITHDRAWN)
        if self.kind not in VERDICTS or self.verdict not in answers:
            raise ValueError(f"{self.kind!r} is not answered by {self.verdict!r}; there are {dict(VERDICTS)}")
        self._check_photos()
        self._check_names()
        if self.at.tzinfo is None:
            raise ValueError("at has a time zone")

    def _check_photos(self) -> None:
        second = (self.photo_b, self.chip_b, self.pair_id)
        if self.kind in OF_ONE_PHOTO:
            if any(value is not None for value in (*second, self.identity_b)):
                raise ValueError(f"a verdict of kind {self.kind} is about one photo")
        elif any(value is None for value in second) or self.photo_a >= str(self.photo_b):
            raise ValueError(
                "a verdict on two photos has both with their chips and their pair_id, photo_a < photo_b"
            )
        sides = (self.photos_a, self.photos_b)
        if self.kind not in _OF_SIDES:
            if sides != (None, None):
                raise ValueError("photos_a and photos_b go with the kinds names and split")
        elif self.photo_a not in (self.photos_a or ()) or self.photo_b not in (self.photos_b or ()):
            raise ValueError("photos_a and photos_b hold all photos of either side, those shown among them")

    def _check_names(self) -> None:
        one, two = self.identity_a, self.identity_b
        if self.kind == "name" and one is None:
            raise ValueError("a verdict on a name says which name it is about: identity_a")
        if self.kind == "names" and (one is None or two is None or one == two):
            raise ValueError("a verdict on two names has two: identity_a and identity_b")
        if self.kind == "split" and (one is None or one != two):
            raise ValueError("a verdict on one name has it twice: as identity_a and as identity_b")
        if self.right_name is not None and (self.kind, self.verdict) not in _NAMING:
            raise ValueError(
                "right_name goes with wrong, with names that are one, or with a name that is two"
            )

    def row(self) -> dict[str, Any]:
        """The row of the table."""
        return asdict(self)


REVIEW_TABLES = (REVIEWS,)
