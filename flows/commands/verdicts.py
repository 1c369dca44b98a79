"""`pairx apply` and `pairx review export|import|agreement`: what comes of people's verdicts."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flows.commands.start import OUT, note
from schemas.catalogue.reader import read_catalogue
from schemas.catalogue.reading import Reading
from schemas.errors import PairxError, SettingsError
from schemas.foreign_text import printable
from schemas.paths import not_a_file
from schemas.settings import load_settings
from tasks.reviews.corrected.apply import Applied, apply_plan, changes_csv, status_of
from tasks.reviews.corrected.output import changes_place, input_files, output_place, write
from tasks.reviews.corrected.plan import VIEWS, Change, Plan, plan_of
from tasks.reviews.opened import opened
from tasks.store.shard_files import put_in_place
from tasks.store.warehouse import Warehouse

_SHOWN = 50
_MOST_BYTES = 1 << 28
"""Of a file of verdicts."""
_CURE = "give another verdict in `pairx review`, or see `pairx review agreement --each`; chains of verdicts: --force-contradictions"


def apply_verdicts(
    source: str,
    out: str | None,
    warehouse: str,
    root: str | None,
    how: tuple[bool, bool, bool],
    dry_run: bool,
    force: bool,
    given: Mapping[str, Any],
) -> None:
    """Write the corrected catalogue and the list of changes, or print them.

    `how` says whether to leave out copies and bad photos, and to make changes that contradict others; `given` are
    settings of how the catalogue is read. Raises
    `PairxError` after all is written where a change was held back.
    """
    if out is None and not dry_run:
        raise SettingsError("no output was named", "name one with -o, or only look with --dry-run")
    reading = Reading.of(load_settings(None, given))
    catalogue = read_catalogue(source, root, reading)
    place = output_place(source, catalogue.format, out, force) if out is not None and not dry_run else None
    with opened(Warehouse(warehouse), VIEWS) as connection:
        plan = plan_of(connection, *how)
    applied = apply_plan(source, catalogue, plan, reading)
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
    what = (
        f"{change.before or 'unknown'} → {change.after or 'unknown'}"
        if change.field == "identity"
        else "to be left out"
    )
    return printable(f"{change.photo}: {what} ({change.why}; {status_of(change)})")


def _refuse_held(applied: Applied) -> None:
    if applied.held:
        whys = dict.fromkeys(printable(change.held) for change in applied.held)
        lines = [f"{len(applied.held)} changes are held back", *(f"  {why}" for why in list(whys)[:_SHOWN])]
        raise PairxError("\n".join(lines), _CURE)


def export(
    out: Path,
    warehouse: str,
    form: str,
    which: tuple[bool, bool],
    top: int | None,
    images: str,
    force: bool,
) -> None:
    """Write questions, verdicts or corrected names in a format of `FORMATS`.

    `which` says whether verdicts are meant, and second looks.
    """
    from tasks.reviews.exchange.formats import FORMATS, Request

    if form not in FORMATS:
        raise SettingsError(f"there is no format {form!r}", f"use {', '.join(FORMATS)}")
    if form not in ("csv", "label-studio") and any(which):
        raise SettingsError(
            f"--format {form} writes corrected names, no questions", "leave --verdicts and --second-look out"
        )
    with opened(Warehouse(warehouse), FORMATS[form].views) as connection:
        text, beside = FORMATS[form].write(connection, Request(*which, top, images))
    files = {out: text} | {out.with_name(out.stem + suffix): more for suffix, more in beside.items()}
    for path in files:
        if os.path.lexists(path) and not force:
            raise SettingsError(f"{path} exists", "name another file, or replace it with --force")
    for path, content in files.items():
        put_in_place(path, content.encode())
        OUT.print(f"written: {path}")


def import_verdicts(file: Path, warehouse: str, reviewer: str | None, skip_bad: bool) -> None:
    """Store the verdicts of a file; `AnswersRefused` with all its problems, unless bad rows are skipped."""
    from tasks.reviews.exchange.formats import answers_in
    from tasks.reviews.exchange.incoming import VIEWS as ASKED
    from tasks.reviews.exchange.incoming import AnswersRefused, reviews_of, store

    try:
        if (kind := not_a_file(str(file))) is not None or file.stat().st_size > _MOST_BYTES:
            raise SettingsError(
                f"{file} is {kind or 'too large'}", f"name a file of at most {_MOST_BYTES >> 20} MiB"
            )
        data = file.read_bytes()
    except OSError as error:
        raise SettingsError(f"{file} cannot be read: {error.strerror}", "name a file of verdicts") from error
    place = Warehouse(warehouse)
    with opened(place, ASKED) as connection:
        found = reviews_of(connection, answers_in(file.name, data), reviewer)
    if found.problems and not skip_bad:
        raise AnswersRefused(found.problems)
    for problem in found.problems:
        note(printable(f"skipped: {problem.where}: {problem.what}"))
    store(place, found.reviews)
    OUT.print(
        f"{len(found.reviews)} verdicts stored, {found.known} known already, {len(found.problems)} skipped, "
        f"of these {found.changed} on photos that have changed"
    )


def print_agreement(warehouse: str, each: bool, output: str) -> None:
    """Print the agreement by kind of question, or the questions that need a second look."""
    import pyarrow as pa

    from tasks.reviews.agreement import agreement_by_kind
    from tasks.sql.results import format_result, known_format

    text, number = (pa.string(), pa.float64())
    schema = pa.schema(
        {
            "kind": text,
            "questions": pa.int64(),
            "answered_twice": pa.int64(),
            "percent": number,
            "alpha": number,
        }
    )
    with opened(Warehouse(warehouse), ("opinions", "second_looks")) as connection:
        if each:
            looks = "SELECT * EXCLUDE (question) FROM second_looks"
            table = connection.sql(looks).to_arrow_table()
        else:
            rows = [
                {
                    "kind": kind,
                    "questions": found.questions,
                    "answered_twice": found.answered_twice,
                    "percent": found.percent,
                    "alpha": found.alpha,
                }
                for kind, found in agreement_by_kind(connection).items()
            ]
            table = pa.Table.from_pylist(rows, schema=schema)
    print(format_result(table, known_format(output)))
