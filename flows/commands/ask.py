"""`pairx sql`, `suspects` and `report`: questions to a warehouse."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import get_args

from duckdb import DuckDBPyConnection

from flows.terminal import PlainConsole
from schemas.errors import PairxError, SettingsError
from schemas.sql.files import kinds_in_words, suspect_rules
from tasks.sql.console import MEMORY, answer, connect_analyst, describe, prompt
from tasks.sql.process_memory import bounded
from tasks.sql.results import Format, format_result
from tasks.sql.stoppable import TimeLimit, close, stoppable


def ask(
    warehouse: str,
    query: str | None,
    output: str,
    tables: bool,
    run_id: str | None,
    seconds: float | None,
    memory: str,
) -> None:
    """Answer one query, describe the tables, or open the prompt.

    `seconds` is how long opening the warehouse and one query may take together, or in the prompt each
    statement.
    """
    kind = format_of(output)
    if tables:
        _print(describe(None, query))
        return
    if query is None and not sys.stdin.isatty():
        query = sys.stdin.read()
    limit = TimeLimit(seconds)
    with _analyst(warehouse, query, run_id, memory, limit) as connection:
        if query is None:
            prompt(connection, kind=kind, seconds=seconds)
            return
        for piece in answer(connection, query, kind, limit):
            print(piece, end="")


@contextmanager
def _analyst(
    warehouse: str,
    query: str | None,
    run_id: str | None = None,
    memory: str = MEMORY,
    limit: TimeLimit | None = None,
) -> Iterator[DuckDBPyConnection]:
    with bounded(memory):
        connection = connect_analyst(warehouse, run_id, memory, limit=limit, query=query)
        try:
            yield connection
        finally:
            close(connection)


def print_cookbook() -> None:
    """Ready-made queries with their titles."""
    from schemas.sql.cookbook import cookbook

    _print("\n\n".join(f"-- {title}\n{query};" for title, query in cookbook().items()))


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
WHERE list_contains($kinds, kind)
ORDER BY if($by_kind, list_position($known, kind), 0), rank
LIMIT $top
"""


def print_suspects(warehouse: str, top: int, kinds: Sequence[str], order: str, output: str) -> None:
    """Print the first suspects, of some kinds if wanted.

    Raises `SettingsError` for an unknown kind, order or format.
    """
    written = format_of(output)
    known = list(suspect_rules())
    for kind in kinds:
        if kind not in known:
            raise SettingsError(f"there is no kind of suspects {kind!r}", f"use {kinds_in_words()}")
    if order not in SUSPECT_ORDERS:
        raise SettingsError(f"suspects have no order {order!r}", f"use {' or '.join(SUSPECT_ORDERS)}")
    with _analyst(warehouse, _SUSPECTS) as connection:
        found = stoppable(
            connection,
            lambda: connection.sql(
                _SUSPECTS,
                params={
                    "kinds": list(kinds) or known,
                    "by_kind": order == "kind",
                    "known": known,
                    "top": top,
                },
            ).to_arrow_table(),
            TimeLimit(),
        )
    _print(format_result(found, written))


_NEWEST = "SELECT run_id FROM current_run WHERE status = 'finished'"


def newest_report(warehouse: str) -> None:
    """Print the address of the newest finished run's report; `PairxError` where there is none."""
    from tasks.pages.base import report_path
    from tasks.store.warehouse import Warehouse

    with _analyst(warehouse, _NEWEST) as connection:
        rows = stoppable(connection, lambda: connection.execute(_NEWEST).fetchall(), TimeLimit())
    if not rows:
        raise PairxError(f"no run has finished in {warehouse}", "pairx run CATALOGUE --warehouse URL")
    place, path = Warehouse(warehouse), report_path(rows[0][0])
    if not place.filesystem.exists(f"{place.root}/{path}"):
        raise PairxError(
            f"the report {path} of the newest finished run is gone from {place.url}",
            "run again: a run writes its report also where nothing is new",
        )
    PlainConsole().print(f"{place.url}/{path}")


def format_of(output: str) -> Format:
    """The format of that name; raises `SettingsError`."""
    if output not in get_args(Format):
        raise SettingsError(f"format {output!r} is not known", f"use {', '.join(get_args(Format))}")
    return output  # type: ignore[return-value]  # checked above


def _print(text: str) -> None:
    # Rich would change the text, and query results must reach files and pipes to the letter.
    print(text)
