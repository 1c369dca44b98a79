"""What the commands do, apart from parsing: each loads only what it needs."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, get_args

from duckdb import DuckDBPyConnection

from flows.options import description
from flows.terminal import PlainConsole
from schemas.catalogue.reader import Catalogue, read_catalogue
from schemas.errors import PairxError, SettingsError
from schemas.settings import Settings, load_settings
from schemas.sql.files import kinds_in_words, suspect_rules
from tasks.sql.console import MEMORY, answer, connect_analyst, describe, prompt
from tasks.sql.results import Format, format_result
from tasks.sql.stoppable import TimeLimit, close, stoppable

_OUT = PlainConsole()
_ERR = PlainConsole(stderr=True)


def run_catalogue(
    catalogue: str,
    warehouse: str,
    root: str | None,
    toml: Path | None,
    given: Mapping[str, Any],
    dry_run: bool,
    withdraw_missing: bool,
    retry_failed: bool,
    wait: bool,
) -> None:
    """Check the catalogue and the settings, then print the plan or do the work."""
    settings = load_settings(toml, given)
    read = _read(catalogue, root)
    if settings.model == "embedded":
        from tasks.runs.report import EMBEDDED_NOTICE

        _ERR.print(f"note: {EMBEDDED_NOTICE}\n", style="yellow")
    if dry_run:
        from flows.plan import print_plan

        print_plan(read, warehouse, settings, retry_failed, _OUT)
        return
    from flows.cluster import require_cluster
    from flows.server import prefect_server, require_api
    from tasks.job import prepare_job
    from tasks.store.lease import at_work
    from tasks.store.warehouse import Warehouse

    require_cluster(settings)
    place = Warehouse(warehouse)
    place.prepare()
    job = prepare_job(place, settings)
    require_api()
    with at_work(place, "pairx run", wait, _note) as lease, prefect_server():
        # One message for the user is enough; Prefect would log the same error with its traceback first.
        logging.getLogger("prefect").setLevel(logging.CRITICAL)
        from flows.nightly import RunOptions, run
        from flows.progress import Terminal

        summary = run(read, job, lease, RunOptions(withdraw_missing, retry_failed), Terminal())
    for balance in summary.balances:
        _OUT.print(str(balance))
    _OUT.print(f"report: {summary.report}")
    _OUT.print(f"next:   pairx suspects --warehouse {warehouse}   or   pairx sql --warehouse {warehouse}")


def _note(text: str) -> None:
    _ERR.print(f"note: {text}", style="yellow")


def _read(catalogue: str, root: str | None) -> Catalogue:
    read = read_catalogue(catalogue, root)
    for warning in read.warnings:
        _note(warning)
    return read


def validate_catalogue(catalogue: str, root: str | None) -> None:
    """Say what the catalogue holds; `CatalogueError` lists its problems."""
    read = _read(catalogue, root)
    entries = read.entries
    names = {e.identity for e in entries if e.identity is not None}
    unknown = sum(e.identity is None for e in entries)
    with_boxes = sum(e.box is not None for e in entries)
    encounters = {e.encounter for e in entries if e.encounter is not None}
    _OUT.print(
        f"valid: {len(entries)} photos, {len(names)} animals, {unknown} photos of unknown animals, {with_boxes} boxes, "
        f"{len(encounters)} encounters; read as {read.format}; photos lie below {read.root}"
    )


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

    `seconds` is what opening the warehouse and one query may take together, or in the prompt each statement.
    """
    kind = _format(output)
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
    """The first suspects, of some kinds if wanted; `SettingsError` for an unknown kind or order."""
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
    _print(format_result(found, _format(output)))


_NEWEST = "SELECT run_id FROM current_run WHERE status = 'finished'"


def newest_report(warehouse: str) -> None:
    """Address of the report of the newest finished run; `PairxError` where there is none."""
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
    _OUT.print(f"{place.url}/{path}")


def print_settings() -> None:
    """All settings with their defaults, as TOML."""
    for name, field in Settings.model_fields.items():
        value = field.get_default()
        shown = json.dumps(list(value) if isinstance(value, tuple) else value)
        _print(
            f"# {description(name, field)}\n{'# ' if value is None else ''}{name} = {'…' if value is None else shown}\n"
        )


def _format(output: str) -> Format:
    if output not in get_args(Format):
        raise SettingsError(f"format {output!r} is not known", f"use {', '.join(get_args(Format))}")
    return output  # type: ignore[return-value]  # checked above


def _print(text: str) -> None:
    # Not through rich: query results must reach files and pipes to the letter.
    print(text)
