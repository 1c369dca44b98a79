"""Options of `pairx evaluate`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from flows.options import WAIT, Config

_MEASURING, _CHOOSING, _FAITHFUL = "Measuring", "Choosing settings", "Faithfulness"


def evaluate(
    context: typer.Context,
    catalogue: Annotated[
        str | None,
        typer.Argument(help="Catalogue to take in first. Without it: the photos that the warehouse holds."),
    ] = None,
    warehouse: Annotated[
        str, typer.Option(help="Folder or fsspec URL of the tables; what is stored already costs nothing.")
    ] = "warehouse",
    root: Annotated[
        str | None, typer.Option(help="Folder or URL that the catalogue's paths are relative to.")
    ] = None,
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
    wait: Annotated[bool, typer.Option("--wait", help=WAIT)] = False,
    per_photo: Annotated[
        int,
        typer.Option(
            min=1,
            help="Nearest photos of the same name, and of other names, per photo.",
            rich_help_panel=_MEASURING,
        ),
    ] = 2,
    bins: Annotated[
        int, typer.Option(min=1, help="Bins of the cosine in Δ.", rich_help_panel=_MEASURING)
    ] = 10,
    edges: Annotated[
        str, typer.Option(help="Bins of 'equal_width' or 'quantile'.", rich_help_panel=_MEASURING)
    ] = "equal_width",
    form: Annotated[
        str, typer.Option(help="Distributions in Δ: 'gaussian' or 'histogram'.", rich_help_panel=_MEASURING)
    ] = "gaussian",
    weights: Annotated[
        str,
        typer.Option(help="A bin's weight: 'pairs', 'smaller_class' or 'equal'.", rich_help_panel=_MEASURING),
    ] = "pairs",
    minimum: Annotated[
        int,
        typer.Option(
            min=2, help="Pairs of each class that a bin needs to count.", rich_help_panel=_MEASURING
        ),
    ] = 2,
    resamples: Annotated[
        int,
        typer.Option(
            min=0, help="Resamples of animals for the intervals; 0: none.", rich_help_panel=_MEASURING
        ),
    ] = 200,
    figures: Annotated[
        int, typer.Option(min=0, help="Outliers that get a figure.", rich_help_panel=_MEASURING)
    ] = 12,
    choose: Annotated[
        bool,
        typer.Option(
            "--choose",
            help="Sweep layers, presets, reductions, matchers and estimators, and write the best as chosen.toml for "
            "`pairx run --settings`. The default is kept unless animals that were not looked at agree.",
            rich_help_panel=_CHOOSING,
        ),
    ] = False,
    try_layer: Annotated[
        list[str] | None,
        typer.Option(
            help="Layer to try; repeatable. Default: those beside the model's own.", rich_help_panel=_CHOOSING
        ),
    ] = None,
    try_matcher: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME[=FOLDER]",
            help="Matcher to try, with the folder of its weights; repeatable. Those that need no weights are always tried.",
            rich_help_panel=_CHOOSING,
        ),
    ] = None,
    sweep_pairs: Annotated[
        int, typer.Option(min=20, help="Most pairs that the sweep looks at.", rich_help_panel=_CHOOSING)
    ] = 2000,
    folds: Annotated[
        int,
        typer.Option(min=2, help="Folds of animals that the choice is tested in.", rich_help_panel=_CHOOSING),
    ] = 3,
    faithfulness: Annotated[
        int,
        typer.Option(
            min=0,
            help="Pairs, half of them of one name, whose explanations are put to the test by pixel flipping; 0: none.",
            rich_help_panel=_FAITHFUL,
        ),
    ] = 0,
    method: Annotated[
        list[str] | None,
        typer.Option(
            help="Way to explain a pair that is tested, e.g. pairx_conserving or gradient; repeatable. Default: all.",
            rich_help_panel=_FAITHFUL,
        ),
    ] = None,
    continuity: Annotated[
        bool,
        typer.Option(
            "--continuity/--no-continuity",
            help="Also shift the photo by 1 to 10 pixels and back; some 25 times as dear.",
            rich_help_panel=_FAITHFUL,
        ),
    ] = False,
    superpixel: Annotated[
        int, typer.Option(min=1, help="Side of a superpixel, pixels.", rich_help_panel=_FAITHFUL)
    ] = 5,
    steps: Annotated[int, typer.Option(min=1, help="Steps of flipping.", rich_help_panel=_FAITHFUL)] = 20,
    share: Annotated[
        float,
        typer.Option(help="Share of the superpixels that is flipped in the end.", rich_help_panel=_FAITHFUL),
    ] = 0.5,
    fill: Annotated[
        str,
        typer.Option(
            help="What flipped pixels become: 'noise', 'mean' or 'blur'.", rich_help_panel=_FAITHFUL
        ),
    ] = "noise",
) -> None:
    """Measure what the plausibility scores are worth on a catalogue with names, as the paper's Table 1 and Figure 5 do.

    Settings are those of the warehouse's newest run; a file given with --settings overrides them, and options override both.
    """
    from flows.commands.evaluate import Asked, evaluate_catalogue

    asked = Asked(
        per_photo, resamples, figures, choose, tuple(try_layer or ()), tuple(try_matcher or ()), sweep_pairs,
        folds, faithfulness, tuple(method or ()), continuity, retry_failed,
        {"n_bins": bins, "edges": edges, "form": form, "weights": weights, "minimum": minimum},
        {"superpixel": superpixel, "n_steps": steps, "share": share, "fill": fill},
    )  # fmt: skip
    evaluate_catalogue(
        catalogue,
        warehouse,
        root,
        out,
        name,
        tuple(beside or ()),
        settings,
        context.obj,
        asked,
        dry_run,
        wait,
    )
