"""What an explanation has learned from a few photos of noise, for tests that go through all of them."""

from __future__ import annotations

from pairx_engine.explanations import NamedChip, State, Subject, Trained, explanation_named
from tests.pairx_engine.small_networks import random_chip


def learned(method: str, subject: Subject, photos: int = 6) -> State | None:
    """The state of that method, None if it need not learn."""
    explanation = explanation_named(method)
    if not isinstance(explanation, Trained):
        return None
    chips = (random_chip(100 + seed) for seed in range(photos))
    return explanation.train(subject, [NamedChip(chip, f"animal {i % 3}") for i, chip in enumerate(chips)])
