"""Photos that break careless readers, each with the failure code that it must end in.

The code is None where the photo must be read. `write_poison(folder)` writes them all; `POISONS` lists them
one by one.
"""

from __future__ import annotations

import io
import os
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from schemas.failures import FailureCode

WIDTH, HEIGHT = 96, 64
CORNERS = ((220, 40, 40), (40, 200, 40), (40, 40, 220), (210, 210, 50))
"""Colours of the upright photo's quarters: top left, top right, bottom left, bottom right."""
_STORED = {
    1: None,
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}
"""How the upright photo is stored for each EXIF orientation: the inverse of what a reader has to do."""
_EXIF_ORIENTATION = 0x0112
_LONGEST_NAME = 255


@dataclass(frozen=True)
class Poison:
    """One file: its name, the code of the failure it causes, and what writes it at a path.

    The code is None for a good photo.
    """

    name: str
    code: FailureCode | None
    write: Callable[[Path], object]


def upright_photo() -> NDArray[np.uint8]:
    """The picture in every good poison photo that keeps colours, (64, 96, 3) RGB.

    Each quarter has one of the colours `CORNERS`.
    """
    photo = np.empty((HEIGHT, WIDTH, 3), np.uint8)
    for i, colour in enumerate(CORNERS):
        rows = slice(0, HEIGHT // 2) if i < 2 else slice(HEIGHT // 2, None)
        columns = slice(0, WIDTH // 2) if i % 2 == 0 else slice(WIDTH // 2, None)
        photo[rows, columns] = colour
    return photo


def encoded(form: str = "JPEG", mode: str = "RGB", **options: object) -> bytes:
    """The upright photo as a file's bytes, converted to a Pillow `mode` and saved in a Pillow format."""
    buffer = io.BytesIO()
    quality = {"quality": 95} if form == "JPEG" else {}
    Image.fromarray(upright_photo()).convert(mode).save(buffer, form, **quality, **options)  # type: ignore[arg-type]
    return buffer.getvalue()


def broken_off(form: str, marker: bytes) -> bytes:
    """A file that ends in the middle of what follows `marker`, where the pixels start."""
    data = encoded(form)
    start = data.index(marker)
    return data[: (start + len(data)) // 2]


def oriented(orientation: int) -> bytes:
    """A JPEG that shows the upright photo once its EXIF orientation (1-8) is applied."""
    image = Image.fromarray(upright_photo())
    turn = _STORED[orientation]
    stored = image if turn is None else image.transpose(turn)
    exif = Image.Exif()
    exif[_EXIF_ORIENTATION] = orientation
    buffer = io.BytesIO()
    stored.save(buffer, "JPEG", quality=95, exif=exif)
    return buffer.getvalue()


def animated(form: str) -> bytes:
    """Two frames, the upright photo first, as GIF, WEBP or PNG."""
    first = Image.fromarray(upright_photo())
    second = Image.new("RGB", first.size, (0, 0, 0))
    buffer = io.BytesIO()
    first.save(buffer, form, save_all=True, append_images=[second], duration=100)
    return buffer.getvalue()


def grey_16_bit() -> bytes:
    """A 16-bit grey PNG with values over the whole range, dark at the left."""
    ramp = np.tile(np.linspace(0, 65535, WIDTH).astype(np.uint16), (HEIGHT, 1))
    buffer = io.BytesIO()
    Image.fromarray(ramp).save(buffer, "PNG")
    return buffer.getvalue()


def png_claiming(width: int, height: int) -> bytes:
    """A tiny, well-formed PNG whose header claims `width` x `height` pixels.

    Its data holds one row at most.
    """
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        _png_chunk(kind, body)
        for kind, body in ((b"IHDR", header), (b"IDAT", zlib.compress(b"\x00" * 64)), (b"IEND", b""))
    )


def png_with_text_bomb(unpacked: int = 16 * 1024 * 1024) -> bytes:
    """A good PNG but for a compressed comment that unpacks to `unpacked` bytes."""
    packer = zlib.compressobj(9)
    packed = b"".join(packer.compress(b"\x00" * 2**20) for _ in range(unpacked // 2**20)) + packer.flush()
    chunk = _png_chunk(b"zTXt", b"Comment\x00\x00" + packed)
    png = encoded("PNG")
    after_header = 8 + 12 + 13
    return png[:after_header] + chunk + png[after_header:]


def _png_chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def _single_pixel() -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (1, 1), CORNERS[0]).save(buffer, "PNG")
    return buffer.getvalue()


def _file(name: str, code: FailureCode | None, make: Callable[[], bytes]) -> Poison:
    return Poison(name, code, lambda path: path.write_bytes(make()))


def _unreadable(path: Path) -> None:
    path.write_bytes(encoded())
    path.chmod(0)


def _long_name(start: str) -> str:
    """A name of exactly the length that file systems allow, in bytes."""
    return start + "n" * (_LONGEST_NAME - len((start + ".jpg").encode())) + ".jpg"


def _poisons() -> tuple[Poison, ...]:
    bad = FailureCode
    html = b"<!DOCTYPE html><html><head><title>404</title></head><body>Not found</body></html>"
    return (
        Poison("missing.jpg", bad.MISSING_FILE, lambda path: None),
        Poison("folder.jpg", bad.UNREADABLE_FILE, lambda path: path.mkdir()),
        Poison("dangling_link.jpg", bad.MISSING_FILE, lambda path: path.symlink_to("nothing_there.jpg")),
        _file("zero_bytes.jpg", bad.EMPTY_FILE, lambda: b""),
        _file("truncated.jpg", bad.TRUNCATED, lambda: broken_off("JPEG", b"\xff\xda")),
        _file("truncated.png", bad.TRUNCATED, lambda: broken_off("PNG", b"IDAT")),
        _file("truncated_in_header.jpg", bad.TRUNCATED, lambda: encoded()[:300]),
        _file("truncated.webp", bad.UNREADABLE_FILE, lambda: encoded("WEBP", lossless=True)[:-40]),
        _file("html.jpg", bad.WEB_PAGE, lambda: html),
        _file("random_bytes.jpg", bad.NOT_AN_IMAGE, lambda: np.random.default_rng(0).bytes(4096)),
        _file(
            "vector.svg",
            bad.NOT_AN_IMAGE,
            lambda: b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>',
        ),
        _file("portable_pixmap.jpg", bad.WRONG_TYPE, lambda: encoded("PPM")),
        _file("postscript.jpg", bad.WRONG_TYPE, lambda: encoded("EPS")),
        _file("bomb_in_header.png", bad.TOO_MANY_PIXELS, lambda: png_claiming(30_000, 30_000)),
        _file("bomb_in_comment.png", bad.UNREADABLE_FILE, png_with_text_bomb),
        _file("one_pixel.png", bad.TOO_SMALL, _single_pixel),
        _file("png_named.jpg", None, lambda: encoded("PNG")),
        _file("no_suffix", None, encoded),
        _file("cmyk.jpg", None, lambda: encoded(mode="CMYK")),
        _file("grey.jpg", None, lambda: encoded(mode="L")),
        _file("black_and_white.png", None, lambda: encoded("PNG", "1")),
        _file("grey_16_bit.png", None, grey_16_bit),
        _file("grey_alpha.png", None, lambda: encoded("PNG", "LA")),
        _file("rgba.png", None, lambda: encoded("PNG", "RGBA")),
        _file("palette.png", None, lambda: encoded("PNG", "P")),
        _file("progressive.jpg", None, lambda: encoded(progressive=True)),
        _file("animated.gif", None, lambda: animated("GIF")),
        _file("animated.webp", None, lambda: animated("WEBP")),
        _file("animated.png", None, lambda: animated("PNG")),
        *(_file(f"exif_{turn}.jpg", None, lambda turn=turn: oriented(turn)) for turn in _STORED),
        _file("Löwe 🦁 №1 <b>&'\"%20;--.jpg", None, encoded),
        _file("фото.jpg", None, encoded),
        _file(_long_name("long_"), None, encoded),
        _file(_long_name("长"), None, encoded),
    )


POISONS: tuple[Poison, ...] = _poisons()


def write_poison(folder: Path) -> list[tuple[str, FailureCode | None]]:
    """Write every poison photo into `folder`; returns name and failure code of each.

    The code is None for a good photo. A photo without read permission is among them only where permissions
    bind, i.e. not for a superuser.
    """
    poisons = list(POISONS)
    if os.geteuid() != 0:
        poisons.append(Poison("unreadable.jpg", FailureCode.UNREADABLE_FILE, _unreadable))
    folder.mkdir(parents=True, exist_ok=True)
    for poison in poisons:
        poison.write(folder / poison.name)
    return [(poison.name, poison.code) for poison in poisons]
