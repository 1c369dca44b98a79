"""The arguments of `pairx compare`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from schemas.setting import MODEL


def compare(
    context: typer.Context,
    first: Annotated[Path | None, typer.Argument(metavar="A", help="First photo.")] = None,
    second: Annotated[Path | None, typer.Argument(metavar="B", help="Second photo.")] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            help="Of two photos the sheet, PNG (compare.png); of pairs of a warehouse the folder for a sheet each and "
            "compare.html (compare).",
        ),
    ] = None,
    html: Annotated[
        Path | None,
        typer.Option(
            help="The page of all pairs, one file that loads nothing. Two photos get one only if it is named."
        ),
    ] = None,
    method: Annotated[
        list[str] | None,
        typer.Option(
            help="Compare by this method; repeatable. `pairx explain --methods` lists all. Default: one or two of each family, and a "
            "control."
        ),
    ] = None,
    everything: Annotated[
        bool,
        typer.Option("--all", help="Compare by all methods but the dearest; --method adds one of these."),
    ] = False,
    box_a: Annotated[str | None, typer.Option(help="x,y,w,h of the animal in A, pixels.")] = None,
    box_b: Annotated[str | None, typer.Option(help="x,y,w,h of the animal in B, pixels.")] = None,
    maps: Annotated[
        int | None,
        typer.Option(help="Matches that enter a map, and most lines drawn. Default: 10.", min=1, max=100),
    ] = None,
    warehouse: Annotated[
        str | None,
        typer.Option(
            help="Warehouse of the pairs, seen as its newest run saw them; methods also take from it what they learned."
        ),
    ] = None,
    pair: Annotated[
        list[str] | None, typer.Option(help="The pair_id of a pair of the warehouse; repeatable.")
    ] = None,
    suspects: Annotated[
        int, typer.Option(help="Compare the pairs of the warehouse's first suspects.", min=0)
    ] = 0,
    layers: Annotated[
        str | None, typer.Option("--layer", help="Layer to explain.", rich_help_panel=MODEL)
    ] = None,
) -> None:
    """Explain a pair by many methods side by side, on one sheet.

    Give two photos, or pairs of a warehouse by --pair or --suspects. A method that cannot explain this
    network is a panel that says why.
    """
    from flows.commands.compare import compare_pairs_of_warehouse, compare_photos

    given = context.obj | {"layers": (layers,) if layers else None, "n_pixel_maps": maps}
    chosen = (tuple(method or ()), everything)
    if pair or suspects:
        compare_pairs_of_warehouse(
            warehouse, tuple(pair or ()), suspects, (first, second, box_a, box_b), out, html, chosen, given
        )
    else:
        compare_photos((first, second), (box_a, box_b), out, html, chosen, given, warehouse)
