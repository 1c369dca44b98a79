"""How far probabilities can be believed.

Bins and errors by loops, and an isotonic fit that sees neither animal.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit
from sklearn.isotonic import IsotonicRegression

from pairx_engine.judgement.calibration import Bin, _isotonic, calibration_error, equal_bins, reliability
from pairx_engine.judgement.pair_model import judge_pairs
from tests.pairx_engine.judgement.drawn_evidence import drawn, some


@given(st.integers(0, 10_000), st.integers(1, 60))
@settings(max_examples=30)
def test_bins_are_of_equal_count_by_rising_probability(seed, n):
    random = np.random.default_rng(seed)
    stated, found = random.random(n).round(1), (random.random(n) < 0.5).astype(float)
    bins = equal_bins(stated, found)
    ranked = sorted(zip(stated, range(n), found, strict=True))
    sizes = [n // 10 + (i < n % 10) for i in range(10)]
    at = 0
    for size, b in zip([s for s in sizes if s], bins, strict=True):
        part = ranked[at : at + size]
        assert b.pairs == size
        assert b.stated == pytest.approx(sum(p for p, _, _ in part) / size)
        assert b.found == pytest.approx(sum(y for _, _, y in part) / size)
        at += size
    assert at == n
    expected = sum(b.pairs / n * abs(b.stated - b.found) for b in bins)
    assert calibration_error(bins) == pytest.approx(expected)


def test_the_calibration_error_weighs_bins_by_their_pairs():
    assert calibration_error((Bin(3, 0.2, 0.5), Bin(1, 0.9, 0.8))) == pytest.approx((3 * 0.3 + 0.1) / 4)


def test_reliability_is_asked_of_retrieved_pairs_of_known_names_that_are_two_pictures():
    found = drawn(0, 12, 4, unknown=0.2)
    random = np.random.default_rng(0)
    pairs = replace(found.pairs, same_picture=random.random(len(found.pairs)) < 0.1)
    stated = random.random(len(pairs))
    asked = [
        p
        for p in range(len(pairs))
        if (pairs.rank_first[p] or pairs.rank_second[p])
        and not pairs.same_picture[p]
        and None not in (found.names[pairs.first[p]], found.names[pairs.second[p]])
    ]
    same = {p: float(found.names[pairs.first[p]] == found.names[pairs.second[p]]) for p in asked}
    told = reliability(found.photos, pairs, stated)
    assert sum(b.pairs for b in told.bins) == len(asked)
    assert told.brier == pytest.approx(np.mean([(stated[p] - same[p]) ** 2 for p in asked]))
    assert told.error == pytest.approx(calibration_error(told.bins))


def test_the_isotonic_fit_sees_neither_animal_of_a_pair():
    found = drawn(0, 15, 4, unknown=0.1)
    photos, pairs = found.photos, found.pairs
    same = (photos.names[pairs.first] == photos.names[pairs.second]).astype(float)
    asked = pairs.retrieved & photos.known[pairs.first] & photos.known[pairs.second]
    fitted = _isotonic(photos, pairs, same, asked)
    usual = same[asked].mean()
    random = np.random.default_rng(0)
    for p in np.flatnonzero(asked)[::25]:
        folds = {int(photos.folds[pairs.first[p]]), int(photos.folds[pairs.second[p]])}
        train = [
            q
            for q in np.flatnonzero(asked)
            if not folds & {int(photos.folds[pairs.first[q]]), int(photos.folds[pairs.second[q]])}
        ]
        share = same[train].mean()
        weight = [usual / share if same[q] else (1 - usual) / (1 - share) for q in train]
        model = IsotonicRegression(y_min=0, y_max=1, out_of_bounds="clip").fit(
            pairs.cosine[train], same[train], sample_weight=weight
        )
        assert fitted[p] == pytest.approx(model.predict(pairs.cosine[[p]])[0])
        # Which of the pairs of its animals are of one name changes nothing.
        turned = same.copy()
        hidden = np.setdiff1d(np.flatnonzero(asked), train)
        turned[hidden] = random.permutation(turned[hidden])
        assert (turned != same).any()
        assert _isotonic(photos, pairs, turned, asked)[p] == pytest.approx(fitted[p])


def test_the_judgement_is_about_as_reliable_as_it_says_and_no_worse_than_the_cosine_alone():
    found = drawn(0, noise=1.3)
    judged = judge_pairs(found.photos, found.pairs, np.zeros(len(found.photos)))
    told = reliability(found.photos, found.pairs, expit(judged.log_odds))
    assert told.error < 0.05
    assert told.brier < told.brier_cosine + 0.005
    assert [b.stated for b in told.bins] == sorted(b.stated for b in told.bins)


def test_without_pairs_nothing_is_known():
    found = drawn(0, 3, 2)
    none = some(found.pairs, np.zeros(0, dtype=np.int64))
    told = reliability(found.photos, none, np.zeros(0))
    assert told.bins == ()
    assert np.isnan([told.error, told.brier, told.brier_cosine]).all()
