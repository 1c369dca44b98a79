"""The arguments of `pairx runs`."""

from __future__ import annotations

from typing import Annotated

import typer

from flows.cli.ask import Wide, Written
from flows.options import Tables


def runs(
    run_id: Annotated[str | None, typer.Argument(help="A run, whose whole record is printed.")] = None,
    warehouse: Tables = "warehouse",
    top: Annotated[int, typer.Option(help="How many runs to print, newest first.", min=1)] = 20,
    stages: Annotated[
        bool,
        typer.Option(
            "--stages",
            help="Print the stages of each run: their time, their items, and where workers' time went.",
        ),
    ] = False,
    price: Annotated[
        float | None,
        typer.Option(
            metavar="PER_HOUR",
            help="What one processor costs in an hour: adds the price of a thousand pairs.",
            min=0.0,
        ),
    ] = None,
    output: Written = "table",
    wide: Wide = False,
) -> None:
    """Print the runs of a warehouse: when they began, how they ended, what they counted, what they cost.

    A run that has no end is running, or was interrupted. Processor-seconds are those of the run and of its workers'
    tasks, without the start of programs; per thousand pairs they are divided by the pairs that the run scored.

    Example: pairx runs --warehouse warehouse --price 0.04

    Example: pairx runs --stages --top 1
    """
    from flows.commands.runs import print_runs

    print_runs(warehouse, run_id, top, stages, price, output, wide)
