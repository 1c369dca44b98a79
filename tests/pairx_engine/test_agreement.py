"""Correlation of gradients: equal to loops over the pixels.

It does not depend on brightness, or on anything outside the mask.
"""

from __future__ import annotations

import math

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pairx_engine.copies.agreement import FEWEST, FLOOR, gradient_correlation, gradients, tile_correlations


def pictures(seed, height=45, width=62, count=2):
    rng = np.random.default_rng(seed)
    return [
        cv2.GaussianBlur(rng.uniform(0, 255, (height, width)).astype(np.float32), (0, 0), 1.5)
        for _ in range(count)
    ]


def masks(seed, height=45, width=62):
    """A rectangle with holes."""
    rng = np.random.default_rng(seed)
    mask = np.zeros((height, width), bool)
    mask[
        rng.integers(0, 6) : height - rng.integers(0, 6), rng.integers(0, 8) : width - rng.integers(0, 8)
    ] = True
    return mask & (rng.random((height, width)) < 0.9)


def naive_gradients(grey, mask, smoothing):
    """Blur over the mask by summing over all pixels, then half differences.

    Borders are mirrored without repetition.
    """
    height, width = grey.shape
    kernel = cv2.getGaussianKernel(2 * round(smoothing * 4) + 1, smoothing).ravel()
    radius = len(kernel) // 2

    def at(i, size):
        while not 0 <= i < size:
            i = -i if i < 0 else 2 * size - 2 - i
        return i

    smooth = np.zeros((height, width))
    for y in range(height):
        for x in range(width):
            total = weight = 0.0
            for dy in range(-radius, radius + 1):
                for dx in range(-radius, radius + 1):
                    v, u = at(y + dy, height), at(x + dx, width)
                    if mask[v, u]:
                        factor = kernel[dy + radius] * kernel[dx + radius]
                        total += factor * grey[v, u]
                        weight += factor
            smooth[y, x] = total / max(weight, 1e-6)
    found = np.zeros((2, height, width))
    for y in range(height):
        for x in range(width):
            found[0, y, x] = (smooth[y, at(x + 1, width)] - smooth[y, at(x - 1, width)]) / 2
            found[1, y, x] = (smooth[at(y + 1, height), x] - smooth[at(y - 1, height), x]) / 2
    return found


def naive_correlation(first, second, where):
    product = energy_a = energy_b = 0.0
    for y, x in where:
        product += sum(float(first[c, y, x]) * float(second[c, y, x]) for c in range(2))
        energy_a += sum(float(first[c, y, x]) ** 2 for c in range(2))
        energy_b += sum(float(second[c, y, x]) ** 2 for c in range(2))
    return product, energy_a, energy_b


def test_gradients_are_half_differences_of_a_blur_over_the_mask():
    (grey,), mask = pictures(0, 13, 11, 1), masks(1, 13, 11)
    found, wanted = gradients(grey, mask, 1.0), naive_gradients(grey, mask, 1.0)
    near = mask & (cv2.erode(np.ones_like(mask, np.uint8), np.ones((3, 3))) > 0)
    np.testing.assert_allclose(found[:, near], wanted[:, near], rtol=0, atol=2e-3)


@settings(max_examples=6, deadline=None)
@given(st.integers(0, 10**6))
def test_correlations_equal_loops_over_the_pixels(seed):
    mask = masks(seed)
    first, second = (gradients(grey, mask, 1.0) for grey in pictures(seed))
    product, energy_a, energy_b = naive_correlation(first, second, np.argwhere(mask))
    assert gradient_correlation(first, second, mask) == pytest.approx(
        product / math.sqrt(energy_a * energy_b), abs=1e-9
    )

    gain = math.sqrt(energy_a / energy_b)
    doubles = first.astype(np.float64), second.astype(np.float64)
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    top, left = rows[0], columns[0]
    height, width = rows[-1] + 1 - top, columns[-1] + 1 - left
    side = max(max(height, width) / 6, 20)
    edges = [[int(v) for v in np.linspace(0, n, max(1, round(n / side)) + 1)] for n in (height, width)]
    wanted = []
    for y0, y1 in zip(edges[0], edges[0][1:], strict=False):
        for x0, x1 in zip(edges[1], edges[1][1:], strict=False):
            where = [
                (top + y, left + x) for y in range(y0, y1) for x in range(x0, x1) if mask[top + y, left + x]
            ]
            if len(where) < FEWEST * (y1 - y0) * (x1 - x0):
                continue
            # The weaker gradients are brought to the contrast of the others.
            factors = (1, gain) if gain >= 1 else (1 / gain, 1)
            product, e0, e1 = naive_correlation(factors[0] * doubles[0], factors[1] * doubles[1], where)
            noise = FLOOR**2 * len(where)
            wanted.append((product + noise) / (math.sqrt(e0 * e1) + noise))
    np.testing.assert_allclose(tile_correlations(first, second, mask), wanted, atol=1e-9)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10**6), st.floats(0.3, 3), st.floats(-50, 50))
def test_neither_order_nor_brightness_matters(seed, contrast, offset):
    mask = masks(seed)
    one, two = pictures(seed)
    first, second = gradients(one, mask), gradients(two, mask)
    changed = gradients(one * np.float32(contrast) + np.float32(offset), mask)
    assert gradient_correlation(first, second, mask) == gradient_correlation(second, first, mask)
    np.testing.assert_array_equal(
        tile_correlations(first, second, mask), tile_correlations(second, first, mask)
    )
    assert gradient_correlation(first, changed, mask) == pytest.approx(1, abs=1e-3)
    assert tile_correlations(first, changed, mask) == pytest.approx(1, abs=1e-3)


def test_what_lies_outside_of_the_mask_has_no_influence():
    mask, (one, two) = masks(3), pictures(3)
    other = np.where(mask, one, np.float32(255) - one)
    found = [gradients(grey, mask) for grey in (one, other)]
    assert gradient_correlation(*found, mask) == pytest.approx(1, abs=1e-2)
    assert gradient_correlation(found[0], gradients(two, mask), mask) < 0.9


def test_one_part_that_differs_shows_in_its_tile_alone():
    one, two = pictures(4, 120, 120)
    mixed = one.copy()
    mixed[80:, 80:] = two[80:, 80:]
    mask = np.ones_like(one, bool)
    tiles = tile_correlations(gradients(one, mask, 1.0), gradients(mixed, mask, 1.0), mask)
    assert (tiles > 0.9).sum() == 32
    assert tiles.min() < 0.5


def test_even_pictures_agree_in_no_gradient_and_empty_masks_in_no_tile():
    even, mask = np.full((30, 30), 7, np.float32), np.ones((30, 30), bool)
    flat = gradients(even, mask)
    assert gradient_correlation(flat, flat, mask) == 0
    assert set(tile_correlations(flat, flat, mask)) == {1.0}
    assert len(tile_correlations(flat, flat, ~mask)) == 0
