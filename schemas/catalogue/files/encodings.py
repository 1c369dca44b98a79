"""From bytes to text: UTF-8, and what a byte order mark or the file's package says.

A table of another encoding that says so nowhere is refused, since its letters could be read as several others.
"""

from __future__ import annotations

import codecs
import re

from schemas.catalogue.table_files import hopeless
from schemas.errors import Problem

_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
    (codecs.BOM_UTF8, "utf-8-sig"),
)
"""Byte order marks; the longer before those that begin alike."""
_LETTERS = re.compile(
    r"(?:utf|ascii|iso8859|latin|cp\d|mac|koi8|gb|big5|shift_jis|euc|hz|tis|johab|ptcp|kz1048)", re.IGNORECASE
)
"""Codecs of Python that are encodings of text and nothing else."""
_SAMPLE, _MOST_ZEROS = 2000, 0.7
_CURE = "save it as UTF-8 (in a spreadsheet: 'CSV UTF-8'), or convert it: iconv -f WINDOWS-1252 -t UTF-8 FILE > NEW"


def decode(source: str, data: bytes, problems: list[Problem], declared: str | None = None) -> str:
    """The text in `data`; what is not in its encoding is one problem and becomes a sign of replacement.

    The encoding is that of a byte order mark, or the `declared` one, or UTF-16 without a mark where it can be
    nothing else, or UTF-8. Raises `CatalogueError` where nothing can be read.
    """
    encoding = next((name for mark, name in _MARKS if data.startswith(mark)), None)
    encoding = encoding or (declared and _codec(source, declared)) or _without_mark(data)
    if encoding == "utf-8-sig":
        return _utf8(data, problems)
    try:
        return _decoded(data, encoding).removeprefix("\ufeff")
    except (UnicodeError, ValueError) as error:
        what = f"it is not {encoding}: {error}"
        raise hopeless(source, "wrong encoding", what[:200], "save it as UTF-8") from error


def _codec(source: str, declared: str) -> str:
    try:
        name = codecs.lookup(declared).name
    except (LookupError, ValueError):
        name = ""
    if not _LETTERS.match(name):
        what = f"its package declares the encoding {declared[:40]!r}, which is not known"
        raise hopeless(source, "wrong encoding", what, "name the encoding as in 'utf-8' or 'iso-8859-1'")
    return "utf-8-sig" if name in ("utf-8", "ascii") else name


def _without_mark(data: bytes) -> str:
    """UTF-16 where nearly every second byte is zero, as of Latin letters; else UTF-8."""
    first, second = data[:_SAMPLE:2], data[1:_SAMPLE:2]
    for zeros, letters, name in ((second, first, "utf-16-le"), (first, second, "utf-16-be")):
        if len(zeros) > 4 and zeros.count(0) > _MOST_ZEROS * len(zeros) and letters.count(0) == 0:
            return name
    return "utf-8-sig"


def _decoded(data: bytes, encoding: str) -> str:
    if encoding == "iso8859-1":
        # What calls itself Latin-1 is Windows-1252 where it has its quotes and dashes, as on the web.
        try:
            return data.decode("cp1252")
        except UnicodeDecodeError:
            pass
    return data.decode(encoding)


def _utf8(data: bytes, problems: list[Problem]) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        lines = [i for i, line in enumerate(data.split(b"\n"), start=1) if not _is_utf8(line)]
        line = data.count(b"\n", 0, error.start) + 1
        begin = data.rfind(b"\n", 0, error.start) + 1
        around = data[max(begin, error.start - 12) : error.start + 12].partition(b"\n")[0]
        what = (
            f"byte 0x{data[error.start]:02x} at position {error.start - begin + 1} is not UTF-8; in Windows-1252"
            f" it would be part of {around.decode('cp1252', errors='replace').strip()!r}"
        )
        if len(lines) > 1:
            what += f"; {len(lines)} lines are not UTF-8"
        problems.append(Problem("wrong encoding", f"line {line}", what, _CURE))
    return data.decode("utf-8-sig", errors="replace")


def _is_utf8(line: bytes) -> bool:
    try:
        line.decode()
    except UnicodeDecodeError:
        return False
    return True
