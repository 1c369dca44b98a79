"""Files that people bring as photos and that cannot be read as such: what they are, and the cure.

They are told by their first bytes, and a TIFF by the tags of its directories.
"""

from __future__ import annotations

import re
import struct

from pairx_engine.errors import PhotoError

_HEIC_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"msf1")
_RAW_STARTS = (
    b"FUJIFILMCCD-RAW",
    b"II\x1a\x00\x00\x00HEAPCCDR",
    b"IIRO",
    b"IIRS",
    b"MMOR",
    b"IIU\x00",
    b"FOVb",
    b"\x00MRM",
)
"""Raw files of Fujifilm, Canon's first kind, Olympus, Panasonic, Sigma and Minolta."""
_POINTER = b"version https://git-lfs.github.com/spec/"
_PAGE = re.compile(
    rb"(?:<\?xml[^>]*>\s*)?(?:<!--.*?-->\s*)*<(?:!doctype\s+html|html|head|body|error)\b", re.I | re.S
)
_SUBFILE, _COMPRESSION, _PHOTOMETRIC, _MAKE, _SUB_DIRECTORIES, _DNG = 254, 259, 262, 271, 330, 50706
_SENSOR_COLOURS = (32803, 34892)
_RAW_COMPRESSIONS = (32767, 34713, 65535)
"""TIFF's numbers for the mosaic of a sensor, and for the compressions of Sony, Nikon and Pentax."""
_REDUCED, _MASK = 1, 4
_MOST_PAGES, _MOST_TAGS = 16, 1000


def refuse_others(data: bytes) -> None:
    """Raise `PhotoError` for a file of a kind that people often bring instead of a photo.

    Its codes are heic, camera_raw, web_page, git_lfs_pointer and many_pages.
    """
    if data.startswith(_POINTER):
        raise PhotoError(
            "git_lfs_pointer", "the file only points to a photo in Git LFS; fetch the photos: git lfs pull"
        )
    if _PAGE.match(data[:1024].removeprefix(b"\xef\xbb\xbf").lstrip()):
        raise PhotoError(
            "web_page",
            "the file is a web page that a server sent instead of the picture; download the photo again, "
            "signed in if need be",
        )
    if _is_heic(data):
        raise PhotoError("heic", "a HEIC/HEIF photo, as telephones take them; convert it to JPEG")
    directories = _directories(data)
    if _is_raw(data, directories):
        raise PhotoError("camera_raw", "a camera's raw file; develop it to JPEG or TIFF, or give its JPEG")
    pages = [tags for tags in directories if not tags.get(_SUBFILE, 0) & (_REDUCED | _MASK)]
    if len(pages) > 1:
        raise PhotoError(
            "many_pages", "a TIFF of several pages; save each page as a photo of its own and list these"
        )


def _is_heic(data: bytes) -> bool:
    if data[4:8] != b"ftyp" or data[8:12] not in _HEIC_BRANDS:
        return False
    # mif1 and msf1 say only that there is a picture; AVIF is named among the brands that follow.
    length = min(int.from_bytes(data[:4], "big"), 256)
    return not any(brand in data[16:length] for brand in (b"avif", b"avis"))


def _is_raw(data: bytes, directories: list[dict[int, int]]) -> bool:
    canon = data[4:12] == b"ftypcrx " or (data[:4] == b"II*\x00" and data[8:10] == b"CR")
    if canon or data.startswith(_RAW_STARTS):
        return True
    first = directories[0] if directories else {}
    # Without these checks the small preview in the first directory would be taken for the photo.
    preview = first.get(_SUBFILE, 0) & _REDUCED and _MAKE in first and _SUB_DIRECTORIES in first
    return bool(
        preview
        or _DNG in first
        or first.get(_PHOTOMETRIC) in _SENSOR_COLOURS
        or first.get(_COMPRESSION) in _RAW_COMPRESSIONS
    )


def _directories(data: bytes) -> list[dict[int, int]]:
    """Tags of a TIFF's directories, with the value of those that hold one short number; a bounded number."""
    order = {b"II*\x00": "<", b"MM\x00*": ">"}.get(data[:4])
    found: list[dict[int, int]] = []
    if order is None:
        return found
    seen = {0}
    try:
        (place,) = struct.unpack_from(f"{order}I", data, 4)
        while place not in seen and len(found) < _MOST_PAGES:
            seen.add(place)
            (count,) = struct.unpack_from(f"{order}H", data, place)
            tags: dict[int, int] = {}
            for at in range(place + 2, place + 2 + 12 * min(count, _MOST_TAGS), 12):
                tag, kind = struct.unpack_from(f"{order}HH", data, at)
                (tags[tag],) = struct.unpack_from(f"{order}{'H' if kind == 3 else 'I'}", data, at + 8)
            (place,) = struct.unpack_from(f"{order}I", data, place + 2 + 12 * count)
            found.append(tags)
    except struct.error:  # it breaks off, which its decoder tells
        pass
    return found
