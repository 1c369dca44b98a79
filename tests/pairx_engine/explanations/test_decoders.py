"""Decoders from embeddings to pictures: against normal equations, torch's own layers, and loops."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from pairx_engine.errors import EngineError
from pairx_engine.explanations import NamedChip, Subject
from pairx_engine.explanations.decoders import (
    convolutional,
    decoder_of,
    embedded,
    errors_of,
    gather,
    recipe_of,
    scaled,
    train_decoder,
)
from pairx_engine.explanations.decoders.lessons import (
    CHOOSING,
    HELD_OUT,
    parts_of,
    picture_size,
    small_picture,
)
from pairx_engine.explanations.decoders.linear import PENALTIES, ridge
from tests.pairx_engine.explanations.drawn_catalogue import HEIGHT, VALUES, WIDTH, drawn_chips, subject_of

SIDE = 12
KINDS = ("linear", "conv")


@pytest.fixture(scope="module")
def lessons():
    return gather(subject_of(), drawn_chips(nameless=4), unit_length=True, longer_side=SIDE)


@pytest.fixture(scope="module")
def states(lessons):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(convolutional, "EPOCHS", 30)
        return {kind: train_decoder(kind, lessons, seed=0) for kind in KINDS}


def test_lessons_hold_each_photo_once_with_its_animal(lessons):
    subject, chips = subject_of(), drawn_chips(nameless=4)
    assert lessons.embeddings.shape == (60, 20)
    assert lessons.pictures.shape == (60, 3, 9, SIDE)
    numbers, wanted = {}, []
    for at, one in enumerate(chips):
        wanted.append(numbers.setdefault(one.name or at, len(numbers)))
    assert lessons.animals.tolist() == wanted
    assert lessons.n_animals == 12 + 4
    assert lessons.named.tolist() == [True] * 56 + [False] * 4
    for at in (0, 31, 59):
        for mirrored, chip in ((False, chips[at].chip), (True, chips[at].chip.flip(-1))):
            e, p = lessons.mirrored if mirrored else (lessons.embeddings, lessons.pictures)
            raw = subject.network(chip[None])[0].double().numpy()
            np.testing.assert_allclose(e[at], raw / np.sqrt((raw**2).sum()), rtol=1e-12)
            np.testing.assert_array_equal(p[at], small_picture(subject, chip, SIDE))
    np.testing.assert_allclose(lessons.mirrored[1], lessons.pictures[..., ::-1], rtol=0, atol=1e-12)


def test_embeddings_are_scaled_only_where_asked():
    subject, chip = subject_of(), drawn_chips()[0].chip
    raw = embedded(subject, chip, unit_length=False)
    assert np.linalg.norm(raw) != pytest.approx(1, abs=0.1)
    np.testing.assert_allclose(embedded(subject, chip, unit_length=True), raw / np.linalg.norm(raw))


def test_small_pictures_are_those_of_pillow():
    rng = np.random.default_rng(0)
    shown = rng.random((3, HEIGHT, WIDTH))
    low, high = (np.array(v)[:, None, None] for v in (VALUES.low, VALUES.high))
    found = small_picture(subject_of(), torch.from_numpy(low + shown * (high - low)), SIDE)
    for channel, wanted in zip(found, shown, strict=True):
        small = Image.fromarray(wanted.astype(np.float32)).resize((SIDE, 9), Image.Resampling.BILINEAR)
        np.testing.assert_allclose(channel, np.asarray(small), rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("chip", "wanted"),
    [((160, 160), (40, 40)), ((224, 112), (40, 20)), ((100, 301), (13, 40)), ((20, 30), (20, 30)), ((400, 2), (40, 1))],
)  # fmt: skip
def test_small_pictures_keep_the_proportions(chip, wanted):
    assert picture_size(*chip, 40) == wanted


def test_pictures_need_to_know_black_and_white():
    with pytest.raises(EngineError, match="black and white") as caught:
        gather(subject_of(values=None), drawn_chips(2, 1), unit_length=True, longer_side=SIDE)
    assert "ValueRange" in caught.value.cure


def test_photos_whose_embedding_is_not_finite_are_left_out():
    chips = drawn_chips(3, 2)
    lost = [*chips[:1], NamedChip(torch.full_like(chips[0].chip, float("nan")), "lost"), *chips[1:]]
    found, wanted = (
        gather(subject_of(), given, unit_length=True, longer_side=SIDE) for given in (lost, chips)
    )
    np.testing.assert_array_equal(found.embeddings, wanted.embeddings)
    np.testing.assert_array_equal(found.animals, wanted.animals)


@pytest.mark.parametrize("seed", range(5))
def test_parts_share_no_animal_and_lose_no_photo(seed):
    rng = np.random.default_rng(seed)
    animals = rng.integers(0, 30, size=200)
    parts = parts_of(animals, seed)
    dealt = [parts.fit, parts.choose, parts.held_out]
    assert sorted(np.concatenate(dealt)) == list(range(200))
    names = [set(animals[part]) for part in dealt]
    assert sum(len(each) for each in names) == len(set(animals))
    assert 0.7 * HELD_OUT * 200 < len(parts.held_out) <= HELD_OUT * 200
    assert 0.7 * CHOOSING * 200 < len(parts.choose) <= CHOOSING * 200
    assert sorted(parts.seen) == sorted([*parts.fit, *parts.choose])
    again, other = parts_of(animals, seed), parts_of(animals, seed + 100)
    assert np.array_equal(again.held_out, parts.held_out)
    assert not np.array_equal(other.held_out, parts.held_out)


def test_an_animal_with_most_photos_is_not_held_out():
    animals = np.array([0] * 90 + [1] * 4 + [2] * 3 + [3] * 3)
    for seed in range(8):
        parts = parts_of(animals, seed)
        assert set(animals[parts.fit]) >= {0}
        assert len(parts.held_out)
        assert len(parts.choose)
    assert [len(part) for part in vars(parts_of(np.repeat([0, 1, 2], [30, 31, 32]), 0)).values()] == [
        32,
        31,
        30,
    ]


def test_ridge_equals_the_normal_equations_and_least_squares():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(30, 7)) + 3, rng.normal(size=(30, 3, 2, 2)) - 1
    flat = y.reshape(30, -1)
    for penalty, found in zip((0.0, 0.3, 10.0), ridge(x, y, (0.0, 0.3, 10.0)), strict=True):
        centred = x - x.mean(0)
        size = penalty * np.trace(centred.T @ centred) / 7
        wanted = np.linalg.solve(centred.T @ centred + size * np.eye(7), centred.T @ (flat - flat.mean(0)))
        np.testing.assert_allclose(found.weights.reshape(7, -1), wanted, rtol=1e-9, atol=1e-12)
        # The same as least squares with rows that pull all but the intercept to 0.
        rows = np.vstack([np.hstack([x, np.ones((30, 1))]), np.sqrt(size) * np.eye(8)[:7]])
        solved = np.linalg.lstsq(rows, np.vstack([flat, np.zeros((7, 12))]), rcond=None)[0]
        pictures = np.hstack([x, np.ones((30, 1))]) @ solved
        np.testing.assert_allclose(found.decode(x).reshape(30, -1), pictures, rtol=1e-8, atol=1e-10)


def test_more_numbers_than_photos_have_a_ridge_too():
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(6, 40)), rng.normal(size=(6, 3, 1, 2))
    (found,) = ridge(x, y, [0.5])
    centred, flat = x - x.mean(0), y.reshape(6, -1) - y.reshape(6, -1).mean(0)
    size = 0.5 * np.trace(centred.T @ centred) / 6
    wanted = np.linalg.solve(centred.T @ centred + size * np.eye(40), centred.T @ flat)
    np.testing.assert_allclose(found.weights.reshape(40, -1), wanted, rtol=1e-8, atol=1e-12)


def test_the_penalty_is_the_best_on_animals_that_were_not_fitted(lessons, states):
    parts = parts_of(lessons.animals, 0)
    x, y = lessons.both_ways(parts.fit)
    errors = {}
    for penalty, decoder in zip(PENALTIES, ridge(x, y, PENALTIES), strict=True):
        total, count = 0.0, 0
        for at in parts.choose:
            off = decoder.decode(lessons.embeddings[[at]])[0] - lessons.pictures[at]
            total, count = total + float((off**2).sum()), count + off.size
        errors[penalty] = total / count
    assert float(states["linear"]["penalty"]) == min(errors, key=errors.__getitem__)
    (refitted,) = ridge(*lessons.both_ways(parts.seen), [float(states["linear"]["penalty"])])
    np.testing.assert_allclose(states["linear"]["weights"], refitted.weights, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("kind", KINDS)
def test_errors_are_those_on_animals_held_out(lessons, states, kind):
    parts = parts_of(lessons.animals, 0)
    decoder = decoder_of(kind, states[kind], "it", 20)
    _, seen = lessons.both_ways(parts.seen)
    off, mean_off = [], []
    for at in parts.held_out:
        picture = decoder.decode(lessons.embeddings[at][None])[0]
        for channel in range(3):
            for row in range(9):
                for column in range(SIDE):
                    here = channel, row, column
                    wanted = lessons.pictures[at][here]
                    off.append((picture[here] - wanted) ** 2)
                    mean_off.append((seen[(slice(None), *here)].mean() - wanted) ** 2)
    errors = errors_of(states[kind])
    assert errors.decoder == pytest.approx(np.mean(off), rel=1e-4)
    assert errors.mean_picture == pytest.approx(np.mean(mean_off), rel=1e-4)
    assert (errors.photos, errors.animals) == (len(parts.held_out), len(set(lessons.animals[parts.held_out])))
    assert errors.decoder < 0.8 * errors.mean_picture


@pytest.fixture
def short(monkeypatch):
    """Few epochs, where it does not matter how good a decoder is."""
    monkeypatch.setattr(convolutional, "EPOCHS", 4)


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_is_learned_from_what_is_held_out(lessons, short, kind):
    held = parts_of(lessons.animals, 0).held_out
    rng = np.random.default_rng(0)
    changed = replace(
        lessons,
        embeddings=lessons.embeddings.copy(),
        pictures=lessons.pictures.copy(),
        mirrored=tuple(each.copy() for each in lessons.mirrored),
    )
    for each in (changed.embeddings, changed.pictures, *changed.mirrored):
        each[held] = rng.random(each[held].shape)
    state, found = (train_decoder(kind, given, seed=0) for given in (lessons, changed))
    judged = {"error", "mean_error", "embedding_spread"}
    for name, wanted in state.items():
        assert np.array_equal(found[name], wanted) != (name in judged), name


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_lessons_give_the_same_decoder_bit_for_bit(lessons, short, kind):
    torch.manual_seed(3)
    before = torch.get_rng_state()
    state = train_decoder(kind, lessons, seed=0)
    with torch.no_grad():
        again = train_decoder(kind, lessons, seed=0)
    assert torch.equal(before, torch.get_rng_state())
    assert again.keys() == state.keys()
    assert all(np.array_equal(again[name], value) for name, value in state.items())
    assert not np.array_equal(train_decoder(kind, lessons, seed=1)["error"], again["error"])


def test_the_convolutional_decoder_is_the_network_that_it_says(lessons, states):
    state = {name: torch.from_numpy(np.array(value)) for name, value in states["conv"].items()}
    embeddings = lessons.embeddings[::12]
    x = torch.from_numpy(embeddings)
    grid = nn.Linear(20, 32 * 2 * 2)
    layers = [nn.Conv2d(a, b, 3, padding=1) for a, b in ((32, 32), (32, 24), (24, 16), (16, 3))]
    for layer, name in zip([grid, *layers], ("grid", "conv0", "conv1", "conv2", "rgb"), strict=True):
        layer.load_state_dict({"weight": state[name], "bias": state[f"{name}_bias"]})
    with torch.no_grad():
        maps = nn.SiLU()(grid(((x - state["centre"]) / state["spread"]).float())).view(5, 32, 2, 2)
        for layer, size in zip(layers, ((3, 3), (5, 6), (9, 12)), strict=False):
            maps = nn.SiLU()(layer(nn.Upsample(size)(maps)))
        wanted = state["picture"] + layers[-1](maps)
    found = decoder_of("conv", states["conv"], "it", 20).decode(embeddings)
    np.testing.assert_allclose(found, wanted.numpy(), rtol=0, atol=1e-5)
    assert found.std(axis=0).max() > 0.02


@pytest.mark.parametrize("kind", KINDS)
def test_a_change_is_the_difference_of_two_pictures(lessons, states, kind):
    decoder = decoder_of(kind, states[kind], "it", 20)
    h = lessons.embeddings[0]
    steps = np.random.default_rng(0).normal(size=(3, 20))
    for step, found in zip(steps, decoder.change(h, steps), strict=True):
        wanted = decoder.decode((h + step)[None])[0] - decoder.decode(h[None])[0]
        np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_a_decoder_no_better_than_the_mean_picture_is_refused_with_both_errors(lessons, kind):
    noise = np.random.default_rng(0).normal(size=lessons.embeddings.shape)
    state = train_decoder(kind, replace(lessons, embeddings=noise, mirrored=(noise, lessons.mirrored[1])), 0)
    errors = errors_of(state)
    if errors.decoder < errors.mean_picture:  # by chance, and by little
        state = state | {"error": state["mean_error"]}
        errors = errors_of(state)
    with pytest.raises(EngineError, match="no better than the mean picture") as caught:
        decoder_of(kind, state, "it", 20)
    for number in (errors.decoder, errors.mean_picture):
        assert f"{number:.4f}" in caught.value.message
    assert "more animals" in caught.value.cure
    assert not caught.value.ends_the_run
    with pytest.raises(EngineError, match="no better"):
        decoder_of(kind, state | {"error": np.array(np.nan)}, "it", 20)


@pytest.mark.parametrize(("n_animals", "per_animal"), [(0, 0), (5, 10), (13, 3)])
def test_from_too_few_nothing_is_learned_and_that_is_said_when_explaining(n_animals, per_animal):
    lessons = gather(subject_of(), drawn_chips(n_animals, per_animal), unit_length=True, longer_side=SIDE)
    state = train_decoder("linear", lessons, 0)
    assert state.keys() == {"photos", "animals"}
    assert np.isnan(errors_of(state).decoder)
    photos = n_animals * per_animal
    with pytest.raises(EngineError, match=f"{photos} photos of {n_animals} animals are too few") as caught:
        decoder_of("linear", state, "it", 20)
    assert "larger catalogue" in caught.value.cure


def test_a_decoder_of_another_network_or_none_is_refused(states):
    with pytest.raises(EngineError, match="embeddings of 20 numbers, and the network gives 21"):
        decoder_of("linear", states["linear"], "it", 21)
    with pytest.raises(EngineError, match="no decoder") as caught:
        decoder_of("linear", None, "it", 20)
    assert "--method it" in caught.value.cure


def test_recipes_tell_kinds_apart():
    assert recipe_of("linear") != recipe_of("conv")


def test_scaling_goes_from_0_to_1_and_leaves_constants_at_0():
    np.testing.assert_allclose(scaled(np.array([3.0, -1.0, 1.0])), [1, 0, 0.5])
    assert not scaled(np.full((2, 2), 7.0)).any()


def test_brightness_undoes_the_normalisation():
    shown = np.random.default_rng(0).integers(0, 256, (5, 6, 3), dtype=np.uint8)
    low, high = (np.array(v) for v in (VALUES.low, VALUES.high))
    chip = torch.from_numpy((low + shown / 255 * (high - low)).transpose(2, 0, 1))
    np.testing.assert_allclose(VALUES.brightness(chip).numpy().transpose(1, 2, 0), shown / 255, atol=1e-12)
    np.testing.assert_array_equal(VALUES.pixels(chip), shown)
    assert isinstance(subject_of(), Subject)
