"""Maps between pictures: their action can be read off them.

Mirrored features are those of the mirrored picture.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from pairx_engine.copies.similarity import (
    after,
    by_local_features,
    in_centres,
    in_edges,
    inverse,
    mirror,
    mirrored_features,
    shape_of,
    whole_onto_whole,
)
from pairx_engine.local.sift import SiftMatcher, mutual_ratio_matches
from pairx_engine.photo.perceptual_hash import oriented


def coat(seed, height=180, width=240):
    noise = np.random.default_rng(seed).integers(0, 256, (24, 32, 3), dtype=np.uint8)
    return np.array(Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC))


def similarity(angle, scale, mirrored, x=3.0, y=-2.0):
    c, s = scale * math.cos(math.radians(angle)), scale * math.sin(math.radians(angle))
    plain = np.array([[c, -s, x], [s, c, y]])
    return after(mirror(0), plain) if mirrored else plain


@given(st.floats(-179, 179), st.floats(0.2, 5), st.booleans())
def test_what_a_map_does_is_read_off_it(angle, scale, mirrored):
    matrix = similarity(angle, scale, mirrored)
    assert shape_of(matrix) == (
        mirrored,
        pytest.approx(angle, abs=1e-6),
        pytest.approx(scale),
        pytest.approx(1),
    )
    np.testing.assert_allclose(after(matrix, inverse(matrix)), np.eye(2, 3), atol=1e-9)
    np.testing.assert_allclose(in_edges(in_centres(matrix)), matrix, atol=1e-9)
    # The first pixel's centre is 0 to OpenCV and a half to us.
    there = in_centres(matrix) @ [0, 0, 1]
    np.testing.assert_allclose(there + 0.5, matrix @ [0.5, 0.5, 1], atol=1e-9)


@pytest.mark.parametrize("orientation", range(8))
def test_whole_onto_whole_moves_pixels_as_the_orientation_does(orientation):
    picture = np.arange(5 * 7 * 3, dtype=np.uint8).reshape(5, 7, 3)
    turned = oriented(picture, orientation)
    matrix = whole_onto_whole(orientation, (7, 5), (turned.shape[1], turned.shape[0]))
    for y in range(5):
        for x in range(7):
            u, v = matrix @ [x + 0.5, y + 0.5, 1] - 0.5
            assert turned[round(v), round(u)].tolist() == picture[y, x].tolist()


def test_mirrored_features_are_those_of_the_mirrored_picture():
    picture, sift = coat(0), SiftMatcher(300)
    made = mirrored_features(sift.extract(picture))
    found = sift.extract(np.ascontiguousarray(picture[:, ::-1]))
    matches = mutual_ratio_matches(made.descriptors, found.descriptors, 0.85)
    apart = np.linalg.norm(made.points[matches[:, 0]] - found.points[matches[:, 1]], axis=1)
    assert (apart < 1).sum() > 0.8 * len(made)


@pytest.mark.parametrize("mirrored", [False, True])
def test_local_features_find_a_quarter_turn(mirrored):
    picture, sift = coat(1), SiftMatcher(300)
    orientation = 5 if mirrored else 1
    features = sift.extract(picture), sift.extract(oriented(picture, orientation))
    found = by_local_features(*features, mirrored)
    assert found is not None
    assert found.inliers > 100
    np.testing.assert_allclose(found.matrix, whole_onto_whole(orientation, (240, 180), (180, 240)), atol=0.6)
    wrong = by_local_features(*features, not mirrored)
    assert wrong is None or wrong.inliers < 20
