"""Names that the judgement makes wrong itself: which names, and with what pairs.

Also what they tell about the number of wrong names.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from pairx_engine.judgement import sensitivity
from pairx_engine.judgement.any_pair import AnyPair
from pairx_engine.judgement.background import background
from pairx_engine.judgement.inputs import UNKNOWN, Photos
from pairx_engine.judgement.judge import judge_evidence
from pairx_engine.judgement.pair_model import judge_pairs
from pairx_engine.judgement.photo_model import Errors, judge_photos, learned_from
from pairx_engine.judgement.sensitivity import MOST, Sensitivity, sensitivity_of, widened
from pairx_engine.judgement.voices import Doubts, voices
from tests.pairx_engine.judgement.drawn_evidence import drawn


def asked(found):
    """What `judge_evidence` asks for, after a single pass."""
    photos, pairs = found.photos, found.pairs
    judged = judge_pairs(photos, pairs, np.full(len(photos), 0.05))
    usual = background(photos, pairs, judged, found.vectors)
    named, _ = judge_photos(photos, voices(photos, pairs, judged.log_odds, Doubts.none(len(photos)), usual))
    return sensitivity_of(
        AnyPair(photos, pairs, judged, found.vectors), usual, np.nan_to_num(named.probability), named.noise
    )


def test_where_animals_look_different_nearly_all_is_told_and_where_they_do_not_nothing():
    told = asked(drawn(0, noise=0.6, wrong=0.05))
    assert told.share > 0.75
    assert 0.65 < told.least < told.share
    assert asked(drawn(0, noise=1.1, wrong=0.05)).share < told.share + 0.05
    untold = asked(drawn(0, noise=30.0, wrong=0.05))
    assert untold.share < 0.2
    assert untold.least < 0.1


def test_it_is_one_and_the_same_each_time():
    found = drawn(1, noise=1.1)
    assert asked(found) == asked(found)


@pytest.mark.parametrize("share", [0.05, 0.2])
def test_the_interval_holds_the_truth_also_where_nothing_can_be_told(share):
    found = drawn(2, noise=30.0, wrong=share)
    errors = judge_evidence(found.photos, found.pairs, found.vectors).errors
    assert errors.low <= found.wrong.sum() <= errors.high
    assert errors.high > 0.5 * len(found.photos)
    assert errors.sensitivity < 0.2


def test_the_interval_is_that_of_the_parameters_over_the_least_share():
    errors = Errors(3.0, 1.0, 8.0)
    assert widened(errors, Sensitivity(0.9, 0.8), 100) == Errors(3.0, 1.0, 10.0, 0.9)
    assert widened(errors, Sensitivity(0.1, 0.05), 100).high == 100
    assert widened(errors, Sensitivity(0.1, 0.0), 100).high == 100
    assert (
        widened(errors, Sensitivity(1.0, 0.99), 5).high == 8
    )  # what was found in the first place is not taken back
    assert widened(errors, Sensitivity(np.nan, np.nan), 100) is errors


def test_names_are_made_wrong_one_of_each_and_only_those_that_were_right():
    found = drawn(0, 20, 5, species=2, unknown=0.1)
    n = len(found.photos)
    doubt, verdict = np.zeros(n), np.full(n, UNKNOWN)
    doubt[::3], verdict[1::3] = 0.9, 1
    photos = replace(found.photos, verdict=verdict)
    moved, named = sensitivity._made_wrong(photos, learned_from(photos), doubt, np.random.default_rng(3))
    assert 0 < len(moved) <= np.ceil(0.1 * photos.known.sum())
    assert len(set(photos.names[moved].tolist())) == len(moved)
    for photo in range(n):
        if photo not in moved:
            assert named.names[photo] == photos.names[photo]
            assert named.folds[photo] == photos.folds[photo]
            continue
        assert photos.known[photo]
        assert photo % 3 == 2
        given = np.flatnonzero(photos.known & (photos.names == named.names[photo]))
        assert named.names[photo] != photos.names[photo]
        assert (photos.species[given] == photos.species[photo]).all()
        assert named.folds[photo] == photos.folds[given[0]]


def test_a_photo_with_a_new_name_is_compared_with_the_nearest_of_it_and_no_pair_twice():
    found = drawn(0, 6, 30, near=5)
    photos, pairs = found.photos, found.pairs
    moved, named = sensitivity._made_wrong(
        photos, learned_from(photos), np.zeros(len(photos)), np.random.default_rng(0)
    )
    first, second = sensitivity._new_pairs(named, pairs, moved, found.vectors)
    there = set(zip(pairs.first.tolist(), pairs.second.tolist(), strict=True))
    expected = set()
    for photo in moved.tolist():
        own = [o for o in range(len(photos)) if named.names[o] == named.names[photo] and o != photo]
        own.sort(key=lambda o: -float(found.vectors[o] @ found.vectors[photo]))
        expected |= {(min(o, photo), max(o, photo)) for o in own[:20]}
    got = list(zip(first.tolist(), second.tolist(), strict=True))
    assert set(got) == expected - there
    assert len(got) == len(set(got))
    both = sensitivity._with(pairs, first, second)
    assert len(both) == len(pairs) + len(got)
    assert (both.retrieved[len(pairs) :] == False).all()  # noqa: E712  # an array


@pytest.mark.parametrize("names", [["A"] * 6, ["A", None, None], [*"ABCDEF"], ["A", "A", "B"]])
def test_where_no_name_can_be_made_wrong_nothing_is_said(names):
    species = ["cow"] * len(names) if names != ["A", "A", "B"] else ["cow", "cow", "lion"]
    photos = Photos.of(names, species)
    moved = (
        sensitivity._made_wrong(photos, learned_from(photos), np.zeros(len(names)), np.random.default_rng(0))[
            0
        ]
        if photos.n_names > 1
        else []
    )
    assert len(moved) == 0


def test_of_many_names_some_are_enough(monkeypatch):
    monkeypatch.setattr(sensitivity, "MOST", 3)
    photos = drawn(0, 40, 3).photos
    moved, _ = sensitivity._made_wrong(
        photos, learned_from(photos), np.zeros(len(photos)), np.random.default_rng(0)
    )
    assert len(moved) == 3 < MOST
