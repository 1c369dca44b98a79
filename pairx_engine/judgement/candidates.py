"""Which animal a photo without a name may show: names by probability, or a new animal."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from pairx_engine.judgement.inputs import UNKNOWN, Photos
from pairx_engine.judgement.photo_model import Noise, true_names
from pairx_engine.judgement.voices import Voices

MOST = 10
"""Answers kept per photo; a new animal is always among them."""


@dataclass(frozen=True)
class Candidate:
    """An answer: `photo`, `rank` from 1, `name` (-1: a new animal), and its probability."""

    photo: int
    rank: int
    name: int
    probability: float


def candidates(photos: Photos, heard: Voices, noise: Noise) -> list[Candidate]:
    """The likeliest answers of every photo without a name, likeliest first.

    A new animal comes after a name that is equally likely.
    """
    # Without the floor: it would spread a photo that looks like no other over all names, and that is what a
    # new animal looks like.
    true = true_names(heard, replace(noise, floor=-np.inf))
    named, new = true.named, true.new
    found = []
    starts = np.searchsorted(heard.photo, np.arange(len(photos) + 1))
    for photo in np.flatnonzero(~photos.known):
        part = slice(starts[photo], starts[photo + 1])
        answers = [(-float(p), 0, int(name)) for p, name in zip(named[part], heard.name[part], strict=True)]
        fresh = (-float(new[photo]), 1, UNKNOWN)
        answers = sorted(answers)[: MOST - 1]
        ranked = sorted([*answers, fresh])
        found += [
            Candidate(int(photo), rank, name, float(np.exp(-cost)))
            for rank, (cost, _, name) in enumerate(ranked, start=1)
        ]
    return found
