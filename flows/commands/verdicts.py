"""`pairx apply` and `pairx review export|import|agreement`: what comes of people's verdicts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from flows.commands.start import OUT, note
from schemas.catalogue.reader import read_catalogue
from schemas.errors import PairxError, SettingsError
from schemas.foreign_text import printable
from tasks.reviews.corrected.apply import Applied, apply_plan, changes_csv, status_of
from tasks.reviews.corrected.output import changes_place, input_files, output_place, write
from tasks.reviews.corrected.plan import VIEWS, Change, Plan, plan_of
from tasks.reviews.opened import opened
from tasks.store.shard_files import put_in_place
from tasks.store.warehouse import Warehouse

_SHOWN = 50
_CURE = (
    "give another verdict in `pairx review`, or see `pairx review agreement --each`; chains of verdicts: --force-contradictions"
)


def apply_verdicts(
    source: str,
    out: str | None,
    warehouse: str,
    root: str | None,
    how: tuple[bool, bool, bool],
    dry_run: bool,
    force: bool,
) -> None:
    """Write the corrected catalogue and the list of changes, or print them.

    `how` says whether to leave out copies and bad photos, and to make changes that contradict others. Raises
    `PairxError` after all is written where a change was held back.
    """
    if out is None and not dry_run:
        raise SettingsError("no output was named", "name one with -o, or only look with --dry-run")
    catalogue = read_catalogue(source, root)
    place = output_place(source, catalogue.format, out, force) if out is not None and not dry_run else None
    with opened(Warehouse(warehouse), VIEWS) as connection:
        plan = plan_of(connection, *how)
    applied = apply_plan(source, catalogue, plan)
    _print_changes(applied, plan, everything=dry_run)
    if place is not None:
        inputs = [Path(path) for path in input_files(source, catalogue.format)]
        write(place, applied.files.files, applied.files.is_package, inputs)
        put_in_place(changes_place(place), changes_csv(applied.changes).encode())
        OUT.print(f"corrected: {place}")
        OUT.print(f"changes:   {changes_place(place)}")
        folder = place if applied.files.is_package else place.parent
        if str(folder) != catalogue.root:
            note(f"paths are as they were: read it with --root {catalogue.root}")
    _refuse_held(applied)


def _print_changes(applied: Applied, plan: Plan, everything: bool) -> None:
    counts = {
        "renamed": [c for c in applied.changes if c.applied and not c.held and c.field == "identity"],
        "left out": [c for c in applied.changes if c.applied and not c.held and c.field == "photo"],
        "listed": [c for c in applied.changes if not c.applied],
        "held back": applied.held,
    }
    shown = applied.changes if everything else applied.changes[:_SHOWN]
    for change in shown:
        OUT.print(_line(change))
    if len(applied.changes) > len(shown):
        OUT.print(f"… and {len(applied.changes) - len(shown)} more in the list of changes")
    for each in plan.contradictions:
        OUT.print(f"contradiction: {printable(each.words())}")
    OUT.print(", ".join(f"{len(changes)} {word}" for word, changes in counts.items()))
    if applied.elsewhere:
        note(f"changes of photos that this catalogue does not list: {applied.elsewhere}")


def _line(change: Change) -> str:
    what = f"{change.before or 'unknown'} → {change.after or 'unknown'}" if change.field == "identity" else "to be left out"
    return printable(f"{change.photo}: {what} ({change.why}; {status_of(change)})")


def _refuse_held(applied: Applied) -> None:
    if applied.held:
        whys = dict.fromkeys(printable(change.held) for change in applied.held)
        lines = [f"{len(applied.held)} changes are held back", *(f"  {why}" for why in list(whys)[:_SHOWN])]
        raise PairxError("\n".join(lines), _CURE)
