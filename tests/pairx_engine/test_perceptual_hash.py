"""The difference hash: near-identical pictures lie close, and different ones do not.

Equal greys never count.
"""

from __future__ import annotations

import io

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image, ImageFilter

from pairx_engine.photo.perceptual_hash import (
    difference_hash,
    hash_distances,
    least_distances,
    orientation_hashes,
    orientations_or_upright,
    oriented,
)


def coat(seed, height=240, width=320):
    """Soft blobs on a shaded ground, like an animal's side."""
    noise = np.random.default_rng(seed).integers(0, 256, (12, 16, 3), dtype=np.uint8)
    return np.array(Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC))


def distance(first, second):
    return int(hash_distances(np.uint64(difference_hash(first)), np.uint64(difference_hash(second))))


def naive_hash(small):
    """From a picture of 8 x 9 pixels already: bits row by row, the first one highest."""
    number = 0
    for row in range(8):
        for column in range(8):
            left, right = (
                299 * int(p[0]) + 587 * int(p[1]) + 114 * int(p[2])
                for p in (small[row, column], small[row, column + 1])
            )
            number = 2 * number + (right > left)
    return number


@settings(max_examples=50, deadline=None)
@given(arrays(np.uint8, (8, 9, 3), elements=st.integers(0, 255)))
def test_the_bits_are_the_signs_of_grey_differences(small):
    assert difference_hash(small) == naive_hash(small)


@settings(max_examples=50, deadline=None)
@given(st.tuples(*[st.integers(0, 255)] * 3), st.integers(4, 200), st.integers(4, 200))
def test_a_flat_picture_hashes_to_nothing_at_any_size_and_colour(colour, height, width):
    assert difference_hash(np.full((height, width, 3), colour, np.uint8)) == 0


def test_recompressed_resized_and_blurred_copies_stay_close():
    for seed in range(8):
        original = Image.fromarray(coat(seed))
        buffer = io.BytesIO()
        original.save(buffer, "JPEG", quality=40)
        copies = [
            Image.open(buffer).convert("RGB"),
            original.resize((200, 150)),
            original.filter(ImageFilter.GaussianBlur(2)),
        ]
        for copy in copies:
            assert distance(np.array(original), np.array(copy)) <= 6


def test_other_animals_and_mirror_images_are_far():
    coats = [coat(seed) for seed in range(12)]
    for i, first in enumerate(coats):
        assert distance(first, first[:, ::-1]) > 12
        for second in coats[:i]:
            assert distance(first, second) > 12


@settings(max_examples=100)
@given(
    st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=5),
    st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=5),
)
def test_distances_count_differing_bits_and_broadcast(first, second):
    found = hash_distances(np.array(first, np.uint64)[:, None], np.array(second, np.uint64)[None])
    wanted = [[bin(a ^ b).count("1") for b in second] for a in first]
    np.testing.assert_array_equal(found, wanted)


def test_orientations_are_turns_and_mirror_images():
    picture = coat(0, 30, 40)
    assert np.array_equal(oriented(picture, 0), picture)
    assert np.array_equal(
        oriented(picture, 1), np.array(Image.fromarray(picture).transpose(Image.Transpose.ROTATE_90))
    )
    assert np.array_equal(oriented(picture, 4), picture[:, ::-1])
    assert len({oriented(picture, o).tobytes() for o in range(8)}) == 8


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6), st.integers(10, 256), st.integers(10, 256))
def test_hashes_of_orientations_are_hashes_of_turned_pictures(seed, height, width):
    picture = coat(seed, height, width)
    found = orientation_hashes(picture)
    assert list(found) == [difference_hash(oriented(picture, o)) for o in range(8)]
    # Whatever orientation comes first, the eight are the same.
    assert sorted(orientation_hashes(oriented(picture, 5))) == sorted(found)


def test_large_pictures_are_reduced_before_they_are_turned():
    picture = coat(1, 700, 900)
    found = np.array(orientation_hashes(picture), np.uint64)
    wanted = np.array([difference_hash(oriented(picture, o)) for o in range(8)], np.uint64)
    assert found[0] == wanted[0]
    assert hash_distances(found, wanted).max() <= 2


def test_turned_copies_are_close_and_others_are_not():
    coats = [np.array(orientation_hashes(coat(seed)), np.uint64) for seed in range(6)]
    for i, hashes in enumerate(coats):
        for orientation in range(8):
            turned = np.array(orientation_hashes(oriented(coat(i), orientation)), np.uint64)
            assert least_distances(hashes, turned) <= 2
        for other in coats[:i]:
            assert least_distances(hashes, other) > 6


eight = st.lists(st.integers(0, 2**64 - 1) | st.just(0), min_size=8, max_size=8)


@given(eight, eight)
def test_the_least_distance_is_that_of_a_double_loop(first, second):
    def one_way(a, b):
        return [64 if o and not b[o] else bin(a[0] ^ b[o]).count("1") for o in range(8)]

    found = [
        least_distances(np.array(a, np.uint64), np.array(b, np.uint64))
        for a, b in ((first, second), (second, first))
    ]
    assert found[0] == found[1] == min(one_way(first, second) + one_way(second, first))


def test_photos_without_hashes_of_orientations_are_upright():
    found = orientations_or_upright(np.array([5, 7], np.uint64), [None, list(range(8))])
    assert found.tolist() == [[5] * 8, list(range(8))]
