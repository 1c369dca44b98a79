"""One chip: what the model sees is what the picture shows and what points are measured in."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import math
import tracemalloc

import cv2
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from pairx_engine.errors import PhotoError
from pairx_engine.models import load_model
from pairx_engine.photo import chips
from pairx_engine.photo.chips import (
    MIN_SIDE,
    PLAIN_CROP_BELOW,
    ChipSpec,
    chip_of,
    cut_photo,
    decode_photo,
    resize,
    view_of,
    visible_share,
)
from schemas.catalogue.boxes import to_pixels
from tests import poison

EXIF_ORIENTATION = 0x0112
WITHOUT_BYTES = ("missing.jpg", "folder.jpg", "dangling_link.jpg")
"""Poison that ends before the decoder, where files are read."""


def encoded(picture, form="PNG", **options):
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, form, **options)
    return buffer.getvalue()


def code_of(call, *arguments):
    with pytest.raises(PhotoError) as caught:
        call(*arguments)
    assert str(caught.value)
    return caught.value.code


def cut_or_code(photo, box, theta):
    """The cut, or the code of the failure."""
    try:
        return cut_photo(photo, box, theta)
    except PhotoError as error:
        return error.code


def grey_photo(height=300, width=400, level=128):
    return np.full((height, width, 3), level, np.uint8)


def bright_centre(picture, channel=0):
    """Centre of mass (x, y) of the patch that stands out from grey, corner-based: pixel 0 spans 0 to 1."""
    weight = np.clip(picture[..., channel].astype(float) - 160, 0, None)
    weight[picture.min(axis=2) > 150] = 0  # white padding is no patch
    rows, columns = np.mgrid[: picture.shape[0], : picture.shape[1]] + 0.5
    return np.array([(weight * columns).sum(), (weight * rows).sum()]) / weight.sum()


def predicted_point(point, box, theta, size):
    """Where a photo point lands in a chip of `size` (H, W), from the convention alone."""
    x, y, w, h = box
    offset = np.subtract(point, (x + w / 2, y + h / 2))
    if abs(theta) >= PLAIN_CROP_BELOW:
        # Counter-clockwise as seen on the screen, with y pointing down.
        offset = (
            offset[0] * math.cos(theta) + offset[1] * math.sin(theta),
            -offset[0] * math.sin(theta) + offset[1] * math.cos(theta),
        )
    return (np.add(offset, (w / 2, h / 2)) / (w, h)) * (size[1], size[0])


# ------------------------------------------------------------------------------------- one frame for all


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("theta", [0.0, 0.05, 0.6, -1.2, math.pi / 2, 3.0])
def test_a_patch_lands_at_the_predicted_chip_point_after_orientation_box_and_turn(orientation, theta):
    photo = grey_photo()
    photo[171:177, 151:157] = (255, 0, 0)
    box, point = (90, 110, 160, 100), (154, 174)
    stored = Image.fromarray(photo)
    turn = poison._STORED[orientation]
    stored = stored if turn is None else stored.transpose(turn)
    exif = Image.Exif()
    exif[EXIF_ORIENTATION] = orientation
    buffer = io.BytesIO()
    stored.save(buffer, "PNG", exif=exif)

    upright = decode_photo(buffer.getvalue())
    np.testing.assert_array_equal(upright, photo)
    cut = cut_photo(upright, box, theta)
    for backend in ("pil", "opencv"):
        spec = ChipSpec((200, 240), resize=backend)
        wanted = predicted_point(point, box, theta, spec.size)
        np.testing.assert_allclose(bright_centre(chip_of(cut, spec)), wanted, atol=0.75)
    view = view_of(cut, 400)
    wanted = predicted_point(point, box, theta, view.shape[:2])
    np.testing.assert_allclose(bright_centre(view), wanted, atol=1.0)


def test_the_network_sees_the_chip_itself():
    model = load_model()
    chip = np.random.default_rng(0).integers(0, 256, (*model.chip.size, 3), dtype=np.uint8)
    seen = model.normalise([chip])[0].permute(1, 2, 0).numpy()
    mean, std = np.array(model.chip.mean), np.array(model.chip.std)
    np.testing.assert_allclose((seen * std + mean) * 255, chip, atol=1e-3)


@pytest.mark.parametrize("form", ["PNG", "JPEG", "BMP", "TIFF", "WEBP"])
@pytest.mark.parametrize("theta", [0.0, 0.5])
@pytest.mark.parametrize("backend", ["pil", "opencv"])
def test_pure_red_stays_red(form, theta, backend):
    red = np.zeros((60, 80, 3), np.uint8)
    red[..., 0] = 255
    options = {"quality": 100, "subsampling": 0} if form == "JPEG" else {}
    cut = cut_photo(decode_photo(encoded(red, form, **options)), (20, 20, 30, 20), theta)
    for picture in (
        cut,
        chip_of(cut, ChipSpec((64, 64), resize=backend)),
        view_of(cut, 128),
        view_of(cut, 16),
    ):
        reddest = picture.reshape(-1, 3).mean(axis=0)
        assert reddest[0] > 250
        assert max(reddest[1:]) < 5


# ---------------------------------------------------------------------------------------------- turned cuts


def naive_turned_cut(photo, box, theta):
    """Each pixel of the cut, turned back into the photo and interpolated from its four neighbours.

    Outside the photo it is white.
    """
    x, y, w, h = box
    height, width = photo.shape[:2]
    columns, rows = max(1, round(w)), max(1, round(h))
    cut = np.empty((rows, columns, 3))

    def pixel(row, column):
        inside = 0 <= row < height and 0 <= column < width
        return photo[row, column].astype(float) if inside else np.full(3, 255.0)

    for row in range(rows):
        for column in range(columns):
            dx, dy = column + 0.5 - columns / 2, row + 0.5 - rows / 2
            px = x + w / 2 + dx * math.cos(theta) - dy * math.sin(theta) - 0.5
            py = y + h / 2 + dx * math.sin(theta) + dy * math.cos(theta) - 0.5
            left, top = math.floor(px), math.floor(py)
            a, b = px - left, py - top
            cut[row, column] = (
                (1 - a) * (1 - b) * pixel(top, left)
                + a * (1 - b) * pixel(top, left + 1)
                + (1 - a) * b * pixel(top + 1, left)
                + a * b * pixel(top + 1, left + 1)
            )
    return cut


@settings(max_examples=25, deadline=None)
@given(
    theta=st.floats(0.1, 6.3) | st.floats(-6.3, -0.1),
    x=st.floats(-4, 20),
    y=st.floats(-4, 12),
    w=st.floats(8, 26),
    h=st.floats(8, 22),
)
def test_a_turned_cut_equals_the_per_pixel_inverse_mapping(theta, x, y, w, h):
    rows, columns = np.mgrid[:30, :40]
    photo = np.stack([6 * columns, 8 * rows, 3 * (columns + rows)], axis=2).astype(np.uint8)
    cut = cut_or_code(photo, (x, y, w, h), theta)
    if isinstance(cut, str):
        assert cut == "box_outside"
        return
    wanted = naive_turned_cut(photo, (x, y, w, h), theta)
    assert cut.shape == wanted.shape
    # OpenCV's weights are multiples of 1/32, which matters at the photo's edge, between white and the
    # picture.
    difference = np.abs(cut - wanted)
    assert difference.max() <= 2 * 255 / 32 + 1
    assert np.median(difference) <= 1


def test_a_positive_angle_turns_the_photo_counter_clockwise():
    photo = grey_photo(100, 100)
    photo[40:60, 85:95] = (255, 0, 0)  # right of the centre
    cut = cut_photo(photo, (0, 0, 100, 100), math.pi / 2)
    x, y = bright_centre(cut)
    assert (round(x), round(y)) == (50, 10)  # now above it
    np.testing.assert_array_equal(cut, np.rot90(photo))


def test_what_lies_outside_is_white_when_turned_and_clipped_when_straight():
    photo = np.zeros((100, 100, 3), np.uint8)
    turned = cut_photo(photo, (0, 0, 100, 100), math.pi / 4)
    assert turned.shape == (100, 100, 3)
    assert (turned[0, 0] == 255).all()
    assert (turned[50, 50] == 0).all()
    straight = cut_photo(photo, (-10, -10, 100, 100))
    assert straight.shape == (90, 90, 3)
    assert straight.max() == 0


@pytest.mark.parametrize("theta", [0.0, 0.099, -0.099])
def test_below_a_tenth_of_a_radian_the_crop_is_plain(theta):
    photo = np.random.default_rng(1).integers(0, 256, (50, 60, 3), dtype=np.uint8)
    np.testing.assert_array_equal(cut_photo(photo, (10, 5, 30, 20), theta), photo[5:25, 10:40])


@pytest.mark.parametrize("theta", [0.1, -0.1])
def test_at_a_tenth_of_a_radian_the_photo_is_turned(theta):
    photo = np.random.default_rng(1).integers(0, 256, (50, 60, 3), dtype=np.uint8)
    assert (cut_photo(photo, (10, 5, 30, 20), theta) != photo[5:25, 10:40]).any()


# ---------------------------------------------------------------------------------------------- any box


@settings(max_examples=200, deadline=None)
@given(
    x=st.floats(-60, 130),
    y=st.floats(-60, 90),
    w=st.floats(0.5, 150),
    h=st.floats(0.5, 110),
    theta=st.sampled_from([0.0, 0.05, 0.3, -2.0]),
)
def test_any_box_gives_a_cut_of_its_size_or_a_code(x, y, w, h, theta):
    photo = np.zeros((80, 120, 3), np.uint8)
    cut = cut_or_code(photo, (x, y, w, h), theta)
    if isinstance(cut, str):
        assert cut in ("box_outside", "too_small")
        assert cut == "box_outside" or min(w, h) < 2 * MIN_SIDE + 2
        return
    rows, columns = cut.shape[:2]
    assert min(rows, columns) >= MIN_SIDE
    if abs(theta) < PLAIN_CROP_BELOW:
        assert columns == min(120, round(x + w)) - max(0, round(x))
        assert rows == min(80, round(y + h)) - max(0, round(y))
    else:
        assert (rows, columns) == (round(h), round(w))


@example(theta=math.pi / 2, x=0, y=0, w=121, h=121)  # edges that all but coincide with the photo's
@settings(max_examples=60, deadline=None)
@given(
    theta=st.floats(-math.pi, math.pi) | st.sampled_from([math.pi / 2, -math.pi / 2, math.pi, math.pi / 4]),
    x=st.integers(-80, 120),
    y=st.integers(-80, 80),
    w=st.integers(10, 160),
    h=st.integers(10, 160),
)
def test_the_visible_share_counts_the_cells_of_the_turned_box_that_lie_in_the_photo(theta, x, y, w, h):
    across, down = (np.arange(200) + 0.5) / 200 - 0.5, (np.arange(200) + 0.5) / 200 - 0.5
    dx, dy = np.meshgrid(across * w, down * h)
    px = x + w / 2 + dx * math.cos(theta) - dy * math.sin(theta)
    py = y + h / 2 + dx * math.sin(theta) + dy * math.cos(theta)
    counted = ((px >= 0) & (px <= 120) & (py >= 0) & (py <= 80)).mean()
    assert visible_share((x, y, w, h), theta, 120, 80) == pytest.approx(counted, abs=0.02)


def test_a_turned_box_is_judged_by_what_is_cut_not_by_its_straight_outline():
    photo = np.zeros((120, 400, 3), np.uint8)
    lying = (0, 100, 400, 20)
    assert cut_photo(photo, lying).shape == (20, 400, 3)
    assert code_of(cut_photo, photo, lying, math.pi / 2) == "box_outside"
    standing_out = (160, -140, 80, 400)
    assert code_of(cut_photo, photo, standing_out) == "box_outside"
    assert cut_photo(photo, standing_out, math.pi / 2).shape == (400, 80, 3)


@pytest.mark.parametrize(
    ("box", "code"),
    [
        ((500, 10, 50, 50), "box_outside"),
        ((-60, 10, 100, 50), "box_outside"),
        ((1e308, 1e308, 1e308, 1e308), "box_outside"),
        ((0, 0, 1e300, 1e-300), "box_outside"),
        ((10, 10, 0, 50), "box_empty"),
        ((10, 10, -5, 50), "box_empty"),
        ((10, math.nan, 50, 50), "box_empty"),
        ((10, 10, math.inf, 50), "box_empty"),
        ((10, 10, 3, 50), "too_small"),
    ],
)
@pytest.mark.parametrize("theta", [0.0, 1.0])
def test_boxes_that_cannot_be_cut_have_a_code(box, code, theta):
    assert code_of(cut_photo, grey_photo(), box, theta) == code


def test_an_angle_that_is_no_number_has_a_code():
    assert code_of(cut_photo, grey_photo(), (10, 10, 50, 50), math.nan) == "box_empty"


def test_without_a_box_the_whole_photo_is_cut():
    photo = np.random.default_rng(2).integers(0, 256, (30, 40, 3), dtype=np.uint8)
    np.testing.assert_array_equal(cut_photo(photo), photo)


def test_a_relative_box_cuts_the_same_pixels_as_its_pixel_box():
    photo = np.random.default_rng(3).integers(0, 256, (80, 120, 3), dtype=np.uint8)
    relative = to_pixels((0.25, 0.125, 0.5, 0.75), 120, 80)
    np.testing.assert_array_equal(cut_photo(photo, relative), cut_photo(photo, (30, 10, 60, 60)))


def test_a_cut_does_not_keep_its_photo_in_memory():
    photo = grey_photo()
    for box in ((10, 10, 50, 50), (0, 10, 400, 50)):
        assert not np.shares_memory(cut_photo(photo, box), photo)


# ---------------------------------------------------------------------------------------------- files


@pytest.mark.parametrize(
    "item", [p for p in poison.POISONS if p.name not in WITHOUT_BYTES], ids=lambda item: item.name[:40]
)
def test_every_poison_photo_has_its_code_or_becomes_a_cut(item, tmp_path):
    path = tmp_path / item.name
    item.write(path)
    if item.code is None:
        cut = cut_photo(decode_photo(path.read_bytes()))
        assert cut.shape == (poison.HEIGHT, poison.WIDTH, 3)
        assert cut.dtype == np.uint8
    else:
        assert code_of(lambda: cut_photo(decode_photo(path.read_bytes()))) == item.code


@pytest.mark.parametrize(
    "item", [p for p in poison.POISONS if p.code is None and "grey" not in p.name and "white" not in p.name],
    ids=lambda item: item.name[:40],
)  # fmt: skip
def test_good_poison_photos_stand_upright_in_their_colours(item, tmp_path):
    path = tmp_path / item.name
    item.write(path)
    photo = decode_photo(path.read_bytes()).astype(int)
    quarters = [photo[r : r + 8, c : c + 8].mean(axis=(0, 1)) for r in (12, 44) for c in (20, 68)]
    np.testing.assert_allclose(quarters, poison.CORNERS, atol=30)


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF"])
def test_damaged_bytes_are_a_photo_or_a_code_but_never_another_error(form):
    rng = np.random.default_rng(len(form))
    good = poison.encoded(form)
    for _ in range(120):
        bad = bytearray(good)
        for _ in range(rng.integers(1, 5)):
            bad[rng.integers(0, len(bad) if rng.random() < 0.5 else 120)] = rng.integers(0, 256)
        with contextlib.suppress(PhotoError):
            assert decode_photo(bytes(bad), 10**6).ndim == 3


@pytest.mark.parametrize("size", [(30_000, 30_000), (20_000, 10_000), (2_000, 2_000)])
def test_the_size_limit_strikes_before_anything_is_decoded(size, monkeypatch):
    monkeypatch.setattr(chips.Image.Image, "load", lambda self: pytest.fail("decoded"))
    data = poison.png_claiming(*size)
    tracemalloc.start()
    try:
        assert code_of(decode_photo, data, 3_000_000) == "too_many_pixels"
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()


def test_a_photo_at_the_size_limit_is_read_and_one_above_is_not():
    data = encoded(grey_photo(20, 30))
    assert decode_photo(data, 600).shape == (20, 30, 3)
    assert code_of(decode_photo, data, 599) == "too_many_pixels"


@pytest.mark.parametrize("form", ["PNG", "TIFF"])
def test_16_bit_grey_is_scaled_not_clipped(form):
    deep = np.array([[0, 257, 300 * 2, 128 * 257, 65535]] * 8, np.uint16)
    photo = decode_photo(encoded(deep, form))
    np.testing.assert_array_equal(photo[0, :, 0], [0, 1, 2, 128, 255])
    np.testing.assert_array_equal(photo[..., 0], photo[..., 2])


def test_16_bit_grey_is_turned_upright_too():
    exif = Image.Exif()
    exif[EXIF_ORIENTATION] = 6
    assert decode_photo(encoded(np.zeros((8, 12), np.uint16), exif=exif)).shape == (12, 8, 3)


@pytest.mark.parametrize("kind", [np.int32, np.float32])
def test_grey_without_an_agreed_range_is_refused(kind):
    assert code_of(decode_photo, encoded(np.ones((8, 12), kind), "TIFF")) == "wrong_type"


def test_transparency_lies_on_white():
    clear = np.zeros((8, 12, 4), np.uint8)
    clear[..., 0], clear[4:, :, 3] = 200, 255
    for form in ("PNG", "WEBP", "TIFF"):
        options = {"lossless": True} if form == "WEBP" else {}
        photo = decode_photo(encoded(clear, form, **options))
        assert (photo[0] == 255).all()
        np.testing.assert_array_equal(photo[5, 5], (200, 0, 0))


def test_half_transparency_is_mixed_with_white():
    veil = np.zeros((8, 12, 4), np.uint8)
    veil[..., 3] = 51
    np.testing.assert_array_equal(decode_photo(encoded(veil))[0, 0], (204, 204, 204))


@pytest.mark.parametrize(
    ("picture", "colour"),
    [
        (Image.new("L", (12, 8), 7), 7),
        (Image.new("RGB", (12, 8), (7, 8, 9)), (7, 8, 9)),
        (Image.new("1", (12, 8), 0), 0),
        (Image.new("L", (12, 8), 7).convert("P"), 7),
        (Image.fromarray(np.full((8, 12), 1000, np.uint16)), 1000),
    ],
    ids=["grey", "colour", "black and white", "palette", "16-bit grey"],
)
def test_a_colour_declared_transparent_is_white(picture, colour):
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", transparency=colour)
    assert (decode_photo(buffer.getvalue()) == 255).all()


# ---------------------------------------------------------------------------------------------- resizing


@pytest.mark.parametrize("backend", ["pil", "opencv"])
def test_the_two_back_ends_differ_by_antialiasing_only(backend):
    stripes = np.zeros((64, 256, 3), np.uint8)
    stripes[:, ::8] = 255
    small = resize(stripes, (16, 32), backend)
    assert small.shape == (16, 32, 3)
    if backend == "pil":
        assert abs(small.mean() - stripes.mean()) < 2
        assert small.std() < 20
    else:
        assert small.std() < 1  # every sample lies between two stripes, or on one: all alike
    smooth = np.repeat(np.linspace(0, 255, 64).astype(np.uint8)[None, :, None], 3, 2).repeat(48, 0)
    difference = resize(smooth, (96, 128), "pil").astype(int) - resize(smooth, (96, 128), "opencv")
    assert np.abs(difference).max() <= 1


def test_resizing_to_the_same_size_changes_nothing():
    picture = np.random.default_rng(4).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    for backend in ("pil", "opencv"):
        np.testing.assert_array_equal(resize(picture, (20, 30), backend), picture)


@settings(max_examples=50, deadline=None)
@given(height=st.integers(4, 300), width=st.integers(4, 300), long_side=st.integers(16, 200))
def test_a_view_keeps_the_aspect_and_has_the_wanted_long_side(height, width, long_side):
    view = view_of(np.zeros((height, width, 3), np.uint8), long_side)
    assert max(view.shape[:2]) == long_side
    wanted = max(MIN_SIDE, min(height, width) * long_side / max(height, width))
    assert abs(min(view.shape[:2]) - wanted) <= 0.5


@pytest.mark.parametrize(
    "bad",
    [
        {"size": (8, 64)},
        {"size": (64,)},
        {"size": (64, 64), "std": (0.0, 1.0, 1.0)},
        {"size": (64, 64), "mean": (0.5,)},
        {"size": (64, 64), "resize": "bicubic"},
    ],
)
def test_a_chip_that_makes_no_sense_is_refused(bad):
    with pytest.raises(ValueError, match=r"size|mean|std|resize"):
        ChipSpec(**bad)


# ----------------------------------------------------------------------------------- the published chips


def golden_photos(shared):
    for about in sorted((shared / "goldens").glob("*.json")):
        golden, facts = np.load(about.with_suffix(".npz")), json.loads(about.read_text(encoding="utf-8"))
        catalogue = shared / "data" / facts["dataset"]
        with (catalogue / "metadata.csv").open(encoding="utf-8", newline="") as file:
            paths = {row["image_id"]: row["path"] for row in csv.DictReader(file)}
        for side, name in enumerate(facts["photos"]):
            yield facts["size"], catalogue / paths[name], golden[f"chip{side}"]


def test_the_goldens_chips_come_out_to_the_last_bit(shared):
    seen = 0
    for size, path, wanted in golden_photos(shared):
        chip = chip_of(decode_photo(path.read_bytes()), ChipSpec((size, size)))
        np.testing.assert_array_equal(chip, wanted)
        seen += 1
    assert seen == 8


def test_opencv_reads_the_same_colours_in_another_order():
    picture = np.random.default_rng(5).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    data = encoded(picture)
    theirs = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    np.testing.assert_array_equal(decode_photo(data), theirs[..., ::-1])
