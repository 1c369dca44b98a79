"""A JSON file as text with the place of every element of its lists, so that single values change in place."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from functools import cached_property
from json.decoder import JSONDecoder
from typing import Any

from schemas.errors import SettingsError

_BLANK = re.compile(r"[ \t\r\n]*")
_BOM = "\ufeff"
_DECODER = JSONDecoder()


@dataclass(frozen=True)
class Member:
    """A field of an object or an element of a list: where it begins (with its key), and its value's span."""

    begin: int
    start: int
    end: int


class JsonText:
    """The text of a JSON object of lists of objects; the reader has found it valid.

    Raises `SettingsError` for an encoding other than UTF-8.
    """

    def __init__(self, data: bytes) -> None:
        try:
            self._text = data.decode()
        except UnicodeDecodeError as error:
            raise SettingsError("the file is not UTF-8", "save it as UTF-8") from error
        self._edits: list[tuple[int, int, str]] = []
        self.top = self.fields(_blank(self._text, len(_BOM) if self._text.startswith(_BOM) else 0))

    def fields(self, place: int) -> dict[str, Member]:
        """The fields of the object that begins at a place; none where something else begins there."""
        found: dict[str, Member] = {}
        if self._text[place] != "{":
            return found
        place = _blank(self._text, place + 1)
        while self._text[place] == '"':
            key, after = _DECODER.raw_decode(self._text, place)
            start = _blank(self._text, _blank(self._text, after) + 1)
            end = self._skip(start)
            found[key] = Member(place, start, end)
            place = self._next(end)
        return found

    def elements(self, key: str) -> list[Member]:
        """The elements of the list under a key of the whole object; none without it."""
        member = self.top.get(key)
        found: list[Member] = []
        if member is None or self._text[member.start] != "[":
            return found
        place = _blank(self._text, member.start + 1)
        while self._text[place] != "]":
            end = self._skip(place)
            found.append(Member(place, place, end))
            place = self._next(end)
        return found

    def value(self, member: Member) -> Any:
        """The value of a field or an element."""
        return _DECODER.raw_decode(self._text, member.start)[0]

    def put(self, member: Member, value: Any) -> None:
        """Write another value."""
        self._edits.append((member.start, member.end, self._written(value)))

    def add(self, element: Member, key: str, value: Any) -> None:
        """Add a field at the beginning of an object."""
        inside = _blank(self._text, element.start + 1)
        comma = "" if self._text[inside] == "}" else ", "
        self._edits.append(
            (element.start + 1, element.start + 1, f"{self._written(key)}: {self._written(value)}{comma}")
        )

    def drop(self, members: list[Member], out: set[int]) -> None:
        """Leave out some elements of a list, by their places in it, each with one of its commas."""
        kept = [i for i in range(len(members)) if i not in out]
        for i in sorted(out):
            self._edits = [e for e in self._edits if not members[i].begin <= e[0] < members[i].end]
            if kept and i > kept[-1]:
                # Behind the last that stays: from the end of the one before.
                self._edits.append((members[i - 1].end, members[i].end, ""))
            else:
                after = members[i + 1].begin if i + 1 < len(members) else members[i].end
                self._edits.append((members[i].begin, after, ""))

    def data(self) -> bytes:
        """The bytes of the file with all changes."""
        parts, last = [], 0
        for start, end, text in sorted(self._edits):
            parts += [self._text[last:start], text]
            last = end
        return "".join([*parts, self._text[last:]]).encode()

    @cached_property
    def _escapes(self) -> bool:
        return self._text.lstrip(_BOM).isascii()

    def _written(self, value: Any) -> str:
        return json.dumps(value, ensure_ascii=self._escapes)

    def _skip(self, place: int) -> int:
        return _DECODER.raw_decode(self._text, place)[1]

    def _next(self, place: int) -> int:
        """Where the next member begins, or the bracket that ends all."""
        place = _blank(self._text, place)
        return _blank(self._text, place + 1) if self._text[place] == "," else place


def _blank(text: str, place: int) -> int:
    found = _BLANK.match(text, place)
    return found.end() if found else place
