"""The arguments of `pairx run`."""

from __future__ import annotations

from typing import Annotated

import typer

from flows.options import Config, Quiet, Root, Wait


def run(
    context: typer.Context,
    catalogue: Annotated[
        str,
        typer.Argument(
            help="CSV or Parquet with image_id, identity, path (and bbox, theta, species, date, encounter, …), "
            "Camtrap DP (its folder or datapackage.json), COCO Camera Traps (.json), or Wildbook's CSV."
        ),
    ],
    warehouse: Annotated[
        str, typer.Option(help="Folder or fsspec URL that the tables go to; grows with every run.")
    ] = "warehouse",
    root: Root = None,
    settings: Config = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the plan and its estimated time; write nothing.")
    ] = False,
    withdraw_missing: Annotated[
        bool,
        typer.Option(
            "--withdraw-missing",
            help="The catalogue is complete: photos that it no longer lists are withdrawn.",
        ),
    ] = False,
    retry_failed: Annotated[
        bool,
        typer.Option(
            "--retry-failed", help="Try failed photos and pairs again, though nothing about them changed."
        ),
    ] = False,
    wait: Wait = False,
    fail_on: Annotated[
        list[str] | None,
        typer.Option(
            help="failures: end with 1 where any photo or pair failed in this run; new-suspects: end with 4 where the run is done and "
            "found new suspects. For schedulers; may be given twice.",
            autocompletion=lambda: ["failures", "new-suspects"],
        ),
    ] = None,
    notify: Annotated[
        str | None,
        typer.Option(
            metavar="COMMAND",
            help="Program with its arguments that gets the run's summary as JSON on standard input when the run has finished or failed. "
            "No shell reads it, and its failure never changes the run's result.",
        ),
    ] = None,
    quiet: Quiet = False,
    log_format: Annotated[
        str,
        typer.Option(
            help="text, or json: an object a line on standard error for what happens, and one with the summary on standard output.",
            autocompletion=lambda: ["text", "json"],
        ),
    ] = "text",
) -> None:
    """Process a catalogue: embed new photos, pair them, score and rank; nothing is scored twice.

    Stop it anywhere and run the same command again: it goes on where it was.

    Example: pairx run catalogue.csv --warehouse warehouse --model conservationxlabs/miewid-msv3 --dry-run
    """
    from flows.log_format import choose

    choose(log_format)
    from flows.commands.run import run_catalogue

    how = (dry_run, withdraw_missing, retry_failed, wait, tuple(fail_on or ()), notify, quiet)
    run_catalogue(catalogue, warehouse, root, settings, context.obj, *how)
