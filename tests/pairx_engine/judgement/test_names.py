"""The judgement of names: the sums of evidence, and the defects that are found.

Also what the result must not depend on.
"""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit

from pairx_engine.judgement.cuts import _features, linkage, moved, strength, weakest_cut
from pairx_engine.judgement.exact_cuts import exact_cuts
from pairx_engine.judgement.names import NamePair, candidates, described, judge_name_pairs, strongest
from pairx_engine.judgement.one_row import PhotoSuspect, settle
from pairx_engine.judgement.partition import Split, described_splits, judge_splits
from pairx_engine.judgement.population import joined, population
from pairx_engine.judgement.scale import Prior, learn
from pairx_engine.judgement.sets import UPPER, NamedPhotos, cross, names_of, photo_keys, told


def drawn(seed, animals=24, photos=8, dimension=32, noise=0.6):
    """Photos about a centre for each animal; the log-odds are a line of the cosine."""
    random = np.random.default_rng(seed)
    centres = random.standard_normal((animals, dimension))
    true = np.repeat(np.arange(animals), photos)
    vectors = centres[true] + noise * random.standard_normal((len(true), dimension))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return true, vectors.astype(np.float32)


def catalogue(names, vectors, **codes):
    unknown = np.full(len(names), -1)
    keys = {"species": unknown, "encounter": unknown, "viewpoint": unknown} | codes

    def log_odds(first, second):
        return 14 * np.einsum("ij,ij->i", vectors[first], vectors[second]) - 7

    return NamedPhotos(np.asarray(names), **keys, vectors=vectors, log_odds=log_odds)


def planted(seed):
    """Names in which animal 0 has two, 0 and 100, and animals 1 and 2 have one, 1."""
    true, vectors = drawn(seed)
    names = true.copy()
    names[4:8] = 100
    names[true == 2] = 1
    return true, names, vectors


def naive_told(odds, cosines):
    pairs = [(o, c) for o, c in zip(odds.ravel(), cosines.ravel(), strict=True) if not np.isnan(o)]
    chances = [1 / (1 + np.exp(-o)) for o, _ in pairs]
    mean = sum(chances) / len(chances)
    return (
        sum(o for o, _ in pairs) / len(pairs),
        np.log(mean / (1 - mean)),
        np.quantile([o for o, _ in pairs], 1 - UPPER),
        sum(c for _, c in pairs) / len(pairs),
        len(pairs),
    )


@given(st.integers(0, 10_000))
@settings(max_examples=12, deadline=None)
def test_what_a_set_of_pairs_tells_is_what_the_pairs_say(seed):
    random = np.random.default_rng(seed)
    odds, cosines = random.normal(0, 3, (4, 3, 5)), random.uniform(-1, 1, (4, 3, 5))
    odds[random.random(odds.shape) < 0.3] = np.nan
    odds[:, 0, 0] = 1.5
    evidence = told(odds, cosines)
    for i in range(4):
        found = [getattr(evidence, f)[i] for f in ("log_odds", "share", "upper", "cosine", "pairs")]
        np.testing.assert_allclose(found, naive_told(odds[i], cosines[i]), rtol=1e-6)


def test_nothing_is_told_where_nothing_may_be_compared():
    evidence = told(np.full((1, 2, 2), np.nan), np.zeros((1, 2, 2)))
    assert evidence.pairs.tolist() == [0]
    assert np.isnan([evidence.log_odds[0], evidence.upper[0], evidence.cosine[0]]).all()


def test_pairs_of_one_encounter_two_viewpoints_or_two_species_are_left_out():
    _, vectors = drawn(0, animals=1, photos=4)
    codes = {
        "encounter": np.array([0, 0, 1, -1]),
        "viewpoint": np.array([0, -1, 0, 1]),
        "species": np.array([0, 0, 0, -1]),
    }
    photos = catalogue(np.zeros(4, int), vectors, **codes)
    every = np.arange(4)[None]
    odds, cosines = cross(photos, every, every)
    allowed = {(0, 2), (1, 2), (1, 3)}
    for i, j in combinations(range(4), 2):
        assert np.isnan(odds[0, i, j]) == np.isnan(cosines[0, i, j]) == ((i, j) not in allowed)
    assert np.isnan(np.diagonal(odds[0])).all()


def test_lengths_that_differ_are_refused():
    _, vectors = drawn(0, animals=1, photos=4)
    with pytest.raises(ValueError, match="one length"):
        catalogue(np.zeros(3, int), vectors)


def test_candidates_are_the_nearest_centroids_and_what_pairs_point_to():
    true, vectors = drawn(3, animals=7, photos=3)
    photos = catalogue(true, vectors)
    names = names_of(photos, photo_keys(vectors))
    means = np.stack([vectors[true == a].mean(0) for a in range(7)])
    means /= np.linalg.norm(means, axis=1, keepdims=True)
    cosine = means @ means.T - 2 * np.eye(7)
    expected = {tuple(sorted((a, int(b)))) for a in range(7) for b in np.argsort(-cosine[a])[:2]}
    found = set(zip(*(x.tolist() for x in candidates(photos, names, k=2)), strict=True))
    assert found == expected
    far = min(set(combinations(range(7), 2)) - expected)
    near = np.array([far[0] * 3]), np.array([far[1] * 3 + 1])
    assert set(zip(*(x.tolist() for x in candidates(photos, names, 2, near)), strict=True)) == expected | {
        far
    }


def test_the_planted_twin_and_the_planted_second_animal_come_first():
    for seed in range(2):
        true, names, vectors = planted(seed)
        photos = catalogue(names, vectors)
        pairs = judge_name_pairs(photos)
        twin = described(photos, pairs, most=1)[0]
        assert (twin.name_a, twin.name_b) == (0, 100)
        assert twin.probability > 0.5
        assert twin.n_pairs == 16
        assert all(names[a] == 0 and names[b] == 100 for a, b in twin.supporting)
        split = described_splits(photos, judge_splits(photos, pairs), most=1)[0]
        assert split.name == 1
        assert split.probability > 0.5
        assert {frozenset(true[list(s)]) for s in (split.side_a, split.side_b)} == {
            frozenset({1}), frozenset({2})
        }  # fmt: skip
        assert population(photos, pairs, judge_splits(photos, pairs)).low <= 24


@given(st.integers(0, 1000))
@settings(max_examples=3, deadline=None)
def test_neither_the_order_of_photos_nor_what_names_are_called_matters(seed):
    random = np.random.default_rng(seed)
    _, names, vectors = planted(seed)
    order = random.permutation(len(names))
    called = dict(zip(np.unique(names).tolist(), random.permutation(500)[:24].tolist(), strict=True))
    other = np.array([called[n] for n in names[order].tolist()])

    def rows(names, vectors, back):
        photos = catalogue(names, vectors)
        pairs = judge_name_pairs(photos)
        splits = judge_splits(photos, pairs)
        a = {frozenset((back[p.name_a], back[p.name_b])): p.log_odds for p in described(photos, pairs)}
        return a, {back[s.name]: s.log_odds for s in described_splits(photos, splits)}

    first = rows(names, vectors, {n: n for n in called})
    second = rows(other, vectors[order], {new: old for old, new in called.items()})
    for one, two in zip(first, second, strict=True):
        assert one.keys() == two.keys()
        # Sums in another order round otherwise, and the rounds of `learn` can carry that into the first digit
        # behind the point.
        np.testing.assert_allclose([one[k] for k in one], [two[k] for k in one], atol=0.2)


@given(st.integers(0, 10_000))
@settings(max_examples=12, deadline=None)
def test_strength_and_moves_agree_with_every_bipartition(seed):
    random = np.random.default_rng(seed)
    n = int(random.integers(4, 9))
    odds = random.normal(0, 2, (n, n))
    odds = (odds + odds.T) / 2
    odds[np.eye(n, dtype=bool)] = np.nan
    gone = np.triu(random.random((n, n)) < 0.15, 1)
    odds[gone | gone.T] = np.nan

    def naive(side):
        groups = [np.flatnonzero(~side), np.flatnonzero(side)]
        if min(map(len, groups)) < 2:
            return -np.inf
        mean = lambda a, b: [odds[i, j] for i in a for j in b if not np.isnan(odds[i, j])]  # noqa: E731
        inner = [np.mean(v) for g in groups if (v := mean(g, g))]
        across = mean(*groups)
        return min(inner) - np.mean(across) if inner and across else -np.inf

    sides = [np.array([bool(k >> i & 1) for i in range(n)]) for k in range(2**n)]
    values = {tuple(s): naive(s) for s in sides}
    for side in sides[:: max(1, len(sides) // 16)]:
        assert strength(odds, side) == pytest.approx(values[tuple(side)])
        after, value = moved(odds, side)
        assert value == pytest.approx(values[tuple(after)])
        for i in range(n):  # no photo can change sides for the better
            other = after.copy()
            other[i] = ~other[i]
            assert values[tuple(other)] <= value + 1e-6


@given(st.integers(0, 10_000))
@settings(max_examples=10, deadline=None)
def test_the_weakest_cut_of_two_groups_is_the_best_of_all_cuts(seed):
    random = np.random.default_rng(seed)
    side = np.arange(8) < random.integers(2, 5)
    random.shuffle(side)
    odds = np.where(side[:, None] == side, 3.0, -3.0) + random.normal(0, 1, (8, 8))
    odds = (odds + odds.T) / 2
    odds[np.eye(8, dtype=bool)] = np.nan
    best = max(
        (np.array([bool(k >> i & 1) for i in range(8)]) for k in range(256)), key=lambda s: strength(odds, s)
    )
    cut = weakest_cut(odds, np.tanh(odds))
    assert {cut.side_a, cut.side_b} == {
        tuple(np.flatnonzero(best).tolist()),
        tuple(np.flatnonzero(~best).tolist()),
    }


@given(st.integers(0, 10_000), st.floats(0, 0.4))
@settings(max_examples=25, deadline=None)
def test_a_small_set_is_cut_where_no_cut_is_stronger(seed, gone):
    random = np.random.default_rng(seed)
    n = int(random.integers(4, 9))
    many = []
    for _ in range(3):
        odds = random.normal(0, 2, (n, n)) + 2 * np.eye(n)[random.integers(n)][:, None]
        odds = (odds + odds.T) / 2
        away = np.triu(random.random((n, n)) < gone, 1) | np.eye(n, dtype=bool)
        odds[away | away.T] = np.nan
        many.append(odds)
    cuts = exact_cuts(np.array(many), np.tanh(many))
    assert cuts == [exact_cuts(odds[None], np.tanh(odds)[None])[0] for odds in many]
    for odds, cut in zip(many, cuts, strict=True):
        filled = np.where(np.isnan(odds), np.nanmean(odds) if (~np.isnan(odds)).any() else 0, odds)
        tried, part = [], list(range(n))
        while len(part) >= 4:  # all photos, then without the loneliest, and so on
            for chosen in (c for k in range(2, len(part) - 1) for c in combinations(part[1:], k)):
                side = np.isin(part, chosen)
                tried.append((strength(odds[np.ix_(part, part)], side), np.array(part), side))
            loneliness = [sum(filled[i, j] for j in part if j != i) for i in part]
            part.remove(part[int(np.argmin(loneliness))])
        best = max(value for value, _, _ in tried)
        if not np.isfinite(best):
            assert cut is None
            continue
        strongest_ones = [(p[~s], p[s]) for value, p, s in tried if value == pytest.approx(best)]
        assert any(
            cut.features == pytest.approx(_features(odds, np.tanh(odds), a, b), rel=1e-6, nan_ok=True)
            and any(set(x) <= set(cut.side_a) and set(y) <= set(cut.side_b) for x, y in ((a, b), (b, a)))
            for a, b in strongest_ones
        )
        assert sorted(cut.side_a + cut.side_b) == list(range(n))
        assert len(cut.side_a) >= len(cut.side_b)


def test_a_single_stranger_makes_no_second_animal():
    odds = np.full((7, 7), 2.0)
    odds[6] = odds[:, 6] = -9
    odds[0, 1] = odds[1, 0] = 2.5
    odds[np.eye(7, dtype=bool)] = np.nan
    cut = weakest_cut(odds, np.tanh(odds))
    assert cut is None  # six that agree alike, and one that is alone


def test_linkage_is_average_linkage():
    hierarchy = pytest.importorskip("scipy.cluster.hierarchy")
    for seed in range(5):
        distance = np.random.default_rng(seed).uniform(0, 1, (9, 9))
        distance = (distance + distance.T) / 2
        np.fill_diagonal(distance, 0)
        tree = hierarchy.linkage(distance[np.triu_indices(9, 1)], "average")
        groups = {i: frozenset([i]) for i in range(9)}
        for row, (a, b, *_) in enumerate(tree):
            groups[9 + row] = groups[int(a)] | groups[int(b)]
        assert {frozenset(a + b) for a, b in linkage(-distance)} == {groups[9 + r] for r in range(8)}


def test_a_scale_tells_kinds_apart_and_counts_them():
    random = np.random.default_rng(0)
    known = random.normal(2, 1, (300, 1))
    judged = np.concatenate([random.normal(2, 1, (30, 1)), random.normal(-2, 1, (970, 1))])
    fold = np.arange(300), np.arange(1000)
    scale = learn(known, judged, Prior.of(0.01, 1000, 0.25), fold)
    # Of two normal distributions with one spread the log-likelihood ratio is 4 x.
    ratio = scale.log_odds - np.log(scale.share / (1 - scale.share))
    middle = np.abs(judged[:, 0]) < 1
    np.testing.assert_allclose(ratio[middle], 4 * judged[middle, 0], atol=2.0)
    assert expit(scale.log_odds).sum() == pytest.approx(30, abs=10)
    upside_down = learn(-known, -judged, Prior.of(0.01, 1000, 0.25), fold)
    assert (upside_down.weights[:, 1:] == 0).all()  # more of a feature never speaks against


@given(st.integers(0, 10_000))
@settings(max_examples=10, deadline=None)
def test_joining_leaves_as_many_groups_as_there_are(seed):
    random = np.random.default_rng(seed)
    first, second = random.integers(0, 8, (2, 6))
    groups = [{i} for i in range(8)]
    for a, b in zip(first, second, strict=True):
        one = next(g for g in groups if a in g)
        two = next(g for g in groups if b in g)
        if one is not two:
            one |= two
            groups.remove(two)
    assert joined(first, second) == 8 - len(groups)


def test_a_population_is_the_same_for_a_seed_and_says_what_it_left_out():
    _, names, vectors = planted(0)
    names = names.copy()
    names[-3:] = -1
    photos = catalogue(names, vectors)
    pairs = judge_name_pairs(photos)
    splits = judge_splits(photos, pairs)
    found = population(photos, pairs, splits)
    assert found == population(photos, pairs, splits)
    assert found.names == 24
    assert found.unnamed_photos == 3
    assert found.low <= 24 <= found.high
    assert found.low <= found.estimate <= found.high


@pytest.mark.parametrize("names", [[-1, -1, -1], [5, 5, 5], [1, 2, 3]])
def test_catalogues_of_next_to_nothing_are_judged(names):
    _, vectors = drawn(0, animals=1, photos=3)
    photos = catalogue(np.array(names), vectors)
    pairs = judge_name_pairs(photos)
    splits = judge_splits(photos, pairs)
    assert described_splits(photos, splits) == []
    found = population(photos, pairs, splits)
    assert found.names == len(set(names) - {-1})
    assert found.high <= max(found.names, 0) + 1


def test_the_strongest_pairs_show_no_photo_more_than_twice():
    odds = np.array([[9.0, 8.0, 7.0], [1.0, np.nan, 2.0]])
    assert strongest(odds, np.array([10, 11]), np.array([20, 21, 22])) == (
        (10, 20), (10, 21), (11, 22), (11, 20)
    )  # fmt: skip


def a_split(name, side_a, side_b, probability=0.9):
    return Split(name, side_a, side_b, 2.2, probability, -3.0, 4, ((side_a[0], side_b[0]),))


def a_pair(a, b, supporting, probability=0.9):
    return NamePair(a, b, 2.2, probability, 1.0, 4, supporting)


def test_most_photos_of_a_name_that_point_to_another_are_one_row_of_names():
    photos = [PhotoSuspect(p, 7, 8, 0.8) for p in (0, 1, 2)] + [PhotoSuspect(9, 8, 5, 0.7)]
    pair = a_pair(7, 8, ((0, 9), (1, 9)), probability=0.3)
    cut = a_split(7, (3,), (0, 1, 2))
    left = settle(photos, [pair], [cut], {7: 4, 8: 6})
    assert left.pairs == (pair,)
    assert left.splits == ()
    assert left.photos == (photos[3],)


def test_photos_of_one_side_that_point_to_one_name_are_one_cut():
    photos = [PhotoSuspect(p, 7, 8, 0.8) for p in (0, 1)]
    pair, cut = a_pair(7, 8, ((0, 9), (1, 9))), a_split(7, (3, 4, 5, 6), (0, 1))
    left = settle(photos, [pair], [cut], {7: 6, 8: 6})
    assert (left.photos, left.pairs, left.splits) == ((), (), ((cut, 8),))


def test_photos_of_one_side_that_point_to_different_names_are_rows_of_photos():
    photos = [PhotoSuspect(0, 7, 8, 0.8), PhotoSuspect(1, 7, 9, 0.8)]
    left = settle(photos, [], [a_split(7, (3, 4, 5, 6), (0, 1))], {7: 6})
    assert (left.photos, left.splits) == (tuple(photos), ())


def test_what_has_nothing_to_do_with_each_other_stays():
    photos = [PhotoSuspect(0, 1, None, 0.9), PhotoSuspect(50, 3, 4, 0.2)]
    pair, cut = a_pair(5, 6, ((20, 30),)), a_split(7, (3, 4), (8, 9))
    left = settle(photos, [pair], [cut], {1: 4, 3: 4, 5: 4, 6: 4, 7: 4})
    assert (left.photos, left.pairs, left.splits) == (tuple(photos), (pair,), ((cut, None),))
