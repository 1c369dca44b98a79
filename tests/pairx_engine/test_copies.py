"""Planted copies of all kinds are found and named.

Other pictures, however similar, are not taken for copies.
"""

from __future__ import annotations

import io
import itertools
from functools import cache

import cv2
import numpy as np
import pytest
from PIL import Image

from pairx_engine.copies.registration import Picture
from pairx_engine.copies.similarity import inverse
from pairx_engine.copies.verification import MIN_AGREEMENT, MIN_WEAKEST, identity, verify_copy
from pairx_engine.photo.chips import cut_photo
from pairx_engine.photo.perceptual_hash import orientation_hashes
from pairx_engine.toy.animal import Animal, Encounter, Shot, draw_photo


def turned_by_ten(pixels):
    return np.array(Image.fromarray(pixels).rotate(-10, Image.Resampling.BICUBIC, expand=True))


def halved(pixels):
    height, width = pixels.shape[:2]
    return np.array(Image.fromarray(pixels).resize((width // 2, height // 2), Image.Resampling.LANCZOS))


def as_jpeg(pixels, quality=30):
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=quality)
    return np.array(Image.open(buffer))


def cropped(pixels):
    height, width = pixels.shape[:2]
    return pixels[height // 10 :, : width - width // 5][: round(0.8 * height)]


def brighter(pixels):
    return np.clip(pixels * 1.3, 0, 255).astype(np.uint8)


KINDS = {
    "turned_90": lambda p: np.rot90(p, -1),
    "turned_180": lambda p: np.rot90(p, 2),
    "turned": turned_by_ten,
    "cropped": cropped,
    "mirrored": lambda p: p[:, ::-1],
    "resized": halved,
    "jpeg": as_jpeg,
    "brighter": brighter,
    "darker": lambda p: (p * 0.7).astype(np.uint8),
}
WORDS = {kind: "resaved" if kind in ("jpeg", "brighter", "darker") else kind for kind in KINDS}


@cache
def drawn(number, encounter=0, shot=0, pattern="spots"):
    photo = draw_photo(Animal(number, pattern), Encounter(encounter), Shot(shot, "left"))
    return cut_photo(photo.pixels, photo.box)


def copy_of(pixels, *kinds):
    for kind in kinds:
        pixels = np.ascontiguousarray(KINDS[kind](pixels))
    return pixels


def compare(first, second):
    return verify_copy(Picture.of(first), Picture.of(second))


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_copy_is_found_and_named(kind):
    for number in (1, 2):
        found = compare(drawn(number), copy_of(drawn(number), kind))
        assert found.same_picture
        assert found.transform == WORDS[kind]
        assert found.mirrored == (kind == "mirrored")
        assert found.agreement >= MIN_AGREEMENT
        assert found.weakest >= MIN_WEAKEST


@pytest.mark.parametrize("kinds", list(itertools.combinations(KINDS, 2)), ids="+".join)
def test_two_at_once_are_found(kinds):
    if set(kinds) != {"brighter", "darker"}:
        assert compare(drawn(3), copy_of(drawn(3), *sorted(kinds, key="jpeg".__eq__))).same_picture


def test_the_matrix_leads_from_one_cut_to_the_other():
    picture = drawn(4)
    width = picture.shape[1]
    found = compare(picture, copy_of(picture, "mirrored", "resized"))
    scale = (width // 2) / width
    np.testing.assert_allclose(found.matrix, [[-scale, 0, width // 2], [0, scale, 0]], atol=0.5)
    assert found.transform == "mirrored, resized"


@pytest.mark.parametrize(
    "kinds", [("turned_90", "jpeg"), ("mirrored", "cropped"), ("turned", "resized")], ids="+".join
)
def test_the_order_of_the_two_does_not_matter(kinds):
    picture, copy = drawn(5), copy_of(drawn(5), *kinds)
    for second in (copy, drawn(6)):
        there, back = compare(picture, second), compare(second, picture)
        for name in (
            "mirrored",
            "agreement",
            "weakest",
            "overlap",
            "hash_distance",
            "inliers",
            "same_picture",
        ):
            assert getattr(there, name) == getattr(back, name)
        if there.matrix is not None:
            np.testing.assert_allclose(there.matrix, inverse(back.matrix), atol=1e-6)
        undone = {"turned_90": "turned_270", "turned_270": "turned_90"}
        words = there.transform.split(", ")
        assert back.transform.split(", ") == (words if there.mirrored else [undone.get(w, w) for w in words])


def test_identical_pixels_are_identical():
    found = compare(drawn(1), drawn(1).copy())
    assert (found.transform, found.agreement, found.overlap, found.same_picture) == ("identical", 1, 1, True)


def test_another_photo_of_the_animal_and_another_animal_are_no_copies():
    for first, second in (
        (drawn(1), drawn(1, shot=1)),
        (drawn(1), drawn(1, encounter=1)),
        (drawn(1), drawn(2)),
    ):
        found = compare(first, second)
        assert not found.same_picture
        assert found.weakest < 0.6


def background(seed, height=200, width=300):
    noise = np.random.default_rng(seed).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    return np.array(Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC))


def before(behind, coat, centre=(150, 100), axes=(75, 50)):
    """An animal of a coat in front of a background."""
    inside = cv2.ellipse(np.zeros(behind.shape[:2], np.uint8), centre, axes, 0, 0, 360, 1, -1).astype(bool)
    picture = behind.copy()
    picture[inside] = coat[inside]
    return picture


def test_two_animals_before_one_background_are_no_copies():
    """Four fifths of the picture are the same, pixel by pixel, and nearly all local matches agree."""
    behind = background(0)
    found = compare(before(behind, background(1)), before(behind, background(2)))
    assert found.agreement > 0.5
    assert found.weakest < 0.6
    assert not found.same_picture


def test_a_frame_in_which_a_part_has_moved_is_no_copy():
    behind, coat, ear = background(0), background(1), background(2)
    first = before(before(behind, coat), ear, (90, 40), (18, 12))
    second = before(before(behind, coat), np.roll(ear, (6, 6), (0, 1)), (96, 46), (18, 12))
    found = compare(first, as_jpeg(second, 90))
    assert found.weakest < MIN_WEAKEST
    assert not found.same_picture


def test_pictures_without_contrast_are_no_copies():
    grey = np.full((60, 80, 3), 128, np.uint8)
    assert compare(grey, grey.copy()).transform == "identical"
    found = compare(grey, np.full((60, 90, 3), 90, np.uint8))
    assert (found.same_picture, found.agreement) == (False, 0)


def test_hashes_of_a_picture_are_those_of_its_cut():
    cut = drawn(1)
    assert Picture.of(cut).hashes.tolist() == list(orientation_hashes(cut))


def test_fill_in_the_corners_is_no_content():
    picture = background(5)
    turned = Picture.of(turned_by_ten(picture))
    assert 0.6 < turned.content.mean() < 0.85
    assert turned.content[0, 0] == turned.content[-1, -1] == 0
    assert Picture.of(picture).content.mean() > 0.97


def test_identity_names_the_thresholds():
    assert identity()["thresholds"][:2] == [MIN_AGREEMENT, MIN_WEAKEST]
