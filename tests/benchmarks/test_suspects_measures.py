"""Measures against their definitions, written as loops over all orders or all thresholds."""

from itertools import permutations

import numpy as np
import pytest
from sklearn.isotonic import IsotonicRegression
from sklearn.metrics import average_precision_score, brier_score_loss

from tests.benchmarks.suspects import calibration, measures, retrieval
from tests.benchmarks.suspects.photos import Pairs, folds

RNG = np.random.default_rng(0)


def test_average_precision_is_that_of_scikit_learn():
    for n in (3, 20, 50):
        truth = RNG.random(n) < 0.3
        truth[0] = True
        for score in (RNG.random(n), RNG.integers(0, 4, n).astype(float)):
            assert measures.average_precision(score, truth) == pytest.approx(
                average_precision_score(truth, score)
            )
    assert np.isnan(measures.average_precision(np.zeros(3), np.zeros(3, bool)))


def test_hits_are_expected_over_all_orders_of_equal_scores():
    score, truth = np.array([2.0, 1, 1, 1, 0]), np.array([0, 1, 1, 0, 1], bool)
    for first in range(1, 6):
        hits = []
        for order in permutations(range(5)):
            ranked = sorted(order, key=lambda i: -score[i])
            hits.append(truth[ranked[:first]].sum())
        assert measures.expected_hits(score, truth, first) == pytest.approx(np.mean(hits))
    found = measures.by_photo(score, truth)
    assert found["P@10"] == pytest.approx(0.3)
    assert found["R@N"] == pytest.approx(measures.expected_hits(score, truth, 3) / 3)


def test_echoes_are_rows_that_blame_nobody_new():
    rows = [[1], [1, 2], [2], [1], [], [3, 1], [3]]
    assert measures.echo_share(rows) == pytest.approx(3 / 7)
    truth = np.array([0, 1, 0, 1], bool)
    assert measures.distinct_found(rows, truth) == 2
    assert measures.by_row(rows, truth)["found@20"] == 2
    assert np.isnan(measures.echo_share([]))


def test_a_photo_has_the_score_of_its_best_row_and_equal_ones_keep_their_order():
    score = measures.scored_photos([([2], 0.9), ([0], 0.5), ([1], 0.5), ([2], 0.1)], 4)
    assert np.argsort(-score, kind="stable").tolist() == [2, 0, 1, 3]
    assert score[3] == -1
    assert score[0] == pytest.approx(0.5)


def test_expected_precision_and_intervals():
    expected, truth = np.array([0.9, 0.7, 0.2]), np.array([1, 0, 0], bool)
    assert measures.error_of_expected_precision(expected, truth, 2) == pytest.approx(0.7 - 1 / 2)
    assert measures.error_of_expected_precision(expected, truth, 50) == pytest.approx(0.2 - 1 / 3)
    assert [measures.holds(2, 5, n) for n in (1, 2, 5, 6)] == [0, 1, 1, 0]
    assert measures.share_closed(0.6, 0.5) == pytest.approx(0.2)
    assert np.isnan(measures.share_closed(1.0, 1.0))


def test_calibration_error_and_brier_score():
    p, truth = RNG.random(95), RNG.random(95) < 0.5
    order = sorted(range(95), key=lambda i: p[i])
    total, start = 0.0, 0
    for i in range(10):
        size = 95 // 10 + (i < 95 % 10)
        part = order[start : start + size]
        total += size * abs(np.mean([p[k] for k in part]) - np.mean([truth[k] for k in part]))
        start += size
    assert calibration.calibration_error(p, truth) == pytest.approx(total / 95)
    assert calibration.brier(p, truth) == pytest.approx(brier_score_loss(truth, p))
    tied = np.round(p, 1)
    means = np.array([truth[tied == v].mean() for v in tied])
    order = np.argsort(tied, kind="stable")
    parts = [order[i] for i in np.array_split(np.arange(95), 10)]
    expected = sum(len(i) * abs(tied[i].mean() - means[i].mean()) for i in parts) / 95
    assert calibration.calibration_error(tied, truth) == pytest.approx(expected)
    mixed = RNG.permutation(95)
    assert calibration.calibration_error(tied[mixed], truth[mixed]) == pytest.approx(expected)
    found = calibration.by_pair(np.where(np.arange(95) < 5, np.nan, p), truth)
    assert found["pairs"] == 90
    assert found["Brier"] == pytest.approx(calibration.brier(p[5:], truth[5:]))


def test_isotonic_calibration_saw_neither_animal():
    names = np.repeat([f"n{i}" for i in range(12)], 4).astype(object)
    a, b = np.triu_indices(len(names), 1)
    same = names[a] == names[b]
    cosine = RNG.normal(size=len(a)) + 2 * same
    ones = np.ones(len(a), bool)
    pairs = Pairs(a, b, cosine, ones, ones)
    got, fold = calibration.isotonic_of_cosine(pairs, names), folds(names)
    for p in RNG.choice(len(a), 20, replace=False):
        mine = {fold[a[p]], fold[b[p]]}
        learned = [q for q in range(len(a)) if not {fold[a[q]], fold[b[q]]} & mine]
        share = {
            one: same.tolist().count(one) / [same[q] for q in learned].count(one) for one in (True, False)
        }
        model = IsotonicRegression(y_min=0, y_max=1, out_of_bounds="clip")
        model.fit(cosine[learned], same[learned], sample_weight=[share[same[q]] for q in learned])
        assert got[p] == pytest.approx(model.predict(cosine[p : p + 1])[0], abs=1e-6)


def test_a_cosine_that_tells_nothing_is_calibrated_whatever_the_folds():
    names = np.repeat([f"n{i}" for i in range(10)], 5).astype(object)
    a, b = np.triu_indices(len(names), 1)
    same, ones = names[a] == names[b], np.ones(len(a), bool)
    found = calibration.isotonic_of_cosine(Pairs(a, b, np.zeros(len(a)), ones, ones), names)
    assert np.allclose(found, same.mean(), atol=1e-6)
    assert calibration.calibration_error(found, same) < 1e-6


def test_retrieval_is_that_of_a_loop():
    trusted = np.array(list("aabbccd"), dtype=object)
    scores = RNG.normal(size=(7, 7))
    np.fill_diagonal(scores, -np.inf)
    scores[0, 3] = -np.inf
    first, fifth, means = [], [], []
    for i in range(6):
        order = sorted((j for j in range(7) if np.isfinite(scores[i, j])), key=lambda j: -scores[i, j])
        right = [trusted[j] == trusted[i] for j in order]
        first.append(right[0])
        fifth.append(any(right[:5]))
        means.append(1 / (1 + right.index(True)))
    found = retrieval.by_query(scores, trusted)
    assert found["queries"] == 6
    assert found["rank-1"] == pytest.approx(np.mean(first))
    assert found["rank-5"] == pytest.approx(np.mean(fifth))
    assert found["mAP"] == pytest.approx(np.mean(means))


def test_only_the_shortlist_is_ranked_anew():
    cosines = np.array([[-np.inf, 0.9, 0.8, 0.7, 0.1]])
    probability = np.array([[np.nan, 0.1, 0.6, np.nan, 0.99]])
    scores = retrieval.reranked(cosines, probability, 3)
    assert np.argsort(-scores[0], kind="stable").tolist() == [2, 1, 3, 4, 0]
    assert scores[0, 0] == -np.inf


def test_equal_error_rate_is_the_best_threshold_of_all():
    for _ in range(5):
        known, new = RNG.normal(1, 1, 30), RNG.normal(0, 1, 20)
        least = min(max(np.mean(known < t), np.mean(new >= t)) for t in np.concatenate([known, new]))
        assert retrieval.equal_error_rate(known, new) == pytest.approx(least)
    assert retrieval.equal_error_rate(np.array([1.0, 2]), np.array([0.0])) == 0
