"""Local evidence hands out where its matches lie, and which of them the homography explains."""

import numpy as np
import pytest

from pairx_engine.local.evidence import LocalEvidence, local_evidence
from pairx_engine.local.features import LocalFeatures
from pairx_engine.local.homography import transform

SHIFT = np.array([[1.0, 0.02, 8.0], [-0.01, 1.0, 5.0], [0.0, 0.0, 1.0]])
CHIP = (120, 160)


class InOrder:
    """Matches the i-th feature with the i-th."""

    min_inliers = 8

    def match(self, first, second):
        return np.stack([np.arange(len(first))] * 2, axis=1)


def features(points, size):
    points = np.asarray(points, dtype=np.float32)
    return LocalFeatures(
        points, np.zeros((len(points), 2), np.float32), np.zeros(len(points), np.float32), size
    )


def case(n_good, n_bad):
    rng = np.random.default_rng(4)
    first = rng.uniform([20, 20], [280, 220], (n_good + n_bad, 2))
    second = transform(SHIFT, first)
    second[n_good:] = rng.uniform([20, 20], [280, 220], (n_bad, 2))
    # The first match is there twice, as of a keypoint with two orientations.
    return (
        features(np.vstack([first, first[:1]]), (320, 240)),
        features(np.vstack([second, second[:1]]), (320, 240)),
    )


def test_points_are_those_of_the_matches_in_chip_pixels():
    first, second = case(20, 10)
    found = local_evidence(InOrder(), first, second, CHIP)
    for points, side in zip(found.points, (first, second), strict=True):
        np.testing.assert_allclose(points, side.points * 0.5, rtol=1e-6)
    assert found.n_matches == 31


def test_the_marked_matches_are_the_inliers_and_repeats_are_marked_too():
    first, second = case(20, 10)
    found = local_evidence(InOrder(), first, second, CHIP)
    assert found.inliers[:20].all()
    assert found.inliers[-1]
    marked = np.hstack(found.points)[found.inliers]
    assert len(np.unique(marked, axis=0)) == found.n_inliers == len(marked) - 1


def test_without_a_homography_points_remain():
    found = local_evidence(InOrder(), *case(0, 5), CHIP)
    assert (found.matrix, found.inliers, found.n_inliers) == (None, None, None)
    assert found.reason
    assert [len(side) for side in found.points] == [6, 6]


def test_counts_must_fit():
    points = np.zeros((2, 2)), np.zeros((2, 2))
    with pytest.raises(ValueError, match="as many points"):
        LocalEvidence(3, None, None, "x", points)
    with pytest.raises(ValueError, match="marks of inliers"):
        LocalEvidence(2, 1, np.eye(3), None, points, np.ones(3, dtype=bool))
