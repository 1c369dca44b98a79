"""The arguments of `pairx suspects`, `pairx sql` and `pairx report`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from flows.options import Tables
from schemas.sql.files import suspect_rules

_FORMATS = ("table", "records", "csv", "json")
Written = Annotated[
    str,
    typer.Option(
        "--format",
        help=f"{', '.join(_FORMATS[:-1])} or {_FORMATS[-1]}; records have a line for each column.",
        autocompletion=lambda: list(_FORMATS),
    ),
]
Wide = Annotated[
    bool,
    typer.Option(
        "--wide",
        help="A line for each row, however long. Default: as wide as the terminal, 80 where unknown.",
    ),
]


def _kinds_help() -> str:
    return "; ".join(f"{kind}: {rule.about}" for kind, rule in suspect_rules().items())


def suspects(
    warehouse: Tables = "warehouse",
    top: Annotated[int, typer.Option(help="How many to print.", min=1)] = 20,
    kind: Annotated[
        list[str] | None,
        typer.Option(
            help=f"Print only this kind; may be given several times. {_kinds_help()}.",
            autocompletion=lambda: list(suspect_rules()),
        ),
    ] = None,
    by: Annotated[
        str,
        typer.Option(
            help="Order: probability, or kind (photos first, names next, copies last).",
            autocompletion=lambda: ["probability", "kind"],
        ),
    ] = "probability",
    new: Annotated[
        bool,
        typer.Option("--new", help="Print only those that are new in the newest run: see --since."),
    ] = False,
    since: Annotated[
        str | None,
        typer.Option(
            help="Print only those that are new since this run. Default of --new: the run before the newest."
        ),
    ] = None,
    output: Written = "table",
    wide: Wide = False,
) -> None:
    """Print the ranked suspects: one row per photo, name or copy whose name does not fit the pictures.

    The probability says how likely the names are wrong in this way; of a copy it is how well the two pictures
    agree.

    The expected share so far is the mean probability of a row and all that rank before it, printed or not:
    the share of real errors to be expected among them. Where it has become too small for your time, stop
    reading.

    Example: pairx suspects --kind wrong_name --top 50 --format csv > to_check.csv
    """
    from flows.commands.ask import print_suspects

    print_suspects(warehouse, top, kind or [], by, output, wide, new, since)


def sql(
    query: Annotated[
        str | None,
        typer.Argument(
            help="One SELECT. Without it a prompt opens, or the query is read from a pipe. With --tables the name of a view, "
            "with --cookbook the number of a query."
        ),
    ] = None,
    warehouse: Tables = "warehouse",
    output: Written = "table",
    wide: Wide = False,
    tables: Annotated[
        bool, typer.Option("--tables", help="Describe all views, or the columns of the one named.")
    ] = False,
    cookbook: Annotated[
        bool, typer.Option("--cookbook", help="Print ready-made queries, or the one whose number is given.")
    ] = False,
    run_id: Annotated[str | None, typer.Option("--run", help="Look at an earlier run's settings.")] = None,
    since: Annotated[
        str | None,
        typer.Option(
            help="Run that new_photos, new_suspects and the like compare with. Default: the finished run before."
        ),
    ] = None,
    timeout: Annotated[
        float | None,
        typer.Option(
            help="Seconds that opening the warehouse and the query may take, or each statement of the prompt. "
            "Default: no limit; Ctrl-C stops at once.",
            min=0.001,
        ),
    ] = None,
    memory_limit: Annotated[
        str, typer.Option(help="Memory that views and query may take; up to 20GB more go to disk.")
    ] = "2GB",
) -> None:
    """Ask the warehouse in SQL, read only, through views over all tables.

    They show current rows only, as of the newest finished run.

    Example: pairx sql "SELECT count(*) FROM photos"

    Example: pairx sql --tables pair_scores

    Example: pairx sql --cookbook 1 | pairx sql --format csv
    """
    from flows.commands.ask import ask, print_cookbook, print_tables

    if tables and cookbook:
        raise typer.BadParameter("--tables and --cookbook are two questions: give one")
    if cookbook:
        print_cookbook(query, output, wide)
    elif tables:
        print_tables(query, output, wide)
    else:
        ask(warehouse, query, output, wide, run_id, timeout, memory_limit, since)


def report(
    warehouse: Tables = "warehouse",
    one_file: Annotated[
        bool,
        typer.Option("--self-contained", help="Write the report with its pictures as one file: see --out."),
    ] = False,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="That file. Default: report.html in this folder.")
    ] = None,
) -> None:
    """Print the address of the newest run's report.

    Its pictures lie beside it, in the folder pictures.

    Example: pairx report --self-contained -o last_night.html
    """
    from flows.commands.ask import newest_report, write_self_contained

    if out is not None and not one_file:
        raise typer.BadParameter("--out says where --self-contained writes: give both")
    if one_file:
        write_self_contained(warehouse, out or Path("report.html"))
    else:
        newest_report(warehouse)
