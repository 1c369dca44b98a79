"""Files that people bring as photos: each has a code of its own, and words that name the cure."""

from __future__ import annotations

import io
import struct
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

from pairx_engine.errors import PhotoError
from pairx_engine.photo.chips import MAX_PIXELS, decode_photo
from schemas.failures import FAILURE_MEANINGS, FailureCode
from schemas.settings import Settings
from tests import poison


def heif(brand: bytes, *compatible: bytes) -> bytes:
    body = b"ftyp" + brand + bytes(4) + b"".join(compatible)
    return struct.pack(">I", len(body) + 4) + body + bytes(600)


def tiff(*pages: dict[int, int], order: str = "<") -> bytes:
    """A TIFF of directories whose tags hold one number each."""
    data = b"II*\x00" if order == "<" else b"MM\x00*"
    for i, tags in enumerate(pages):
        place = len(data) + 4
        data += struct.pack(f"{order}I", place) if i == 0 else b""
        listed = b"".join(
            struct.pack(f"{order}HHII", tag, 4, 1, value) for tag, value in sorted(tags.items())
        )
        data += struct.pack(f"{order}H", len(tags)) + listed
        following = len(data) + 4 if i + 1 < len(pages) else 0
        data += struct.pack(f"{order}I", following)
    return data + bytes(400)


def stack(pages: int) -> bytes:
    buffer = io.BytesIO()
    first, *others = (Image.new("RGB", (20, 10), (i, 9, 9)) for i in range(pages))
    first.save(buffer, "TIFF", save_all=True, append_images=others)
    return buffer.getvalue()


NEF = {254: 1, 259: 1, 271: 100, 330: 200}
FILES = {
    "photo of a telephone": (heif(b"heic", b"mif1", b"heic"), "heic", "convert it to JPEG"),
    "photo that is mif1": (heif(b"mif1", b"mif1", b"heic"), "heic", "convert it to JPEG"),
    "CR2": (b"II*\x00\x10\x00\x00\x00CR\x02\x00" + bytes(400), "camera_raw", "raw file"),
    "CR3": (heif(b"crx "), "camera_raw", "develop it"),
    "NEF": (tiff(NEF), "camera_raw", "develop it"),
    "NEF of a big-endian camera": (tiff(NEF, order=">"), "camera_raw", "develop it"),
    "DNG": (tiff({254: 0, 50706: 1}), "camera_raw", "give its JPEG"),
    "mosaic": (tiff({262: 32803}), "camera_raw", "give its JPEG"),
    "Fujifilm": (b"FUJIFILMCCD-RAW 0201" + bytes(99), "camera_raw", "raw file"),
    "page": (b"<!DOCTYPE html><html><body>403 Forbidden", "web_page", "download the photo again"),
    "page with a mark and blanks": (b"\xef\xbb\xbf\r\n <HTML>", "web_page", "download"),
    "page after a remark": (b'<?xml version="1.0"?>\n<!-- x -->\n<!doctype HTML>', "web_page", "download"),
    "error of a store": (
        b'<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>AccessDenied', "web_page", "signed in",
    ),
    "pointer": (
        b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n", "git_lfs_pointer", "git lfs pull",
    ),
    "stack": (stack(3), "many_pages", "each page as a photo"),
}  # fmt: skip


@pytest.mark.parametrize("name", FILES)
def test_each_kind_has_its_code_and_its_cure(name: str) -> None:
    data, code, cure = FILES[name]
    with pytest.raises(PhotoError, match=cure) as caught:
        decode_photo(data)
    assert caught.value.code == code
    assert FAILURE_MEANINGS[FailureCode(code)]
    for length in range(1, min(len(data), 300)):  # wherever it breaks off, it is one failure
        with pytest.raises(PhotoError):
            decode_photo(data[:length])


def test_what_only_resembles_them_keeps_its_word() -> None:
    for data, code in (
        (heif(b"mif1", b"avif"), "wrong_type"),
        (b'<svg xmlns="http://www.w3.org/2000/svg"/>', "not_an_image"),
        (b"version 2 of my notes", "not_an_image"),
    ):
        with pytest.raises(PhotoError) as caught:
            decode_photo(data)
        assert caught.value.code in (code, "not_an_image")


def test_a_tiff_with_a_small_copy_of_itself_is_one_photo() -> None:
    buffer = io.BytesIO()
    photo, small = Image.new("RGB", (20, 10), (7, 8, 9)), Image.new("RGB", (4, 2))
    small.encoderinfo = {"tiffinfo": {254: 1}}
    photo.save(buffer, "TIFF", save_all=True, append_images=[small])
    assert decode_photo(buffer.getvalue()).shape == (10, 20, 3)
    assert decode_photo(stack(1)).shape == (10, 20, 3)


@pytest.mark.parametrize("side", [15_000, 30_000])
def test_a_large_photo_is_never_called_an_attack(side: int) -> None:
    with pytest.raises(PhotoError) as caught:
        decode_photo(poison.png_claiming(side, side))
    assert caught.value.code == "too_many_pixels"
    said = str(caught.value)
    assert f"{side} x {side} = {side * side} pixels are more than max_pixels, {MAX_PIXELS}" in said
    assert f"raise --max-pixels to {side * side} where a worker has" in said
    assert "bomb" not in said
    assert "attack" not in said


def test_the_limit_may_be_raised_and_pillows_own_stays_for_others() -> None:
    before = Image.MAX_IMAGE_PIXELS
    assert Settings(max_pixels=900_000_000).max_pixels == 900_000_000
    with pytest.raises(PhotoError) as caught:  # its data is missing, but its size is accepted
        decode_photo(poison.png_claiming(30_000, 100), 10**7)
    assert caught.value.code != "too_many_pixels"
    data = poison.encoded("PNG")
    with ThreadPoolExecutor(4) as threads:
        assert all(isinstance(photo, np.ndarray) for photo in threads.map(decode_photo, [data] * 50))
    assert before == Image.MAX_IMAGE_PIXELS
