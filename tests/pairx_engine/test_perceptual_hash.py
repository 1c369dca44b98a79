"""The difference hash: near-identical pictures lie close, different ones do not, and equal greys never count."""

from __future__ import annotations

import io

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image, ImageFilter

from pairx_engine.perceptual_hash import difference_hash, hash_distances


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
