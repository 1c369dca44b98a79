"""How one pair stands among a warehouse's pairs: which share of those of one name, and of two, it exceeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tasks.sql.stored_photos import query
from tasks.store.warehouse import Warehouse

SCORES = {
    "cosine": "cosine",
    "match_coverage": "coverage",
    "inverted_residual_mean": "inverted residual mean",
    "probability": "probability",
}
"""Columns that are compared, and what they are called in a sentence."""
_PAIRS = "pair_scores AS p LEFT JOIN (SELECT pair_id, probability FROM judgements) AS j USING (pair_id)"
_STORED = (
    f"SELECT pair_id, same_identity, {', '.join(SCORES)} FROM {_PAIRS} WHERE photo_a = $a AND photo_b = $b"  # noqa: S608  # constants
)
_COUNTS = ", ".join(f"count({name}), count(*) FILTER ({name} < ${name})" for name in SCORES)
_STANDING = f"""
SELECT same_identity, {_COUNTS}
FROM {_PAIRS}
WHERE same_identity IS NOT NULL AND NOT (photo_a = $a AND photo_b = $b)
GROUP BY same_identity
"""  # noqa: S608  # constants
_RUN = "SELECT scores_fingerprint, layer FROM current_run"
_NAMES = {True: "one name", False: "two names"}


@dataclass(frozen=True)
class StoredPair:
    """A scored pair of the newest run: its id, whether both photos have one name, and its scores by column."""

    pair_id: str
    same_identity: bool | None
    scores: Mapping[str, float | None]


@dataclass(frozen=True)
class Standing:
    """Among pairs of one name or of two: how many have a score, and how many of these have a lower one."""

    score: str
    same_identity: bool
    pairs: int
    below: int

    @property
    def text(self) -> str:
        """It in words; whole percents are never rounded up to all, nor down to none."""
        share = 100 * self.below / self.pairs
        rounded = min(max(round(share), 1), 99) if 0 < self.below < self.pairs else round(share)
        return f"{rounded} % of {self.pairs} pairs of {_NAMES[self.same_identity]}"


def scored_as(place: Warehouse, fingerprint: str, layer: str) -> bool:
    """Whether the newest run stored its scores under this fingerprint and ranks by this layer."""
    return query(place, _RUN, {}) == [(fingerprint, layer)]


def stored_pair(place: Warehouse, photo_a: str, photo_b: str) -> StoredPair | None:
    """The pair of two photos as the newest run scored it, at the layer that ranks; None if it did not."""
    rows = query(place, _STORED, {"a": photo_a, "b": photo_b})
    return StoredPair(rows[0][0], rows[0][1], dict(zip(SCORES, rows[0][2:], strict=True))) if rows else None


def standings(
    place: Warehouse, scores: Mapping[str, float | None], photos: tuple[str, str] = ("", "")
) -> list[Standing]:
    """How these scores stand among current pairs with known names, at the layer that ranks.

    `photos` are the ids of the pair itself, which is not compared with itself. Scores that are None or absent
    are left out, and so are kinds of pairs of which none has the score.
    """
    values = {name: scores.get(name) for name in SCORES}
    rows = query(place, _STANDING, values | {"a": photos[0], "b": photos[1]})
    counts = {bool(same): found for same, *found in rows}
    return [
        Standing(name, same, counts[same][2 * i], counts[same][2 * i + 1])
        for i, name in enumerate(SCORES)
        for same in (True, False)
        if values[name] is not None and same in counts and counts[same][2 * i]
    ]


def in_words(found: Sequence[Standing], scores: Mapping[str, float | None]) -> list[str]:
    """A sentence for each score, such as "coverage 0.213: above 93 % of 40 pairs of one name, ..."."""
    lines = []
    for name, called in SCORES.items():
        if texts := [one.text for one in found if one.score == name]:
            lines.append(f"{called} {scores[name]:.3f}: above {', '.join(texts)}")
    return lines
