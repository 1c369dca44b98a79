"""Mutual nearest matches against a double loop and against OpenCV, with ties.

Also points and relevances of matches.
"""

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from pairx_engine.pair import matching
from pairx_engine.pair.matching import Matches, cell_points, match_relevance, mutual_matches

SIDES = st.integers(1, 5)


@st.composite
def tied_maps(draw):
    """Two maps of small whole numbers: many distances are exactly equal."""
    channels = draw(st.integers(1, 3))
    shapes = [(channels, draw(SIDES), draw(SIDES)) for _ in range(2)]
    offset = draw(st.sampled_from([0.0, 300.0]))
    return tuple(
        draw(arrays(np.float32, shape, elements=st.integers(0, 3).map(float))) + np.float32(offset)
        for shape in shapes
    )


def descriptors(features):
    return np.ascontiguousarray(features.reshape(features.shape[0], -1).T)


def naive_matches(map_a, map_b):
    """Cells as flat indices, by loops over all pairs; the first of equally near cells counts."""
    d0, d1 = descriptors(map_a).astype(float), descriptors(map_b).astype(float)
    nearest_a = [
        min(range(len(d1)), key=lambda j, i=i: (((d0[i] - d1[j]) ** 2).sum(), j)) for i in range(len(d0))
    ]
    nearest_b = [
        min(range(len(d0)), key=lambda i, j=j: (((d0[i] - d1[j]) ** 2).sum(), i)) for j in range(len(d1))
    ]
    return [(i, j) for i, j in enumerate(nearest_a) if nearest_b[j] == i]


def flat(found, map_a, map_b):
    index0 = found.cell_a[:, 1] * map_a.shape[2] + found.cell_a[:, 0]
    index1 = found.cell_b[:, 1] * map_b.shape[2] + found.cell_b[:, 0]
    return list(zip(index0.tolist(), index1.tolist(), strict=True))


def match(map_a, map_b):
    return mutual_matches(torch.from_numpy(map_a), torch.from_numpy(map_b))


@settings(deadline=None, max_examples=300)
@given(tied_maps())
def test_matches_equal_the_double_loop_with_ties(maps):
    assert flat(match(*maps), *maps) == naive_matches(*maps)


@settings(deadline=None, max_examples=300)
@given(tied_maps())
def test_matches_equal_opencvs_with_ties(maps):
    found = cv2.BFMatcher(cv2.NORM_L2, crossCheck=True).match(*map(descriptors, maps))
    assert flat(match(*maps), *maps) == sorted((m.queryIdx, m.trainIdx) for m in found)


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 10_000), st.sampled_from([0.0, 30.0]))
def test_a_map_matches_itself_cell_by_cell_even_where_cells_repeat(seed, offset):
    # Far from the origin, distances expanded into dot products are not exactly zero and lose the tie.
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(7, 3, 4)).astype(np.float32) + np.float32(offset)
    features[:, 1] = features[:, 0]
    found = match(features, features)
    assert flat(found, features, features) == [(i, i) for i in (*range(4), *range(8, 12))]
    assert (found.distance == 0).all()


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 10_000))
def test_distances_are_of_the_raw_descriptors_and_swapping_swaps(seed):
    rng = np.random.default_rng(seed)
    map_a, map_b = (rng.normal(size=(6, h, w)).astype(np.float32) * 20 for h, w in ((3, 5), (4, 2)))
    found, swapped = match(map_a, map_b), match(map_b, map_a)
    d0, d1 = descriptors(map_a), descriptors(map_b)
    pairs = flat(found, map_a, map_b)
    assert sorted((j, i) for i, j in pairs) == flat(swapped, map_b, map_a)
    np.testing.assert_allclose(found.distance, [np.linalg.norm(d0[i] - d1[j]) for i, j in pairs], rtol=1e-5)


@pytest.mark.parametrize("elements", [1, 7, 24, 1000])
def test_blocks_do_not_change_matches(monkeypatch, elements):
    rng = np.random.default_rng(5)
    maps = [rng.integers(0, 3, size=(2, 4, 6)).astype(np.float32) for _ in range(2)]
    wanted = match(*maps)
    monkeypatch.setattr(matching, "DISTANCES_AT_ONCE", elements)
    found = match(*maps)
    assert flat(found, *maps) == flat(wanted, *maps)
    assert np.array_equal(found.distance, wanted.distance)


def test_maps_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="equal C"):
        mutual_matches(torch.zeros(3, 2, 2), torch.zeros(4, 2, 2))
    with pytest.raises(ValueError, match="not finite"):
        mutual_matches(torch.full((3, 2, 2), float("nan")), torch.zeros(3, 2, 2))
    with pytest.raises(ValueError, match="need cells"):
        Matches(np.zeros((2, 2), int), np.zeros((3, 2), int), np.zeros(2, np.float32))


@given(st.integers(1, 30), st.integers(1, 30), st.integers(16, 500), st.integers(16, 500))
def test_points_are_the_centres_of_cells(h, w, height, width):
    cells = np.array([(column, row) for row in range(h) for column in range(w)])
    points = cell_points(cells, (h, w), (height, width))
    for (column, row), (x, y) in zip(cells.tolist(), points.tolist(), strict=True):
        assert x == pytest.approx((column * width / w + (column + 1) * width / w) / 2)
        assert y == pytest.approx((row * height / h + (row + 1) * height / h) / 2)


@given(st.integers(0, 10_000))
def test_relevance_of_a_match_is_the_product_of_its_cells(seed):
    rng = np.random.default_rng(seed)
    grid_a, grid_b = rng.normal(size=(3, 5)), rng.normal(size=(4, 2))
    cells_a = np.stack([rng.integers(0, 5, 6), rng.integers(0, 3, 6)], axis=1)
    cells_b = np.stack([rng.integers(0, 2, 6), rng.integers(0, 4, 6)], axis=1)
    found = match_relevance(
        Matches(cells_a, cells_b, np.zeros(6, np.float32)), torch.from_numpy(grid_a), grid_b
    )
    assert found.dtype == np.float64
    for value, (c0, r0), (c1, r1) in zip(found, cells_a, cells_b, strict=True):
        assert value == grid_a[r0, c0] * grid_b[r1, c1]
