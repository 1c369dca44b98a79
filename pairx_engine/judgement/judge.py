"""The whole judgement of a catalogue: pairs, photos and errors, where each informs the others."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from pairx_engine.judgement.any_pair import AnyPair
from pairx_engine.judgement.background import background
from pairx_engine.judgement.calibration import Reliability, reliability
from pairx_engine.judgement.inputs import Pairs, Photos
from pairx_engine.judgement.pair_model import PairJudgement, judge_pairs
from pairx_engine.judgement.photo_model import Errors, PhotoJudgement, doubts_of, judge_photos
from pairx_engine.judgement.sensitivity import sensitivity_of, widened
from pairx_engine.judgement.voices import Doubts, Voices, voices

LEAST_DOUBT = (0.3, 0.05, 0.02)
"""Least probability, in each pass, that a name is wrong.

A later pass also knows the doubts that the pass before found. The first value is high. Where many names are
wrong, a first pass that trusts them would learn that photos of one animal look different, and the wrong names
would stay hidden.
"""


@dataclass(frozen=True, eq=False)
class Judged:
    """What the judgement made of a catalogue's evidence; see the parts."""

    pairs: PairJudgement
    heard: Voices
    photos: PhotoJudgement
    errors: Errors
    reliability: Reliability


def judge_evidence(photos: Photos, pairs: Pairs, vectors: NDArray[np.floating]) -> Judged:
    """Judge pairs and names; `vectors` (N, D) are the photos' embeddings of length 1.

    The order of the pairs does not matter.
    """
    doubts = Doubts.none(len(photos))
    for further, least in enumerate(LEAST_DOUBT, 1):
        # What a person said is right is not doubted.
        judged = judge_pairs(photos, pairs, np.maximum(doubts.wrong, np.where(photos.verdict == 1, 0, least)))
        usual = background(photos, pairs, judged, vectors)
        heard = voices(photos, pairs, judged.log_odds, doubts, usual)
        if further < len(LEAST_DOUBT):
            doubts = doubts_of(photos, heard)
    found, errors = judge_photos(photos, heard)
    doubt = np.nan_to_num(found.probability)
    told = sensitivity_of(AnyPair(photos, pairs, judged, vectors), usual, doubt, found.noise)
    errors = widened(errors, told, int((photos.known & ~found.undefended).sum()))
    reliable = reliability(photos, pairs, expit(judged.log_odds))
    return Judged(judged, heard, found, errors, reliable)
