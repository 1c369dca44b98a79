"""What commands on two photos share: boxes given as text, and pictures written to files."""

from __future__ import annotations

from pathlib import Path

from pairx_engine.photo.chips import Box
from schemas.errors import PairxError, SettingsError


def box_of(text: str | None) -> Box | None:
    """A box from text x,y,w,h; raises `SettingsError` for other text."""
    if text is None:
        return None
    try:
        x, y, w, h = (float(part) for part in text.split(","))
    except ValueError as error:
        raise SettingsError(
            f"box {text!r} is not x,y,w,h", "give four numbers in pixels, e.g. 120,80,400,260"
        ) from error
    return (x, y, w, h)


def write_file(path: Path, data: bytes, option: str) -> None:
    """Write a file and the folders above it; raises `PairxError` that names the option to change."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    except OSError as error:
        raise PairxError(
            f"{path} cannot be written: {error.strerror}", f"name another place with {option}"
        ) from error
