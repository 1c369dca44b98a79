"""Pictures and pixel maps as bytes for tables, files and reports."""

from __future__ import annotations

import io

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pairx_engine.figure.values import Floats, Pixels

MAP_STEPS = 65535


def encode_png(pixels: Pixels) -> bytes:
    """(H, W, 3) RGB or (H, W, 4) RGBA uint8 as PNG."""
    return _encoded(pixels, "PNG", optimize=False)


def encode_webp(pixels: Pixels, quality: int = 82) -> bytes:
    """(H, W, 3) RGB or (H, W, 4) RGBA uint8 as WebP.

    Transparent pixels stay transparent; opacity is kept to 2 / 255. Raises ValueError above 16383 pixels a
    side, the format's limit.
    """
    if max(pixels.shape[:2]) > 16383:
        raise ValueError(
            f"WebP holds at most 16383 pixels a side, not {pixels.shape[1]} x {pixels.shape[0]}; use PNG"
        )
    return _encoded(pixels, "WEBP", quality=quality, alpha_quality=80, method=4)


def encode_map(pixel_map: Floats) -> tuple[bytes, float]:
    """A pixel map (H, W), not negative, as 16-bit grey PNG of map / maximum, and that maximum.

    A map without relevance is stored as zeros with maximum 0. Raises ValueError on negative or non-finite
    values.
    """
    values = np.asarray(pixel_map, dtype=np.float64)
    if values.ndim != 2 or not values.size or not np.isfinite(values).all() or values.min() < 0:
        raise ValueError(
            f"a pixel map must be a finite (H, W) array without negative values, not {values.shape}"
        )
    peak = float(values.max())
    steps = np.zeros(values.shape) if peak == 0 else np.rint(values / peak * MAP_STEPS)
    done, data = cv2.imencode(".png", steps.astype(np.uint16))
    if not done:
        raise ValueError(f"the pixel map of {values.shape} could not be written as PNG")
    return data.tobytes(), peak


def decode_map(data: bytes, peak: float) -> NDArray[np.float64]:
    """The pixel map (H, W) that `encode_map` stored, exact to half a step of peak / 65535."""
    steps = cv2.imdecode(np.frombuffer(data, dtype=np.uint8), cv2.IMREAD_UNCHANGED)
    if steps is None or steps.dtype != np.uint16 or steps.ndim != 2:
        raise ValueError("the bytes are not a 16-bit grey PNG; pass what encode_map returned")
    return steps.astype(np.float64) / MAP_STEPS * peak


def _encoded(pixels: Pixels, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(buffer, kind, **options)
    return buffer.getvalue()
