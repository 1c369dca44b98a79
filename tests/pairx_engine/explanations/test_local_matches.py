"""Local matches as an explanation: spread against loops, on pictures of which the matches are known."""

from pathlib import Path

import numpy as np
import pytest
import torch

from pairx_engine.engine import Engine, Recipe
from pairx_engine.errors import EngineError
from pairx_engine.explanations import Subject, explanation_named, explanations, needs, usual
from pairx_engine.explanations.local_matches import SPREAD, LocalMatches, explained_matches, spread
from pairx_engine.figure import FigurePhoto, draw_figure, figure_input
from pairx_engine.local.features import no_matches, strongest_features
from pairx_engine.local.registry import LOCAL_MATCHERS, Listed, load_local_matcher
from pairx_engine.photo.value_range import ValueRange
from tests.pairx_engine.small_networks import small_network

SHARED = Path(__file__).resolve().parents[3].parent / "shared"
VALUES = ValueRange((-2.0, -1.0, -1.5), (2.0, 3.0, 2.5))
SIZE = (96, 128)
SHIFT = 13
SIFT = LocalMatches("sift")


@pytest.fixture(scope="module")
def network():
    return small_network("conv + batch norm + SiLU", 2, stem="conv", pool="average", neck="linear")


@pytest.fixture(scope="module")
def subject(network):
    return Subject(network, "first", values=VALUES)


def blobs(seed, count=60):
    """A picture (H, W + SHIFT, 3) of dark and bright discs."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[: SIZE[0], : SIZE[1] + SHIFT]
    picture = np.full((*y.shape, 3), 128.0)
    for _ in range(count):
        at, radius = rng.uniform((0, 0), y.shape), rng.uniform(2, 8)
        picture[(y - at[0]) ** 2 + (x - at[1]) ** 2 < radius**2] = rng.uniform(0, 255, 3)
    return picture.round().astype(np.uint8)


def chip_of(picture):
    low, high = (np.array(v)[:, None, None] for v in (VALUES.low, VALUES.high))
    return torch.from_numpy(low + (high - low) * picture.transpose(2, 0, 1) / 255)


@pytest.fixture(scope="module")
def chips():
    """The second photo shows what the first does, further to the left."""
    picture = blobs(0)
    return chip_of(picture[:, : SIZE[1]]), chip_of(picture[:, SHIFT:])


def test_a_shifted_picture_is_matched_to_itself(subject, chips):
    found = SIFT.explain(subject, *chips)
    a, b = found.shown.points
    assert len(a) >= 10
    np.testing.assert_allclose(a - b, np.broadcast_to((SHIFT, 0), a.shape), rtol=0, atol=3)
    assert (np.diff(found.shown.relevance) <= 0).all()
    assert found.shown.matched
    assert found.arrays["match_explained"].sum() == len(a)
    assert f"{len(found.arrays['match_confidence'])} matches on the chips" in found.remarks[0]


def test_the_picture_that_is_searched_is_the_photo(subject, chips):
    """Keypoints are those of the picture of which the chip was made."""
    found = SIFT.explain(subject, *chips)
    matcher = load_local_matcher("sift")
    pictures = [np.ascontiguousarray(p) for p in (blobs(0)[:, : SIZE[1]], blobs(0)[:, SHIFT:])]
    a, b = (matcher.extract(picture) for picture in pictures)
    index = matcher.match(a, b)
    np.testing.assert_array_equal(found.arrays["match_point0"], a.points[index[:, 0]])
    np.testing.assert_array_equal(found.arrays["match_point1"], b.points[index[:, 1]])


def test_maps_sum_to_the_confidences_and_equal_the_loops(subject, chips):
    found = SIFT.explain(subject, *chips)
    counts = found.arrays["match_explained"]
    sigma = SPREAD * min(SIZE)
    for side in (0, 1):
        wanted = np.zeros(SIZE)
        points = found.arrays[f"match_point{side}"][counts]
        for (x, y), confidence in zip(points, found.arrays["match_confidence"][counts], strict=True):
            one = np.array(
                [
                    [
                        np.exp(-((c + 0.5 - x) ** 2 + (r + 0.5 - y) ** 2) / (2 * sigma**2))
                        for c in range(SIZE[1])
                    ]
                    for r in range(SIZE[0])
                ]
            )
            wanted += confidence * one / one.sum()
        np.testing.assert_allclose(found.maps[side], wanted, rtol=1e-9, atol=1e-12)
        total = found.arrays["match_confidence"][counts].sum()
        assert float(found.maps[side].sum()) == pytest.approx(total, rel=1e-9)


def test_points_at_the_edge_give_all_their_weight():
    made = spread(np.array([[0.0, 0.0], [20.0, 16.0]]), np.array([2.0, 3.0]), (16, 20))
    assert made.sum() == pytest.approx(5)
    assert made[0, 0] == pytest.approx(made[-1, -1] * 2 / 3)
    assert np.array_equal(spread(np.zeros((0, 2)), np.zeros(0), (16, 20)), np.zeros((16, 20)))


class Planted:
    """A matcher whose keypoints are given, matched in their order; it rates no match."""

    name, min_inliers, threads = "planted", 8, False

    def __init__(self, *points):
        self.points = list(points)

    def identity(self):
        return {}

    extraction_identity = identity

    def extract(self, view):
        at = self.points.pop(0)
        # Strengths keep the order.
        return strongest_features(at, np.zeros((len(at), 1)), -np.arange(len(at)), view.shape[1::-1], 99)

    def match(self, first, second):
        return np.stack([np.arange(len(first))] * 2, axis=1) if len(first) else no_matches()


def planted_points(rng, right=30, wrong=10):
    a = rng.uniform((15, 5), (120, 90), (right + wrong, 2))
    b = a - (SHIFT, 0)
    b[right:] = rng.uniform((0, 0), (128, 96), (wrong, 2))
    return a, b


def test_where_there_is_a_homography_only_what_it_explains_counts(network, chips):
    a, b = planted_points(np.random.default_rng(0))
    how = Subject(network, "first", values=VALUES, matchers=lambda name: Planted(a, b))
    found = SIFT.explain(how, *chips)
    counts = found.arrays["match_explained"]
    assert counts[:30].all()
    assert counts[30:].sum() <= 1
    assert len(found.shown.points[0]) == counts.sum() == float(found.maps[0].sum().round())
    assert "of which a homography explains" in found.remarks[0]


def test_without_a_homography_all_matches_count(network, chips):
    a, b = planted_points(np.random.default_rng(0), right=0, wrong=12)
    how = Subject(network, "first", values=VALUES, matchers=lambda name: Planted(a, b))
    found = SIFT.explain(how, *chips)
    assert not found.arrays["match_explained"].any()
    assert len(found.shown.points[0]) == 12
    assert float(found.maps[1].sum()) == pytest.approx(12)
    assert found.remarks == ("12 matches on the chips, no homography: all count",)


def test_homographies_explain_the_same_matches_either_way():
    matcher = load_local_matcher("sift")
    for seed in range(5):
        a, b = planted_points(np.random.default_rng(seed), 20, 25)
        b = b * (0.7, 1.2) + np.random.default_rng(seed).normal(scale=1.5, size=b.shape)
        one, other = explained_matches(matcher, a, b), explained_matches(matcher, b, a)
        assert one is not None
        assert np.array_equal(one, other)
    assert explained_matches(matcher, a[:3], b[:3]) is None


@pytest.mark.parametrize("grey", [True, False])
def test_nothing_to_match_gives_maps_of_zeros_and_a_figure(subject, chips, grey):
    blank = torch.zeros(3, *SIZE, dtype=torch.float64)
    found = SIFT.explain(subject, blank if grey else chips[0], blank)
    assert all(torch.equal(one, torch.zeros_like(one)) for one in found.maps)
    assert [len(p) for p in found.shown.points] == [0, 0]
    photos = [FigurePhoto(p, p, (SIZE[1], SIZE[0]), "photo") for p in map(VALUES.pixels, (chips[0], blank))]
    assert draw_figure(figure_input(found.shown, tuple(photos), "", 5)).figure.std() > 0


def test_the_partner_counts_and_the_order_of_the_photos_does_not(subject, chips):
    one, again = (SIFT.explain(subject, *chips) for _ in range(2))
    other = SIFT.explain(subject, *reversed(chips))
    for found, same, wanted in zip(one.maps, again.maps, reversed(other.maps), strict=True):
        assert torch.equal(found, same)
        # Confidences are ratios of distances in single precision.
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5 * float(wanted.max()))
    elsewhere = SIFT.explain(subject, chips[0], chip_of(blobs(7)[:, : SIZE[1]]))
    assert not torch.allclose(one.maps[0], elsewhere.maps[0])
    assert SIFT.sees_partner


def test_every_registered_matcher_is_listed_and_only_those_without_weights_are_usual():
    LOCAL_MATCHERS.register(Listed("toy", "", lambda *given: load_local_matcher("sift"), False))
    try:
        known = explanations()
        assert {f"matches_{name}" for name in LOCAL_MATCHERS} <= known.keys()
        assert {"matches_sift", "matches_toy"} <= set(usual())
        lacking = {name for name, each in known.items() if needs(each)}
        assert lacking == {f"matches_{n}" for n, m in LOCAL_MATCHERS.items() if m.needs_weights}
        assert not lacking & {*usual()}
    finally:
        del LOCAL_MATCHERS["toy"]


def test_absent_weights_are_named(subject, chips):
    with pytest.raises(EngineError, match=r"must hold aliked_n16\.safetensors"):
        explanation_named("matches_aliked+lightglue").explain(subject, *chips)


def recipe(folder):
    return Recipe(
        "embedded", None, None, (), "published", None, "float32", "sift", folder, 77, 384, "magsac", 3.0
    )


def test_an_engine_lends_its_matchers(tmp_path):
    asked = []

    def load(folder, device, max_keypoints):
        asked.append((folder, device, max_keypoints))
        return load_local_matcher("sift")

    LOCAL_MATCHERS.register(Listed("asked", "", load))
    try:
        Engine(recipe(str(tmp_path))).subject().matchers("asked")
    finally:
        del LOCAL_MATCHERS["asked"]
    assert asked == [(tmp_path, "cpu", 77)]


@pytest.mark.skipif(not (SHARED / "models").is_dir(), reason="no shared weights beside the project")
@pytest.mark.parametrize("name", ["xfeat+lighterglue"])
def test_published_weights_match_a_shifted_picture(network, chips, name):
    how = Subject(
        network, "first", values=VALUES, matchers=lambda n: load_local_matcher(n, SHARED / "models")
    )
    found = explanation_named(f"matches_{name}").explain(how, *chips)
    a, b = found.shown.points
    assert len(a) >= 5
    assert np.median(np.abs(a - b - (SHIFT, 0))) < 2
    assert (found.shown.relevance > 0).all()
    assert (found.shown.relevance <= 1).all()
