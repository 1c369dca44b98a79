"""Rectangles of a feature map: where relevance can be, and how tensors move between two of them."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from pairx_engine.device.tuning import WINDOW_SIZES, WINDOW_STEP


class Window(NamedTuple):
    """Rows `top` to `bottom` and columns `left` to `right` of a map, the ends excluded.

    They are in cells of that map.
    """

    top: int
    bottom: int
    left: int
    right: int

    @property
    def size(self) -> tuple[int, int]:
        """Height and width."""
        return self.bottom - self.top, self.right - self.left

    def union(self, other: Window) -> Window:
        """The smallest window that holds both."""
        return Window(
            min(self.top, other.top),
            max(self.bottom, other.bottom),
            min(self.left, other.left),
            max(self.right, other.right),
        )

    def within(self, other: Window) -> Window:
        """The cells that lie in both; the size is zero or negative where they do not overlap."""
        return Window(
            max(self.top, other.top),
            min(self.bottom, other.bottom),
            max(self.left, other.left),
            min(self.right, other.right),
        )

    def seen_from(self, other: Window) -> Window:
        """The same cells, counted from the other window's top left."""
        return Window(
            self.top - other.top, self.bottom - other.top, self.left - other.left, self.right - other.left
        )


@lru_cache(maxsize=4096)
def fitted(span: Window, extent: Window) -> Window:
    """A window inside `extent` that holds the part of `span` there, of one of few sizes; never empty."""
    top, bottom = _fitted(span.top, span.bottom, extent.bottom)
    left, right = _fitted(span.left, span.right, extent.right)
    return Window(top, bottom, left, right)


def _fitted(low: int, high: int, end: int) -> tuple[int, int]:
    size = high - low
    first = min(max(low, 0), end - 1)
    last = max(min(high, end), first + 1)
    part = -(-(last - first) * WINDOW_SIZES // size)
    wanted = min(end, -(-size * part // WINDOW_SIZES))
    first = max(0, min(first, end - wanted))
    return first, first + wanted


def without_light_edges(mass: NDArray[np.float32], window: Window, negligible: float) -> Window:
    """The window (h, w) without those outer rows and columns that hold a negligible share of the mass.

    `mass` (h, w) is not negative. A quarter of the share may go at each side. Where the total mass is zero or
    not finite, the window stays.
    """
    rows, columns = mass.sum(axis=1, dtype=np.float64), mass.sum(axis=0, dtype=np.float64)
    total = float(rows.sum())
    if not (np.isfinite(total) and total > 0):
        return window
    allowed = total * negligible / 4
    top, bottom = (int((np.cumsum(side) <= allowed).sum()) for side in (rows, rows[::-1]))
    left, right = (int((np.cumsum(side) <= allowed).sum()) for side in (columns, columns[::-1]))
    return Window(
        *_rounded_up(window.top + top, window.bottom - bottom, window.top, window.bottom),
        *_rounded_up(window.left + left, window.right - right, window.left, window.right),
    )


def _rounded_up(first: int, last: int, low: int, high: int) -> tuple[int, int]:
    """A range that holds first to last, with a length that is a multiple of `WINDOW_STEP`.

    It is the whole range from low to high if that is shorter.
    """
    wanted = min(high - low, max(1, -(-(last - first) // WINDOW_STEP)) * WINDOW_STEP)
    first = max(low, min(first, high - wanted))
    return first, first + wanted


def whole(values: Tensor) -> Window:
    """The window that covers a map (N, C, H, W)."""
    return Window(0, values.shape[-2], 0, values.shape[-1])


def cut(values: Tensor, window: Window) -> Tensor:
    """The part of maps (N, C, H, W) inside a window, as a view."""
    return values[..., window.top : window.bottom, window.left : window.right]


def move(part: Tensor, held: Window, wanted: Window) -> Tensor:
    """Maps that fill `held`, changed to fill `wanted`: cut, and padded with zeros."""
    if held == wanted:
        return part
    inner = held.within(wanted)
    if inner != held:
        part = cut(part, inner.seen_from(held))
    if inner == wanted:
        return part
    around = (
        inner.left - wanted.left,
        wanted.right - inner.right,
        inner.top - wanted.top,
        wanted.bottom - inner.bottom,
    )
    return functional.pad(part, around)
