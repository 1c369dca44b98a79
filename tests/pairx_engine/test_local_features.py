"""Local features: the value, SIFT and the learned matchers.

SIFT is compared with naive loops and known warps; learned matchers have real or random weights.
"""

import socket
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from kornia.feature import ALIKED, DISK, LightGlue
from safetensors.torch import load_file, save_file

from pairx_engine.errors import ModelError
from pairx_engine.local.features import (
    LocalFeatures,
    MissingWeightsError,
    rated_matches,
    strongest_features,
)
from pairx_engine.local.homography import Homography, estimate_homography, rescale_points, transform
from pairx_engine.local.lightglue import FILTER_THRESHOLD
from pairx_engine.local.registry import LOCAL_MATCHERS, load_local_matcher
from pairx_engine.local.sift import (
    SiftMatcher,
    _minus_half_squared_distances,
    mutual_ratio_matches,
    rated_mutual_matches,
    root_sift,
)
from pairx_engine.local.superpoint import SuperPoint, sample, suppress
from pairx_engine.photo.chips import decode_photo, view_of

SHARED = Path(__file__).resolve().parents[2].parent / "shared"
needs_models = pytest.mark.skipif(
    not (SHARED / "models").is_dir(), reason="no shared weights beside the project"
)
needs_photos = pytest.mark.skipif(
    not (SHARED / "data").is_dir(), reason="no shared photos beside the project"
)
LEARNED = [name for name, matcher in LOCAL_MATCHERS.items() if matcher.needs_weights]


def texture(seed=0, size=(400, 512)):
    """A coat-like picture (H, W, 3): blobs at several scales."""
    rng = np.random.default_rng(seed)
    total = np.zeros(size)
    for grain in (4, 9, 20):
        coarse = rng.normal(size=(size[0] // grain + 1, size[1] // grain + 1))
        total += cv2.resize(coarse, size[::-1], interpolation=cv2.INTER_CUBIC) * np.sqrt(grain)
    scaled = 255 * (total - total.min()) / np.ptp(total)
    return np.repeat(scaled.astype(np.uint8)[..., None], 3, axis=2)


def shared_view(path, long_side=512):
    return view_of(decode_photo((SHARED / "data" / path).read_bytes()), long_side)


def inliers(matcher, path0, path1, long_side=512):
    first, second = (matcher.extract(shared_view(path, long_side)) for path in (path0, path1))
    pairs = matcher.match(first, second)
    points = first.points[pairs[:, 0]], second.points[pairs[:, 1]]
    return estimate_homography(*points, min_inliers=matcher.min_inliers).n_inliers


# --- the value -----------------------------------------------------------------------------------------


def features(n=3, d=4):
    return {
        "points": np.full((n, 2), 5, np.float32),
        "descriptors": np.zeros((n, d), np.float32),
        "scores": np.zeros(n, np.float32),
        "view_size": (20, 10),
    }


@pytest.mark.parametrize("n", [0, 3])
def test_features_hold_any_number_of_points(n):
    assert len(LocalFeatures(**features(n))) == n


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"scores": np.zeros(2, np.float32)}, "shapes"),
        ({"descriptors": np.zeros((3, 4))}, "float32"),
        ({"scores": np.full(3, np.nan, np.float32)}, "finite"),
        ({"points": np.full((3, 2), 11, np.float32)}, "outside the view"),
        ({"points": np.full((3, 2), -0.1, np.float32)}, "outside the view"),
        ({"view_size": (0, 10)}, "view_size"),
    ],
)
def test_features_refuse_what_disagrees(change, message):
    with pytest.raises(ValueError, match=message):
        LocalFeatures(**(features() | change))


@given(st.integers(0, 10_000))
def test_the_strongest_are_kept_in_an_order_that_their_arrival_does_not_decide(seed):
    rng = np.random.default_rng(seed)
    points, vectors = rng.integers(0, 5, (30, 2)), rng.uniform(0, 1, (30, 6))
    scores = rng.integers(0, 4, 30)
    order = rng.permutation(30)
    one = strongest_features(points, vectors, scores, (5, 5), 12)
    two = strongest_features(points[order], vectors[order], scores[order], (5, 5), 12)
    assert sorted(scores, reverse=True)[:12] == one.scores.tolist()
    for name in ("points", "descriptors", "scores"):
        assert np.array_equal(getattr(one, name), getattr(two, name))


def test_storing_descriptors_as_float16_loses_nothing():
    found = SiftMatcher().extract(texture())
    assert np.array_equal(found.descriptors.astype(np.float16).astype(np.float32), found.descriptors)


# --- SIFT ----------------------------------------------------------------------------------------------


def naive_matches(first, second, ratio):
    def distance(a, b):
        return float(np.sqrt(((a.astype(np.float64) - b) ** 2).sum()))

    out = []
    for i, a in enumerate(first):
        row = [distance(a, b) for b in second]
        j = row.index(min(row))
        column = [distance(c, second[j]) for c in first]
        if column.index(min(column)) != i:
            continue
        others = row[:j] + row[j + 1 :] + column[:i] + column[i + 1 :]
        if row[j] < ratio * min(others):
            out.append((i, j))
    return out


@given(st.integers(0, 10_000), st.integers(2, 25), st.integers(2, 25), st.sampled_from([0.7, 0.85, 1.0]))
@settings(deadline=None)
def test_mutual_ratio_matches_equal_the_naive_loops(seed, n0, n1, ratio):
    rng = np.random.default_rng(seed)
    first = root_sift(rng.gamma(0.5, size=(n0, 16)).astype(np.float32))
    second = root_sift(rng.gamma(0.5, size=(n1, 16)).astype(np.float32))
    n = min(n0, n1) // 2
    second[:n] = root_sift((first[:n] ** 2 + rng.gamma(0.5, 0.01, size=(n, 16))).astype(np.float32))
    found = mutual_ratio_matches(first, second, ratio)
    assert [tuple(pair) for pair in found.tolist()] == naive_matches(first, second, ratio)
    swapped = mutual_ratio_matches(second, first, ratio)
    assert sorted(map(tuple, found.tolist())) == sorted((i, j) for j, i in swapped.tolist())


@given(st.integers(0, 10_000))
@settings(deadline=None)
def test_confidence_is_one_minus_the_larger_ratio_of_distances(seed):
    rng = np.random.default_rng(seed)
    first, second = (root_sift(rng.gamma(0.5, size=(n, 16)).astype(np.float32)) for n in (9, 12))
    pairs, confidence = rated_mutual_matches(first, second, 1.0)
    assert len(confidence) == len(pairs)
    for (i, j), rated in zip(pairs, confidence, strict=True):
        row, column = (
            np.linalg.norm(first[i].astype(float) - second, axis=1),
            np.linalg.norm(first - second[j].astype(float), axis=1),
        )
        ratio = row[j] / min(np.delete(row, j).min(), np.delete(column, i).min())
        assert rated == pytest.approx(1 - ratio, abs=1e-4)
    other_way, rated_other_way = rated_mutual_matches(second, first, 1.0)
    swapped = dict(zip(map(tuple, other_way.tolist()), rated_other_way, strict=True))
    for (i, j), rated in zip(pairs.tolist(), confidence, strict=True):
        assert swapped[j, i] == pytest.approx(rated, abs=1e-4)


@given(st.integers(0, 10_000))
@settings(deadline=None)
def test_repeated_descriptors_are_ambiguous_and_no_index_is_used_twice(seed):
    rng = np.random.default_rng(seed)
    first = root_sift(rng.gamma(0.5, size=(12, 128)).astype(np.float32))
    origin = rng.integers(0, 12, 20)
    found = mutual_ratio_matches(first, first[origin], 0.9)
    assert set(np.flatnonzero(np.bincount(origin, minlength=12) == 1)) <= set(found[:, 0].tolist())
    repeated = set(np.flatnonzero(np.bincount(origin, minlength=12) > 1))
    assert not repeated & set(found[:, 0].tolist())
    assert len(np.unique(found[:, 0])) == len(np.unique(found[:, 1])) == len(found)
    swapped = mutual_ratio_matches(first[origin], first, 0.9)
    assert sorted(map(tuple, found.tolist())) == sorted((i, j) for j, i in swapped.tolist())


def test_equal_descriptors_are_exactly_as_near_as_can_be():
    vectors = root_sift(np.random.default_rng(0).gamma(0.5, size=(90, 128)).astype(np.float32))
    assert not _minus_half_squared_distances(vectors, vectors).diagonal().any()


@pytest.mark.parametrize(("n0", "n1"), [(0, 5), (5, 0), (1, 5), (5, 1)])
def test_without_a_second_nearest_nothing_matches(n0, n1):
    vectors = np.eye(5, 8, dtype=np.float32)
    assert mutual_ratio_matches(vectors[:n0], vectors[:n1], 0.8).shape == (0, 2)


def test_root_sift_is_the_square_root_of_shares():
    raw = np.array([[1.0, 3.0, 0.0], [0.0, 0.0, 0.0]], np.float32)
    assert root_sift(raw) == pytest.approx(np.array([[0.5, np.sqrt(0.75), 0], [0, 0, 0]]))


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_sift_recovers_a_known_warp_to_a_pixel(seed):
    view = texture(seed)
    # In edge coordinates; OpenCV warps by pixel centres, half a pixel away on both sides.
    warp = np.array([[0.9, 0.15, 10.0], [-0.12, 0.95, 40.0], [1e-4, 5e-5, 1.0]])
    half = np.array([[1, 0, 0.5], [0, 1, 0.5], [0, 0, 1]])
    warped = cv2.warpPerspective(view, np.linalg.inv(half) @ warp @ half, (512, 400))
    matcher = SiftMatcher()
    first, second = matcher.extract(view), matcher.extract(warped)
    pairs = matcher.match(first, second)
    found = estimate_homography(first.points[pairs[:, 0]], second.points[pairs[:, 1]])
    assert isinstance(found, Homography)
    grid = np.stack(np.meshgrid(np.linspace(60, 440, 6), np.linspace(60, 340, 6)), -1).reshape(-1, 2)
    assert np.linalg.norm(transform(found.matrix, grid) - transform(warp, grid), axis=1).max() < 1


@pytest.mark.parametrize(
    ("name", "tolerance"), [("sift", 0.05), pytest.param("xfeat+lighterglue", 0.45, marks=needs_models)]
)
def test_points_are_in_edge_coordinates(name, tolerance):
    # Only in that frame does a stretch of the picture scale its points without shifting them.
    view = texture(4, (200, 300))
    stretched = cv2.resize(view, (600, 400), interpolation=cv2.INTER_LINEAR)
    matcher = load_local_matcher(name, SHARED / "models")
    first, second = matcher.extract(view), matcher.extract(stretched)
    pairs = matcher.match(first, second)
    moved = rescale_points(first.points[pairs[:, 0]], first.view_size, second.view_size)
    shift = moved - second.points[pairs[:, 1]]
    right = shift[np.abs(shift).max(axis=1) < 3]
    # Pixel centres would shift half a pixel more; XFeat itself sets its points up to a third of a pixel off.
    assert len(right) > 50
    assert np.abs(right.mean(axis=0)).max() < tolerance


def test_sift_finds_nothing_in_a_blank_view_and_says_so():
    matcher = SiftMatcher()
    blank = matcher.extract(np.full((64, 90, 3), 128, np.uint8))
    assert (len(blank), blank.view_size, blank.descriptors.shape) == (0, (90, 64), (0, 128))
    assert matcher.match(blank, matcher.extract(texture())).shape == (0, 2)


def test_sift_keeps_to_its_limit_and_repeats_itself():
    one, two = (SiftMatcher(100).extract(texture()) for _ in range(2))
    assert len(one) == 100
    assert np.array_equal(one.points, two.points)
    assert np.array_equal(one.descriptors, two.descriptors)


def test_identity_tells_parameters_apart():
    assert SiftMatcher(100).identity() != SiftMatcher(200).identity()
    assert SiftMatcher(ratio=0.7).identity() != SiftMatcher(ratio=0.8).identity()
    assert SiftMatcher(ratio=0.7).extraction_identity() == SiftMatcher(ratio=0.8).extraction_identity()


def test_a_view_of_another_kind_is_refused():
    with pytest.raises(ValueError, match="uint8 RGB"):
        SiftMatcher().extract(texture()[..., 0])


# --- learned matchers ----------------------------------------------------------------------------------


@pytest.fixture
def offline(monkeypatch):
    def refuse(*_args, **_kwargs):
        raise AssertionError("a matcher tried to reach the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


def lightglue(width):
    return LightGlue(features=None, input_dim=width, descriptor_dim=256, n_layers=9, num_heads=4, flash=False)


@pytest.fixture(scope="module")
def random_weights(tmp_path_factory):
    """State dicts of the right layouts, random but repeatable, as a user's folder would hold them."""
    folder, flash = tmp_path_factory.mktemp("weights"), torch.backends.cuda.flash_sdp_enabled()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        parts = {
            "aliked_n16": ALIKED("aliked-n16"),
            "disk_depth": DISK(),
            "superpoint": SuperPoint(),
            "aliked_lightglue": lightglue(128),
            "disk_lightglue": lightglue(128),
            "superpoint_lightglue": lightglue(256),
        }
    torch.backends.cuda.enable_flash_sdp(flash)
    for name, network in parts.items():
        state = {key: value.contiguous() for key, value in network.state_dict().items()}
        save_file(state, folder / f"{name}.safetensors")
    return folder


@pytest.mark.parametrize("name", ["aliked+lightglue", "disk+lightglue", "superpoint+lightglue"])
def test_random_weights_run_through_every_learned_matcher(name, random_weights, offline):
    matcher = load_local_matcher(name, random_weights, max_keypoints=64)
    view = texture(1, (104, 150))
    first, second = matcher.extract(view), matcher.extract(texture(2, (104, 150)))
    assert 8 < len(first) <= 64
    assert np.linalg.norm(first.descriptors, axis=1) == pytest.approx(np.ones(len(first)), abs=2e-3)
    for pairs in (matcher.match(first, second), matcher.match(first, first)):
        assert pairs.shape[1] == 2
        assert len(np.unique(pairs[:, 0])) == len(np.unique(pairs[:, 1])) == len(pairs)
    pairs, confidence = matcher.rated_match(first, first)
    assert np.array_equal(pairs, matcher.match(first, first))
    assert len(confidence) == len(pairs)
    assert ((confidence > FILTER_THRESHOLD) & (confidence <= 1)).all()
    again = load_local_matcher(name, random_weights, max_keypoints=64)
    assert np.array_equal(again.extract(view).descriptors, first.descriptors)
    assert again.identity() == matcher.identity()
    assert matcher.extraction_identity().items() <= matcher.identity().items()


def test_a_matcher_that_does_not_rate_is_as_sure_of_all():
    class Plain:
        def match(self, first, second):
            return np.array([[0, 1], [2, 0]])

    found = LocalFeatures(**features())
    pairs, confidence = rated_matches(Plain(), found, found)
    assert pairs.tolist() == [[0, 1], [2, 0]]
    assert confidence.tolist() == [1, 1]


@pytest.mark.parametrize("name", ["sift", "aliked+lightglue", "disk+lightglue", "superpoint+lightglue"])
@pytest.mark.parametrize("size", [(4, 512), (16, 40), (512, 9), (64, 64)])
def test_thin_and_blank_views_are_no_error(name, size, random_weights):
    matcher = load_local_matcher(name, random_weights, max_keypoints=32)
    other = matcher.extract(texture(1, (104, 150)))
    for view in (np.full((*size, 3), 255, np.uint8), texture(2, (512, 512))[: size[0], : size[1]]):
        found = matcher.extract(view)
        assert found.descriptors.shape == (len(found), other.descriptors.shape[1])
        assert len(matcher.match(found, other)) <= len(found)


def test_published_lightglue_keys_are_understood(random_weights, tmp_path):
    state = load_file(random_weights / "superpoint_lightglue.safetensors")
    old = {}
    for key, value in state.items():
        parts = key.split(".")
        if parts[0] == "transformers":
            parts = [parts[2], parts[1], *parts[3:]]
        if key != "confidence_thresholds":
            old[".".join(parts)] = value
    save_file(old, tmp_path / "superpoint_lightglue.safetensors")
    (tmp_path / "superpoint.safetensors").symlink_to(random_weights / "superpoint.safetensors")
    one, two = (
        load_local_matcher("superpoint+lightglue", f, max_keypoints=32) for f in (random_weights, tmp_path)
    )
    for key, value in one._network.state_dict().items():
        assert torch.equal(two._network.state_dict()[key], value), key


@pytest.mark.parametrize("name", LEARNED)
def test_absent_weights_are_named_with_their_origin(name, tmp_path, offline):
    for folder in (None, tmp_path):
        with pytest.raises(FileNotFoundError, match=r"\.safetensors.*https://") as caught:
            load_local_matcher(name, folder)
        assert isinstance(caught.value, MissingWeightsError)


def test_weights_that_do_not_fit_are_refused(random_weights, tmp_path):
    for path in random_weights.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    state = load_file(tmp_path / "superpoint.safetensors")
    bias = state.pop("convPb.bias")
    save_file(state | {"extra": bias}, tmp_path / "superpoint.safetensors")
    with pytest.raises(ModelError, match=r"(?s)missing \(1\): convPb.bias.*unexpected \(1\): extra"):
        load_local_matcher("superpoint+lightglue", tmp_path)
    (tmp_path / "disk_lightglue.safetensors").write_bytes(b"not a tensor in sight")
    with pytest.raises(ModelError, match="disk_lightglue"):
        load_local_matcher("disk+lightglue", tmp_path)
    state = load_file(tmp_path / "aliked_lightglue.safetensors")
    without_head = {key: value for key, value in state.items() if "log_assignment.8." not in key}
    save_file(without_head, tmp_path / "aliked_lightglue.safetensors")
    with pytest.raises(ModelError, match=r"missing \(4\): log_assignment.8"):
        load_local_matcher("aliked+lightglue", tmp_path)


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(ValueError, match="xfeat\\+lighterglue"):
        load_local_matcher("surf")


def test_loading_leaves_the_process_wide_attention_setting_alone(random_weights):
    before = torch.backends.cuda.flash_sdp_enabled()
    try:
        for setting in (True, False):
            torch.backends.cuda.enable_flash_sdp(setting)
            load_local_matcher("superpoint+lightglue", random_weights)
            assert torch.backends.cuda.flash_sdp_enabled() is setting
    finally:
        torch.backends.cuda.enable_flash_sdp(before)


# --- SuperPoint ----------------------------------------------------------------------------------------


def test_suppression_keeps_no_two_points_within_the_radius_and_always_the_maximum():
    score = torch.rand(1, 40, 50, generator=torch.Generator().manual_seed(0))
    kept = suppress(score, 3)[0]
    points = torch.nonzero(kept)
    gaps = (points[:, None] - points[None]).abs().amax(-1) + 99 * torch.eye(len(points), dtype=torch.long)
    assert gaps.min() > 3
    assert kept.flatten()[score.argmax()]


def test_detector_places_the_winner_of_a_cell_at_its_pixel():
    network = SuperPoint(threshold=0.5, border=0).eval()
    for parameter in network.parameters():
        torch.nn.init.zeros_(parameter)
    # Channel 8 r + c of the detector head stands for row r, column c of every cell.
    network.convPb.bias.data[8 * 2 + 5] = 20
    points, scores, descriptors = network(torch.zeros(1, 1, 16, 24), limit=100)
    assert sorted(points.int().tolist()) == [[x, y] for x in (5, 13, 21) for y in (2, 10)]
    assert (scores > 0.99).all()
    assert descriptors.shape == (6, 256)


def test_descriptors_are_read_bilinearly_between_cells():
    ramp = torch.stack([torch.arange(8.0).expand(6, 8) + 1, torch.ones(6, 8)])[None]
    found = sample(ramp, torch.tensor([[3.5, 20.0], [63.0, 20.0]]))
    assert (found[:, 0] / found[:, 1]).tolist() == pytest.approx([1.0, 8.0])


# --- real weights and photos ---------------------------------------------------------------------------

ZEBRA = "zebras/images/img-00000{:02d}.jpg".format
SAN_MARCO = "buildings/images/piazza_san_marco/{}.jpg".format
ST_PAULS = "buildings/images/st_pauls_cathedral/{}.jpg".format


@needs_photos
def test_sift_tells_the_same_surface_from_another():
    matcher = load_local_matcher("sift")
    assert inliers(matcher, ZEBRA(6), ZEBRA(7)) >= 40
    assert inliers(matcher, ZEBRA(6), ZEBRA(1)) < 8
    assert inliers(matcher, ST_PAULS(1), ST_PAULS(3)) >= 20
    assert inliers(matcher, SAN_MARCO(1), ST_PAULS(1)) < 8


@needs_models
@needs_photos
def test_xfeat_tells_the_same_surface_from_another(offline):
    matcher = load_local_matcher("xfeat+lighterglue", SHARED / "models")
    assert inliers(matcher, ZEBRA(6), ZEBRA(7)) >= 40
    assert inliers(matcher, ZEBRA(6), ZEBRA(1)) < 12
    assert inliers(matcher, SAN_MARCO(1), SAN_MARCO(3)) >= 60
    assert inliers(matcher, SAN_MARCO(1), ST_PAULS(1)) < 12


@needs_models
def test_xfeat_does_not_depend_on_what_was_matched_before(offline):
    matcher = load_local_matcher("xfeat+lighterglue", SHARED / "models", max_keypoints=200)
    first, second, third = (matcher.extract(texture(seed, (200, 256))) for seed in (1, 1, 2))
    before = matcher.match(first, second)
    matcher.match(first, third)
    assert np.array_equal(matcher.match(first, second), before)
    assert (before[:, 0] == before[:, 1]).mean() > 0.9


@needs_models
def test_published_aliked_finds_the_same_points_in_a_shifted_view(tmp_path, random_weights, offline):
    aliked = SHARED / "models" / "aliked_n16_kornia.safetensors"
    for path in (aliked, random_weights / "aliked_lightglue.safetensors"):
        (tmp_path / path.name).symlink_to(path)
    matcher = load_local_matcher("aliked+lightglue", tmp_path, max_keypoints=300)
    view = texture(3, (256, 320))
    first, second = matcher.extract(view[:, :288]), matcher.extract(view[:, 32:])
    pairs = mutual_ratio_matches(first.descriptors, second.descriptors, 0.85)
    shift = first.points[pairs[:, 0]] - second.points[pairs[:, 1]]
    assert len(pairs) > 50
    assert np.median(shift, axis=0) == pytest.approx([32, 0], abs=0.2)
