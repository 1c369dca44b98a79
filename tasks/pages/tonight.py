"""The part of the report that says what the last run changed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True)
class NewSuspect:
    """That the suspect of a rank is new, and what about it is; with the probability of the run before, if any."""

    rank: int
    probability_then: float | None
    because: Sequence[str]


@dataclass(frozen=True)
class GoneSuspect:
    """A suspect of the run before that is none any more, and why."""

    kind: str
    blamed_photo: str | None
    identity_a: str | None
    identity_b: str | None
    photo_a: str
    photo_b: str
    probability: float
    because: str


@dataclass(frozen=True)
class ChangedName:
    """A photo that has another name; None is an unknown animal."""

    photo: str
    then: str | None
    now: str | None


@dataclass(frozen=True)
class ReportTonight:
    """What is new since the run `since`, None for a first run: all counts, and the first rows of each kind.

    `unknown`: new photos of unknown animals. `failed`: new photos that could not be compared.
    """

    counts: Mapping[str, int]
    since: str | None
    since_at: datetime | None
    unknown: int
    failed: int
    suspects: Sequence[NewSuspect] = ()
    gone: Sequence[GoneSuspect] = ()
    names: Sequence[ChangedName] = ()
