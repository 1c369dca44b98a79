"""The arguments of `pairx evaluate`.

What it measures is set by the fields of `schemas.evaluate_options`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from flows.options import Config, Quiet, Root, Wait


def evaluate(
    context: typer.Context,
    catalogue: Annotated[
        str | None,
        typer.Argument(help="Catalogue to take in first. Without it: the photos that the warehouse holds."),
    ] = None,
    warehouse: Annotated[
        str, typer.Option(help="Folder or fsspec URL of the tables; what is stored already costs nothing.")
    ] = "warehouse",
    root: Root = None,
    out: Annotated[
        Path, typer.Option("--out", "-o", help="Folder for report.html, tables and the pair list.")
    ] = Path("evaluation"),
    name: Annotated[
        str | None,
        typer.Option(
            help="Name of the dataset in tables, e.g. OpenCows2020 for the paper's row. Default: its folder."
        ),
    ] = None,
    beside: Annotated[
        list[Path] | None,
        typer.Option(help="Folder of another evaluation whose rows go into the same table; repeatable."),
    ] = None,
    settings: Config = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print what would be measured; write nothing.")
    ] = False,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Try failed photos and pairs again.")
    ] = False,
    wait: Wait = False,
    quiet: Quiet = False,
) -> None:
    """Measure what the plausibility scores are worth on a catalogue with names.

    The measures are those of the paper's Table 1 and Figure 5.

    Settings are those of the warehouse's newest run; a file given with --settings overrides them, and
    options override both. Rarer options are keys of the table evaluate in that file: `pairx settings`
    prints all of them.

    Example: pairx evaluate cows/metadata.csv --warehouse warehouse --model models/cows -o evaluation
    """
    from flows.commands.evaluate import evaluate_catalogue

    places = (catalogue, warehouse, root)
    evaluate_catalogue(
        places, out, name, tuple(beside or ()), settings, context.obj, retry_failed, dry_run, wait, quiet
    )
