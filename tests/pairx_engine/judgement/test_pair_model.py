"""The probability of a pair: its regression, its terms and its weights, by loops.

Also what it must not learn from.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import approx_fprime, minimize
from scipy.special import expit, log_expit
from sklearn.metrics import log_loss, roc_auc_score

from pairx_engine.judgement import pair_model
from pairx_engine.judgement.calibration import calibration_error, equal_bins
from pairx_engine.judgement.inputs import FOLDS, UNKNOWN, Pairs, Photos, codes_of
from pairx_engine.judgement.logistic import Answers, fit_logistic
from pairx_engine.judgement.pair_model import (
    CROWD,
    LEVEL,
    PRIOR,
    TERMS,
    embedding_terms,
    granted,
    judge_pairs,
    surroundings,
)
from tests.pairx_engine.judgement.drawn_evidence import drawn, nearest_pairs, some, truth, with_signals


def loss_of(w, x, y, weight, centre, strength, sure=None, chance=0.0):
    total = 0.0
    for i in range(len(x)):
        true, r = expit(float(x[i] @ w)), 1.0 if sure is None else sure[i]
        given = r * true + chance * (1 - r) * (1 - true)
        total -= weight[i] * (y[i] * np.log(given) + (1 - y[i]) * np.log(1 - given))
    return total + sum(s * (a - c) ** 2 / 2 for s, a, c in zip(strength, w, centre, strict=True))


def problem(seed, n=60, d=4):
    random = np.random.default_rng(seed)
    x = random.normal(0, 1, (n, d))
    y = (random.random(n) < expit(x @ random.normal(0, 2, d))).astype(float)
    y[:5] = random.random(5)
    return x, y, random.uniform(0.1, 3, n), random.normal(0, 1, d), random.uniform(0.2, 4, d)


@given(st.integers(0, 10_000))
@settings(max_examples=12)
def test_the_regression_is_at_the_optimum_of_the_stated_loss(seed):
    x, y, weight, centre, strength = problem(seed)
    free = fit_logistic(x, Answers.plain(y, weight), centre, strength, np.zeros(4, bool))
    best = minimize(loss_of, centre, args=(x, y, weight, centre, strength), method="BFGS", tol=1e-9)
    np.testing.assert_allclose(free, best.x, atol=2e-4)
    slope = approx_fprime(free, loss_of, 1e-6, x, y, weight, centre, strength)
    np.testing.assert_allclose(slope, 0, atol=2e-3)


@given(st.integers(0, 10_000))
@settings(max_examples=12)
def test_weights_that_may_not_turn_stay_at_zero_where_they_would(seed):
    x, y, weight, centre, strength = problem(seed)
    rising = np.array([False, True, True, True])
    found = fit_logistic(x, Answers.plain(y, weight), centre, strength, rising)
    assert (found[rising] >= 0).all()
    slope = approx_fprime(found, loss_of, 1e-6, x, y, weight, centre, strength)
    held = rising & (found == 0)
    np.testing.assert_allclose(slope[~held], 0, atol=2e-3)
    assert (slope[held] > -2e-3).all()  # only a negative weight would lower the loss


@given(st.integers(0, 10_000))
@settings(max_examples=12)
def test_answers_that_can_be_mistakes_are_as_likely_as_is_stated(seed):
    x, y, weight, centre, strength = problem(seed)
    random = np.random.default_rng(seed)
    answers = Answers(y, weight, random.uniform(0.5, 1, len(y)), 0.1)
    given_in_a_loop = (x, y, weight, centre, strength, answers.sure, answers.chance)
    for w in random.normal(0, 2, (3, 4)):
        loss, slope = answers.loss(x @ w)
        away = w - centre
        assert loss + (strength * away**2).sum() / 2 == pytest.approx(loss_of(w, *given_in_a_loop))
        numeric = approx_fprime(w, loss_of, 1e-7, *given_in_a_loop)
        np.testing.assert_allclose(x.T @ slope + strength * away, numeric, rtol=1e-3, atol=1e-3)
    found = fit_logistic(x, answers, centre, strength, np.zeros(4, bool))
    np.testing.assert_allclose(approx_fprime(found, loss_of, 1e-6, *given_in_a_loop), 0, atol=2e-3)


def test_one_mistake_bends_sure_answers_and_hardly_those_that_can_be_mistakes():
    x = np.column_stack([np.ones(41), np.r_[np.linspace(-3, 3, 40), 30.0]])
    y = np.r_[np.linspace(-3, 3, 40) > 0, 0.0].astype(float)
    prior = np.zeros(2), np.full(2, 0.1), np.zeros(2, bool)
    right = fit_logistic(x[:40], Answers.plain(y[:40], np.ones(40)), *prior)
    sure = fit_logistic(x, Answers.plain(y, np.ones(41)), *prior)
    wary = fit_logistic(x, Answers(y, np.ones(41), np.full(41, 0.96), 0.01), *prior)
    assert sure[1] < 0.2 * right[1]
    assert wary[1] > 0.8 * right[1]


def test_without_rows_the_regression_is_the_prior():
    none = np.zeros((0, 5))
    found = fit_logistic(none, Answers.plain(none[:, 0], none[:, 0]), PRIOR, np.ones(5), PRIOR > 0)
    np.testing.assert_allclose(found, PRIOR, atol=1e-7)


def test_codes_follow_the_alphabet_and_folds_are_of_one_size_and_of_names_alone():
    names = ["b", None, "a", "b", *"cdefghijklm"]
    assert codes_of(names)[:5].tolist() == [1, -1, 0, 1, 2]
    photos = Photos.of(names, [None] * len(names))
    folds = dict(zip(names, photos.folds.tolist(), strict=True))
    assert folds.pop(None) == UNKNOWN
    sizes = np.bincount(list(folds.values()), minlength=FOLDS)
    assert sizes.max() - sizes.min() <= 1
    turned = Photos.of(names[::-1], [None] * len(names))
    assert dict(zip(names[::-1], turned.folds.tolist(), strict=True)) == folds | {None: UNKNOWN}
    part = photos.at(np.array([3, 1]))
    assert (part.names.tolist(), part.folds.tolist()) == ([1, -1], [folds["b"], UNKNOWN])
    assert (photos.n_names, part.known.tolist()) == (13, [True, False])


def test_columns_of_several_lengths_are_refused():
    pairs = drawn(0, 4, 3).pairs
    with pytest.raises(ValueError, match="one length"):
        replace(pairs, cosine=pairs.cosine[1:])
    with pytest.raises(ValueError, match="one length"):
        replace(pairs, signals={"s": pairs.cosine[1:]})


@pytest.mark.parametrize("species", [1, 2])
def test_terms_and_surroundings_are_those_of_loops(species, monkeypatch):
    monkeypatch.setattr(pair_model, "FEWEST", 100)
    found = drawn(1, 12, 5, species=species, unknown=0.1)
    photos, pairs = found.photos, found.pairs
    crowd, scales = surroundings(photos, pairs)
    near = [[] for _ in range(len(photos))]
    groups = {}
    for p in range(len(pairs)):
        a, b, c = int(pairs.first[p]), int(pairs.second[p]), float(pairs.cosine[p])
        if 0 < pairs.rank_first[p] <= CROWD:
            near[a].append(c)
        if 0 < pairs.rank_second[p] <= CROWD:
            near[b].append(c)
        if pairs.rank_first[p] or pairs.rank_second[p]:
            groups.setdefault(int(photos.species[a]) if species > 1 else UNKNOWN, []).append(c)
    np.testing.assert_allclose(crowd, [np.mean(cosines) for cosines in near])
    assert {k: v for k, v in scales.items() if k in groups} == {
        k: pytest.approx((np.mean(v), np.std(v))) for k, v in groups.items()
    }
    x = embedding_terms(photos, pairs)
    for p in range(len(pairs)):
        a, b = int(pairs.first[p]), int(pairs.second[p])
        centre, spread = scales[int(photos.species[a]) if species > 1 else UNKNOWN]
        places = sorted(1 / r if r else 0.0 for r in (int(pairs.rank_first[p]), int(pairs.rank_second[p])))
        expected = [
            1.0,
            (pairs.cosine[p] - centre) / spread,
            ((crowd[a] + crowd[b]) / 2 - centre) / spread,
            places[1],
            places[0],
        ]
        np.testing.assert_allclose(x[p], expected, atol=1e-12)


@given(st.integers(0, 10_000), st.sampled_from([(UNKNOWN, UNKNOWN), (0, 0), (1, 3)]))
@settings(max_examples=10)
def test_pairs_that_are_left_have_one_name_as_often_as_all_of_them(seed, without):
    random = np.random.default_rng(seed)
    photos = drawn(0, 12, 4, unknown=0.1).photos
    pairs = drawn(0, 12, 4).pairs
    labels = (random.random(len(pairs)) < 0.3).astype(float)
    weight = random.uniform(0.1, 2, len(pairs))
    some_rows = np.flatnonzero(random.random(len(pairs)) < 0.8)
    folds = pair_model._fold_codes(photos, pairs)
    told = Answers(labels, weight, random.uniform(0.5, 1, len(pairs)), 0.1)
    left, answers = pair_model._free(folds, told, some_rows, *without)
    fair = answers.weight
    assert (answers.yes == labels[left]).all()
    assert (answers.sure == told.sure[left]).all()
    assert answers.chance == 0.1
    expected = [
        p
        for p in some_rows.tolist()
        if without == (UNKNOWN, UNKNOWN)
        or not {int(photos.folds[pairs.first[p]]), int(photos.folds[pairs.second[p]])} & set(without)
    ]
    assert left.tolist() == expected
    share = sum(weight[p] for p in some_rows if labels[p]) / sum(weight[p] for p in some_rows)
    assert (fair * labels[left]).sum() / fair.sum() == pytest.approx(share)
    assert fair.sum() == pytest.approx(weight[left].sum())
    for y in (0, 1):  # within a class pairs keep their proportions
        ratio = (fair / weight[left])[labels[left] == y]
        np.testing.assert_allclose(ratio, ratio[0])


@pytest.mark.parametrize("seed", range(3))
def test_what_judges_a_pair_does_not_know_the_names_of_its_animals(seed):
    found = drawn(
        seed, 15, 4, noise=1.4, near=59
    )  # all pairs: their number of one name depends on names' sizes alone
    random = np.random.default_rng(seed)
    doubt = np.zeros(len(found.photos))
    before = judge_pairs(found.photos, found.pairs, doubt)
    folds = found.photos.folds
    f, g = 1, 3
    names = found.photos.names.copy()
    inside = np.flatnonzero((folds == f) | (folds == g))
    names[inside] = random.permutation(names[inside])
    fold_of = dict(zip(found.photos.names.tolist(), folds.tolist(), strict=True))
    mixed = replace(found.photos, names=names, folds=np.array([fold_of[n] for n in names.tolist()]))
    after = judge_pairs(mixed, found.pairs, doubt)
    same = {key for key, w in before.learned.items() if np.array_equal(w, after.learned[key])}
    assert same == {(f, g, UNKNOWN)}
    # A person's verdicts on pairs of these animals teach nothing of these pairs either.
    a, b = folds[found.pairs.first], folds[found.pairs.second]
    touched = np.flatnonzero(np.isin(a, (f, g)) | np.isin(b, (f, g)))
    asked = random.choice(touched, 20, replace=False)
    verdict = np.full(len(found.pairs), UNKNOWN)
    verdict[asked] = np.arange(20) % 2
    turned = np.where(verdict >= 0, 1 - verdict, UNKNOWN)
    one, other = (
        judge_pairs(found.photos, replace(found.pairs, verdict=v), doubt).learned[f, g, UNKNOWN]
        for v in (verdict, turned)
    )
    np.testing.assert_array_equal(one, other)


def test_a_pair_without_names_is_judged_by_what_all_teach_and_teaches_nothing():
    found = drawn(0, unknown=0.2)
    judged = judge_pairs(found.photos, found.pairs, np.zeros(len(found.photos)))
    assert (UNKNOWN, UNKNOWN, UNKNOWN) in judged.learned
    nameless = ~(found.photos.known[found.pairs.first] & found.photos.known[found.pairs.second])
    told = pair_model._told(found.photos, found.pairs, np.zeros(len(found.photos)))
    assert (told.weight[nameless] == 0).all()
    assert (told.weight[~nameless] == 1).all()
    both = truth(found)[nameless]
    assert roc_auc_score(both, judged.log_odds[nameless]) > 0.8
    assert set(told.yes) == {0.0, 1.0}


def test_a_doubted_name_is_less_sure_and_a_verdict_is_sure_and_counts_more():
    found = drawn(0, 4, 3)
    doubt = np.linspace(0, 1, 12)
    verdict = np.full(len(found.pairs), UNKNOWN)
    verdict[:2] = (0, 1)
    told = pair_model._told(found.photos, replace(found.pairs, verdict=verdict), doubt)
    assert told.chance == 1 / 4
    for p in range(len(verdict)):
        a, b = found.pairs.first[p], found.pairs.second[p]
        same = found.names[a] == found.names[b]
        right = (1 - doubt[a]) * (1 - doubt[b])
        assert told.yes[p] == (verdict[p] if p < 2 else same)
        assert told.weight[p] == (5.0 if p < 2 else 1.0)
        assert told.sure[p] == pytest.approx(1.0 if p < 2 else right)


def noises(random, pairs, count=4):
    return {f"noise_{k}": random.normal(0, 1, len(pairs)) for k in range(count)}


@pytest.mark.parametrize("seed", range(6))
def test_signals_of_pure_noise_have_about_no_say_and_do_no_harm(seed):
    found = drawn(seed, noise=1.4, near=10)
    doubt = np.zeros(len(found.photos))
    plain = judge_pairs(found.photos, found.pairs, doubt)
    noisy = judge_pairs(
        found.photos, with_signals(found, noises(np.random.default_rng(seed), found.pairs)), doubt
    )
    asked, same = found.pairs.retrieved, truth(found)
    shares = np.array(list(noisy.trust.values()))
    assert ((shares >= 0) & (shares <= 1)).all()
    added = noisy.added[:, len(TERMS) :]
    assert np.abs(added).mean() < 0.05
    losses = [log_loss(same[asked], expit(j.log_odds[asked])) for j in (plain, noisy)]
    aucs = [roc_auc_score(same[asked], j.log_odds[asked]) for j in (plain, noisy)]
    assert losses[1] <= losses[0] + 3e-3
    assert aucs[1] >= aucs[0] - 3e-3


def test_most_signals_of_noise_have_no_say_at_all():
    shares = []
    for seed in range(10):
        random = np.random.default_rng(seed)
        odds = random.normal(-1, 2, 600)
        labels = (random.random(600) < expit(odds)).astype(float)
        shares += granted(random.normal(0, 0.2, (600, 3)), odds, Answers.plain(labels, np.ones(600))).tolist()
    assert np.mean(np.array(shares) == 0) > 0.6
    assert np.mean(shares) < 0.3


def test_what_is_granted_is_the_optimum_of_the_stated_loss():
    random = np.random.default_rng(4)
    odds, added = random.normal(-1, 2, 300), random.normal(0, 1, (300, 2))
    labels = (random.random(300) < expit(odds + 0.5 * added[:, 0] + 0.8 * added[:, 1])).astype(float)
    weight = random.uniform(0.2, 1, 300)
    told = Answers.plain(labels, weight)
    shares = granted(added, odds, told)
    base = np.column_stack([np.ones(300), odds])
    start = fit_logistic(base, told, np.array([0.0, 1]), np.array([0.5, 2]), np.array([False, True]))
    chance = [
        np.sqrt(
            sum((weight[i] * added[i, k] * (labels[i] - expit(base[i] @ start))) ** 2 for i in range(300))
        )
        for k in range(2)
    ]

    def loss(t):
        margin = base @ t[:2] + added @ t[2:]
        likely = weight * (labels * log_expit(margin) + (1 - labels) * log_expit(-margin))
        return -likely.sum() + chance @ t[2:]

    best = minimize(loss, [0, 1, 0, 0], method="L-BFGS-B", bounds=[(None, None)] * 2 + [(0, 1)] * 2)
    np.testing.assert_allclose(shares, best.x[2:], atol=2e-3)
    assert 0 < shares[0] < 1
    assert granted(added[:0], odds[:0], told.at(np.arange(0))).tolist() == [0, 0]
    assert granted(np.zeros((300, 1)), odds, told).tolist() == [0]
    a, b = pair_model._level(odds, added @ shares, told)

    def level_loss(ab):
        likely = told.loss(ab[0] + ab[1] * odds + added @ shares)[0]
        return likely + 0.5 * ab[0] ** 2 / 2 + 2.0 * (ab[1] - 1) ** 2 / 2

    np.testing.assert_allclose([a, b], minimize(level_loss, [0, 1]).x, atol=2e-3)


def test_a_true_signal_has_a_say_and_helps_on_animals_that_it_was_not_learned_from():
    found = drawn(0, noise=1.4, near=10)
    random, same = np.random.default_rng(0), truth(found)
    doubt = np.zeros(len(found.photos))
    signals = noises(random, found.pairs, 2) | {"inliers": 1.5 * same + random.normal(0, 1, len(same))}
    plain = judge_pairs(found.photos, found.pairs, doubt)
    judged = judge_pairs(found.photos, with_signals(found, signals), doubt)
    assert judged.terms == (*TERMS, LEVEL, "inliers", "noise_0", "noise_1")
    assert judged.trust["inliers"] > 0.5
    asked = found.pairs.retrieved
    assert log_loss(same[asked], expit(judged.log_odds[asked])) < 0.9 * log_loss(
        same[asked], expit(plain.log_odds[asked])
    )
    np.testing.assert_array_equal(judged.added[:, : len(TERMS)], plain.added[:, : len(TERMS)])
    assert (plain.added[:, len(TERMS) :] == 0).all()  # nothing is levelled where there are no signals
    np.testing.assert_allclose(judged.log_odds, judged.added.sum(axis=1))


def test_matched_pairs_are_levelled_so_that_strong_rare_evidence_keeps_them_calibrated():
    found = drawn(0, 40, 6, noise=1.6, near=20)
    same = truth(found) > 0.5
    random = np.random.default_rng(1)
    # One pair of one animal in two shows what no pair of two animals does.
    signals = {"inliers": 4.0 * (same & (random.random(len(same)) < 0.5)) + random.normal(0, 0.3, len(same))}
    judged = judge_pairs(found.photos, with_signals(found, signals), np.zeros(len(found.photos)))
    asked = found.pairs.retrieved
    at = judged.terms.index(LEVEL)
    shift, slope = judged.level
    part = judged.added[:, : len(TERMS)].sum(axis=1)
    np.testing.assert_allclose(judged.added[:, at], shift + (slope - 1) * np.clip(part, -15, 15))
    assert shift < 0

    def error(log_odds):
        return calibration_error(equal_bins(expit(log_odds[asked]), same[asked].astype(float)))

    assert error(judged.log_odds) < 0.7 * error(judged.log_odds - judged.added[:, at])


def test_signals_are_learned_from_pairs_that_were_matched_whatever_their_names():
    found = drawn(0, noise=1.4, near=10)
    random, same = np.random.default_rng(0), truth(found) > 0.5
    pairs = replace(with_signals(found, {"inliers": 1.5 * same + random.normal(0, 1, len(same))}), top_k=4)
    beyond = pairs.retrieved & ~pairs.matched
    naive = [
        not any(0 < r <= 4 for r in ranks) for ranks in zip(pairs.rank_first, pairs.rank_second, strict=True)
    ]
    assert (~pairs.matched == naive).all()
    verdict = np.full(len(pairs), UNKNOWN)
    # Lies about pairs beyond: the embeddings learn from them, the signals do not.
    asked = np.flatnonzero(beyond)[:40]
    verdict[asked] = ~same[asked]
    doubt = np.zeros(len(found.photos))
    folds = pair_model._fold_codes(found.photos, pairs)
    odds = random.normal(0, 1, len(pairs))
    z = pair_model._surplus(pairs, ("inliers",), np.arange(len(pairs)), odds)
    parts = []
    for judged in (pairs, replace(pairs, verdict=verdict)):
        told = pair_model._told(found.photos, judged, doubt)
        able = judged.matched & (told.weight > 0)
        parts.append(pair_model._signal_part(folds, z, np.ones(1, bool), odds, told, able))
    np.testing.assert_array_equal(parts[0][0], parts[1][0])
    seen = (
        judge_pairs(found.photos, pairs, doubt),
        judge_pairs(found.photos, replace(pairs, verdict=verdict), doubt),
    )
    assert (seen[0].added[:, 1] != seen[1].added[:, 1]).any()


def test_a_signal_that_speaks_the_wrong_way_has_no_say_unless_it_is_a_circumstance():
    found = drawn(0, noise=1.4, near=10)
    against = -1.5 * truth(found) + np.random.default_rng(0).normal(0, 1, len(found.pairs))
    doubt = np.zeros(len(found.photos))
    held = judge_pairs(found.photos, with_signals(found, {"inliers": against}), doubt)
    assert np.abs(held.added[:, -1]).max() == 0
    free = judge_pairs(found.photos, with_signals(found, {"about_blur": against}), doubt)
    assert free.trust["about_blur"] > 0.5
    assert np.corrcoef(free.added[:, -1], against)[0, 1] < -0.8


def test_what_is_missing_adds_exactly_nothing():
    found = drawn(0, noise=1.4, near=10)
    random, same = np.random.default_rng(0), truth(found)
    doubt = np.zeros(len(found.photos))
    value = 1.5 * same + random.normal(0, 1, len(same))
    gone = random.random(len(same)) < 0.4
    value[gone] = np.nan
    signals = {"inliers": value, "empty": np.full(len(same), np.nan), "flat": np.ones(len(same))}
    judged = judge_pairs(found.photos, with_signals(found, signals), doubt)
    at = judged.terms.index("inliers")
    assert (judged.added[gone, at] == 0).all()
    assert (judged.added[~gone, at] != 0).all()
    for name in ("empty", "flat"):
        assert (judged.added[:, judged.terms.index(name)] == 0).all()
        assert judged.trust[name] == 0


@given(st.integers(0, 1000))
@settings(max_examples=4)
def test_the_surplus_of_a_signal_is_what_a_parabola_of_the_odds_leaves(seed):
    found = drawn(seed, 8, 4)
    random = np.random.default_rng(seed)
    odds = random.normal(-2, 4, len(found.pairs))
    value = 0.3 * odds - 0.05 * odds**2 + random.normal(0, 1, len(odds))
    value[:4] = np.nan
    base = found.pairs.retrieved & np.isfinite(value)
    rows = np.arange(len(odds))
    z = pair_model._surplus(with_signals(found, {"s": value}), ("s",), rows, odds[rows])
    clipped = np.clip(odds, *np.clip(np.quantile(odds[found.pairs.retrieved], (0.01, 0.99)), -10, 10))
    rest = value - np.polyval(np.polyfit(clipped[base], value[base], 2), clipped)
    expected = np.clip(rest / rest[base].std(), -10, 10)
    np.testing.assert_allclose(z[:, 0], np.nan_to_num(expected[rows]), atol=1e-8)


def test_species_have_weights_of_their_own_that_lean_on_those_of_all(monkeypatch):
    large, small = drawn(0, 20, 5), drawn(1, 8, 4, noise=0.5)
    n = len(large.photos)
    names = [*large.names, *(f"other {name}" for name in small.names)]
    photos = Photos.of(names, ["large"] * n + ["small"] * len(small.photos))
    pairs = nearest_pairs(np.vstack([large.vectors, small.vectors]), names, 12, photos.species)

    def gap(strength, pairs=pairs):
        monkeypatch.setattr(pair_model, "SPECIES_STRENGTH", strength)
        learned = judge_pairs(photos, pairs, np.zeros(len(photos))).learned
        one, other = sorted({species for _, _, species in learned})
        return (one, other), max(
            np.abs(w - learned[f, g, other]).max() for (f, g, s), w in learned.items() if s == one
        )

    gaps = [gap(strength) for strength in (1e7, 10.0, 0.1)]
    assert [groups for groups, _ in gaps] == [(0, 1)] * 3
    assert gaps[0][1] < 1e-3 < 0.1 < gaps[1][1] < gaps[2][1]
    # A species that there are few pairs of has the weights of all that have none of their own.
    few = some(pairs, np.flatnonzero((pairs.first < n) | (pairs.second < n + 10)))
    assert gap(10.0, few)[0] == (UNKNOWN, 0)


def test_one_species_is_not_told_apart_from_none():
    found = drawn(0)
    unknown = replace(found.photos, species=np.full(len(found.photos), UNKNOWN))
    doubt = np.zeros(len(found.photos))
    one, other = judge_pairs(found.photos, found.pairs, doubt), judge_pairs(unknown, found.pairs, doubt)
    np.testing.assert_array_equal(one.added, other.added)


def test_of_too_many_pairs_an_even_part_is_learned_from(monkeypatch):
    monkeypatch.setattr(pair_model, "MOST_LEARNED_FROM", 10)
    assert pair_model._some(np.ones(25, bool)).tolist() == list(range(0, 25, 3))
    assert pair_model._some(np.zeros(25, bool)).tolist() == []
    assert pair_model._some(np.ones(10, bool)).tolist() == list(range(10))


def test_pairs_of_one_picture_and_pairs_found_by_name_teach_nothing():
    found = drawn(0)
    doubt = np.zeros(len(found.photos))
    by_name = np.flatnonzero(~found.pairs.retrieved)
    copies = np.flatnonzero(found.pairs.retrieved)[::40]
    picture = found.pairs.same_picture.copy()
    picture[copies] = True
    pairs = replace(found.pairs, same_picture=picture)
    verdict = np.full(len(pairs), UNKNOWN)
    verdict[by_name] = 0
    verdict[copies] = 0
    told = judge_pairs(found.photos, replace(pairs, verdict=verdict), doubt)
    untold = judge_pairs(found.photos, pairs, doubt)
    assert len(by_name)
    np.testing.assert_array_equal(told.added, untold.added)


def test_there_need_be_no_pairs():
    photos = Photos.of(["a", "b"], [None, None])
    none = np.zeros(0, dtype=np.int64)
    pairs = Pairs(none, none, np.zeros(0), none, none, none.astype(bool), {"s": np.zeros(0)}, none)
    judged = judge_pairs(photos, pairs, np.zeros(2))
    assert judged.added.shape == (0, 7)
    assert judged.trust == {"s": 0.0}
