"""What the page is told of a card, as plain values for JSON.

Every text of the catalogue passes `printable`: the page sets it as text, and no sign in it turns what stands
beside it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

from flows.review.cards import Card
from flows.review.catalogue import MEASURES, ReviewedCatalogue, Row, picture_key
from flows.review.queue import Queue
from pairx_engine.photo.chips import PLAIN_CROP_BELOW
from schemas.foreign_text import printable, printable_lines
from schemas.sql.files import suspect_rules
from tasks.pages.review.words import Choice, Word, choices, naming, question_words, verdict_words

MEASURE_WORDS: Mapping[str, tuple[str, str]] = {
    "probability": ("One animal", "how likely both photos show one animal, by all evidence"),
    "cosine": ("Cosine", "how similar the model finds the two photos"),
    "match_coverage": (
        "Match coverage",
        "share of the model's relevance that lies in cells that match in both photos",
    ),
    "inverted_residual_mean": (
        "Inverted residual",
        "one over the mean distance of matched cells, in pixels, once one photo is laid onto the other",
    ),
}
"""What each measure is called, and what it says."""


def card_values(catalogue: ReviewedCatalogue, queue: Queue, card: Card) -> dict[str, Any]:
    """All that a card shows."""
    row = card.question
    rule = suspect_rules().get(card.kind)
    return {
        "id": card.card_id,
        "kind": card.kind,
        "label": rule.label if rule else card.kind,
        "asks": row["asks"],
        "rank": row["rank"],
        "probability": card.probability,
        "affected": card.affected,
        "drawn": row["pair_id"] in catalogue.drawn,
        "question": words(question_words(row)),
        "reason": printable_lines(row["reason"] or ""),
        "sides": {side: _side(catalogue, card, side) for side in "ab"},
        "choices": [choice_values(each) for each in choices(row)],
        "naming": None if (given := naming(row)) is None else choice_values(given),
        "measures": [_measure(catalogue, name, value) for name, value in catalogue.numbers(card).items()],
        **state_values(queue, card),
    }


def state_values(queue: Queue, card: Card) -> dict[str, Any]:
    """Where a card stands, and what people said of it, newest first."""
    return {
        "standing": queue.standings()[card.card_id],
        "said": [
            {
                "review_id": each["review_id"],
                "by": None if each["reviewer"] is None else printable(each["reviewer"]),
                "words": verdict_words(each),
                "right_name": None if each["right_name"] is None else printable(each["right_name"]),
                "note": None if each["note"] is None else printable(each["note"]),
                "photo": None if each["kind"] != "photo" else printable(each["photo_a"]),
                "at": each["at"].isoformat(),
            }
            for each in queue.said(card)
        ],
    }


def photo_values(photo: Row) -> dict[str, Any]:
    """A photo with what is known of it; the box is in shares of the whole photo, the turn in radians."""
    width, height = photo["width"] or 1, photo["height"] or 1
    x, y, w, h = photo["box"] or (0.0, 0.0, float(width), float(height))
    theta = float(photo["theta"]) if abs(photo["theta"]) >= PLAIN_CROP_BELOW else 0.0
    return {
        "key": picture_key(photo),
        "id": printable(photo["photo_id"]),
        "name": printable(photo["identity"] or "unknown"),
        "date": printable(photo["taken_at"] or ""),
        "viewpoint": printable(photo["viewpoint"] or ""),
        "encounter": printable(photo["encounter"] or ""),
        "path": printable(photo["path"]),
        "size": [width, height],
        "box": None if photo["box"] is None else [x, y, w, h],
        "theta": theta,
    }


def words(parts: Iterable[Word]) -> list[list[Any]]:
    """Parts of a sentence as pairs of text and whether it is a name."""
    return [[part.text, part.name] for part in parts]


def choice_values(choice: Choice) -> dict[str, Any]:
    """A button: its key, its label and what comes of it."""
    return {"key": choice.key, "label": choice.label, "effect": words(choice.effect)}


def _side(catalogue: ReviewedCatalogue, card: Card, side: str) -> dict[str, Any]:
    name, photo = card.question[f"identity_{side}"], card.question[f"photo_{side}"]
    part = card.question[f"photos_{side}"] if card.question["asks"] == "split" else None
    return {
        "photo": photo_values(catalogue.photos[photo]),
        "name": printable(name or "unknown"),
        "photos": catalogue.counts.get(name, 0),
        "part": None if part is None else len(part),
        "blamed": card.blamed == photo,
        "others": [photo_values(each) for each in catalogue.others(card, side)],
    }


def _measure(catalogue: ReviewedCatalogue, name: str, value: float | None) -> dict[str, Any]:
    assert name in MEASURES
    spread = catalogue.spreads.get(name)
    known = value is not None and math.isfinite(value)
    return {
        "name": name,
        "label": MEASURE_WORDS[name][0],
        "about": MEASURE_WORDS[name][1],
        "value": value if known else None,
        "below": spread.standing(value) if spread and known else None,
    }
