"""Boxes of animals: from the field's conventions to x, y, w, h with the origin at the top left.

Five conventions are told apart:

* **pixels**: x, y, w, h in pixels of the upright photo, as in COCO Camera Traps, Wildbook and MiewID (`x, y,
  w, h`);
* **shares** of the photo's size, as in Camtrap DP (`bboxX, bboxY, bboxWidth, bboxHeight`) and MegaDetector's
  results;
* **with theta**: x, y, w, h as they are before the photo is turned by `theta` radians, counter-clockwise,
  about the box's centre, as in wbia and MiewID. The numbers of the box do not change; `theta` is a column of
  its own;
* **corners**: x1, y1, x2, y2 (`xmin, ymin, xmax, ymax`), in pixels or shares;
* **lists as text**: x, y, w, h in one cell (`bbox`), written as JSON, Python or NumPy write lists
  (`parse_numbers`).

Whether boxes are pixels or shares is one answer for the whole catalogue:

* columns with a relative name (`rel_x, rel_y, rel_w, rel_h`, `bbox_relative`, or Camtrap DP's) are shares;
* otherwise a box is taken as shares when all four numbers lie within [-1, 1]: in pixels it would be a dot;
* a catalogue with boxes of both sorts is refused, because a box would silently land in the wrong place.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

Box = tuple[float, float, float, float]

_SHARE_LIMIT = 1.0 + 1e-4
"""The largest share: shares come from divisions in single precision, so 1 may read 1.0000001."""
_NUMBER = re.compile(r"[-+]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][-+]?\d+)?", re.ASCII)
_COMMA = re.compile(r"[-+]?\d+,\d+", re.ASCII)
_BETWEEN = re.compile(r"\s*,\s*|\s+", re.ASCII)
_ARRAY = re.compile(r"(?:np\.|numpy\.)?array\((\[[^][()]*\])(?:,\s*dtype=[\w.']+)?\)", re.ASCII)
_SCALAR = re.compile(r"(?:np|numpy)\.(?:float|int|uint)\d{1,3}\(([^()]*)\)", re.ASCII)
_MAX_TEXT = 1000
_OVERSHOOT = 1.02
"""How far a detector's box may leave its photo, as a share of the photo's size."""


def parse_numbers(text: str) -> list[float]:
    """The numbers of a list written as text by JSON, Python or NumPy.

    Examples are `[1, 2]`, `(1, 2)`, `[1. 2.]` and `array([1, 2])`. NumPy 2 writes the numbers of a Python
    list as `np.float64(1.0)`; they are read too. Raises `ValueError` for anything else; nothing is
    evaluated.
    """
    inner = text.strip()
    if len(inner) <= _MAX_TEXT:
        array = _ARRAY.fullmatch(inner)
        inner = _SCALAR.sub(r"\1", array.group(1) if array else inner)
    if len(inner) > _MAX_TEXT or (inner[:1], inner[-1:]) not in (("[", "]"), ("(", ")")):
        raise ValueError(f"{_shown(text)} is not a list of numbers")
    parts = _BETWEEN.split(inner[1:-1].strip())
    if parts == [""]:
        return []
    return [parse_number(part) for part in parts]


def parse_number(text: str) -> float:
    """A decimal number with a point, such as 12, -0.5 or 1e-3.

    Raises `ValueError` for anything else, also for NaN and infinity.
    """
    if len(text) > _MAX_TEXT or not _NUMBER.fullmatch(text):
        cure = ": decimals need a point" if _COMMA.fullmatch(text[:_MAX_TEXT]) else ""
        raise ValueError(f"{_shown(text)} is not a number{cure}")
    return float(text)


def make_box(numbers: Sequence[float | None]) -> Box:
    """A box of four finite numbers with positive width and height.

    x and y may be negative, since detectors overshoot. Raises `ValueError` that says what is wrong with
    it.
    """
    if len(numbers) != 4:
        raise ValueError(f"a box needs 4 numbers (x, y, w, h), not {len(numbers)}")
    x, y, w, h = (math.nan if number is None else float(number) for number in numbers)
    if not all(map(math.isfinite, (x, y, w, h))):
        raise ValueError(f"box {_listed(numbers)} has a missing or infinite number")
    if w <= 0 or h <= 0:
        raise ValueError(f"box {_listed(numbers)} has no area: w and h must be positive")
    return x, y, w, h


def looks_relative(box: Box) -> bool:
    """Whether all four numbers lie within [-1, 1], so that they can only be shares of the photo's size."""
    return max(map(abs, box)) <= _SHARE_LIMIT


def leaves(box: Sequence[float], width: float, height: float) -> bool:
    """Whether a box leaves a photo of that size on the right or below, farther than detectors overshoot."""
    x, y, w, h = box
    return x + w > _OVERSHOOT * width or y + h > _OVERSHOOT * height


def to_pixels(box: Box, width: int, height: int) -> Box:
    """A box of shares in pixels of the upright photo of `width` x `height` pixels."""
    x, y, w, h = box
    return x * width, y * height, w * width, h * height


def box_name(box: Sequence[float]) -> str:
    """A box as the part of an id that tells animals of one photo apart: `10,20,30.5,40`."""
    return ",".join(f"{value:.6g}" for value in box)


def _listed(numbers: Sequence[float | None]) -> str:
    return "[" + ", ".join("nothing" if n is None else f"{n:g}" for n in numbers) + "]"


def _shown(text: str) -> str:
    return repr(text if len(text) <= 60 else text[:59] + "…")
