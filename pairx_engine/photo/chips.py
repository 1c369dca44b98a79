"""One photo, one cut: the only way from a file's bytes to the chip.

The model sees the chip, points refer to it, and the picture shows the same cut in more pixels.

Frames, all with x to the right and y down, the origin at the top-left *corner* of the picture:

* *upright photo*: after the EXIF orientation was applied; boxes are given in its pixels.
* *cut*: the box, after the photo was turned by `theta`; photo pixels.
* *chip*: the cut stretched to the model's input size; every match, homography and pixel map is in chip
  pixels.
* *view*: the same cut, aspect kept, with a given long side; local features are detected in it.
* *picture*: the same cut, aspect kept, at its own resolution; people look at it.

Chip, view and picture are plain stretches of one cut, so only two factors move a point between them.
"""

from __future__ import annotations

import io
import math
import struct
import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from pairx_engine.errors import PhotoError
from pairx_engine.photo.not_photos import refuse_others

Pixels = NDArray[np.uint8]
Box = Sequence[float]
ResizeBackend = Literal["pil", "opencv"]

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF", "MPO")
_DECODERS = tuple(form for form in FORMATS if form != "MPO")
"""The decoders to use: an MPO is opened as the JPEG with which it begins."""
MAX_PIXELS = 178_956_970
BYTES_A_PIXEL = 8.5
"""What decoding takes at its peak: Pillow's four bytes a pixel, and three of the photo or four of its turned copy.

Measured at 180 megapixels: 7.3 of a JPEG, progressive or not, 8.1 where EXIF turns it, 8.0 of a PNG with its
file, 8.4 with transparency.
"""
JPEG_PIXELS_PER_BYTE = 512
"""Most pixels that a byte of JPEG can hold, plain pictures included.

A JPEG spends at least one bit on each block of 8 x 8 pixels. Entirely white photos were seen to have 256
pixels a byte. A file that ends sooner is decoded nevertheless, at the size that it claims, with grey where
data is missing.
"""
_BAND = 256
_OPENING = threading.Lock()
PLAIN_CROP_BELOW = 0.1
"""|theta| in radians under which a cut is not turned, as in MiewID's training."""
MIN_VISIBLE = 0.5
"""Share of a box that must lie inside the photo.

Detectors overshoot by a few pixels, wrong boxes by much more.
"""
MIN_SIDE = 4
PICTURE_SIDE = 1000
"""Longest side, in pixels, of what people see of a photo; two stand side by side."""
MAX_CHIP_SIDE = 4096
"""Longest side of a chip: no model looks at more, and a batch multiplies what a config asks for."""
CONVENTION = (
    "exif-upright; box xywh; +theta turns the photo counter-clockwise about the box centre; white outside; v1"
)
DECODER = f"pillow-{Image.__version__.split('.')[0]}"


@dataclass(frozen=True)
class ChipSpec:
    """How a model wants its input.

    `size` is (H, W) in pixels, `mean` and `std` are those of RGB in [0, 1], and `resize` is the back end.
    `pil` is bilinear with antialias (the published models' cards); `opencv` is bilinear without
    (albumentations). Embeddings of the two differ by an angle of about three degrees, hence the choice is
    part of every fingerprint.
    """

    size: tuple[int, int]
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)
    resize: ResizeBackend = "pil"

    def __post_init__(self) -> None:
        if len(self.size) != 2 or not all(16 <= side <= MAX_CHIP_SIDE for side in self.size):
            raise ValueError(
                f"chip size must be (height, width) of 16 to {MAX_CHIP_SIDE} pixels, not {self.size}"
            )
        if len(self.mean) != 3 or len(self.std) != 3 or not all(0 < value < math.inf for value in self.std):
            raise ValueError("mean and std need three channels each, and std must be positive and finite")
        if not all(map(math.isfinite, self.mean)):
            raise ValueError(f"mean must be finite, not {self.mean}")
        if self.resize not in ("pil", "opencv"):
            raise ValueError(f"resize must be 'pil' or 'opencv', not {self.resize!r}")


def decode_photo(data: bytes, max_pixels: int = MAX_PIXELS) -> Pixels:
    """Decode a file's bytes into the upright photo, (H, W, 3) RGB uint8.

    The picture's size is checked from the header before anything is decoded, and the size bounds the memory:
    twice the pixels at four bytes while a picture is turned upright. Raises `PhotoError` with codes
    empty_file, not_an_image, wrong_type, too_many_pixels, truncated or unreadable_file, and those of
    `pairx_engine.photo.not_photos`.
    """
    if not data:
        raise PhotoError("empty_file", "the file has no bytes")
    refuse_others(data)
    with warnings.catch_warnings():
        # Our own limit replaces Pillow's, which would raise or merely warn depending on the size. Pillow's
        # other warnings are mostly of damaged metadata; these do no harm, or they end in an error.
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        warnings.simplefilter("ignore", UserWarning)
        image = _open(data)
        _refuse_size(image, len(data), max_pixels)
        try:
            image.load()
            _turn_upright(image)
            return _as_rgb(image)
        except (PhotoError, MemoryError):
            raise
        except Exception as error:  # a damaged picture breaks a decoder in as many ways as it has parts
            raise PhotoError(
                _damage(error), f"the picture breaks off or is damaged: {_said(error)}"
            ) from error


def _turn_upright(image: Image.Image) -> None:
    try:
        ImageOps.exif_transpose(image, in_place=True)
    except MemoryError:
        raise
    except Exception:  # metadata that cannot be read turns nothing, and is no damage to the picture
        return


def _open(data: bytes) -> Image.Image:
    try:
        # Only the decoders of these formats ever see the bytes.
        with _without_pillows_limit():
            return Image.open(io.BytesIO(data), formats=_DECODERS)
    except UnidentifiedImageError as error:
        if other := _other_format(data):
            raise PhotoError(
                "wrong_type", f"format {other} is not accepted; convert the photo to JPEG or PNG"
            ) from error
        raise PhotoError("not_an_image", "the bytes are no picture in any known format") from error
    except MemoryError:
        raise
    except Exception as error:
        raise PhotoError(_damage(error), f"the picture's header could not be read: {_said(error)}") from error


@contextmanager
def _without_pillows_limit() -> Iterator[None]:
    """A block in which Pillow opens headers of any size: it would call a large photo an attack.

    The limit is the whole process's, so it is lifted for no longer than a header takes.
    """
    with _OPENING:
        limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            yield
        finally:
            Image.MAX_IMAGE_PIXELS = limit


def _refuse_size(image: Image.Image, size: int, max_pixels: int) -> None:
    pixels = image.width * image.height
    if pixels > max_pixels:
        raise PhotoError(
            "too_many_pixels",
            f"{image.width} x {image.height} = {pixels} pixels are more than max_pixels, {max_pixels}: the file may be sound; "
            f"to take it in, raise --max-pixels to {pixels} where a worker has {_gigabytes(pixels)} GB for it, or give a "
            "smaller copy",
        )
    if image.format in ("JPEG", "MPO") and pixels > JPEG_PIXELS_PER_BYTE * size:
        raise PhotoError(
            "truncated",
            f"the header claims {image.width} x {image.height} pixels, more than {size} bytes of JPEG can hold",
        )


def _gigabytes(pixels: int) -> str:
    """What it takes to decode a photo and turn it upright."""
    return f"{pixels * BYTES_A_PIXEL / 1e9:.1f}"


def _other_format(data: bytes) -> str | None:
    """A format that is not accepted and begins like these bytes; nothing is parsed to find it."""
    Image.init()
    for name in Image.ID:
        accept = Image.OPEN[name][1]
        try:
            if name not in FORMATS and accept is not None and accept(data[:16]):
                return name
        except (IndexError, struct.error):  # fewer bytes than the format's mark
            continue
    return None


def _damage(error: Exception) -> str:
    # Pillow has one exception type for every kind of damage; only its words reveal a file that breaks off.
    return (
        "truncated"
        if any(word in str(error).lower() for word in ("truncated", "broken"))
        else "unreadable_file"
    )


def _said(error: Exception) -> str:
    return str(error) or type(error).__name__


def _as_rgb(image: Image.Image) -> Pixels:
    if image.mode in ("I", "F"):
        # Such numbers have no agreed white; a guess would silently give black or white chips.
        raise PhotoError(
            "wrong_type", "grey values of 32 bits have no agreed range; convert the photo to 8 or 16 bits"
        )
    photo = np.empty((image.height, image.width, 3), dtype=np.uint8)
    # Band by band: each conversion of a whole photo would be one more copy of it.
    band = max(1, min(_BAND, MAX_PIXELS // max(1, image.width)))
    for top in range(0, image.height, band):
        bottom = min(top + band, image.height)
        photo[top:bottom] = _band_as_rgb(image.crop((0, top, image.width, bottom)))
    return photo


def _band_as_rgb(image: Image.Image) -> Pixels:
    if image.mode.startswith("I;16"):
        # Pillow clips 16-bit grey instead of scaling it, which turns most camera-trap infrared frames white.
        deep = np.asarray(image)
        grey = np.rint(deep / 257.0).astype(np.uint8)
        grey[deep == image.info.get("transparency", -1)] = 255
        return np.repeat(grey[..., None], 3, axis=2)
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        ground = Image.new("RGBA", rgba.size, (255, 255, 255, 255))
        image = Image.alpha_composite(ground, rgba)
    return np.asarray(image if image.mode == "RGB" else image.convert("RGB"), dtype=np.uint8)


def cut_photo(photo: Pixels, box: Box | None = None, theta: float = 0.0) -> Pixels:
    """Cut the box out of an upright photo, (h, w, 3).

    `box` is (x, y, w, h) in photo pixels, None for the whole photo. `theta` (radians) first turns the photo
    counter-clockwise about the box centre. Parts outside the photo are clipped when the cut is straight, and
    white when it is turned. The cut is a picture of its own: it does not keep the photo in memory. Raises
    `PhotoError` with codes box_empty, box_outside or too_small.
    """
    height, width = photo.shape[:2]
    x, y, w, h = (0.0, 0.0, float(width), float(height)) if box is None else (float(v) for v in box)
    if not all(map(math.isfinite, (x, y, w, h, theta))) or w <= 0 or h <= 0:
        raise PhotoError("box_empty", f"box {x, y, w, h} with theta {theta} has no area")
    turned = abs(theta) >= PLAIN_CROP_BELOW
    visible = visible_share((x, y, w, h), theta if turned else 0.0, width, height)
    if visible < MIN_VISIBLE:
        raise PhotoError(
            "box_outside",
            f"only {visible:.0%} of box {x, y, w, h}{f' turned by {theta}' if turned else ''} lies inside the photo of "
            f"{width} x {height} pixels",
        )
    cut = _turned_cut(photo, x, y, w, h, theta) if turned else _straight_cut(photo, x, y, w, h)
    if min(cut.shape[:2]) < MIN_SIDE:
        raise PhotoError(
            "too_small", f"the cut is {cut.shape[1]} x {cut.shape[0]} pixels; at least {MIN_SIDE} are needed"
        )
    return cut


def visible_share(box: Box, theta: float, width: int, height: int) -> float:
    """Share (0-1) of the cut's area that lies inside a photo of `width` x `height` pixels.

    The cut is the box turned by `theta` (radians) about its centre, opposite to the turn of the photo.
    """
    x, y, w, h = box
    if theta == 0:
        inside = max(0.0, min(x + w, width) - max(x, 0)) * max(0.0, min(y + h, height) - max(y, 0))
        return inside / (w * h) if w * h else 0.0
    if max(w, h) > 2 * math.hypot(width, height):
        # No turn brings half of such a box in, and its numbers may overflow below.
        return 0.0
    sine, cosine = math.sin(theta), math.cos(theta)
    halves = ((-w / 2, -h / 2), (w / 2, -h / 2), (w / 2, h / 2), (-w / 2, h / 2))
    centre_x, centre_y = x + w / 2, y + h / 2
    corners = [(centre_x + dx * cosine - dy * sine, centre_y + dx * sine + dy * cosine) for dx, dy in halves]
    return _area_within(corners, width, height) / (w * h) if w * h else 0.0


def _area_within(corners: Sequence[tuple[float, float]], width: int, height: int) -> float:
    """Area of a convex polygon inside the photo, cut at one edge after the other.

    The method is that of Sutherland and Hodgman.
    """
    # OpenCV's intersectConvexConvex returns a whole polygon when edges almost coincide.
    polygon = list(corners)
    for axis, limit, sign in ((0, 0, 1), (0, width, -1), (1, 0, 1), (1, height, -1)):
        kept: list[tuple[float, float]] = []
        for first, second in zip(polygon, polygon[1:] + polygon[:1], strict=True):
            inside_a, inside_b = sign * (first[axis] - limit), sign * (second[axis] - limit)
            if inside_a >= 0:
                kept.append(first)
            if (inside_a < 0) != (inside_b < 0):
                t = inside_a / (inside_a - inside_b)
                kept.append((first[0] + t * (second[0] - first[0]), first[1] + t * (second[1] - first[1])))
        polygon = kept
    ring = zip(polygon, polygon[1:] + polygon[:1], strict=True)
    return abs(sum(x0 * y1 - x1 * y0 for (x0, y0), (x1, y1) in ring)) / 2


def _straight_cut(photo: Pixels, x: float, y: float, w: float, h: float) -> Pixels:
    left, top = max(0, round(x)), max(0, round(y))
    right, bottom = min(photo.shape[1], round(x + w)), min(photo.shape[0], round(y + h))
    cut = photo[top:bottom, left:right]
    # A mere view would keep the whole photo alive for as long as anyone holds the cut.
    return cut if cut.shape == photo.shape else cut.copy()


def _turned_cut(photo: Pixels, x: float, y: float, w: float, h: float, theta: float) -> Pixels:
    columns, rows = max(1, round(w)), max(1, round(h))
    # warpAffine counts pixel centres, boxes count corners: half a pixel between the two.
    centre = (x + w / 2 - 0.5, y + h / 2 - 0.5)
    turn = cv2.getRotationMatrix2D(centre, math.degrees(theta), 1.0)
    turn[:, 2] += np.array([(columns - 1) / 2 - centre[0], (rows - 1) / 2 - centre[1]])
    turned = cv2.warpAffine(
        photo,
        turn,
        (columns, rows),
        flags=cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_CONSTANT,
        borderValue=(255, 255, 255),
    )
    return np.asarray(turned, dtype=np.uint8)


def resize(picture: Pixels, size: tuple[int, int], backend: ResizeBackend = "pil") -> Pixels:
    """Stretch a picture (h, w, 3) to `size` (H, W), bilinear; `pil` with antialias, `opencv` without."""
    height, width = size
    if picture.shape[:2] == (height, width):
        return picture
    if backend == "opencv":
        return np.asarray(
            cv2.resize(picture, (width, height), interpolation=cv2.INTER_LINEAR), dtype=np.uint8
        )
    return np.array(
        Image.fromarray(picture).resize((width, height), Image.Resampling.BILINEAR), dtype=np.uint8
    )


def chip_of(cut: Pixels, spec: ChipSpec) -> Pixels:
    """The cut stretched to the model's input size, (H, W, 3) uint8."""
    return resize(cut, spec.size, spec.resize)


def view_of(cut: Pixels, long_side: int) -> Pixels:
    """The cut with its aspect kept and a long side of `long_side` pixels, (h, w, 3) uint8.

    Small cuts are enlarged.
    """
    height, width = cut.shape[:2]
    factor = long_side / max(height, width)
    size = (max(MIN_SIDE, round(height * factor)), max(MIN_SIDE, round(width * factor)))
    if factor > 1:
        return np.asarray(cv2.resize(cut, (size[1], size[0]), interpolation=cv2.INTER_CUBIC), dtype=np.uint8)
    return resize(cut, size, "pil")


def picture_of(cut: Pixels, longest: int = PICTURE_SIDE) -> Pixels:
    """The cut as people see it, (h, w, 3) uint8: its own pixels, or fewer above `longest` a side.

    Its aspect is kept and it is never enlarged. It may be the cut itself.
    """
    return view_of(cut, min(longest, max(cut.shape[:2])))
