"""The simple methods against plain loops over photos and pairs."""

import numpy as np
import pytest

from tests.benchmarks.suspects import simple_methods as simple
from tests.benchmarks.suspects.photos import Pairs, Photos, equal, folds, words


def herd(seed=0, animals=6, each=5, wrong=3):
    """Vectors about a centre per animal; the first photos of the last animals bear another's name."""
    rng = np.random.default_rng(seed)
    truth = np.repeat([f"n{i}" for i in range(animals)], each).astype(object)
    vectors = rng.normal(size=(animals, 16))[np.repeat(np.arange(animals), each)]
    vectors = vectors + 0.5 * rng.normal(size=vectors.shape)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    names = truth.copy()
    names[-wrong * each :: each] = "n0"
    count = len(names)
    photos = Photos(
        tuple(f"p{i:02d}" for i in range(count)), names, vectors,
        words(rng.choice(["left", "right", ""], count)), words(rng.choice(["x", "y", "", ""], count)), words([""] * count),
    )  # fmt: skip
    a, b = np.triu_indices(count, 1)
    keep = np.sort(rng.choice(len(a), 150, replace=False))
    a, b = a[keep], b[keep]
    value = np.where(rng.random(150) < 0.1, np.nan, rng.random(150))
    pairs = Pairs(
        a, b, (vectors @ vectors.T)[a, b], rng.random(150) < 0.9, rng.random(150) < 0.5, {"coverage": value}
    )
    return photos, pairs, truth


def allowed(photos, i, j, sides):
    def differ(values):
        return values[i] is not None and values[j] is not None and values[i] != values[j]

    met = photos.encounters[i] is not None and photos.encounters[i] == photos.encounters[j]
    return i != j and not met and not (sides and differ(photos.viewpoints))


@pytest.mark.parametrize("sides", [True, False])
@pytest.mark.parametrize("top", [1, 3])
def test_cosine_gap_is_that_of_a_loop(sides, top):
    photos, _, _ = herd()
    own, foreign = [], []
    for i, name in enumerate(photos.names):
        seen = [(float(photos.vectors[i] @ photos.vectors[j]), photos.names[j] == name)
                for j in range(len(photos.ids)) if allowed(photos, i, j, sides)]  # fmt: skip
        for kind, out in ((True, own), (False, foreign)):
            best = sorted((c for c, same in seen if same == kind), reverse=True)[:top]
            out.append(np.mean(best) if best else np.nan)
    own, foreign = np.array(own), np.array(foreign)
    own[np.isnan(own)] = np.nanmedian(own)
    foreign[np.isnan(foreign)] = np.nanmin(foreign)
    got = simple.cosine_gap(photos, photos.cosines(sides), top)
    assert np.allclose(got, foreign - own)


def test_pair_gap_is_that_of_a_loop():
    photos, pairs, _ = herd(1)
    value = pairs.columns["coverage"]
    own, foreign = np.full(len(photos.ids), np.nan), np.full(len(photos.ids), np.nan)
    for a, b, v, able in zip(pairs.a, pairs.b, value, pairs.comparable, strict=True):
        best = own if photos.names[a] == photos.names[b] else foreign
        for i in (a, b) if able else ():
            best[i] = np.nanmax([best[i], 0.0 if np.isnan(v) else v])
    own[np.isnan(own)] = np.nanmedian(own)
    foreign[np.isnan(foreign)] = np.nanmin(foreign)
    assert np.allclose(simple.pair_gap(photos, pairs, value), foreign - own)


def test_votes_and_label_quality_are_those_of_cleanlab():
    photos, _, _ = herd(2)
    odds, codes = simple.neighbour_probabilities(photos, photos.cosines(), 5)
    assert np.allclose(odds.sum(axis=1), 1)
    i = 7
    near = sorted((j for j in range(len(photos.ids)) if allowed(photos, i, j, True)),
                  key=lambda j: -float(photos.vectors[i] @ photos.vectors[j]))[:5]  # fmt: skip
    names = sorted(set(photos.names))
    votes = np.array([sum(photos.names[j] == n for j in near) / len(near) + 1e-4 for n in names])
    assert np.allclose(odds[i], votes / votes.sum())
    rank = pytest.importorskip("cleanlab.rank")
    for ours, method in (
        (simple.self_confidence, "self_confidence"),
        (simple.normalised_margin, "normalized_margin"),
    ):
        assert np.allclose(ours(odds, codes), rank.get_label_quality_scores(codes, odds, method=method))


def test_a_beta_mixture_is_parted_where_it_was_put_together():
    rng = np.random.default_rng(0)
    x = np.concatenate([rng.beta(8, 20, 100), rng.beta(40, 4, 400)])
    posterior = simple.lower_component(x)
    assert posterior[:100].mean() > 0.9
    assert posterior[100:].mean() < 0.05
    order = rng.permutation(500)
    assert np.allclose(simple.lower_component(x[order]), posterior[order])
    assert (simple.lower_component(np.full(9, 0.5)) == 0).all()


def test_all_methods_find_most_planted_names_and_do_not_depend_on_the_order():
    photos, pairs, truth = herd(3)
    found = simple.suspicions(photos, pairs)
    wrong = photos.names != truth
    for name in ("cosine gap, 3 nearest", "cleanlab margin, k = 5", "Beta mixture"):
        assert np.mean(found[f"{name}, sides mixed"][wrong]) > np.mean(found[f"{name}, sides mixed"][~wrong])
    order = np.random.default_rng(0).permutation(len(photos.ids))
    back = np.argsort(order)
    mixed = Photos(
        tuple(photos.ids[i] for i in order), photos.names[order], photos.vectors[order],
        photos.viewpoints[order], photos.encounters[order], photos.species[order],
    )  # fmt: skip
    turned = Pairs(
        back[pairs.b], back[pairs.a], pairs.cosine, pairs.comparable, pairs.retrieved, pairs.columns
    )
    again = simple.suspicions(mixed, turned)
    for name, value in found.items():
        assert np.allclose(again[name], value[order], atol=1e-4), name


def test_mean_cosines_between_names_are_those_of_a_loop():
    photos, _, _ = herd(4)
    names, mean = simple.between_names(photos)
    for i, a in enumerate(names):
        for j, b in enumerate(names):
            of = [float(photos.vectors[x] @ photos.vectors[y]) for x in range(30) for y in range(30)
                  if photos.names[x] == a and photos.names[y] == b and allowed(photos, x, y, True)]  # fmt: skip
            assert np.isclose(mean[i, j], np.mean(of)) if of else np.isnan(mean[i, j])


def test_unknown_is_equal_to_nothing_and_folds_keep_names_together():
    values = words(["a", "", "a", ""])
    assert equal(values).tolist() == [[a is not None and a == b for b in values] for a in values]
    photos, _, _ = herd(5)
    fold = folds(photos.names)
    assert all(len(set(fold[photos.names == n])) == 1 for n in set(photos.names))
    assert (folds(photos.names[::-1]) == fold[::-1]).all()
