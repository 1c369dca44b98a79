"""A point of the chip lies on the same content in what people see: every cut, every kind of chip."""

from __future__ import annotations

import io
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from pairx_engine.explanations.seam import Shown
from pairx_engine.figure import Comparison, ComparisonInput, FigurePhoto, MethodPanel, draw_comparison
from pairx_engine.figure.assembly import figure_input
from pairx_engine.figure.panels import CARRYING, LOCAL_DIMMED, OTHER_COLOUR, draw_photos
from pairx_engine.figure.sheet import _local_caption, draw_figure
from pairx_engine.figure.values import FigureInput, LocalMatches
from pairx_engine.photo.chips import PICTURE_SIDE, ChipSpec, Pixels, cut_photo, decode_photo, picture_of

UPRIGHT = (1400, 2100)
"""(H, W) of the upright photo."""
MARKER = np.array([1000.0, 600.0])
"""Where a soft white spot lies on it, (x, y)."""
SPECS = [
    ChipSpec((160, 160)),
    ChipSpec((440, 440), resize="opencv"),
    ChipSpec((112, 224)),
    ChipSpec((384, 128), resize="opencv"),
]
CUTS = [(None, 0.0), ((620.0, 250.0, 900.0, 500.0), 0.0), ((700.0, 200.0, 500.0, 1100.0), 0.6)]
CUTS += [((850.0, 450.0, 260.0, 300.0), -1.2)]


def photo_of(orientation: int) -> bytes:
    """A JPEG whose upright photo has the marker, stored as a camera held otherwise stores it."""
    y, x = np.indices(UPRIGHT) + 0.5
    spot = 255 * np.exp(-0.5 * (np.hypot(x - MARKER[0], y - MARKER[1]) / 30) ** 2)
    upright = Image.fromarray(np.repeat(np.rint(spot)[..., None], 3, axis=2).astype(np.uint8))
    # What undoes each orientation's turn.
    undo = {
        1: None,
        3: Image.Transpose.ROTATE_180,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
    }
    turn = undo[orientation]
    stored = upright if turn is None else upright.transpose(turn)
    exif = Image.Exif()
    exif[0x0112] = orientation
    buffer = io.BytesIO()
    stored.save(buffer, "JPEG", quality=95, exif=exif)
    return buffer.getvalue()


def centroid(picture: Pixels) -> NDArray[np.float64]:
    """Where the spot lies in a picture, (x, y); white beyond a turned photo's edge does not count."""
    light = picture[..., 0].astype(np.float64)
    rows, columns = np.indices(light.shape) + 0.5
    white = np.argwhere((light > 200) & (light < 254))
    middle = (
        np.median(white, axis=0) if len(white) else np.array(np.unravel_index(light.argmax(), light.shape))
    )
    near = (np.abs(rows - middle[0]) < 0.2 * light.shape[0]) & (
        np.abs(columns - middle[1]) < 0.2 * light.shape[1]
    )
    light = np.where(near & (light > 40), light, 0.0)
    return np.array([(columns * light).sum(), (rows * light).sum()]) / light.sum()


@pytest.mark.parametrize(("orientation", "spec"), list(zip((1, 3, 6, 7), SPECS, strict=True)), ids=str)
def test_a_point_of_the_chip_lies_on_the_same_content_in_the_picture(
    orientation: int, spec: ChipSpec
) -> None:
    photo = decode_photo(photo_of(orientation))
    assert photo.shape[:2] == UPRIGHT
    for (box, theta), other in zip(CUTS, (*CUTS[1:], CUTS[0]), strict=True):
        photos = tuple(FigurePhoto.of(cut_photo(photo, *how), spec, "p") for how in ((box, theta), other))
        spots = [centroid(one.chip)[None] for one in photos]
        shown = Shown(
            (np.zeros((4, 4)), np.zeros((4, 4))),
            (spots[0], spots[1]),
            np.ones(1),
            (np.zeros((1, *spec.size)), np.zeros((1, *spec.size))),
        )
        given = figure_input(shown, (photos[0], photos[1]), "", 5)
        panel = draw_photos(given)
        for one, spot, span in zip(photos, spots, given.frame.spans, strict=True):
            assert one.chip.shape[:2] == spec.size
            part = panel[: span.height, span.left : span.left + span.width]
            expected = centroid(part) + np.array([span.left, 0.0])
            # A chip has up to nine times fewer pixels a side: a tenth of one is about one of the panel's.
            slack = 0.15 * max(span.width / spec.size[1], span.height / spec.size[0]) + 0.5
            assert np.abs(span.to_panel(spot)[0] - expected).max() < slack
            assert part.shape[1] / part.shape[0] == pytest.approx(one.cut_size[0] / one.cut_size[1], rel=0.01)


def test_a_marker_of_a_comparison_lies_under_its_heat() -> None:
    photo = decode_photo(photo_of(6))
    spec = ChipSpec((96, 192))
    one = FigurePhoto.of(cut_photo(photo, *CUTS[1]), spec, "p")
    column, row = centroid(one.chip)
    y, x = np.indices(spec.size) + 0.5
    heat = np.exp(-0.5 * (np.hypot(x - column, y - row) / 4) ** 2)
    drawn: Comparison = draw_comparison(
        ComparisonInput((one, one), "", [MethodPanel("m", "", maps=(heat, heat))])
    )
    (panel,) = drawn.panels
    assert panel is not None
    half = (drawn.photos.shape[1] - 12) // 2
    place = centroid(drawn.photos[:, :half])
    tinted = np.ptp(panel[:, :half].astype(int), axis=2)
    rows, columns = np.nonzero(tinted > 0.5 * tinted.max())
    assert np.abs(np.array([columns.mean(), rows.mean()]) + 0.5 - place).max() < 3


def test_a_picture_has_the_photos_own_pixels_up_to_a_limit() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (700, 900, 3), dtype=np.uint8)
    assert (picture_of(noise) == noise).all()
    assert picture_of(noise[:40, :90]).shape == (40, 90, 3)
    large = picture_of(np.repeat(np.repeat(noise, 4, axis=0), 4, axis=1))
    assert large.shape == (round(PICTURE_SIDE * 7 / 9), PICTURE_SIDE, 3)


def figure_heights(*sizes: tuple[int, int]) -> tuple[int, ...]:
    photos = [FigurePhoto.of(np.zeros((*size, 3), np.uint8), ChipSpec((64, 64)), "p") for size in sizes]
    shown = Shown(
        (np.zeros((2, 2)), np.zeros((2, 2))),
        (np.zeros((0, 2)), np.zeros((0, 2))),
        np.zeros(0),
        (np.zeros((0, 64, 64)),) * 2,
    )
    frame = figure_input(shown, (photos[0], photos[1]), "", 5).frame
    return tuple(span.height for span in frame.spans)


def test_photos_are_shown_at_their_own_resolution_and_small_ones_have_room() -> None:
    assert figure_heights((600, 800), (600, 900)) == (600, 600)
    # Heights that are nearly alike are made alike, never by enlarging.
    assert figure_heights((600, 800), (500, 800)) == (500, 500)
    assert figure_heights((600, 800), (450, 900)) == (600, 450)
    assert figure_heights((3000, 4000), (3000, 4000)) == (750, 750)
    assert figure_heights((44, 44), (3000, 3000)) == (440, 1000)
    # One that is as long as a snake keeps within the limit.
    assert figure_heights((10, 4000), (440, 440)) == (50, 440)


def local_scene(inliers: NDArray[np.bool_] | None, reason: str = "") -> FigureInput:
    """Two photos of 500 x 500 under chips of 100 x 100, and three local matches."""
    first = np.array([[20.0, 20.0], [50.0, 50.0], [80.0, 80.0]])
    photos = [
        FigurePhoto(np.zeros((100, 100, 3), np.uint8), np.full((500, 500, 3), 90, np.uint8), (500, 500), "p")
    ] * 2
    shown = Shown(
        (np.zeros((2, 2)),) * 2, (np.zeros((0, 2)),) * 2, np.zeros(0), (np.zeros((0, 100, 100)),) * 2
    )
    local = LocalMatches((first, first[:, ::-1]), inliers, None, "sift", reason)
    return figure_input(shown, (photos[0], photos[1]), "", 5, local)


def test_local_matches_that_carry_the_homography_stand_out_at_their_points() -> None:
    given = local_scene(np.array([True, False, True]))
    drawn = draw_figure(given)
    assert drawn.local is not None
    assert drawn.local.shape == drawn.photos.shape
    for span in given.frame.spans:
        for (x, y), colour in zip(
            span.to_panel([[20, 20], [50, 50], [80, 80]]), (CARRYING, OTHER_COLOUR, CARRYING), strict=True
        ):
            assert np.abs(drawn.local[int(y), int(x)].astype(int) - colour).max() <= 2
    # A line lies between the two ends of a match, and the photos' ground is grey and dimmed elsewhere.
    middle = drawn.local[(20 * 5), 256]
    assert middle[1] > middle[0] + 40
    assert (drawn.local[30, 30] == round(90 * LOCAL_DIMMED)).all()
    assert draw_figure(local_scene(None, "too_few_inliers")).local is not None


def test_captions_of_local_matches_say_what_carries() -> None:
    some = local_scene(np.array([True, False, True])).local
    none = local_scene(None, "too_few_inliers").local
    assert some is not None
    assert none is not None
    assert _local_caption(some) == "Local matches (sift): 2 of 3 carry the homography"
    assert _local_caption(replace(some, distinct=1)).endswith(
        "2 of 3 carry the homography, 1 of them distinct"
    )
    assert _local_caption(none) == "Local matches (sift): 3, and no homography (too few inliers)"
