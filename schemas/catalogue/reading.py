"""How a person wants a catalogue to be read: what columns mean, and what else its file does not say.

These are settings (the part "Catalogue" of the help). None enters a fingerprint: what they change stands in
the rows of `photos`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from schemas.catalogue.box_columns import BOX_COLUMNS
from schemas.catalogue.cells import ALIASES
from schemas.errors import SettingsError
from schemas.settings import Settings

MEANINGS = (*ALIASES, *sorted(BOX_COLUMNS))
"""What a column may be said to mean: a property of the photo, or a box or a side of one."""
_BOXES = "bbox (a list), bbox_relative, x y w h, rel_x rel_y rel_w rel_h, xmin ymin xmax ymax"


@dataclass(frozen=True)
class Reading:
    """What columns mean and how values are to be taken; by default as the file's own names say.

    `columns` are pairs of a meaning (one of `MEANINGS`) and the column that holds it. `strip_prefix` is a folder
    that is taken off absolute paths. `encounter_gap` are the minutes that end an encounter at a station.
    `unknown_names` are words for an unknown animal beside the built-in ones, in any case. `bad_boxes` is what a box
    that cannot be used does: the catalogue is refused, or its photo fails alone.
    """

    columns: tuple[tuple[str, str], ...] = ()
    strip_prefix: str | None = None
    encounter_gap: float | None = None
    unknown_names: tuple[str, ...] = ()
    bad_boxes: Literal["refuse", "fail"] = "refuse"

    @classmethod
    def of(cls, settings: Settings) -> Reading:
        """What settings say of it; raises `SettingsError` that lists all pairs that say nothing."""
        words = tuple(word.strip() for word in settings.unknown_names)
        return cls(
            meanings_of(settings.columns),
            settings.strip_prefix,
            settings.encounter_gap,
            words,
            settings.bad_boxes,
        )


AS_NAMED = Reading()
"""How a catalogue is read of which nobody says anything."""


def meanings_of(texts: Sequence[str]) -> tuple[tuple[str, str], ...]:
    """Meaning and column for each text `MEANING=COLUMN`; raises `SettingsError` for all bad ones at once."""
    pairs: list[tuple[str, str]] = []
    wrong: list[str] = []
    for text in texts:
        meaning, equals, column = (part.strip() for part in text.partition("="))
        meaning = meaning.lower()
        shown = text if len(text) <= 80 else f"{text[:79]}…"
        if not equals or not column:
            wrong.append(f"{shown!r} is not MEANING=COLUMN, such as identity=turtle_id")
        elif meaning not in MEANINGS:
            wrong.append(f"{shown!r}: {meaning!r} is no meaning that is read")
        elif meaning in dict(pairs):
            wrong.append(f"{shown!r}: {meaning} is given twice, already as column {dict(pairs)[meaning]!r}")
        else:
            pairs.append((meaning, column))
    if wrong:
        raise SettingsError(
            "\n  ".join(["columns cannot be taken as --column says:", *wrong]),
            f"say each meaning once, as --column MEANING=COLUMN; meanings are {', '.join(ALIASES)}; of boxes {_BOXES}",
        )
    return tuple(pairs)
