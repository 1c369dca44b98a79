"""Remarks on a catalogue that can be used but looks odd; none of them stops a run."""

from __future__ import annotations

import math
import shlex
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from typing import Protocol

from schemas.catalogue.boxes import Box, leaves

_SHOWN = 3
_MANY_UNKNOWN = 0.5
_FEW_NAMES, _FAR = 10, 5


class _Entry(Protocol):
    @property
    def photo_id(self) -> str: ...
    @property
    def path(self) -> str: ...
    @property
    def identity(self) -> str | None: ...
    @property
    def box(self) -> Box | None: ...
    @property
    def box_is_relative(self) -> bool: ...
    @property
    def theta(self) -> float: ...


def remarks(entries: Sequence[_Entry]) -> list[str]:
    """One sentence for each oddity found.

    Oddities are few or unknown names, names spelled alike, names that may mean "unknown", one picture twice, boxes that leave their photos,
    and theta in degrees.
    """
    shares = [entry.box for entry in entries if entry.box is not None and entry.box_is_relative]
    found = (
        _on_names(entries),
        _on_spelling(entries),
        _on_crowds(entries),
        _on_same_pictures(entries),
        on_leaving(sum(leaves(box, 1, 1) for box in shares), len(shares)),
        _on_theta(entries),
    )
    return [sentence for sentence in found if sentence]


def _on_names(entries: Sequence[_Entry]) -> str:
    names = {entry.identity for entry in entries} - {None}
    if not names:
        return "no photo has a known identity: only the same-animal search works, no name can be checked"
    unknown = sum(entry.identity is None for entry in entries) / len(entries)
    if len(names) == 1:
        return f"all known photos show one animal, {next(iter(names))!r}"
    return f"{unknown:.0%} of the photos have no known identity" if unknown > _MANY_UNKNOWN else ""


def _on_spelling(entries: Sequence[_Entry]) -> str:
    spellings: dict[str, list[str]] = defaultdict(list)
    for name in sorted({entry.identity for entry in entries if entry.identity is not None}):
        key = "".join(c for c in unicodedata.normalize("NFKC", name).casefold() if c.isalnum())
        spellings[key].append(name)
    alike = [" / ".join(map(repr, names)) for key, names in spellings.items() if key and len(names) > 1]
    return f"names that differ only in spelling count as different animals: {_some(alike)}" if alike else ""


def _on_crowds(entries: Sequence[_Entry]) -> str:
    """A remark on up to three names that stand far above all others, as a word for unknown animals does.

    Each has at least a tenth of the named photos and `_FAR` times those of the next name. Among few names, an
    animal that is seen far more often than others is no surprise.
    """
    counts = Counter(entry.identity for entry in entries if entry.identity is not None)
    if len(counts) < _FEW_NAMES:
        return ""
    ranked, named = counts.most_common(_SHOWN + 1), counts.total()
    for k in range(1, len(ranked)):
        crowds, (_, following) = ranked[:k], ranked[k]
        least = crowds[-1][1]
        if least >= _FAR * following and 10 * least >= named:
            shown = " and ".join(f"{name!r} ({count} photos)" for name, count in crowds)
            cure = " ".join(f"--unknown-name {shlex.quote(name or '')}" for name, _ in crowds)
            return f"far more photos than any other name ({following}) has {shown}; a word for unknown animals? Then give {cure}"
    return ""


def _on_same_pictures(entries: Sequence[_Entry]) -> str:
    pictures = Counter((entry.path, entry.box, entry.theta) for entry in entries)
    paths = sorted(path for (path, _, _), count in pictures.items() if count > 1)
    return f"several image_ids share one path and box: {_some(map(repr, paths))}" if paths else ""


def on_leaving(leaving: int, boxes: int) -> str:
    """A remark where most of the boxes whose photos' sizes are known leave their photos; else nothing."""
    if 2 * leaving <= boxes:
        return ""
    return f"{leaving} of {boxes} boxes leave their photo: were x1, y1, x2, y2 written instead of x, y, w, h?"


def _on_theta(entries: Sequence[_Entry]) -> str:
    count = sum(abs(entry.theta) > 2 * math.pi for entry in entries)
    return (
        f"theta is in radians, but exceeds a full turn in {count} of {len(entries)} photos: degrees?"
        if count
        else ""
    )


def _some(texts: Iterable[str]) -> str:
    listed = list(texts)
    more = f" and {len(listed) - _SHOWN} more" if len(listed) > _SHOWN else ""
    return ", ".join(listed[:_SHOWN]) + more
