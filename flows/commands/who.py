"""`pairx who`: which animals photos may show, as a table and as a page."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import duckdb

from flows.commands.ask import analyst, width_for
from flows.commands.start import note
from schemas.errors import SettingsError
from schemas.settings import Settings
from tasks.sql.results import format_result, known_format
from tasks.sql.stoppable import TimeLimit, stoppable
from tasks.who import NEEDS, Answers, answers_for, new_unknown


def print_answers(
    warehouse: str, photos: Sequence[str], new: bool, top: int, output: str, wide: bool, html: Path | None
) -> None:
    """Print the likeliest animals of the photos, or of all new ones of unknown animals; write the page.

    Raises `SettingsError` where no photo is named, and for photos of which nothing can be said.
    """
    written = known_format(output)
    if not photos and not new:
        raise SettingsError(
            "no photo is named", "give ids of photos, or --new for new photos of unknown animals"
        )
    with analyst(warehouse, NEEDS) as connection:

        def ask() -> tuple[Answers, str | None]:
            asked = [*photos, *(new_unknown(connection) if new else [])]
            page = None
            found = answers_for(connection, asked, top)
            if html is not None:
                page = _page(connection, found)
            return found, page

        found, page = stoppable(connection, ask, TimeLimit())
    for text in found.notes:
        note(text)
    if html is not None and page is not None:
        from flows.commands.pictures import write_file

        write_file(html, page.encode(), "--html")
        note(f"page: {html}")
    print(format_result(found.rows, written, width_for(wide)))


def _page(connection: duckdb.DuckDBPyConnection, found: Answers) -> str:
    from tasks.pages.who import MOST, Shown, photos_on_page, render_who, show
    from tasks.photo_files import SEEN_BY

    rows = found.rows.to_pylist()
    asked = list(dict.fromkeys(row["photo_id"] for row in rows))
    kept = set(asked[:MOST])
    rows = [row for row in rows if row["photo_id"] in kept]
    wanted = sorted({*kept, *(row["best_photo"] for row in rows if row["best_photo"] is not None)})
    seen = connection.execute(
        f"SELECT {', '.join(SEEN_BY)} FROM photos WHERE list_contains(?, photo_id)",  # noqa: S608  # constants
        [wanted],
    )
    names = [column[0] for column in seen.description]
    photos = {row[0]: dict(zip(names, row, strict=True)) for row in seen.fetchall()}
    run_id, max_pixels = _judged_by(connection)

    @cache
    def shown(photo: str) -> Shown:
        return show(photos[photo], max_pixels)

    return render_who(photos_on_page(rows, shown), found.notes, run_id, len(asked) - len(kept))


def _judged_by(connection: duckdb.DuckDBPyConnection) -> tuple[str, int]:
    """The run whose judgement is shown, and the most pixels that it read of a photo."""
    row: tuple[Any, ...] | None = connection.execute(
        "SELECT run_id, TRY_CAST(settings ->> 'max_pixels' AS BIGINT) FROM runs JOIN current_run USING (run_id)"
    ).fetchone()
    run_id, max_pixels = row or ("", None)
    return run_id, max_pixels or Settings().max_pixels
