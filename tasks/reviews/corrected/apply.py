"""Applies a plan to a catalogue: what it lists, under the names that the verdicts were about."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from schemas.catalogue.reader import Catalogue
from schemas.catalogue.reading import AS_NAMED, Reading
from schemas.catalogue.writing.corrected import Corrected, corrected
from schemas.catalogue.writing.corrections import Corrections
from tasks.reviews.corrected.plan import Change, Plan
from tasks.sql.csv_text import csv_lines

COLUMNS = ("photo", "field", "before", "after", "status", "why", "review_ids", "reviewer", "date")
"""Columns of the list of changes; status says applied, listed or held back."""


@dataclass(frozen=True)
class Applied:
    """The corrected files, and all changes of photos that the catalogue lists.

    `elsewhere` counts changes of photos that it does not list.
    """

    files: Corrected
    changes: tuple[Change, ...]
    elsewhere: int

    @property
    def held(self) -> list[Change]:
        """Changes that were not made though they were wanted."""
        return [change for change in self.changes if change.held]


def apply_plan(source: str, catalogue: Catalogue, plan: Plan, reading: Reading = AS_NAMED) -> Applied:
    """Correct the catalogue that was read from `source`; nothing is written.

    A photo whose name in the catalogue is not the one that the warehouse knows is held back. Photos that the
    warehouse does not hold, such as those that could not be read, follow when their name is given up. Raises
    `SettingsError` for a format that is not written.
    """
    names = {entry.photo_id: entry.identity for entry in catalogue.entries}
    changes = [_checked(change, names) for change in plan.changes if change.photo in names]
    changes += [
        replace(plan.merged[name], photo=photo)
        for photo, name in names.items()
        if photo not in plan.photos and name in plan.merged
    ]
    made = [c for c in changes if c.applied and not c.held]
    wanted = Corrections(
        {c.photo: c.after for c in made if c.field == "identity"},
        frozenset(c.photo for c in made if c.field == "photo"),
    )
    wanted = Corrections({p: n for p, n in wanted.names.items() if p not in wanted.dropped}, wanted.dropped)
    files = corrected(source, catalogue, wanted, reading)
    told = [
        replace(c, held=files.refused[c.photo]) if c in made and c.photo in files.refused else c
        for c in changes
    ]
    elsewhere = sum(change.photo not in names for change in plan.changes)
    return Applied(files, tuple(sorted(told, key=lambda c: (c.photo, c.field))), elsewhere)


def _checked(change: Change, names: dict[str, str | None]) -> Change:
    given = names[change.photo]
    if change.held or given == change.before:
        return change
    why = f"the catalogue calls it {given or 'unknown'}, the warehouse {change.before or 'unknown'}: `pairx run` the catalogue first"
    return replace(change, held=why)


def status_of(change: Change) -> str:
    """Whether a change was made."""
    return f"held back: {change.held}" if change.held else "applied" if change.applied else "listed"


def changes_csv(changes: Sequence[Change]) -> str:
    """The list of changes as CSV, with what a spreadsheet would run neutralised."""
    rows = [
        (c.photo, c.field, c.before, c.after if c.field == "identity" else "left out", status_of(c), c.why,
         " ".join(c.reviews), ", ".join(c.reviewers), c.at)
        for c in changes
    ]  # fmt: skip
    return csv_lines([COLUMNS, *rows])
