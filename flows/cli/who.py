"""The arguments of `pairx who`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from flows.cli.ask import Wide, Written
from flows.options import Tables


def who(
    photo: Annotated[
        list[str] | None,
        typer.Argument(metavar="PHOTO...", help="Ids of photos, as the catalogue gives them."),
    ] = None,
    new: Annotated[
        bool,
        typer.Option("--new", help="All photos of unknown animals that are new in the newest run."),
    ] = False,
    warehouse: Tables = "warehouse",
    top: Annotated[int, typer.Option(help="Most answers for a photo; ten are stored.", min=1)] = 5,
    output: Written = "table",
    wide: Wide = False,
    html: Annotated[
        Path | None,
        typer.Option(
            help="Also write a page with the photo and the best photo of each name, one file that loads nothing."
        ),
    ] = None,
) -> None:
    """Which animal does a photo show? Names by their probability, a new animal among them.

    The answers are those of the newest finished run; nothing is computed. Of a photo that has a name, only
    that name and the likeliest other are stored.
    """
    from flows.commands.who import print_answers

    print_answers(warehouse, tuple(photo or ()), new, top, output, wide, html)
