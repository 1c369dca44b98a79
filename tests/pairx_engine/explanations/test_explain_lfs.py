"""ExplainLFS against its formulas by loops, with both decoders, on drawn animals."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from pairx_engine.errors import EngineError
from pairx_engine.explanations import Subject, explain, explanations
from pairx_engine.explanations.decoders import convolutional, decoder_of
from pairx_engine.explanations.explain_lfs import explain_lfs, relevance
from tests.pairx_engine.explanations.drawn_catalogue import HEIGHT, WIDTH, drawn_chips, subject_of

LINEAR, CONV = (replace(each, longer_side=12) for each in explain_lfs())
BOTH = pytest.mark.parametrize("method", [LINEAR, CONV], ids=["linear", "conv"])


@pytest.fixture(scope="module")
def subject():
    return subject_of()


@pytest.fixture(scope="module")
def states(subject):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(convolutional, "EPOCHS", 25)
        return {each.name: each.train(subject, drawn_chips()) for each in (LINEAR, CONV)}


@pytest.fixture(scope="module")
def chips():
    """Two of one animal, and one of another."""
    given = [one.chip for one in drawn_chips()]
    return given[0], given[1], given[20]


def embedding(subject, chip):
    raw = subject.network(chip[None])[0].double().numpy()
    return raw / np.sqrt((raw**2).sum())


@pytest.mark.parametrize("similar", [True, False])
def test_relevance_equals_the_loops(similar):
    h1, h2 = [0.1, -0.5, 0.3, 0.0], [0.2, 0.5, 0.25, 0.0]
    away = [abs(a - b) for a, b in zip(h1, h2, strict=True)]
    d = [(one - min(away)) / (max(away) - min(away)) for one in away]
    wanted = [1 - one if similar else one for one in d]
    np.testing.assert_allclose(relevance(np.array(h1), np.array(h2), similar), wanted, atol=1e-12)


def test_equal_embeddings_agree_in_all_elements():
    h = np.arange(4.0)
    np.testing.assert_array_equal(relevance(h, h, True), np.ones(4))
    np.testing.assert_array_equal(relevance(h, h, False), np.zeros(4))


def by_loops(change, channels):
    """One number per pixel of a picture's change (3, h, w)."""
    _, height, width = change.shape
    found = np.zeros((height, width))
    for row in range(height):
        for column in range(width):
            rgb = [float(change[c, row, column]) for c in range(3)]
            found[row, column] = {
                "mean_of_abs": sum(abs(one) for one in rgb) / 3,
                "abs_of_mean": abs(sum(rgb)) / 3,
                "max_of_abs": max(abs(one) for one in rgb),
                "brighter": sum(max(one, 0) for one in rgb) / 3,
            }[channels]
    return found


@BOTH
@pytest.mark.parametrize(
    "how",
    [
        {},
        {"channels": "abs_of_mean"},
        {"channels": "max_of_abs"},
        {"channels": "brighter", "step_in": "spreads"},
        {"step": 2.0, "step_in": "spreads", "shown_above": 0.4},
        {"similar_above": 0.9999},
        {"similar_above": 0.9999, "rescaled": True},
    ],
    ids=lambda how: " ".join(map(str, how.values())) or "default",
)
def test_maps_equal_the_formula(subject, states, chips, method, how):
    state, given = states[method.name], replace(method, **how)
    found = given.explain(subject, chips[0], chips[2], state)
    h = [embedding(subject, chip) for chip in (chips[0], chips[2])]
    similarity = float(h[0] @ h[1])
    if given.rescaled:
        similarity = (similarity + 1) / 2
    assert float(found.arrays["similarity"]) == pytest.approx(similarity, abs=1e-6)
    r = relevance(*h, similarity > given.similar_above)
    np.testing.assert_allclose(found.arrays["relevance"], r, rtol=0, atol=1e-5)
    unit = float(state["embedding_spread"]) if given.step_in == "spreads" else 1
    decoder = decoder_of(method.decoder, state, "it", 20)
    for side in (0, 1):
        pictures = [decoder.decode(x[None])[0] for x in (h[side] + given.step * unit * r, h[side])]
        wanted = by_loops(pictures[0] - pictures[1], given.channels)
        wanted = (wanted - wanted.min()) / (wanted.max() - wanted.min())
        before, after = (found.arrays[f"{name}{side}"] for name in ("before", "after"))
        np.testing.assert_allclose(before, wanted, rtol=0, atol=2e-4)
        np.testing.assert_array_equal(after, np.where(before < given.shown_above, 0, before))
        assert 0 < (after > 0).sum() < after.size
        np.testing.assert_allclose(
            found.arrays[f"reconstruction{side}"],
            pictures[1].transpose(1, 2, 0).clip(0, 1),
            rtol=0,
            atol=1e-5,
        )


def test_the_first_threshold_turns_the_relevance_round(subject, states, chips):
    similarity = float(LINEAR.explain(subject, *chips[:2], states[LINEAR.name]).arrays["similarity"])
    r = [
        replace(LINEAR, similar_above=similarity + by).explain(subject, *chips[:2], states[LINEAR.name]).arrays["relevance"]
        for by in (-1e-6, 1e-6)
    ]  # fmt: skip
    np.testing.assert_allclose(r[0], 1 - r[1], atol=1e-12)


@BOTH
def test_maps_are_those_before_the_threshold_and_the_figure_shows_the_rest(subject, states, chips, method):
    found = method.explain(subject, *chips[:2], states[method.name])
    for side in (0, 1):
        for name, made in (("before", found.maps[side].numpy()), ("after", found.shown.heat[side])):
            small = torch.from_numpy(found.arrays[f"{name}{side}"])[None, None].float()
            wanted = torch.nn.functional.interpolate(small, (HEIGHT, WIDTH), mode="bilinear")[0, 0]
            np.testing.assert_allclose(made, wanted.numpy(), rtol=0, atol=1e-6)
    assert len(np.unique(found.maps[0])) > 0.9 * found.maps[0].numel()
    assert not found.shown.matched


def test_a_linear_decoder_gives_both_photos_one_map_whatever_the_step(subject, states, chips):
    found = LINEAR.explain(subject, *chips[:2], states[LINEAR.name])
    assert torch.equal(*found.maps)
    assert not np.array_equal(found.arrays["reconstruction0"], found.arrays["reconstruction1"])
    longer = replace(LINEAR, step=3.0).explain(subject, *chips[:2], states[LINEAR.name])
    np.testing.assert_allclose(longer.arrays["before0"], found.arrays["before0"], atol=1e-9)


def test_a_convolutional_decoder_gives_each_its_own_and_the_step_counts(subject, states, chips):
    found = CONV.explain(subject, *chips[:2], states[CONV.name])
    assert float((found.maps[0] - found.maps[1]).abs().max()) > 0.01
    longer = replace(CONV, step=3.0).explain(subject, *chips[:2], states[CONV.name])
    assert np.abs(longer.arrays["before0"] - found.arrays["before0"]).max() > 0.01


@BOTH
def test_the_map_depends_on_the_partner_and_not_on_the_order(subject, states, chips, method):
    state = states[method.name]
    assert method.sees_partner
    one, other = (method.explain(subject, chips[0], partner, state).maps[0] for partner in chips[1:])
    assert float((one - other).abs().max()) > 0.05
    there, back = (method.explain(subject, *order, state).maps for order in (chips[:2], chips[1::-1]))
    for found, wanted in zip(there, reversed(back), strict=True):
        assert torch.equal(found, wanted)


@BOTH
def test_it_says_the_same_twice_and_leaves_the_network_as_it_was(states, chips, method):
    subject = subject_of()
    network = subject.network.train().requires_grad_(True)
    maps = [method.explain(subject, *chips[:2], states[method.name]).maps for _ in range(2)]
    for found, again in zip(*maps, strict=True):
        assert torch.equal(found, again)
        assert found.shape == (HEIGHT, WIDTH)
        assert found.isfinite().all()
        assert not found.requires_grad
    assert all(module.training for module in network.modules())
    assert all(p.requires_grad and p.grad is None for p in network.parameters())


def test_embeddings_can_keep_their_length(subject, chips):
    raw = replace(LINEAR, unit_length=False)
    state = raw.train(subject, drawn_chips())
    np.testing.assert_allclose(
        state["centre"],
        np.mean([subject.network(c[None])[0].double().numpy() for c in seen_both_ways(state)], axis=0),
        atol=1e-6,
    )
    h = [subject.network(chip[None])[0].double().numpy() for chip in chips[:2]]
    found = raw.explain(subject, *chips[:2], state)
    wanted = relevance(*h, float(h[0] @ h[1] / np.linalg.norm(h[0]) / np.linalg.norm(h[1])) > 0.3)
    np.testing.assert_allclose(found.arrays["relevance"], wanted, atol=1e-5)


def seen_both_ways(state):
    """Chips, and their mirror images, of the animals that are not held out."""
    from pairx_engine.explanations.decoders.lessons import parts_of

    chips = [one.chip for one in drawn_chips()]
    parts = parts_of(np.repeat(np.arange(12), 5), 0)
    assert len(parts.held_out) == int(state["held_out_photos"])
    return [c for at in parts.seen for c in (chips[at], chips[at].flip(-1))]


def test_all_that_is_left_open_is_part_of_the_identity():
    changed = {
        "step": 0.5, "step_in": "spreads", "similar_above": 0.5, "rescaled": True, "unit_length": False,
        "channels": "brighter", "shown_above": 0.5, "photos": 10, "longer_side": 20, "decoder": "conv",
    }  # fmt: skip
    for name, value in changed.items():
        assert replace(LINEAR, **{name: value}).identity() != LINEAR.identity(), name
    assert {"name", "about", "cost"}.isdisjoint(LINEAR.identity())


@pytest.mark.parametrize("name", ["explain_lfs_linear", "explain_lfs_conv"])
def test_it_is_registered_and_says_what_it_lacks(subject, chips, name):
    assert name in explanations()
    with pytest.raises(EngineError, match="learns from a catalogue first"):
        explain(name, subject, *chips[:2])
    few = explanations()[name].train(subject, drawn_chips(3, 2))
    with pytest.raises(EngineError, match="6 photos of 3 animals are too few"):
        explain(name, subject, *chips[:2], few)
    assert isinstance(subject, Subject)
