"""The drawn animals, and the embedded model that was trained on them."""

from __future__ import annotations

import hashlib
import json
import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pairx_engine.models.miewid import build_miewid
from pairx_engine.photo.chips import ChipSpec, chip_of, cut_photo
from pairx_engine.toy import body, train
from pairx_engine.toy.animal import (
    CATALOGUE_ANIMALS,
    FLANKS,
    SPECIES,
    TRAINING_ANIMALS,
    Animal,
    Encounter,
    Shot,
    draw_photo,
    skin,
)
from pairx_engine.toy.coat import paint, smooth_noise
from pairx_engine.toy.figure import draw_figure

ROOT = Path(__file__).resolve().parents[2]
BUILD = SPECIES["stripes"].build
angles = st.floats(-0.4, 0.4)


def posed(neck: float, head: float, stride: float) -> body.Pose:
    return body.Pose(
        neck, head, 0.0, {"near_fore": (stride, -0.1), "near_hind": (-stride, 0.1)}, (0.0, 0.0, 0.0)
    )


PHOTO_HASH = """
import hashlib
from pairx_engine.toy.animal import Animal, Encounter, Shot, draw_photo
photo = draw_photo(Animal(7, "spots"), Encounter(1), Shot(0, "right"))
print(hashlib.sha256(photo.pixels.tobytes() + repr(photo.box).encode()).hexdigest())
"""


def test_capsule_distance_equals_a_naive_one() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.uniform(-50, 150, (2, 40)).astype(np.float32)
    start, end = (10.0, 20.0, 12.0), (80.0, 60.0, 5.0)
    got = body._capsule(x, y, start, end)
    ts = np.linspace(0, 1, 4001)
    for px, py, value in zip(x, y, got, strict=True):
        along = np.hypot(px - (10 + 70 * ts), py - (20 + 40 * ts))
        nearest = int(along.argmin())
        assert value == pytest.approx(along[nearest] - (12 - 7 * ts[nearest]), abs=0.05)


@settings(max_examples=20, deadline=None)
@given(neck=angles, head=angles, stride=angles)
def test_bones_stay_joined_in_every_pose(neck: float, head: float, stride: float) -> None:
    moves = body.motions(BUILD, posed(neck, head, stride), "near")
    for parent, child, joint in (
        ("neck", "head", "poll"),
        ("fore_upper", "fore_lower", "knee"),
        ("hind_upper", "hind_lower", "hock"),
    ):
        point = np.append(BUILD.at(joint), 1)
        np.testing.assert_allclose(moves[parent] @ point, moves[child] @ point, atol=1e-3)
    for bone, start, end in body.BONES:
        lengths = [
            np.linalg.norm((m @ np.append(BUILD.at(end), 1) - m @ np.append(BUILD.at(start), 1))[:2])
            for m in (moves[bone], np.eye(3))
        ]
        assert lengths[0] == pytest.approx(lengths[1], rel=1e-4)


def test_body_at_rest_shows_every_point_where_it_is() -> None:
    surface = body.solve(BUILD, body.Pose(), "near")
    x, y = body._grid()
    np.testing.assert_allclose(surface.x, x, atol=2e-3)
    np.testing.assert_allclose(surface.y, y, atol=2e-3)
    ax, ay, ar = BUILD.joints["belly"]
    row, column = int(ay) // body.GRID, int(ax) // body.GRID
    assert surface.depth[row, column] >= ar - 2
    assert surface.depth[2, 2] < 0


def test_a_mark_on_the_coat_moves_with_the_neck() -> None:
    pose = posed(-0.35, 0.0, 0.2)
    mark = (BUILD.at("withers") * 0.35 + BUILD.at("poll") * 0.65).astype(int)
    coat = np.full((body.HEIGHT, body.WIDTH, 3), 60, np.uint8)
    coat[mark[1] - 4 : mark[1] + 5, mark[0] - 4 : mark[0] + 5] = 250
    figure = draw_figure(BUILD, pose, coat)
    ys, xs = np.nonzero(figure.rgba[..., 0] > 130)
    expected = (body.motions(BUILD, pose, "near")["neck"] @ np.append(mark, 1.0))[:2]
    assert math.dist(expected, mark) > 15
    assert math.dist((xs.mean(), ys.mean()), expected) < 4


def test_bend_displaces_by_no_more_than_its_amplitude() -> None:
    x, y = body._grid()
    dx, dy = body.bend_at((3.0, -5.0, 1.0), x, y)
    assert 1.5 < np.abs(dx).max() <= 3.001
    assert 2.5 < np.abs(dy).max() <= 5.001


@settings(max_examples=6, deadline=None)
@given(
    number=st.integers(0, 50),
    pattern=st.sampled_from(sorted(SPECIES)),
    encounter=st.integers(0, 5),
    flank=st.sampled_from(FLANKS),
)
def test_photo_and_box_are_well_formed(number: int, pattern: str, encounter: int, flank: str) -> None:
    photo = draw_photo(Animal(number, pattern), Encounter(encounter), Shot(0, flank))
    height, width, channels = photo.pixels.shape
    assert photo.pixels.dtype == np.uint8
    assert channels == 3
    assert 320 <= width <= 640
    x, y, w, h = photo.box
    assert 0 <= x < x + w <= width
    assert 0 <= y < y + h <= height
    assert w * h > 0.1 * width * height


def test_photos_follow_from_numbers_alone() -> None:
    photo = draw_photo(Animal(7, "spots"), Encounter(1), Shot(0, "right"))
    environment = os.environ | {"PYTHONHASHSEED": "4711", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", PHOTO_HASH]
    elsewhere = subprocess.run(command, capture_output=True, text=True, check=True, env=environment, cwd=ROOT)
    expected = hashlib.sha256(photo.pixels.tobytes() + repr(photo.box).encode()).hexdigest()
    assert elsewhere.stdout.strip() == expected


def correlation(a: np.ndarray, b: np.ndarray) -> float:
    window = np.s_[140:230, 170:350]
    return float(np.corrcoef(a[window].mean(-1).ravel(), b[window].mean(-1).ravel())[0, 1])


@pytest.mark.parametrize("pattern", ["spots", "stripes", "blotches"])
def test_every_flank_of_every_animal_has_its_own_coat(pattern: str) -> None:
    coats = [skin(Animal(number, pattern), flank) for number in (60, 61) for flank in FLANKS]
    for i, first in enumerate(coats):
        for second in coats[i + 1 :]:
            assert abs(correlation(first, second)) < 0.5
    assert skin(Animal(60, pattern), "left").std() > 20


def test_a_plain_coat_carries_little_to_tell_animals_by() -> None:
    contrasts = {p: skin(Animal(60, p), "left")[150:200, 200:330].std((0, 1)).mean() for p in SPECIES}
    assert contrasts["plain"] < 0.5 * min(v for k, v in contrasts.items() if k != "plain")


def test_smooth_noise_has_its_cell_size() -> None:
    noise = smooth_noise(np.random.default_rng(0), 20, 300, 400)
    assert noise.shape == (300, 400)
    assert 0.7 < noise.std() < 1.3
    assert np.abs(np.diff(noise, axis=1)).mean() < 0.12


def test_bad_arguments_are_refused() -> None:
    with pytest.raises(ValueError, match="unknown coat pattern"):
        Animal(1, "tartan")
    with pytest.raises(ValueError, match="outside"):
        Animal(TRAINING_ANIMALS.stop, "spots")
    with pytest.raises(ValueError, match="unknown flank"):
        Shot(0, "front")
    with pytest.raises(ValueError, match="unknown coat pattern"):
        paint("tartan", BUILD, (1, 1, 1), (0, 0, 0), np.random.default_rng(0))
    with pytest.raises(ValueError, match="lacks the joints"):
        body.Build({"chest": (0, 0, 1)})


def test_training_animals_never_occur_in_a_catalogue() -> None:
    assert not set(CATALOGUE_ANIMALS) & set(TRAINING_ANIMALS)
    assert all(animal.number in TRAINING_ANIMALS for animal in train.herd(TRAINING_ANIMALS.start, 50))
    for first in (CATALOGUE_ANIMALS.stop - 10, TRAINING_ANIMALS.stop - 10):
        with pytest.raises(ValueError, match="training range"):
            train.herd(first, 20)


def test_margin_chip_holds_the_chip_in_its_middle() -> None:
    photo = draw_photo(Animal(3, "blotches"), Encounter(0), Shot(0, "left"))
    chip = chip_of(cut_photo(photo.pixels, photo.box), ChipSpec((160, 160)))
    inner = train.margin_chip(photo, 160, 16)[16:-16, 16:-16]
    assert np.abs(inner[4:-4, 4:-4].astype(int) - chip[4:-4, 4:-4]).mean() < 1.0


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), margin=st.floats(0, 0.5))
def test_arcface_adds_the_margin_to_the_true_angle(seed: int, margin: float) -> None:
    rng = np.random.default_rng(seed)
    rows, centres, labels = rng.normal(size=(4, 6)), rng.normal(size=(5, 6)), rng.integers(0, 5, 4)
    got = train.arcface_logits(torch.tensor(rows), torch.tensor(centres), torch.tensor(labels), margin)
    for i, row in enumerate(rows):
        for j, centre in enumerate(centres):
            cosine = row @ centre / np.linalg.norm(row) / np.linalg.norm(centre)
            theta = math.acos(cosine)
            if j == labels[i]:
                cosine = (
                    math.cos(theta + margin)
                    if theta < math.pi - margin
                    else cosine - margin * math.sin(margin)
                )
            assert float(got[i, j]) == pytest.approx(train.SCALE * cosine, abs=1e-4)


def test_augmentation_keeps_range_and_follows_its_generator() -> None:
    chips = torch.rand((3, 3, 192, 192), generator=torch.Generator().manual_seed(0))
    first, again = (train.augmented(chips, 96, torch.Generator().manual_seed(1)) for _ in range(2))
    assert first.shape == (3, 3, 96, 96)
    assert 0 <= float(first.min()) <= float(first.max()) <= 1
    assert torch.equal(first, again)


def test_rank_one_counts_same_class_neighbours() -> None:
    class Mean(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.mean((2, 3))

    config = json.loads(train.CONFIG.read_text())
    colours = [(250, 0, 0), (240, 10, 0), (0, 250, 0), (0, 0, 250)]
    chips = np.stack([np.full((192, 192, 3), colour, np.uint8) for colour in colours])
    data = train.TrainingSet(chips, np.array([0, 0, 1, 2]), 3)
    assert train.rank_one(Mean(), data, config) == 0.5


def test_embedded_weights_fit_their_config_strictly() -> None:
    from safetensors.torch import load_file

    folder = train.CONFIG.parent
    assert (folder / "model.safetensors").stat().st_size < 4_000_000
    model = build_miewid(json.loads(train.CONFIG.read_text()))
    model.load_state_dict(load_file(folder / "model.safetensors"), strict=True)
    photos = [draw_photo(Animal(5 + n // 2, "spots"), Encounter(n % 2), Shot(0, "left")) for n in range(4)]
    views = np.stack([chip_of(cut_photo(photo.pixels, photo.box), ChipSpec((160, 160))) for photo in photos])
    with torch.no_grad():
        chips = train.normalised(
            torch.from_numpy(views).permute(0, 3, 1, 2).float() / 255, json.loads(train.CONFIG.read_text())
        )
        rows = torch.nn.functional.normalize(model.eval()(chips))
    cosine = (rows @ rows.T).numpy()
    assert rows.shape == (4, 256)
    assert min(cosine[0, 1], cosine[2, 3]) > max(cosine[0, 2], cosine[0, 3], cosine[1, 2], cosine[1, 3])


def test_the_cover_of_a_photo_is_its_animal():
    photo = draw_photo(Animal(3, "spots"), Encounter(0), Shot(0, "left"))
    assert photo.cover is not None
    assert photo.cover.shape == photo.pixels.shape[:2]
    rows, columns = np.nonzero(photo.cover > 127)
    x, y, w, h = photo.box
    # The box is loose, as a detector's.
    assert abs(columns.min() - x) + abs(columns.max() - x - w) < 0.25 * w
    assert abs(rows.min() - y) + abs(rows.max() - y - h) < 0.25 * h
    assert 0.15 < len(rows) / (w * h) < 0.8
