"""The whole judgement of a catalogue: pairs, photos and errors, each in the light of the others."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import expit

from pairx_engine.judgement.calibration import Reliability, reliability
from pairx_engine.judgement.inputs import Pairs, Photos
from pairx_engine.judgement.pair_model import PairJudgement, judge_pairs
from pairx_engine.judgement.photo_model import Errors, PhotoJudgement, judge_photos
from pairx_engine.judgement.voices import Voices, voices

PASSES = 3
"""The first takes every name at its word; each later one learns less from photos whose names the last one doubts."""


@dataclass(frozen=True, eq=False)
class Judged:
    """What was made of a catalogue's evidence; see the parts."""

    pairs: PairJudgement
    heard: Voices
    photos: PhotoJudgement
    errors: Errors
    reliability: Reliability


def judge_evidence(photos: Photos, pairs: Pairs) -> Judged:
    """Judge pairs and names; deterministic, and whatever the order of the pairs."""
    doubt = np.zeros(len(photos))
    for _ in range(PASSES):
        judged = judge_pairs(photos, pairs, doubt)
        heard = voices(photos, pairs, judged.log_odds, doubt)
        found, errors = judge_photos(photos, heard)
        doubt = np.nan_to_num(found.probability)
    reliable = reliability(photos, pairs, expit(judged.log_odds))
    return Judged(judged, heard, found, errors, reliable)
