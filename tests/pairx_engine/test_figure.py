from __future__ import annotations

import io
from dataclasses import replace
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from pairx_engine.figure import (
    MATCH_COLOURS,
    Figure,
    FigureInput,
    FigureSide,
    composite,
    decode_map,
    draw_figure,
    encode_map,
    encode_png,
    encode_webp,
    match_colour,
)
from pairx_engine.figure.panels import HEAT_OPACITY, heat_colours

SIDE = 48
RED = np.array([255, 0, 0], dtype=np.uint8)


def scene(n: int = 0, k: int = 0, **changes: Any) -> FigureInput:
    """Two dark chips, no relevance, `n` matches on a diagonal, `k` empty pixel maps."""
    spots = np.linspace(6.0, SIDE - 6.0, max(n, 1))[:n]
    values: dict[str, Any] = {
        "chip_a": np.zeros((SIDE, SIDE, 3), dtype=np.uint8),
        "chip_b": np.zeros((SIDE, SIDE, 3), dtype=np.uint8),
        "grid_a": np.zeros((4, 4)),
        "grid_b": np.zeros((4, 4)),
        "points_a": np.stack([spots, spots], axis=1),
        "points_b": np.stack([spots, spots[::-1]], axis=1),
        "relevance": np.linspace(1.0, 0.1, n) if n else np.zeros(0),
        "maps_a": np.zeros((k, SIDE, SIDE)),
        "maps_b": np.zeros((k, SIDE, SIDE)),
        "title_a": "p1 · Ada",
        "title_b": "p2 · Bo",
    }
    values |= changes
    a, b = (
        side({name.removesuffix(end): values.pop(name) for name in list(values) if name.endswith(end)})
        for end in ("_a", "_b")
    )
    return FigureInput((a, b), **values)


def side(values: dict[str, Any]) -> FigureSide:
    """A side whose picture is its chip, stretched to an aspect where one is given."""
    chip, aspect = values.pop("chip"), values.pop("aspect", 1.0)
    picture = values.pop("picture", None)
    if picture is None:
        size = (round(chip.shape[1] * max(aspect, 1)), round(chip.shape[0] / min(aspect, 1)))
        picture = chip if aspect == 1.0 else cv2.resize(chip, size, interpolation=cv2.INTER_LINEAR)
    return FigureSide(picture=picture, chip=chip.shape[:2], **values)


def top_panel(drawn: Figure) -> np.ndarray:
    row, column = drawn.top
    height, width = drawn.photos.shape[:2]
    return drawn.figure[row : row + height, column : column + width]


def test_pure_red_stays_red_in_every_part_and_file() -> None:
    red = np.broadcast_to(RED, (SIDE, SIDE, 3)).copy()
    given_ = scene(chip_a=red)
    drawn = draw_figure(given_)
    inside = np.s_[5:-5, 5 : given_.frame.spans[0].width - 5]
    assert (drawn.photos[inside] == RED).all()
    assert (top_panel(drawn)[inside] == RED).all()
    png = np.asarray(Image.open(io.BytesIO(encode_png(drawn.photos))))
    assert (png[inside] == RED).all()
    webp = np.asarray(Image.open(io.BytesIO(encode_webp(drawn.photos))))
    assert np.abs(webp[20, 20].astype(int) - RED).max() <= 12


@settings(max_examples=10, deadline=None)
@given(
    st.integers(4, SIDE - 5),
    st.integers(4, SIDE - 5),
    st.sampled_from([1.0, 0.6, 1.9]),
    st.sampled_from([1.0, 1.4]),
)
def test_a_dot_in_the_chip_lies_under_the_drawn_endpoint(
    row: int, column: int, aspect_a: float, aspect_b: float
) -> None:
    dotted = np.zeros((SIDE, SIDE, 3), dtype=np.uint8)
    dotted[row, column] = 255
    spot = np.array([[column + 0.5, row + 0.5]])
    given_ = scene(
        chip_a=dotted, chip_b=dotted, points_a=spot, points_b=spot, relevance=np.ones(1), maps_a=np.zeros((1, SIDE, SIDE)), maps_b=np.zeros((1, SIDE, SIDE)),
        aspect_a=aspect_a, aspect_b=aspect_b,
    )  # fmt: skip
    drawn = draw_figure(given_)
    frame = given_.frame
    for span in frame.spans:
        place, low, high = span.to_panel(spot)[0], span.left, span.left + span.width
        light = drawn.photos[: span.height, low:high].astype(float).sum(axis=2)
        rows, columns = np.indices(light.shape) + 0.5
        centroid = np.array([(columns * light).sum(), (rows * light).sum()]) / light.sum() + [low, 0]
        assert np.abs(centroid - place).max() < 0.75
        assert_ring(drawn.overlay[..., 3], place, radius=5.0 * frame.scale)


def assert_ring(alpha: np.ndarray, centre: np.ndarray, radius: float) -> None:
    """A closed circle lies around the point, and the point itself stays visible."""
    angles = np.linspace(0, 2 * np.pi, 24, endpoint=False)
    around = centre + radius * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    covered = [alpha[int(y), int(x)] > 90 for x, y in around]
    assert np.mean(covered) > 0.9
    assert alpha[int(centre[1]), int(centre[0])] < 30


def test_overlay_is_clear_where_there_is_neither_relevance_nor_a_line() -> None:
    assert draw_figure(scene(n=3, n_lines=0)).overlay.max() == 0
    given_ = scene(n=1, points_a=np.array([[6.0, 24.0]]), points_b=np.array([[40.0, 24.0]]))
    alpha = draw_figure(given_).overlay[..., 3]
    y = round(given_.frame.spans[0].to_panel(given_.sides[0].points)[0, 1])
    assert alpha[y - 1 : y + 1].max() > 0
    assert alpha[: y - 9].max() == 0
    assert alpha[y + 9 :].max() == 0
    start, end = (
        given_.frame.spans[0].to_panel(given_.sides[0].points)[0, 0],
        given_.frame.spans[1].to_panel(given_.sides[1].points)[0, 0],
    )
    assert alpha[:, : int(start) - 9].max() == 0
    assert alpha[:, int(end) + 9 :].max() == 0


def test_heat_is_the_bilinear_grid_and_clear_where_it_is_zero_or_negative() -> None:
    grid = np.array([[0.0, 0.0, 0.0, -3.0], [0.0, 4.0, 2.0, 0.0], [0.0, 0.0, 0.0, 0.0]])
    given_ = scene(grid_a=grid)
    alpha = draw_figure(given_).overlay[..., 3]
    height, width = given_.frame.height, given_.frame.spans[0].width
    assert alpha[:, width:].max() == 0
    relative = np.maximum(grid, 0) / 4.0
    for row in range(0, height, 37):
        for column in range(0, width, 41):
            y, x = (row + 0.5) * 3 / height - 0.5, (column + 0.5) * 4 / width - 0.5
            expected = sum(
                relative[min(max(i, 0), 2), min(max(j, 0), 3)]
                * max(0.0, 1 - abs(y - i))
                * max(0.0, 1 - abs(x - j))
                for i in range(-1, 4)
                for j in range(-1, 5)
            )
            assert abs(alpha[row, column] - 255 * HEAT_OPACITY * expected) <= 1.0


def test_heat_colours_are_inferno() -> None:
    matplotlib = pytest.importorskip("matplotlib")
    inferno = matplotlib.colormaps["inferno"].colors
    steps = np.linspace(0, 1, 11)
    colours, opacity = heat_colours(steps)
    assert np.abs(colours / 255 - np.array([inferno[round(55 + 170 * s)] for s in steps])).max() < 0.01
    assert opacity[0] == 0
    assert (np.diff(opacity) > 0).all()


@pytest.mark.slow
@settings(max_examples=10, deadline=None)
@given(st.integers(0, 12), st.integers(0, 5), st.integers(0, 14), st.integers(0, 2**31 - 1))
def test_overlay_above_chips_is_the_top_panel(n: int, k: int, n_lines: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    chips = random.integers(0, 256, (2, SIDE, SIDE, 3), dtype=np.uint8)
    maps = random.random((2, min(k, n), SIDE, SIDE))
    given_ = scene(
        n, chip_a=chips[0], chip_b=chips[1], grid_a=random.random((5, 3)), grid_b=random.normal(size=(3, 5)),
        maps_a=maps[0], maps_b=maps[1], n_lines=n_lines, aspect_b=1.3,
    )  # fmt: skip
    drawn = draw_figure(given_)
    assert drawn.photos.shape[:2] == drawn.overlay.shape[:2] == drawn.colours.shape[:2]
    assert (top_panel(drawn) == composite(drawn.photos, drawn.overlay)).all()
    assert (drawn.figure == draw_figure(given_).figure).all()


def test_composite_is_what_pillow_does() -> None:
    random = np.random.default_rng(3)
    base = random.integers(0, 256, (40, 40, 3), dtype=np.uint8)
    overlay = random.integers(0, 256, (40, 40, 4), dtype=np.uint8)
    oracle = Image.alpha_composite(Image.fromarray(base).convert("RGBA"), Image.fromarray(overlay)).convert(
        "RGB"
    )
    assert np.abs(composite(base, overlay).astype(int) - np.asarray(oracle)).max() <= 1


@pytest.mark.parametrize("index", [0, 3, 9])
def test_a_match_has_one_colour_in_its_line_and_in_its_pixel_map(index: int) -> None:
    maps = np.zeros((10, SIDE, SIDE))
    maps[index, 20:30, 2:12] = 7.0
    points = np.stack([np.linspace(10.0, 46.0, 10), np.full(10, 44.0)], axis=1)
    given_ = scene(10, points_a=points, points_b=points[:, ::-1], maps_a=maps, maps_b=np.zeros_like(maps))
    drawn = draw_figure(given_)
    x, y = given_.frame.spans[0].to_panel([[7.0, 25.0]])[0].astype(int)
    assert np.abs(drawn.colours[y, x].astype(int) - match_colour(index)).max() <= 1
    own = (np.abs(drawn.overlay[..., :3].astype(int) - match_colour(index)).max(axis=2) <= 3) & (
        drawn.overlay[..., 3] > 90
    )
    assert own[:, : given_.frame.spans[0].width].sum() > 30
    assert own[:, given_.frame.spans[1].left :].sum() > 30


def test_each_map_is_scaled_to_its_own_maximum() -> None:
    maps = np.zeros((2, SIDE, SIDE))
    maps[0, 4:14, 4:14], maps[1, 30:40, 4:14] = 1e-9, 1e9
    given_ = scene(
        2, maps_a=maps, maps_b=maps, points_a=np.full((2, 2), 44.0), points_b=np.full((2, 2), 44.0)
    )
    colours = draw_figure(given_).colours
    for i, y in enumerate((9.0, 35.0)):
        column, row = given_.frame.spans[0].to_panel([[9.0, y]])[0].astype(int)
        assert np.abs(colours[row, column].astype(int) - match_colour(i)).max() <= 1


def test_stronger_matches_have_more_solid_lines_and_further_ones_are_grey() -> None:
    points = np.array([[4.0, 8.0], [4.0, 24.0], [4.0, 40.0]])
    given_ = scene(
        3, 2, points_a=points, points_b=points + np.array([40.0, 0.0]), relevance=np.array([1.0, 0.2, 0.1])
    )
    overlay = draw_figure(given_).overlay
    middle = given_.frame.spans[0].width // 2
    rows = given_.frame.spans[0].to_panel(points)[:, 1].astype(int)
    solid = [overlay[row - 3 : row + 3, middle, 3].max() for row in rows]
    assert solid[0] > solid[1] > solid[2] > 0
    grey = overlay[rows[2] - 2 : rows[2] + 2, middle].astype(int)
    strongest = grey[grey[:, 3].argmax()]
    assert np.ptp(strongest[:3]) <= 10


def test_match_colours_stay_apart_for_colour_blind_eyes() -> None:
    # Simulated deuteranopia and protanopia in linear RGB: Machado, Oliveira & Fernandes 2009, severity 1.
    eyes = {
        "normal": np.eye(3),
        "deuteranopia": np.array(
            [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]
        ),
        "protanopia": np.array(
            [
                [0.152286, 1.052583, -0.204868],
                [0.114503, 0.786281, 0.099216],
                [-0.003882, -0.048116, 1.051998],
            ]
        ),
    }
    srgb = np.array(MATCH_COLOURS) / 255
    linear = np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
    for name, eye in eyes.items():
        lab = _cie_lab(np.clip(linear @ eye.T, 0, 1))
        apart = np.linalg.norm(lab[:, None] - lab[None], axis=2) + np.eye(len(lab)) * 1e9
        assert apart.min() >= 25, name


def _cie_lab(linear: np.ndarray) -> np.ndarray:
    to_xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    xyz = linear @ to_xyz.T / np.array([0.9505, 1.0, 1.089])
    f = np.where(xyz > 216 / 24389, np.cbrt(xyz), (24389 / 27 * xyz + 16) / 116)
    return np.stack([116 * f[:, 1] - 16, 500 * (f[:, 0] - f[:, 1]), 200 * (f[:, 1] - f[:, 2])], axis=1)


@settings(max_examples=40, deadline=None)
@given(
    hnp.arrays(
        np.float64,
        hnp.array_shapes(min_dims=2, max_dims=2, max_side=12),
        elements=st.floats(0, 1e12, allow_subnormal=False),
    )
)
def test_map_encoding_round_trip(pixel_map: np.ndarray) -> None:
    data, peak = encode_map(pixel_map)
    assert peak == pixel_map.max()
    picture = Image.open(io.BytesIO(data))
    assert picture.format == "PNG"
    assert picture.mode.startswith("I;16")
    assert np.abs(decode_map(data, peak) - pixel_map).max() <= peak * (0.5 + 1e-6) / 65535


@pytest.mark.parametrize(
    "bad", [np.full((3, 3), -1.0), np.full((3, 3), np.nan), np.zeros(4), np.zeros((0, 3))]
)
def test_map_encoding_refuses_what_is_no_map(bad: np.ndarray) -> None:
    with pytest.raises(ValueError, match="pixel map"):
        encode_map(bad)


def test_decoding_refuses_other_bytes() -> None:
    with pytest.raises(ValueError, match="16-bit"):
        decode_map(encode_png(np.zeros((4, 4, 3), dtype=np.uint8)), 1.0)


def test_webp_keeps_the_overlay_transparent() -> None:
    overlay = draw_figure(scene(4, 2, grid_a=np.eye(4))).overlay
    back = np.asarray(Image.open(io.BytesIO(encode_webp(overlay))).convert("RGBA"))
    assert back.shape == overlay.shape
    assert back[..., 3][overlay[..., 3] == 0].max() == 0
    assert np.abs(back[..., 3].astype(int) - overlay[..., 3]).max() <= 2


def test_webp_names_its_limit() -> None:
    with pytest.raises(ValueError, match="16383"):
        encode_webp(np.zeros((2, 16384, 3), dtype=np.uint8))


def test_a_map_without_matches_is_drawn_as_heat_alone() -> None:
    spot = np.zeros((SIDE, SIDE))
    spot[30, 10] = 1.0
    drawn = draw_figure(scene(grid_a=spot, grid_b=spot.T, matched=False))
    with_matches = draw_figure(scene(1, 1, grid_a=spot, grid_b=spot.T))
    assert drawn.figure.shape[0] < with_matches.figure.shape[0] - drawn.colours.shape[0]
    heat = drawn.overlay[..., 3]
    row, column = np.unravel_index(
        heat[:, : heat.shape[1] // 2].argmax(), heat[:, : heat.shape[1] // 2].shape
    )
    scale = drawn.photos.shape[0] / SIDE
    assert abs(row / scale - 30.5) < 1
    assert abs(column / scale - 10.5) < 1
    # Smoothed and to a power below one, so that single pixels can be seen.
    assert (heat > 0).sum() > 4 * scale**2


def test_matches_without_pixel_maps_leave_the_panels_below_out() -> None:
    lines, with_maps = draw_figure(scene(3, 0)), draw_figure(scene(3, 3))
    assert lines.overlay.max() > 0
    assert lines.figure.shape[0] < with_maps.figure.shape[0] - with_maps.colours.shape[0]
    row = lines.top[0] + lines.photos.shape[0]
    # Nothing but text on white comes below: no dimmed photo.
    assert (lines.figure[row:].min(axis=(1, 2)) < 250).any()
    assert (lines.figure[row:].mean(axis=(1, 2)) > 190).all()
    assert (with_maps.figure[row:].mean(axis=(1, 2)) < 100).any()


def test_small_chips_are_enlarged_large_ones_shown_pixel_for_pixel() -> None:
    assert scene().frame.height == 440
    chip = np.random.default_rng(0).integers(0, 256, (440, 440, 3), dtype=np.uint8)
    given_ = scene(chip_a=chip, chip_b=chip, maps_a=np.zeros((0, 440, 440)), maps_b=np.zeros((0, 440, 440)))
    drawn = draw_figure(given_)
    assert (drawn.photos[:, :440] == chip).all()
    assert (drawn.photos[:, given_.frame.spans[1].left :] == chip).all()


def test_aspect_gives_each_photo_its_true_shape() -> None:
    frame = scene(aspect_a=2.0, aspect_b=0.5).frame
    for span, aspect in zip(frame.spans, (2.0, 0.5), strict=True):
        assert span.width / span.height == pytest.approx(aspect, abs=0.01)
        corner = [span.left + span.width, span.height]
        assert span.to_panel([[SIDE, SIDE]])[0] == pytest.approx(corner)


@pytest.mark.parametrize("title", ["", "x" * 400, "Zoë · Ада · 象", "two\nlines\t<script>"])
def test_any_title_can_be_drawn(title: str) -> None:
    drawn = draw_figure(scene(1, 1, title_a=title, title_b=title, subtitle=title))
    plain = draw_figure(scene(1, 1, title_a="", title_b="", subtitle=title))
    assert drawn.figure.shape == plain.figure.shape
    assert (top_panel(drawn) == top_panel(plain)).all()


def test_a_pair_without_matches_is_drawn() -> None:
    drawn = draw_figure(scene())
    assert drawn.overlay.max() == 0
    assert drawn.figure.shape[1] > drawn.photos.shape[1]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"chip_a": np.zeros((SIDE, SIDE, 4), np.uint8)}, "picture_a must be"),
        ({"chip_b": np.zeros((SIDE, SIDE, 3), np.float32)}, "picture_b must be"),
        ({"grid_a": np.full((2, 2), np.nan)}, "grid_a must be"),
        ({"points_a": np.zeros((3, 2))}, "points_a must be"),
        ({"points_b": np.full((2, 2), SIDE + 1.0)}, "must lie on the chip"),
        ({"points_b": np.full((2, 2), np.nan)}, "must lie on the chip"),
        ({"relevance": np.array([0.1, 0.2])}, "descending"),
        ({"maps_a": np.zeros((1, SIDE, SIDE))}, "same first matches"),
        ({"maps_a": np.zeros((3, SIDE, SIDE)), "maps_b": np.zeros((3, SIDE, SIDE))}, "same first matches"),
        ({"maps_b": np.zeros((2, SIDE, 9))}, "maps_b must be"),
        ({"n_lines": -1}, "n_lines"),
    ],
)
def test_parts_that_do_not_fit_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        scene(2, 2, **changes)


def test_the_figure_of_a_real_pair(shared: Any) -> None:
    golden = np.load(shared / "goldens" / "mini_cow_same.npz")
    a, b = (
        FigureSide(
            golden[f"chip{i}"], golden[f"chip{i}"].shape[:2], golden[f"relevance_abs_of_sum{i}"], golden[f"match_point{i}"], golden[f"pixel_relevance{i}"], "ab"[i]
        )
        for i in (0, 1)
    )  # fmt: skip
    given_ = FigureInput((a, b), golden["match_relevance"])
    drawn = draw_figure(given_)
    assert given_.shares.sum() == pytest.approx(1.0)
    heat = draw_figure(replace(given_, n_lines=0)).overlay[..., 3]
    for left, width, grid in (
        (0, given_.frame.spans[0].width, given_.sides[0].grid),
        (given_.frame.spans[1].left, given_.frame.spans[1].width, given_.sides[1].grid),
    ):
        row, column = np.unravel_index(heat[:, left : left + width].argmax(), (given_.frame.height, width))
        cell = np.unravel_index(grid.argmax(), grid.shape)
        assert abs((row + 0.5) * grid.shape[0] / given_.frame.height - (cell[0] + 0.5)) < 0.2
        assert abs((column + 0.5) * grid.shape[1] / width - (cell[1] + 0.5)) < 0.2
    assert (drawn.overlay[..., 3] > 0).mean() > 0.3
