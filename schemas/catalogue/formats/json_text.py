"""JSON from untrusted files: bounded in size and depth, no doubled keys, no NaN; scalars as text.

Only the standard parser reads it. NaN, which pandas and Python write for a missing value, is read as null.
"""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

from schemas.catalogue.files.archives import MOST_BYTES as MAX_BYTES
from schemas.catalogue.files.documents import Document
from schemas.catalogue.files.encodings import decode
from schemas.catalogue.table_files import hopeless
from schemas.errors import Problem

_SHOWN_KEYS = 5


def parse_json(document: Document, problems: list[Problem]) -> dict[str, Any]:
    """The object that the file holds; doubled keys are added to `problems`.

    Raises `CatalogueError` for what is no JSON object, is nested too deep or is larger than `MAX_BYTES`;
    parsed, it takes about ten times its size in memory.
    """
    source, data = document.source, document.data
    if len(data) > MAX_BYTES:
        what = f"it has {len(data) / 2**30:.1f} GiB"
        raise hopeless(
            source,
            "too large",
            what,
            f"split it, or write it as Parquet; at most {MAX_BYTES >> 30} GiB are read",
        )
    if not data.strip():
        raise hopeless(source, "empty catalogue", "it has no content", "write it again")
    doubled: set[str] = set()

    def collect(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            doubled.update(key for key, n in Counter(key for key, _ in pairs).items() if n > 1)
        return found

    def constant(name: str) -> float | None:
        return None if name == "NaN" else float(name)

    text = decode(source, data, problems)
    try:
        content = json.loads(text, object_pairs_hook=collect, parse_constant=constant)
    except RecursionError as error:
        raise hopeless(
            source, "unreadable file", "its values are nested absurdly deep", "write it again"
        ) from error
    except ValueError as error:
        raise hopeless(
            source, "unreadable file", f"not valid JSON: {error}", "write it again as JSON"
        ) from error
    if not isinstance(content, dict):
        what = f"it holds {_sort(content)} where an object is expected"
        raise hopeless(
            source,
            "unknown format",
            what,
            "name a datapackage.json or a COCO file with images and annotations",
        )
    if doubled:
        keys = ", ".join(repr(key[:40]) for key in sorted(doubled)[:_SHOWN_KEYS])
        what = f"one object holds the same key twice: {keys}"
        problems.append(Problem("doubled key", "the file", what, "keep one value per key"))
    return content


def to_text(value: object, place: str, name: str, problems: list[Problem]) -> str | None:
    """A scalar as text, whole numbers without a point; null gives None.

    A list or an object gives None and a problem.
    """
    if value is None:
        return None
    if isinstance(value, str):
        return _whole(value, place, name, problems)
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() else repr(value)
    if isinstance(value, int):
        return str(value)
    what = f"{_sort(value)} stands where text or a number is expected"
    problems.append(Problem("wrong type", f"{place}, field {name}", what, "write a text or a number"))
    return None


def _whole(text: str, place: str, name: str, problems: list[Problem]) -> str | None:
    """`text`, or None and a problem where JSON's escapes made half a character, which no file can hold."""
    try:
        text.encode()
    except UnicodeEncodeError:
        what = f"{text[:60]!r} is not valid Unicode"
        problems.append(Problem("broken Unicode", f"{place}, field {name}", what, "write the text again"))
        return None
    return text


def records(content: dict[str, Any], key: str, noun: str, problems: list[Problem]) -> list[dict[str, Any]]:
    """The list of objects under `key`; empty without it.

    An element that is no object becomes an empty one and a problem.
    """
    listed = content.get(key)
    if listed is None:
        return []
    if not isinstance(listed, list):
        what = f"it is {_sort(listed)}, not a list"
        problems.append(Problem("wrong type", f"field {key}", what, "write a list of objects"))
        return []
    found: list[dict[str, Any]] = []
    for number, each in enumerate(listed, start=1):
        if not isinstance(each, dict):
            what = f"it is {_sort(each)}, not an object"
            problems.append(Problem("wrong type", f"{noun} {number}", what, "write an object with fields"))
        found.append(each if isinstance(each, dict) else {})
    return found


def _sort(value: object) -> str:
    sorts = {dict: "an object", list: "a list", str: "a text", bool: "true or false", type(None): "null"}
    return sorts.get(type(value), "a number")
