"""What names say of photos, what may be true of them, and unlisted pairs, each against plain loops."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit

from pairx_engine.judgement import background as background_module
from pairx_engine.judgement.any_pair import AnyPair
from pairx_engine.judgement.background import background
from pairx_engine.judgement.candidates import MOST, candidates
from pairx_engine.judgement.inputs import UNKNOWN, Pairs, Photos
from pairx_engine.judgement.pair_model import embedding_terms_of, judge_pairs, surroundings
from pairx_engine.judgement.photo_model import Noise, true_names
from pairx_engine.judgement.voices import Doubts, voices
from tests.pairx_engine.judgement.drawn_evidence import drawn, some


def scene(seed, photos=14, names=5, share=0.5):
    """Photos, some without a name, pairs among them with odds, some of one picture, doubts and background."""
    random = np.random.default_rng(seed)
    given_names = [
        None if random.random() < 0.2 else "ABCDEFGHIJ"[random.integers(names)] for _ in range(photos)
    ]
    found = [(i, j) for i in range(photos) for j in range(i + 1, photos) if random.random() < share]
    first, second = np.array(found, dtype=np.int64).reshape(-1, 2).T
    p = len(found)
    none = np.zeros(p, dtype=np.int64)
    pairs = Pairs(first, second, np.zeros(p), none, none, random.random(p) < 0.2, {}, none - 1)
    return (
        Photos.of(given_names, [None] * photos),
        pairs,
        random.normal(-1, 3, p),
        Doubts(random.normal(0, 4, photos), random.integers(-1, 2, photos), random.uniform(0, 1, photos)),
        random.normal(-6, 1, photos),
    )


def naive_voices(photos, pairs, odds, doubts, usual):
    names = photos.names.tolist()
    wrong, moved = expit(doubts.log_odds), {}
    heard = {}
    copies = {i: set() for i in range(len(names))}
    for p in range(len(pairs)):
        a, b = int(pairs.first[p]), int(pairs.second[p])
        if pairs.same_picture[p] and names[a] == names[b]:
            copies[a].add(b)
            copies[b].add(a)
            continue
        for hearer, speaker in ((a, b), (b, a)):
            if names[speaker] == UNKNOWN:
                continue
            said, chance = np.exp(odds[p]), min(wrong[speaker], 1 - 1e-6)
            mutual = (
                names[hearer] != UNKNOWN
                and doubts.proposed[speaker] == names[hearer]
                and doubts.proposed[hearer] == names[speaker]
            )
            more = doubts.log_odds[speaker] > doubts.log_odds[hearer]
            own = said * (1 - chance) if more or not mutual else said
            heard.setdefault((hearer, names[speaker]), {})[speaker] = own
            instead = wrong[speaker] * doubts.share[speaker]
            if mutual and more and instead > 1e-6:
                key = hearer, int(doubts.proposed[speaker])
                heard.setdefault(key, {})
                moved[key] = moved.get(key, 0) + said * instead
    for i, name in enumerate(names):
        if name != UNKNOWN:
            heard.setdefault((i, name), {})
    out = {}
    for (i, name), said in heard.items():
        speakers = [j for j, other in enumerate(names) if other == name and j != i]
        if name == names[i]:
            speakers = [j for j in speakers if j not in copies[i]]
        if speakers:
            total = sum(said.get(j, np.exp(usual[i])) for j in speakers) + moved.get((i, name), 0)
            out[i, name] = (np.log(total / len(speakers)), len(speakers))
    return out


@given(st.integers(0, 10_000))
@settings(max_examples=40)
def test_voices_are_those_of_loops_over_photos_and_names(seed):
    evidence = scene(seed)
    heard = voices(*evidence)
    expected = naive_voices(*evidence)
    keys = list(zip(heard.photo.tolist(), heard.name.tolist(), strict=True))
    assert keys == sorted(expected)
    np.testing.assert_allclose(heard.value, [expected[k][0] for k in keys], atol=1e-9)
    assert heard.size.tolist() == [expected[k][1] for k in keys]
    named = evidence[0].names[evidence[0].known]
    assert heard.sizes.tolist() == np.bincount(named).tolist()


@given(st.integers(0, 10_000))
@settings(max_examples=20)
def test_voices_of_some_photos_are_theirs_renumbered(seed):
    heard = voices(*scene(seed))
    rows = np.flatnonzero(np.random.default_rng(seed).random(14) < 0.5)
    part = heard.of(rows)
    expected = [
        (rows.tolist().index(photo), name, value)
        for photo, name, value in zip(heard.photo.tolist(), heard.name.tolist(), heard.value, strict=True)
        if photo in rows
    ]
    assert list(zip(part.photo.tolist(), part.name.tolist(), part.value, strict=True)) == expected
    np.testing.assert_array_equal(part.background, heard.background[rows])


def naive_true_names(heard, noise, photos):
    """Weights of all names and of a new animal, by photo.

    The mean odds of a name without a voice are the background's.
    """
    t, out = np.exp(noise.log_t), []
    voice = dict(zip(zip(heard.photo.tolist(), heard.name.tolist(), strict=True), heard.value, strict=True))
    others = dict(zip(zip(heard.photo.tolist(), heard.name.tolist(), strict=True), heard.size, strict=True))
    for i in range(photos):
        weights = {UNKNOWN: np.exp(t * noise.novelty)}
        for name, size in enumerate(heard.sizes):
            said = voice.get((i, name), heard.background[i])
            weights[name] = (np.exp(t * said) + np.exp(t * noise.floor)) * others.get(
                (i, name), size
            ) ** noise.size
        total = sum(weights.values())
        out.append({name: w / total for name, w in weights.items()})
    return out


@given(st.integers(0, 10_000), st.floats(-1, 0.5), st.floats(0, 1.5), st.floats(-6, 1), st.floats(-9, 1))
@settings(max_examples=25)
def test_what_may_be_true_are_all_names_and_a_new_animal(seed, log_t, size, novelty, floor):
    photos, *rest = scene(seed, names=8, share=0.2)
    heard = voices(photos, *rest)
    noise = Noise(log_t, size, -3.0, novelty, floor)
    true = true_names(heard, noise)
    expected = naive_true_names(heard, noise, len(photos))
    for i, chances in enumerate(expected):
        own = heard.photo == i
        spoken = heard.name[own].tolist()
        np.testing.assert_allclose(np.exp(true.named[own]), [chances[k] for k in spoken], rtol=1e-7)
        silent = [k for k in range(photos.n_names) if k not in spoken]
        assert np.exp(true.unheard[i]) == pytest.approx(sum(chances[k] for k in silent), abs=1e-9)
        assert np.exp(true.new[i]) == pytest.approx(chances[UNKNOWN], rel=1e-7)
        total = np.exp(true.named[own]).sum() + np.exp(true.unheard[i]) + np.exp(true.new[i])
        assert total == pytest.approx(1)
        if silent:
            weights = heard.sizes[silent] ** size
            mean = (weights * np.log(heard.sizes[silent])).sum() / weights.sum()
            assert true.unheard_size[i] == pytest.approx(mean, abs=1e-7)


@given(st.integers(0, 10_000))
@settings(max_examples=20)
def test_candidates_are_ranked_sum_below_one_and_hold_a_new_animal(seed):
    photos, *rest = scene(seed, 30, 10, 0.6)
    heard, noise = voices(photos, *rest), Noise(0.0, 0.5, -3.0, -2.0, -5.0)
    expected = naive_true_names(heard, replace(noise, floor=-np.inf), len(photos))
    by_photo = {}
    for c in candidates(photos, heard, noise):
        by_photo.setdefault(c.photo, []).append(c)
    assert sorted(by_photo) == np.flatnonzero(~photos.known).tolist()
    for photo, found in by_photo.items():
        assert [c.rank for c in found] == list(range(1, len(found) + 1))
        assert len(found) <= MOST
        chances = [c.probability for c in found]
        assert chances == sorted(chances, reverse=True)
        assert sum(chances) <= 1 + 1e-9
        assert [c.name for c in found].count(UNKNOWN) == 1
        assert chances == pytest.approx([expected[photo][c.name] for c in found])
        best = sorted(heard.name[heard.photo == photo], key=lambda name: -expected[photo][name])
        assert [c.name for c in found if c.name != UNKNOWN] == best[: MOST - 1]


@pytest.fixture(scope="module")
def judged():
    found = drawn(3, 14, 4, unknown=0.1, species=2)
    return found, judge_pairs(found.photos, found.pairs, np.zeros(len(found.photos)))


def test_any_pair_says_of_judged_pairs_what_was_judged_in_either_order(judged):
    found, of_pairs = judged
    odds = AnyPair(found.photos, found.pairs, of_pairs, found.vectors)
    a, b = found.pairs.first, found.pairs.second
    np.testing.assert_array_equal(odds(a, b), of_pairs.log_odds)
    np.testing.assert_array_equal(odds(b, a), of_pairs.log_odds)
    n = len(found.photos)
    every = np.divmod(np.arange(n * n), n)
    np.testing.assert_array_equal(odds(*every), odds(*every[::-1]))
    assert odds(a[:0], b[:0]).shape == (0,)


def test_any_pair_says_of_others_what_their_embeddings_say_without_either_animal(judged):
    found, of_pairs = judged
    photos = found.photos
    odds = AnyPair(photos, found.pairs, of_pairs, found.vectors)
    listed = set(zip(found.pairs.first.tolist(), found.pairs.second.tolist(), strict=True))
    crowd, scales = surroundings(photos, found.pairs)
    asked = 0
    for i in range(len(photos)):
        for j in range(i + 1, len(photos), 2):
            if (i, j) in listed or photos.species[i] != photos.species[j]:
                continue
            of = int(photos.species[i]) if int(photos.species[i]) in scales else UNKNOWN
            f, g = sorted(x for x in (photos.folds[i], photos.folds[j]))
            weights = of_pairs.learned[(g if f == UNKNOWN else f, g, of)]
            cosine = np.array([found.vectors[i] @ found.vectors[j]])
            none = np.zeros(1, dtype=np.int64)
            x = embedding_terms_of(cosine, crowd[[i]], crowd[[j]], none, none, scales[of])
            assert odds(np.array([i]), np.array([j]))[0] == pytest.approx((x[0] * weights).sum())
            asked += 1
    assert asked > 30


def test_photos_of_two_species_are_hardly_ever_one_animal():
    found = drawn(0, 24, 6, species=2)
    both = found.photos.species[found.pairs.first]
    assert (np.bincount(both) > 200).all()  # each species has weights of its own, and no pair is of two
    of_pairs = judge_pairs(found.photos, found.pairs, np.zeros(len(found.photos)))
    odds = AnyPair(found.photos, found.pairs, of_pairs, found.vectors)
    i, j = (x.ravel() for x in np.meshgrid(np.flatnonzero(found.photos.species == 0), np.flatnonzero(found.photos.species)))  # fmt: skip
    listed = np.median(of_pairs.log_odds[found.true[found.pairs.first] != found.true[found.pairs.second]])
    assert np.median(odds(i, j)) < listed
    one = drawn(0, 24, 6)
    usual = background(one.photos, one.pairs, judge_pairs(one.photos, one.pairs, np.zeros(144)), one.vectors)
    here = background(found.photos, found.pairs, of_pairs, found.vectors)
    assert abs(np.median(here) - np.median(usual)) < 1.5


def test_the_background_is_the_mean_odds_with_photos_that_there_is_no_pair_with(judged, monkeypatch):
    found, of_pairs = judged
    n = len(found.photos)
    monkeypatch.setattr(background_module, "SAMPLE", 17)
    monkeypatch.setattr(background_module, "_AT_ONCE", 5)
    usual = background(found.photos, found.pairs, of_pairs, found.vectors)
    odds = AnyPair(found.photos, found.pairs, of_pairs, found.vectors)
    listed = set(zip(found.pairs.first.tolist(), found.pairs.second.tolist(), strict=True))
    sample = sorted({int(k * (n - 1) / 16) for k in range(17)})
    expected = np.empty(n)
    for i in range(n):
        said = [
            np.exp(
                odds.by_embeddings(
                    np.array([i]), np.array([j]), np.array([found.vectors[i] @ found.vectors[j]])
                )[0]
            )
            for j in sample
            if j != i and (i, j) not in listed and (j, i) not in listed
            if found.photos.species[i] == found.photos.species[j]
        ]
        # A photo that is paired with all of the sample takes the mean of the others.
        expected[i] = np.log(np.mean(said)) if said else np.nan
    expected[np.isnan(expected)] = np.nanmean(expected)
    np.testing.assert_allclose(usual, expected, rtol=1e-5)


def test_where_every_photo_is_paired_the_background_is_low():
    found = drawn(0, 4, 3, near=11)
    of_pairs = judge_pairs(found.photos, found.pairs, np.zeros(12))
    assert background(found.photos, found.pairs, of_pairs, found.vectors).tolist() == [-10.0] * 12


def test_folds_that_no_judged_pair_has_take_the_mean_of_the_others(judged):
    found, _ = judged
    a, b = found.photos.folds[found.pairs.first], found.photos.folds[found.pairs.second]
    pairs = some(found.pairs, np.flatnonzero((a == b) & (a >= 0)))
    of_pairs = judge_pairs(found.photos, pairs, np.zeros(len(found.photos)))
    odds = AnyPair(found.photos, pairs, of_pairs, found.vectors)
    n = len(found.photos)
    assert np.isfinite(odds(*np.divmod(np.arange(n * n), n))).all()
    assert len(replace(pairs)) < len(found.pairs)
