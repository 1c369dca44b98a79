"""Utkin's explanation against loops: prototypes, important elements and averaged changes."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from pairx_engine.errors import EngineError
from pairx_engine.explanations import NamedChip, explain, explanations
from pairx_engine.explanations.decoders import convolutional, decoder_of, gather
from pairx_engine.explanations.utkin import Utkin, important, nearest_prototype, prototypes_of
from tests.pairx_engine.explanations.drawn_catalogue import HEIGHT, WIDTH, drawn_chips, subject_of

METHOD = Utkin(longer_side=12)


@pytest.fixture(scope="module")
def subject():
    return subject_of()


@pytest.fixture(scope="module")
def state(subject):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(convolutional, "EPOCHS", 25)
        return METHOD.train(subject, drawn_chips())


@pytest.fixture(scope="module")
def chips():
    given = [one.chip for one in drawn_chips()]
    return given[0], given[1], given[20]


def cosine(a, b):
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


def embedding(subject, chip):
    raw = subject.network(chip[None])[0].double().numpy()
    return raw / np.linalg.norm(raw)


def test_prototypes_are_the_means_of_names_with_two_photos(subject):
    chips = drawn_chips(7, 3, nameless=3)
    alone = NamedChip(drawn_chips(1, 1, seed=5)[0].chip, "alone")
    lessons = gather(subject, [alone, *chips], unit_length=True, longer_side=12)
    found, usual = prototypes_of(lessons)
    h = [embedding(subject, one.chip) for one in chips]
    # The last animal's photos have lost their name.
    wanted = [sum(h[3 * i + j] for j in range(3)) / 3 for i in range(6)]
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-9)
    own = []
    for i in range(18):
        others = [h[j] for j in range(18) if j // 3 == i // 3 and j != i]
        own.append(cosine(h[i], sum(others) / 2))
    assert usual == pytest.approx(np.quantile(own, 0.05), abs=1e-9)


def test_without_names_there_are_no_prototypes(subject):
    lessons = gather(subject, drawn_chips(2, 2, nameless=4), unit_length=True, longer_side=12)
    found, usual = prototypes_of(lessons)
    assert found.shape == (0, 20)
    assert usual == 1
    assert nearest_prototype(lessons.embeddings[0], found, usual) == -1


def test_the_nearest_prototype_is_found_by_cosine_and_must_be_near():
    prototypes = np.array([[1.0, 0.0], [10.0, 10.0], [0.0, 1.0]])
    assert nearest_prototype(np.array([0.1, 0.09]), prototypes, 0.9) == 1
    assert nearest_prototype(np.array([5.0, 0.1]), prototypes, 0.9) == 0
    assert nearest_prototype(np.array([-1.0, -1.0]), prototypes, 0.9) == -1
    assert nearest_prototype(np.array([-1.0, -1.0]), prototypes, -1.0) in {0, 2}


@pytest.mark.parametrize(("share", "count"), [(0.25, 2), (0.5, 4), (0.01, 1), (1.0, 8)])
def test_important_elements_are_the_closest(share, count):
    rng = np.random.default_rng(0)
    h, prototype = rng.normal(size=(2, 8))
    order = sorted(range(8), key=lambda j: abs(h[j] - prototype[j]))
    assert np.flatnonzero(important(h, prototype, share)).tolist() == sorted(order[:count])


@pytest.mark.parametrize("known", [True, False])
def test_the_map_is_the_mean_change_over_the_draws(subject, state, chips, known):
    given = state if known else {**state, "usual_cosine": np.array(1.1)}
    found = METHOD.explain(subject, *chips[:2], given)
    h = [embedding(subject, chip) for chip in chips[:2]]
    decoder = decoder_of("conv", state, "it", 20)
    noise = np.random.default_rng([0, 5]).normal(scale=float(state["embedding_spread"]), size=(16, 20))
    for side in (0, 1):
        partner = h[1 - side]
        at = max(range(12), key=lambda i: cosine(partner, state["prototypes"][i]))
        assert int(found.arrays["prototype"][side]) == (at if known else -1)
        prototype = state["prototypes"][at] if known else partner
        closest = sorted(range(20), key=lambda j: abs(h[side][j] - prototype[j]))[:5]
        assert np.flatnonzero(found.arrays["important"][side]).tolist() == sorted(closest)
        total = np.zeros((9, 12))
        for draw in noise:
            moved = h[side].copy()
            moved[closest] += draw[closest]
            total += np.abs(decoder.decode(moved[None])[0] - decoder.decode(h[side][None])[0]).mean(axis=0)
        wanted = (total - total.min()) / (total.max() - total.min())
        np.testing.assert_allclose(found.arrays[f"before{side}"], wanted, rtol=0, atol=1e-4)


def test_it_sees_the_partner_and_not_the_order(subject, state, chips):
    assert METHOD.sees_partner
    one, other = (METHOD.explain(subject, chips[0], partner, state).maps[0] for partner in chips[1:])
    assert float((one - other).abs().max()) > 0.01
    there, back = (METHOD.explain(subject, *order, state).maps for order in (chips[:2], chips[1::-1]))
    for found, wanted in zip(there, reversed(back), strict=True):
        assert torch.equal(found, wanted)
        assert found.shape == (HEIGHT, WIDTH)


def test_draws_follow_the_seed(state, chips):
    one, again, other = (METHOD.explain(subject_of(seed), *chips[:2], state).maps[0] for seed in (0, 0, 1))
    assert torch.equal(one, again)
    assert not torch.equal(one, other)


def test_all_that_is_left_open_is_part_of_the_identity():
    changed = {
        "decoder": "linear", "share": 0.5, "step": 2.0, "draws": 4, "unit_length": False,
        "channels": "brighter", "photos": 10, "longer_side": 20,
    }  # fmt: skip
    for name, value in changed.items():
        assert replace(METHOD, **{name: value}).identity() != METHOD.identity(), name


def test_it_is_registered_and_says_what_it_lacks(subject, chips):
    assert "utkin" in explanations()
    with pytest.raises(EngineError, match="learns from a catalogue first"):
        explain("utkin", subject, *chips[:2])
    few = METHOD.train(subject, drawn_chips(3, 2))
    with pytest.raises(EngineError, match="'utkin' learned no decoder: 6 photos of 3 animals"):
        METHOD.explain(subject, *chips[:2], few)
    with pytest.raises(EngineError, match="too few"):
        METHOD.explain(subject, *chips[:2], METHOD.train(subject, []))
