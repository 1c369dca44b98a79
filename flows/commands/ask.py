"""`pairx sql`, `suspects` and `report`: questions to a warehouse."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from duckdb import DuckDBPyConnection

from flows.terminal import PlainConsole
from schemas.errors import PairxError, SettingsError, did_you_mean
from schemas.sql.files import kinds_in_words, suspect_rules
from tasks.sql.console import MEMORY, answer, connect_analyst
from tasks.sql.process_memory import bounded
from tasks.sql.results import format_result, known_format
from tasks.sql.stoppable import TimeLimit, close, stoppable
from tasks.sql.table_text import terminal_width
from tasks.store.reports import report_path
from tasks.store.warehouse import Warehouse


def ask(
    warehouse: str,
    query: str | None,
    output: str,
    wide: bool,
    run_id: str | None,
    seconds: float | None,
    memory: str,
    since: str | None = None,
) -> None:
    """Answer one query, or open the prompt.

    `seconds` is how long opening the warehouse and one query may take together, or in the prompt each
    statement.
    """
    kind = known_format(output)
    if query is None and not sys.stdin.isatty():
        query = sys.stdin.read()
    limit = TimeLimit(seconds)
    with analyst(warehouse, query, run_id, memory, limit, since) as connection:
        if query is None:
            from tasks.sql.prompt import Prompt

            Prompt(connection, kind=kind, seconds=seconds, wide=wide).run()
            return
        for piece in answer(connection, query, kind, limit, width_for(wide)):
            print(piece, end="")


@contextmanager
def analyst(
    warehouse: str,
    query: str | None,
    run_id: str | None = None,
    memory: str = MEMORY,
    limit: TimeLimit | None = None,
    since: str | None = None,
) -> Iterator[DuckDBPyConnection]:
    """A connection of `connect_analyst` for one query, or for any where that is None, closed in the end."""
    with bounded(memory):
        connection = connect_analyst(warehouse, run_id, memory, limit=limit, query=query, since=since)
        try:
            yield connection
        finally:
            close(connection)


def print_cookbook(number: str | None, output: str, wide: bool) -> None:
    """Ready-made queries with their titles, or the one of a number."""
    from tasks.sql.listing import cookbook_text, queries, query_number

    kind, chosen = known_format(output), None if number is None else query_number(number)
    if kind == "table":
        _print(cookbook_text(chosen, width_for(wide)))
    else:
        _print(format_result(queries(chosen), kind, width_for(wide)))


def print_tables(view: str | None, output: str, wide: bool) -> None:
    """The views, or the columns of one, from the schemas alone."""
    from tasks.sql.listing import columns_of, describe, views

    kind = known_format(output)
    if kind == "table":
        _print(describe(None, view, width_for(wide)))
    else:
        _print(format_result(views() if view is None else columns_of(view), kind, width_for(wide)))


SUSPECT_ORDERS = ("probability", "kind")
"""What `pairx suspects` orders by."""
_SUSPECTS = """
SELECT
    rank,
    kind,
    round(probability, 3) AS probability,
    blamed_photo,
    CASE
        WHEN blamed_photo = photo_a THEN identity_a
        WHEN blamed_photo = photo_b THEN identity_b
        WHEN identity_a = identity_b OR proposed_name = identity_b THEN identity_a
        WHEN proposed_name = identity_a THEN identity_b
    END AS name,
    proposed_name,
    round(expected, 3) AS expected_share_so_far,
    photo_a, identity_a, photo_b, identity_b, reason
FROM suspects
JOIN expected_precision USING (rank)
{new}
WHERE list_contains($kinds, kind)
ORDER BY if($by_kind, list_position($known, kind), 0), rank
LIMIT $top
"""
_ONLY_NEW = "SEMI JOIN new_suspects USING (rank, kind, pair_id)"


def print_suspects(
    warehouse: str,
    top: int,
    kinds: Sequence[str],
    order: str,
    output: str,
    wide: bool = False,
    new: bool = False,
    since: str | None = None,
) -> None:
    """Print the first suspects, of some kinds if wanted, or only those that are new since a run.

    Raises `SettingsError` for an unknown kind or order, `QueryError` for an unknown format, `WarehouseError` for
    an unknown run.
    """
    written = known_format(output)
    known = list(suspect_rules())
    for kind in kinds:
        if kind not in known:
            near = did_you_mean(kind, known)
            raise SettingsError(f"there is no kind of suspects {kind!r}{near}", f"use {kinds_in_words()}")
    if order not in SUSPECT_ORDERS:
        near = did_you_mean(order, SUSPECT_ORDERS)
        raise SettingsError(f"suspects have no order {order!r}{near}", f"use {' or '.join(SUSPECT_ORDERS)}")
    query = _SUSPECTS.format(new=_ONLY_NEW if new or since else "")
    with analyst(warehouse, query, since=since) as connection:
        found = stoppable(
            connection,
            lambda: connection.sql(
                query,
                params={
                    "kinds": list(kinds) or known,
                    "by_kind": order == "kind",
                    "known": known,
                    "top": top,
                },
            ).to_arrow_table(),
            TimeLimit(),
        )
    _print(format_result(found, written, width_for(wide)))


_NEWEST = """
SELECT coalesce(report_run, run_id) FROM runs
SEMI JOIN (FROM current_run WHERE status = 'finished') USING (run_id)
"""


def newest_report(warehouse: str) -> None:
    """Print the address of the newest finished run's report; `PairxError` where there is none."""
    place, run_id = _reported(warehouse)
    PlainConsole().print(f"{place.url}/{report_path(run_id)}")


def write_self_contained(warehouse: str, out: Path) -> None:
    """Write the newest finished run's report with its pictures as one file, and print where.

    Raises `PairxError` where there is no report, or a picture of it is gone or changed.
    """
    from flows.commands.pictures import write_file
    from tasks.pages.self_contained import self_contained

    place, run_id = _reported(warehouse)
    write_file(out, self_contained(place, run_id).encode(), "-o")
    PlainConsole().print(str(out))


def _reported(warehouse: str) -> tuple[Warehouse, str]:
    """The warehouse, and the id of the run whose report shows what its newest finished run found."""

    with analyst(warehouse, _NEWEST) as connection:
        rows = stoppable(connection, lambda: connection.execute(_NEWEST).fetchall(), TimeLimit())
    if not rows:
        raise PairxError(f"no run has finished in {warehouse}", "pairx run CATALOGUE --warehouse URL")
    place, path = Warehouse(warehouse), report_path(rows[0][0])
    if not place.filesystem.exists(f"{place.root}/{path}"):
        raise PairxError(
            f"the report {path} of the newest finished run is gone from {place.url}",
            "run again: a run writes its report also where nothing is new",
        )
    return place, rows[0][0]


def width_for(wide: bool) -> int | None:
    """The width that an answer must keep to; None where any will do."""
    return None if wide else terminal_width()


def _print(text: str) -> None:
    # Rich would change the text, and query results must reach files and pipes to the letter.
    print(text)
