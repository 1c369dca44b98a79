"""Hostile photos: each becomes a picture of its header's size, or one failure with code and words."""

from __future__ import annotations

import io
import os
import socket
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pairx_engine.errors import PhotoError
from pairx_engine.photo.chips import MAX_PIXELS, cut_photo, decode_photo
from schemas.failures import FailureCode
from tasks.photo_files import read_bytes
from tests.poison import encoded

ANY = frozenset(FailureCode)
PICTURE = "picture"


@dataclass(frozen=True)
class Case:
    """A file's bytes and what it may end in: codes of failures, or `PICTURE`."""

    name: str
    make: Callable[[], bytes]
    ends_in: frozenset[str]


def case(name: str, make: Callable[[], bytes], *ends_in: str) -> Case:
    return Case(name, make, frozenset(ends_in) or ANY | {PICTURE})


def segment(marker: int, body: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(body) + 2) + body


def after_start(*segments: bytes, jpeg: bytes | None = None) -> bytes:
    data = jpeg or encoded()
    return data[:2] + b"".join(segments) + data[2:]


def changed(data: bytes, at: int, new: bytes) -> bytes:
    return data[:at] + new + data[at + len(new) :]


def frame_of(data: bytes) -> int:
    """Where the frame header of a JPEG starts."""
    place = 2
    while data[place + 1] not in (0xC0, 0xC2):
        place += 2 + struct.unpack(">H", data[place + 2 : place + 4])[0]
    return place


def jpeg_claiming(width: int, height: int, **options: object) -> bytes:
    data = encoded(**options)
    return changed(data, frame_of(data) + 5, struct.pack(">HH", height, width))


def in_the_frame(offset: int, value: int) -> bytes:
    data = encoded()
    return changed(data, frame_of(data) + offset, bytes([value]))


def exif(*entries: tuple[int, int, int, bytes], following: int = 0) -> bytes:
    """An APP1 segment with one directory of (tag, type, count, four bytes)."""
    listed = b"".join(struct.pack("<HHI", *entry[:3]) + entry[3] for entry in entries)
    body = (
        b"II*\x00\x08\x00\x00\x00" + struct.pack("<H", len(entries)) + listed + struct.pack("<I", following)
    )
    return segment(0xE1, b"Exif\x00\x00" + body)


def chunk(kind: bytes, body: bytes, length: int | None = None, crc: int | None = None) -> bytes:
    said = len(body) if length is None else length
    return (
        struct.pack(">I", said)
        + kind
        + body
        + struct.pack(">I", zlib.crc32(kind + body) if crc is None else crc)
    )


def png(
    width: int = 8,
    height: int = 8,
    depth: int = 8,
    colour: int = 2,
    interlace: int = 0,
    rows: bytes | None = None,
    *extra: bytes,
    end: bytes | None = None,
) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, interlace)
    pixels = zlib.compress(rows if rows is not None else (b"\x00" + b"\x80" * 24) * 8)
    tail = chunk(b"IEND", b"") if end is None else end
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + b"".join(extra) + chunk(b"IDAT", pixels) + tail


def bomb(megabytes: int) -> bytes:
    packer = zlib.compressobj(9)
    return b"".join(packer.compress(bytes(1 << 20)) for _ in range(megabytes)) + packer.flush()


def tiff(*tags: tuple[int, int, int, int], following: int = 0, data: bytes = b"") -> bytes:
    """A little-endian TIFF with one directory of (tag, type, count, value), data behind it."""
    listed = b"".join(struct.pack("<HHII", *tag) for tag in sorted(tags))
    return (
        b"II*\x00\x08\x00\x00\x00"
        + struct.pack("<H", len(tags))
        + listed
        + struct.pack("<I", following)
        + data
    )


def plain_tiff(**changes: tuple[int, int, int]) -> bytes:
    """An 8 x 8 grey TIFF with some tags changed to other (type, count, value)."""
    tags = {
        "width": (256, 3, 1, 8), "height": (257, 3, 1, 8), "bits": (258, 3, 1, 8), "compression": (259, 3, 1, 1),
        "photometric": (262, 3, 1, 1), "offset": (273, 4, 1, 200), "samples": (277, 3, 1, 1),
        "rows": (278, 3, 1, 8), "bytes": (279, 4, 1, 64),
    }  # fmt: skip
    tags.update({name: (tags[name][0], *value) for name, value in changes.items()})
    return tiff(*tags.values(), data=bytes(400))


def gif(width: int, height: int, frame: tuple[int, int, int, int] = (0, 0, 8, 8), lzw: int = 2) -> bytes:
    screen = b"GIF89a" + struct.pack("<HHBBB", width, height, 0x80, 0, 0) + bytes(6)
    return screen + b"\x2c" + struct.pack("<HHHHB", *frame, 0) + bytes([lzw]) + b"\x02\x4c\x01\x00\x3b"


def webp(*chunks: tuple[bytes, bytes], size: int | None = None) -> bytes:
    body = b"WEBP" + b"".join(kind + struct.pack("<I", len(b)) + b + bytes(len(b) % 2) for kind, b in chunks)
    return b"RIFF" + struct.pack("<I", len(body) if size is None else size) + body


def canvas(width: int, height: int, flags: int = 0) -> tuple[bytes, bytes]:
    return b"VP8X", bytes([flags, 0, 0, 0]) + (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(
        3, "little"
    )


def webp_pixels() -> tuple[bytes, bytes]:
    data = encoded("WEBP", lossless=True)
    return data[12:16], data[20:]


def bmp(
    width: int = 8, height: int = 8, bits: int = 24, compression: int = 0, colours: int = 0, size: int = 40
) -> bytes:
    info = struct.pack("<IiiHHIIiiII", size, width, height, 1, bits, compression, 0, 0, 0, colours, 0)
    return b"BM" + struct.pack("<IHHI", 500, 0, 0, 54) + info + bytes(400)


def white(form: str, mode: str, side: int, **options: object) -> bytes:
    buffer = io.BytesIO()
    Image.new(mode, (side, side), "white").save(buffer, form, **options)  # type: ignore[arg-type]
    return buffer.getvalue()


TOLD = {"HEIC": ("heic",), "page": ("web_page",)}
BROKEN = ("truncated", "unreadable_file", "not_an_image")
CASES = [
    # JPEG
    case("jpeg that claims 12000 x 12000", lambda: jpeg_claiming(12000, 12000), "truncated"),
    case("progressive jpeg that claims as much", lambda: jpeg_claiming(12000, 12000, progressive=True), "truncated"),
    case("grey jpeg that claims as much", lambda: jpeg_claiming(12000, 12000, mode="L"), "truncated"),
    case("jpeg that claims 65535 x 65535", lambda: jpeg_claiming(65535, 65535), "too_many_pixels"),
    case("jpeg of one row 65535 wide", lambda: jpeg_claiming(65535, 1)),
    case("jpeg without rows", lambda: jpeg_claiming(96, 0), *BROKEN),
    case("jpeg without columns", lambda: jpeg_claiming(0, 64), *BROKEN),
    case("only the start of a jpeg", lambda: b"\xff\xd8", *BROKEN),
    case("start and end of a jpeg", lambda: b"\xff\xd8\xff\xd9", *BROKEN),
    case("jpeg segment of no length", lambda: b"\xff\xd8\xff\xe0\x00\x00" + encoded()[2:]),
    case("jpeg segment beyond the end", lambda: b"\xff\xd8\xff\xe0\xff\xff" + encoded()[2:], *BROKEN),
    case("jpeg of 2000 comments", lambda: after_start(*[segment(0xFE, bytes(1000))] * 2000), PICTURE),
    case("jpeg comment with escape sequences", lambda: after_start(segment(0xFE, b"\x1b[2J\x1b]0;x\x07")), PICTURE),
    case("jpeg of 12 bits", lambda: in_the_frame(4, 12), *BROKEN),
    case("jpeg of 200 components", lambda: in_the_frame(9, 200), *BROKEN),
    case("jpeg of no components", lambda: in_the_frame(9, 0), *BROKEN),
    case("jpeg sampled 0 times", lambda: in_the_frame(11, 0), *BROKEN),
    case("jpeg sampled 15 times", lambda: in_the_frame(11, 0xFF), *BROKEN),
    case("jpeg whose table is missing", lambda: in_the_frame(12, 3), *BROKEN),
    case("lossless jpeg", lambda: in_the_frame(1, 0xC3), *BROKEN),
    case("arithmetic jpeg", lambda: in_the_frame(1, 0xC9)),
    case("jpeg with two frames", lambda: after_start(encoded()[frame_of(encoded()) : frame_of(encoded()) + 19])),
    case("jpeg of noise behind its header", lambda: encoded()[:620] + np.random.default_rng(1).bytes(3000)),
    case("jpeg with 5 MB behind its end", lambda: encoded() + bytes(5 << 20), PICTURE),
    case("jpeg with a page behind its end", lambda: encoded() + b"<script>alert(1)</script>", PICTURE),
    case("jpeg with an archive behind its end", lambda: encoded() + b"PK\x03\x04" + bytes(400), PICTURE),
    *(
        case(f"EXIF orientation {turn}", lambda turn=turn: after_start(exif((0x112, 3, 1, struct.pack("<HH", turn, 0)))), PICTURE)
        for turn in (0, 9, 255, 65535)
    ),
    case("EXIF orientation in words", lambda: after_start(exif((0x112, 2, 4, b"left"))), PICTURE),
    case("EXIF orientation as a fraction", lambda: after_start(exif((0x112, 5, 1, b"\xff\xff\xff\x7f"))), PICTURE),
    case("EXIF of two billion values", lambda: after_start(exif((0x112, 3, 2**31, b"\x08\x00\x00\x00"))), PICTURE),
    case("EXIF that leads to itself", lambda: after_start(exif((0x8769, 4, 1, b"\x08\x00\x00\x00"), following=8)), PICTURE),
    case("EXIF of an unknown type", lambda: after_start(exif((0x112, 99, 1, b"\x01\x00\x00\x00"))), PICTURE),
    case("EXIF without a directory", lambda: after_start(segment(0xE1, b"Exif\x00\x00II*\x00\xff\xff\xff\x7f")), PICTURE),
    case("EXIF of noise", lambda: after_start(segment(0xE1, b"Exif\x00\x00" + np.random.default_rng(2).bytes(900))), PICTURE),
    case("EXIF of nothing", lambda: after_start(segment(0xE1, b"Exif\x00\x00")), PICTURE),
    case("XMP of 60 kB", lambda: after_start(segment(0xE1, b"http://ns.adobe.com/xap/1.0/\x00" + b"<x>" * 20000)), PICTURE),
    case("XMP with entities", lambda: after_start(segment(0xE1, b"http://ns.adobe.com/xap/1.0/\x00<!DOCTYPE x [<!ENTITY a SYSTEM 'file:///etc/passwd'>]><x>&a;</x>")), PICTURE),
    case("ICC profile of noise", lambda: after_start(segment(0xE2, b"ICC_PROFILE\x00\x01\x01" + bytes(range(256)))), PICTURE),
    case("ICC profile in 255 parts", lambda: after_start(segment(0xE2, b"ICC_PROFILE\x00\x01\xff" + bytes(99))), PICTURE),
    case("MPO that leads beyond its end", lambda: after_start(segment(0xE2, b"MPF\x00II*\x00\xff\xff\xff\x7f"))),
    case("Adobe marker of no kind", lambda: after_start(segment(0xEE, b"Adobe\x00\x64\xff\xff\xff\xff\xff")), PICTURE),
    case("Photoshop's resources cut off", lambda: after_start(segment(0xED, b"Photoshop 3.0\x008BIM\x04\x04\xff\xff\xff\xff")), PICTURE),
    case("a plain white jpeg of 24 megapixels", lambda: white("JPEG", "RGB", 4900, quality=1, optimize=True), PICTURE),
    case("a plain white grey jpeg", lambda: white("JPEG", "L", 4900, quality=1, optimize=True, progressive=True), PICTURE),
    # PNG
    case("png that claims 12000 x 12000", lambda: png(12000, 12000), *BROKEN),
    case("png of two billion columns", lambda: png(2**31 - 1, 1), "too_many_pixels"),
    case("png of four billion rows", lambda: png(1, 2**32 - 1), "too_many_pixels", *BROKEN),
    case("png of no columns", lambda: png(0, 8), *BROKEN),
    case("png of 3 bits", lambda: png(depth=3), *BROKEN),
    case("png of colour type 7", lambda: png(colour=7), *BROKEN),
    case("png of interlace 7", lambda: png(interlace=7)),
    case("interlaced png cut off", lambda: png(interlace=1, rows=b"\x00" * 9)),
    case("png of filter 99", lambda: png(rows=(b"\x63" + bytes(24)) * 8)),
    case("png that unpacks to 200 MB behind its last row", lambda: changed_rows(200)),
    case("png without pixels", lambda: png(rows=b""), *BROKEN),
    case("png with a palette of none", lambda: png(8, 8, 8, 3, 0, (b"\x00" + bytes(8)) * 8, chunk(b"PLTE", b""))),
    case("png whose palette is missing", lambda: png(8, 8, 8, 3, 0, (b"\x00" + bytes(8)) * 8)),
    case("png palette of 257 colours", lambda: png(8, 8, 8, 3, 0, (b"\x00" + bytes(8)) * 8, chunk(b"PLTE", bytes(771)))),
    case("png transparency of a wrong length", lambda: png(8, 8, 8, 2, 0, None, chunk(b"tRNS", b"\x01")), PICTURE, *BROKEN),
    case("png transparency of grey for colour", lambda: png(8, 8, 8, 0, 0, (b"\x00" + bytes(8)) * 8, chunk(b"tRNS", bytes(6)))),
    case("png with a bomb as colour profile", lambda: png(8, 8, 8, 2, 0, None, chunk(b"iCCP", b"x\x00\x00" + bomb(64)))),
    case("png with a bomb as text", lambda: png(8, 8, 8, 2, 0, None, chunk(b"zTXt", b"x\x00\x00" + bomb(64))), "unreadable_file"),
    case("png with a bomb as international text", lambda: png(8, 8, 8, 2, 0, None, chunk(b"iTXt", b"x\x00\x01\x00\x00\x00" + bomb(64)))),
    case("png with 3000 texts", lambda: png(8, 8, 8, 2, 0, None, *[chunk(b"tEXt", b"a\x00" + bytes(30))] * 3000)),
    case("png with a wrong checksum", lambda: png(8, 8, 8, 2, 0, None, chunk(b"gAMA", bytes(4), crc=1))),
    case("png chunk beyond the end", lambda: png(8, 8, 8, 2, 0, None, chunk(b"tEXt", b"a", length=2**31 - 1)), *BROKEN),
    case("png chunk of a negative length", lambda: png(8, 8, 8, 2, 0, None, chunk(b"tEXt", b"a", length=2**32 - 1)), *BROKEN),
    case("png chunk that nobody knows", lambda: png(8, 8, 8, 2, 0, None, chunk(b"EVIL", b"a")), PICTURE, *BROKEN),
    case("png that never ends", lambda: png(end=b"")),
    case("png with EXIF of noise", lambda: png(8, 8, 8, 2, 0, None, chunk(b"eXIf", np.random.default_rng(3).bytes(200))), PICTURE),
    case("animated png of four billion frames", lambda: png(8, 8, 8, 2, 0, None, chunk(b"acTL", struct.pack(">II", 2**32 - 1, 0)))),
    case("animated png whose frame lies outside", lambda: png(8, 8, 8, 2, 0, None, chunk(b"acTL", struct.pack(">II", 2, 0)), chunk(b"fcTL", struct.pack(">IIIIIHHBB", 0, 9999, 9999, 9999, 9999, 1, 1, 0, 0)))),
    case("png with physical size 0", lambda: png(8, 8, 8, 2, 0, None, chunk(b"pHYs", bytes(9))), PICTURE),
    case("png with gamma 0", lambda: png(8, 8, 8, 2, 0, None, chunk(b"gAMA", bytes(4))), PICTURE),
    case("a plain white png of 16 megapixels", lambda: white("PNG", "RGB", 4000), PICTURE),
    case("a transparent png of 16 megapixels", lambda: white("PNG", "RGBA", 4000), PICTURE),
    # GIF
    case("gif on a screen of 65535 x 65535", lambda: gif(65535, 65535), "too_many_pixels"),
    case("gif on a screen of 12000 x 12000", lambda: gif(12000, 12000)),
    case("gif whose frame lies outside", lambda: gif(8, 8, (9999, 9999, 9999, 9999))),
    case("gif on no screen", lambda: gif(0, 0)),
    case("gif of code size 200", lambda: gif(8, 8, lzw=200)),
    case("gif without a frame", lambda: gif(8, 8)[:19] + b"\x3b", *BROKEN),
    case("gif of 5000 comments", lambda: gif(8, 8)[:19] + b"\x21\xfe\x01a\x00" * 5000 + gif(8, 8)[19:]),
    # WebP
    case("webp on a canvas of 16384 x 16384", lambda: webp(canvas(16384, 16384), webp_pixels())),
    case("webp on a canvas of 16 million columns", lambda: webp(canvas(2**24, 1), webp_pixels())),
    case("webp animation without a frame", lambda: webp(canvas(64, 64, 2), (b"ANIM", bytes(6))), *BROKEN),
    case("webp with EXIF of noise", lambda: webp(canvas(96, 64, 8), webp_pixels(), (b"EXIF", bytes(range(200))))),
    case("webp that says four billion bytes", lambda: webp(webp_pixels(), size=2**32 - 1)),
    case("webp that says no bytes", lambda: webp(webp_pixels(), size=0)),
    case("webp of no pixels", lambda: webp((b"VP8 ", b"")), *BROKEN),
    case("webp lossless of noise", lambda: webp((b"VP8L", b"\x2f" + np.random.default_rng(4).bytes(400))), "too_many_pixels", *BROKEN),
    # TIFF
    case("tiff that is as it should be", plain_tiff, PICTURE),
    case("tiff of four billion columns", lambda: plain_tiff(width=(4, 1, 2**32 - 1)), "too_many_pixels"),
    case("tiff of 12000 x 12000", lambda: plain_tiff(width=(3, 1, 12000), height=(3, 1, 12000)), *BROKEN),
    case("tiff of no columns", lambda: plain_tiff(width=(3, 1, 0)), *BROKEN),
    case("tiff of 65535 samples", lambda: plain_tiff(samples=(3, 1, 65535)), *BROKEN),
    case("tiff of 65535 bits", lambda: plain_tiff(bits=(3, 1, 65535)), *BROKEN),
    case("tiff of an unknown compression", lambda: plain_tiff(compression=(3, 1, 999)), *BROKEN),
    case("tiff whose strip lies beyond the end", lambda: plain_tiff(offset=(4, 1, 2**31)), *BROKEN),
    case("tiff of two billion strips", lambda: plain_tiff(offset=(4, 2**31, 200))),
    case("tiff of no rows per strip", lambda: plain_tiff(rows=(3, 1, 0))),
    case("tiff that leads to itself", lambda: tiff((256, 3, 1, 8), (257, 3, 1, 8), following=8), *BROKEN),
    case("tiff of nothing", tiff, *BROKEN),
    case("tiff whose directory lies beyond the end", lambda: b"II*\x00\xff\xff\xff\x7f", *BROKEN),
    case("deflated tiff bomb", lambda: tiff(*((t, 3, 1, v) for t, v in ((256, 8), (257, 8), (258, 8), (259, 8), (262, 1), (277, 1), (278, 8))), (273, 4, 1, 200), (279, 4, 1, 200000), data=bytes(90) + bomb(100))),
    case("tiff of 32-bit floats", lambda: encoded("TIFF", "F"), "wrong_type"),
    case("big tiff of noise", lambda: b"II+\x00\x08\x00\x00\x00" + bytes(range(200)), *BROKEN),
    # BMP
    case("bmp upside down", lambda: bmp(height=-8), PICTURE),
    case("bmp of two billion rows upwards", lambda: bmp(height=-(2**31)), "too_many_pixels", *BROKEN),
    case("bmp of a negative width", lambda: bmp(width=-8), "too_many_pixels", *BROKEN),
    case("bmp of no bits", lambda: bmp(bits=0), *BROKEN),
    case("bmp of four billion colours", lambda: bmp(bits=8, colours=2**32 - 1)),
    case("bmp whose runs never end", lambda: bmp(bits=8, compression=1)),
    case("bmp of an unknown compression", lambda: bmp(compression=77), *BROKEN),
    case("bmp header of four billion bytes", lambda: bmp(size=2**32 - 1), *BROKEN),
    # Others
    *(
        case(f"{form} is no accepted format", lambda form=form, mode=mode: encoded(form, mode), "wrong_type", "not_an_image")
        for form, mode in (("PPM", "RGB"), ("ICO", "RGB"), ("PCX", "RGB"), ("SGI", "RGB"), ("TGA", "RGB"), ("JPEG2000", "RGB"), ("EPS", "RGB"), ("PDF", "RGB"), ("DDS", "RGB"), ("IM", "RGB"), ("SPIDER", "F"), ("XBM", "1"), ("MSP", "1"))
    ),
    *(
        case(f"{name} is no photo", lambda head=head: head + bytes(600), "wrong_type", "not_an_image", *TOLD.get(name, ()))
        for name, head in (
            ("zip", b"PK\x03\x04"), ("gzip", b"\x1f\x8b\x08"), ("ELF", b"\x7fELF"), ("mp4", b"\x00\x00\x00\x18ftypmp42"), ("HEIC", b"\x00\x00\x00\x18ftypheic"),
            ("AVIF", b"\x00\x00\x00\x18ftypavif"), ("PSD", b"8BPS\x00\x01"), ("ICNS", b"icns\x00\x00\x02\x58"), ("WMF", b"\xd7\xcd\xc6\x9a\x00\x00"),
            ("FITS", b"SIMPLE  =                    T"), ("HDF5", b"\x89HDF\r\n\x1a\n"), ("GRIB", b"GRIB\x00\x00\x00\x01"), ("MPEG", b"\x00\x00\x01\xb3"),
            ("script", b"#!/bin/sh\nrm -rf /\n"), ("page", b"<!DOCTYPE html><script>"), ("pickle", b"\x80\x04\x95"), ("SVG with entities", b'<?xml version="1.0"?><!DOCTYPE svg [<!ENTITY a "b">]><svg>'),
            ("PostScript", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(/etc/passwd) run"),
        )
    ),
    *(case(f"{n} zero bytes", lambda n=n: bytes(n), "not_an_image") for n in (1, 2, 16, 1 << 20)),
]  # fmt: skip


def changed_rows(megabytes: int) -> bytes:
    header = struct.pack(">IIBBBBB", 8, 8, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", bomb(megabytes)) + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize("hostile", CASES, ids=lambda c: c.name)
def test_a_hostile_photo_is_a_picture_or_one_failure(hostile: Case) -> None:
    try:
        photo = decode_photo(hostile.make())
        assert photo.dtype == np.uint8
        assert photo.ndim == 3
        assert photo.shape[2] == 3
        assert 0 < photo.shape[0] * photo.shape[1] <= MAX_PIXELS
        ended = PICTURE
    except PhotoError as error:
        assert error.message
        ended = error.code
    assert ended in hostile.ends_in


BOXES = [
    (1e308, 0, 1e308, 1), (-1e308, -1e308, 1e308, 1e308), (0, 0, 1e-300, 1e-300), (0, 0, 1e9, 1e9), (-5e8, -5e8, 1e9, 1e9),
    (float("nan"), 0, 1, 1), (0, 0, float("inf"), 1), (0, 0, 0, 5), (0, 0, -5, 5), (95.999, 63.999, 1, 1), (96, 64, 10, 10),
    (0.5, 0.5, 0.4, 0.4), (2**31, 2**31, 2**31, 2**31), (-0.0, -0.0, 96, 64),
]  # fmt: skip


@pytest.mark.parametrize("theta", [0.0, 1.0, 1e300, -1e-300, float("nan"), float("inf")])
@pytest.mark.parametrize("box", BOXES, ids=str)
def test_a_hostile_box_is_a_cut_or_one_failure(box: tuple[float, ...], theta: float) -> None:
    photo = np.zeros((64, 96, 3), np.uint8)
    try:
        cut = cut_photo(photo, box, theta)
        assert cut.dtype == np.uint8
        assert cut.size <= 4 * photo.size
    except PhotoError as error:
        assert error.code in ("box_empty", "box_outside", "too_small")


def place_of(folder: Path, kind: str) -> str:
    place = folder / "x.jpg"
    match kind:
        case "pipe":
            os.mkfifo(place)
        case "socket":
            with socket.socket(socket.AF_UNIX) as end:
                end.bind(str(place))
        case "link to a device":
            place.symlink_to("/dev/zero")
        case "link out of the root":
            (folder.parent / "secret").write_bytes(encoded())
            place.symlink_to(folder.parent / "secret")
        case "link to itself":
            place.symlink_to("x.jpg")
        case "folder":
            place.mkdir()
        case "sparse file of 3 GiB":
            with place.open("wb") as file:
                file.truncate(3 << 30)
    return place.name


@pytest.mark.parametrize(
    "kind",
    [
        "pipe", "socket", "link to a device", "link out of the root", "link to itself", "folder", "sparse file of 3 GiB",
    ],
)  # fmt: skip
def test_what_is_no_photo_file_is_refused_unread(tmp_path: Path, kind: str) -> None:
    folder = tmp_path / "root"
    folder.mkdir()
    with pytest.raises(PhotoError) as refused:
        read_bytes(str(folder), place_of(folder, kind))
    assert refused.value.code in ("unreadable_file", "path_outside_root", "missing_file")
