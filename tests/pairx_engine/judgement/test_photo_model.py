"""Wrong names: the likelihood and its gradient, planted errors, and verdicts of people.

Also what the judgement must not depend on.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import approx_fprime
from scipy.special import expit
from sklearn.metrics import average_precision_score

from pairx_engine.judgement import photo_model
from pairx_engine.judgement.any_pair import AnyPair
from pairx_engine.judgement.candidates import candidates
from pairx_engine.judgement.inputs import UNKNOWN, Pairs, Photos
from pairx_engine.judgement.judge import judge_evidence
from pairx_engine.judgement.photo_model import Noise, judge_photos, true_names
from pairx_engine.judgement.voices import Doubts, Voices, voices
from tests.pairx_engine.judgement.drawn_evidence import drawn, nearest_pairs, some, truth, with_signals

EVERY = ("log_odds", "probability", "proposed", "share", "own", "rival", "undefended")


def heard_by(seed, photos=30, names=7, share=0.15):
    """Voices of random evidence.

    The last photo is alone under its name, and one name has no photo with a pair.
    """
    random = np.random.default_rng(seed)
    given_names = [*("ABCDEFG"[random.integers(names)] for _ in range(photos - 2)), None, "Z"]
    found = [(i, j) for i in range(photos) for j in range(i + 1, photos) if random.random() < share]
    first, second = np.array(found, dtype=np.int64).reshape(-1, 2).T
    none = np.zeros(len(found), dtype=np.int64)
    pairs = Pairs(first, second, none.astype(float), none, none, none.astype(bool), {}, none - 1)
    of = Photos.of(given_names, [None] * photos)
    same = of.names[first] == of.names[second]
    odds = random.normal(np.where(same, 1.0, -3.0), 2)
    return of, voices(of, pairs, odds, Doubts.none(photos), random.normal(-6, 1, photos))


def naive_likelihood(p, photos, heard):
    """Minus log of the probability of the given names and of the prior, photo by photo."""
    noise, total = Noise(*p), 0.0
    true = true_names(heard, noise)
    e, others = expit(noise.logit_e), max(photos.n_names - 1, 1)
    for i, name in enumerate(photos.names):
        if name == UNKNOWN:
            continue
        own = [v for v in range(len(heard.photo)) if heard.photo[v] == i and heard.name[v] == name]
        right = np.exp(true.named[own[0]] if own else true.new[i])
        total -= np.log((1 - e) * right + e / others * (1 - right))
    return total + sum(
        ((a - c) / s) ** 2 / 2 for a, c, s in zip(p, photo_model._CENTRE, photo_model._SPREAD, strict=True)
    )


points = st.tuples(
    st.floats(-1, 0.5), st.floats(0.05, 1.4), st.floats(-6, 0), st.floats(-6, 1), st.floats(-9, 1)
)


@given(st.integers(0, 10_000), points)
@settings(max_examples=15)
def test_the_likelihood_is_that_of_loops_and_its_slope_that_of_differences(seed, point):
    photos, heard = heard_by(seed)
    loss, p = photo_model._Likelihood(photos, heard), np.array(point)
    value, slope = loss(p)
    assert value == pytest.approx(naive_likelihood(p, photos, heard))
    numeric = approx_fprime(p, lambda q: loss(q)[0], 1e-6)
    np.testing.assert_allclose(slope, numeric, rtol=1e-3, atol=2e-3)


def test_of_many_photos_every_nth_is_learned_from(monkeypatch):
    photos, heard = heard_by(0)
    monkeypatch.setattr(photo_model, "MOST_LEARNED_FROM", 10)
    loss = photo_model._Likelihood(photos, heard)
    rows = np.flatnonzero(photos.known)[::3]
    assert loss.n == len(rows) == 10
    p = np.array([0.1, 0.4, -3, -2, -4])
    true, e = true_names(heard, Noise(*p)), expit(-3.0)
    own = photo_model._own_voice(photos, heard)
    right = np.exp(np.where(own >= 0, true.named[own], true.new))[rows]
    expected = -np.log((1 - e) * right + e / loss.others * (1 - right)).sum()
    away = (p - photo_model._CENTRE) / photo_model._SPREAD
    assert loss(p)[0] == pytest.approx(expected + (away**2).sum() / 2)
    assert len(judge_photos(photos, heard)[0].log_odds) == 30


@given(st.integers(0, 10_000))
@settings(max_examples=8)
def test_a_photo_is_judged_by_bayes_rule_under_the_parameters_found(seed):
    photos, heard = heard_by(seed)
    judged, errors = judge_photos(photos, heard)
    noise = judged.noise
    e, k = noise.share_wrong, photos.n_names
    true = true_names(heard, noise)
    loudest = 0.0
    for i, name in enumerate(photos.names.tolist()):
        spoken = {int(heard.name[v]): v for v in np.flatnonzero(heard.photo == i)}
        if name == UNKNOWN:
            assert np.isnan(judged.log_odds[i])
            assert np.isnan(judged.own[i])
        elif name in spoken:
            right = np.exp(true.named[spoken[name]])
            wrong = e / (k - 1) * (1 - right) / ((1 - e) * right)
            assert judged.log_odds[i] == pytest.approx(np.log(wrong), abs=1e-6)
            assert judged.own[i] == heard.value[spoken[name]]
            loudest += judged.probability[i]
        else:
            assert judged.undefended[i]
            assert judged.log_odds[i] == noise.logit_e
        rivals = {other: np.exp(true.named[v]) for other, v in spoken.items() if other != name}
        if rivals:
            best = max(rivals, key=lambda other: (rivals[other], -other))
            instead = sum(rivals.values()) + np.exp(true.new[i]) + np.exp(true.unheard[i])
            assert judged.proposed[i] == best
            assert judged.share[i] == pytest.approx(rivals[best] / instead)
            assert judged.rival[i] == heard.value[spoken[best]]
        else:
            assert (judged.proposed[i], judged.share[i]) == (UNKNOWN, 0)
    np.testing.assert_allclose(judged.probability, expit(judged.log_odds))
    assert errors.expected == pytest.approx(loudest)
    assert 0 <= errors.low <= errors.high


@pytest.mark.parametrize("share", [0.01, 0.05, 0.1, 0.2])
def test_planted_wrong_names_come_first_and_their_number_is_told(share):
    found = drawn(round(100 * share), 20, 6, noise=0.7, wrong=share)
    judged = judge_evidence(found.photos, found.pairs, found.vectors)
    assert average_precision_score(found.wrong, judged.photos.log_odds) > 0.97
    right = np.array([f"animal {t}" for t in found.true])
    spelled = np.array(sorted({n for n in found.names if n is not None}))
    assert (spelled[judged.photos.proposed[found.wrong]] == right[found.wrong]).mean() > 0.9
    assert judged.errors.expected == pytest.approx(found.wrong.sum(), abs=0.3 * found.wrong.sum() + 1)
    assert judged.photos.probability[~found.wrong].mean() < 0.05


def test_the_interval_mostly_holds_the_number_of_wrong_names():
    held = []
    for seed, share in enumerate((0.01, 0.05, 0.1, 0.2)):
        found = drawn(seed, wrong=share)
        errors = judge_evidence(found.photos, found.pairs, found.vectors).errors
        held.append(errors.low <= found.wrong.sum() <= errors.high)
    assert sum(held) >= 3


def test_signals_find_wrong_names_that_embeddings_alone_do_not():
    found = drawn(0, 20, 5, noise=1.5, wrong=0.1)
    same = truth(found)
    value = 2.5 * same + np.random.default_rng(0).normal(0, 1, len(same))
    plain = judge_evidence(found.photos, found.pairs, found.vectors)
    judged = judge_evidence(found.photos, with_signals(found, {"inliers": value}), found.vectors)
    scores = [average_precision_score(found.wrong, j.photos.log_odds) for j in (plain, judged)]
    assert scores[1] > scores[0] + 0.05


def test_what_people_said_of_names_is_obeyed_and_teaches():
    found = drawn(2, 16, 5, wrong=0.1)
    verdict = np.full(len(found.photos), UNKNOWN)
    wrong, right = np.flatnonzero(found.wrong)[:3], np.flatnonzero(~found.wrong)[:3]
    verdict[wrong], verdict[right] = 1, 0  # the contrary of the truth, so that nothing else can say it
    told = judge_evidence(replace(found.photos, verdict=verdict), found.pairs, found.vectors)
    assert (told.photos.probability[wrong] < 1e-6).all()
    assert (told.photos.probability[right] > 1 - 1e-6).all()
    plain = judge_evidence(found.photos, found.pairs, found.vectors)
    assert np.abs(plain.pairs.log_odds - told.pairs.log_odds).max() > 1e-3


@pytest.mark.parametrize("says", [0, 1])
def test_names_that_people_looked_at_are_counted_as_they_said(says):
    found = drawn(2, 16, 5, wrong=0.1)
    told = judge_evidence(
        replace(found.photos, verdict=np.full(len(found.photos), says)), found.pairs, found.vectors
    )
    defended = int((found.photos.known & ~told.photos.undefended).sum())
    assert told.errors.expected == pytest.approx((1 - says) * defended)


def test_what_people_said_of_pairs_moves_the_weights():
    found = drawn(2, 16, 5, noise=1.4)
    same = truth(found)
    verdict = np.where(found.pairs.retrieved & (np.arange(len(same)) % 3 == 0), same, UNKNOWN)
    contrary = np.where(verdict >= 0, 1 - verdict, UNKNOWN)
    judged, turned = (
        judge_evidence(found.photos, replace(found.pairs, verdict=v.astype(np.int64)), found.vectors)
        for v in (verdict, contrary)
    )
    cosine = [np.mean([w[1] for w in j.pairs.learned.values()]) for j in (judged, turned)]
    assert cosine[0] > cosine[1] + 0.2


def assert_same(one, other, rows=slice(None), spelled=None):
    for name in EVERY:
        a, b = getattr(one, name), getattr(other, name)[rows]
        if name == "proposed" and spelled is not None:
            b = np.where(b >= 0, spelled[b], UNKNOWN)
        np.testing.assert_allclose(np.asarray(a, float), np.asarray(b, float), atol=1e-6, err_msg=name)


def test_neither_the_order_of_pairs_nor_the_codes_of_names_matter():
    found = drawn(5, 16, 4, wrong=0.1, unknown=0.1)
    random, same = np.random.default_rng(0), truth(found)
    pairs = with_signals(found, {"inliers": same + random.normal(0, 1, len(same)), "noise": same * 0 + 1})
    judged = judge_evidence(found.photos, pairs, found.vectors)
    order = random.permutation(len(pairs))
    mixed = judge_evidence(found.photos, some(pairs, order), found.vectors)
    np.testing.assert_allclose(mixed.pairs.log_odds, judged.pairs.log_odds[order], rtol=1e-9, atol=1e-9)
    assert_same(judged.photos, mixed.photos)
    # Other codes stand for other names; who is learned from together stays.
    codes = random.permutation(found.photos.n_names)
    names = np.where(found.photos.known, codes[found.photos.names], UNKNOWN)
    renamed = judge_evidence(replace(found.photos, names=names), pairs, found.vectors)
    np.testing.assert_allclose(renamed.pairs.log_odds, judged.pairs.log_odds, rtol=1e-9, atol=1e-9)
    assert_same(judged.photos, renamed.photos, spelled=np.argsort(codes))
    assert renamed.errors.expected == pytest.approx(judged.errors.expected, abs=1e-6)


def test_a_pair_may_be_seen_from_either_side():
    found = drawn(5, 12, 4, wrong=0.1)
    pairs = found.pairs
    n = len(found.photos)
    turned = Pairs(
        n - 1 - pairs.second,
        n - 1 - pairs.first,
        pairs.cosine,
        pairs.rank_second,
        pairs.rank_first,
        pairs.same_picture,
        {},
        pairs.verdict,
    )
    one = judge_evidence(found.photos, pairs, found.vectors)
    other = judge_evidence(found.photos.at(np.arange(n)[::-1]), turned, found.vectors[::-1])
    np.testing.assert_allclose(one.pairs.log_odds, other.pairs.log_odds, atol=1e-6)
    np.testing.assert_allclose(one.photos.log_odds, other.photos.log_odds[::-1], atol=1e-3)


def test_photos_without_a_name_are_given_candidates_and_the_true_one_comes_first():
    found = drawn(1, 16, 5, noise=0.6, unknown=0.1)
    judged = judge_evidence(found.photos, found.pairs, found.vectors)
    assert np.isnan(judged.photos.probability[~found.photos.known]).all()
    spelled = sorted({n for n in found.names if n is not None})
    first = [c for c in candidates(found.photos, judged.heard, judged.photos.noise) if c.rank == 1]
    assert {c.photo for c in first} == set(np.flatnonzero(~found.photos.known).tolist())
    assert all(spelled[c.name] == f"animal {found.true[c.photo]}" for c in first)


TINY = {
    "nothing": [],
    "one photo": ["a"],
    "one photo without a name": [None],
    "two of one name": ["a", "a"],
    "two of two names": ["a", "b"],
    "no names": [None, None, None],
    "one name": ["a"] * 6,
    "each alone": list("abcdefgh"),
}


@pytest.mark.parametrize("names", TINY.values(), ids=TINY.keys())
@pytest.mark.parametrize("paired", [True, False])
@pytest.mark.filterwarnings("error")
def test_catalogues_that_say_next_to_nothing_are_judged_too(names, paired):
    n = len(names)
    vectors = np.random.default_rng(0).standard_normal((n, 8))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    pairs = nearest_pairs(vectors, names, 3)
    if not paired:
        pairs = some(pairs, np.zeros(0, dtype=np.int64))
    pairs = replace(pairs, signals={"inliers": np.full(len(pairs), 0.5)})
    photos = Photos.of(names, [None] * n)
    judged = judge_evidence(photos, pairs, vectors)
    assert judged.photos.log_odds.shape == (n,)
    assert (np.isfinite(judged.photos.log_odds) == photos.known).all()
    assert np.isfinite(judged.pairs.log_odds).all()
    assert 0 <= judged.errors.low <= judged.errors.high < max(n, 1)
    found = candidates(photos, judged.heard, judged.photos.noise)
    assert sum(c.rank == 1 for c in found) == (~photos.known).sum()
    every = np.divmod(np.arange(n * n), max(n, 1))
    assert np.isfinite(AnyPair(photos, pairs, judged.pairs, vectors)(*every)).all()


def test_a_lone_photo_is_undefended_and_says_nothing_but_the_share_of_errors():
    found = drawn(0, 12, 4)
    names = list(found.names)
    names[0] = "alone"
    alone = found.naming(names)
    judged = judge_evidence(alone.photos, alone.pairs, alone.vectors).photos
    assert np.flatnonzero(judged.undefended).tolist() == [0]
    assert judged.log_odds[0] == judged.noise.logit_e
    assert np.isnan(judged.own[0])


def test_nobody_speaks_where_there_are_no_voices():
    none = np.zeros(0)
    heard = Voices(none.astype(int), none.astype(int), none, none, np.full(2, -5.0), none)
    true = true_names(heard, Noise(0.0, 0.5, -3.0, -3.0, -5.0))
    np.testing.assert_allclose(np.exp(true.new), 1)
    assert np.isneginf(true.unheard).all()


def test_of_two_photos_that_make_each_other_suspect_one_is_blamed():
    """Three photos of A and three of B, of which a2 and b0 look like each other.

    They look like no other photo, except that b0 looks a little like its own name's photos.
    """
    names = ["A", "A", "A", "B", "B", "B", *"CCDDEEFF"]
    ids = {name: i for i, name in enumerate(["a0", "a1", "a2", "b0", "b1", "b2"])}
    odds = {("a0", "a1"): 5, ("b1", "b2"): 5, ("a2", "b0"): 6, ("b0", "b1"): -3}
    odds = {(ids[a], ids[b]): v for (a, b), v in odds.items()} | {(i, i + 1): 5 for i in range(6, 14, 2)}
    n, p = len(names), len(odds)
    first, second = np.array(list(odds)).T
    none = np.zeros(p, dtype=np.int64)
    pairs = Pairs(first, second, none.astype(float), none, none, none.astype(bool), {}, none - 1)
    photos, usual = Photos.of(names, [None] * n), np.full(n, -7.0)

    def judged(doubts):
        heard = voices(photos, pairs, np.array(list(odds.values()), float), doubts, usual)
        return judge_photos(photos, heard)[0].probability, photo_model.doubts_of(photos, heard)

    alone, doubts = judged(Doubts.none(n))
    assert doubts.log_odds[ids["a2"]] > doubts.log_odds[ids["b0"]]
    together, _ = judged(doubts)
    assert together[ids["a2"]] > 0.5 > together[ids["b0"]]
    assert alone[ids["b0"]] > 0.5


def test_a_photo_that_looks_like_no_other_is_not_called_wrong_for_that():
    names = [name for name in "ABCDEFGHIJ" for _ in range(4)]
    own = [
        (4 * k + i, 4 * k + j) for k in range(10) for i in range(4) for j in range(i) if {i, j} <= {0, 1, 2}
    ]
    # The fourth of every name looks like none of its own, and by a hair more like another name's, as it must
    # like some.
    other = [(4 * k + 3, (4 * k + 4) % 40) for k in range(10)]
    first, second = np.sort(np.array(own + other), axis=1).T
    odds = np.r_[np.full(len(own), 5.0), np.full(len(other), -4.0)]
    none = np.zeros(len(odds), dtype=np.int64)
    pairs = Pairs(first, second, none.astype(float), none, none, none.astype(bool), {}, none - 1)
    photos, background = Photos.of(names, [None] * 40), np.full(40, -8.0)
    heard = voices(photos, pairs, odds, Doubts.none(40), background)
    hard = np.arange(40) % 4 == 3

    def wrong(floor):
        noise = Noise(0.7, 0.0, -2.5, -6.0, floor)
        return expit(photo_model._log_odds_wrong(photos, heard, photo_model._own_voice(photos, heard), noise))

    assert wrong(-np.inf)[hard].min() > 0.5 > 0.1 > wrong(-3.5)[hard].max()
    assert max(wrong(-np.inf)[~hard].max(), wrong(-3.5)[~hard].max()) < 0.01
    loud = voices(photos, pairs, np.where(odds < 0, 4.0, odds), Doubts.none(40), background)
    noise = Noise(0.7, 0.0, -2.5, -6.0, -3.5)
    heard_of = photo_model._log_odds_wrong(photos, loud, photo_model._own_voice(photos, loud), noise)
    assert expit(heard_of[hard]).min() > 0.9
