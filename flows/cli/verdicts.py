"""The arguments of `pairx apply` and of `pairx review export`, `import` and `agreement`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from flows.options import Root, Tables


def apply(
    context: typer.Context,
    catalogue: Annotated[str, typer.Argument(help="The catalogue to correct, as it was last run.")],
    out: Annotated[
        str | None,
        typer.Option(
            "--out",
            "-o",
            help="The corrected catalogue, of the same format; of Camtrap DP a folder. Never the input.",
        ),
    ] = None,
    warehouse: Tables = "warehouse",
    root: Root = None,
    drop_copies: Annotated[
        bool, typer.Option("--drop-copies", help="Leave out photos that are copies. Default: only list them.")
    ] = False,
    drop_bad: Annotated[
        bool, typer.Option("--drop-bad", help="Leave out photos that are too bad. Default: only list them.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the changes; write nothing.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace an existing output.")] = False,
    force_contradictions: Annotated[
        bool,
        typer.Option(
            "--force-contradictions",
            help="Make also the changes whose verdicts contradict others by a chain. Default: hold them back, and end with 1.",
        ),
    ] = False,
) -> None:
    """Write a catalogue with what people's verdicts say, and a list of all changes with their reasons.

    Only the cells that change are rewritten; without verdicts the output is the input, byte for byte. Exit
    code 1 where a change was held back: people disagree, verdicts contradict each other, or the format cannot
    say it.
    """
    from flows.commands.verdicts import apply_verdicts

    how = (drop_copies, drop_bad, force_contradictions)
    apply_verdicts(catalogue, out, warehouse, root, how, dry_run, force, context.obj)


def export_reviews(
    out: Annotated[Path, typer.Option("--out", "-o", help="The file to write.")],
    warehouse: Tables = "warehouse",
    output: Annotated[
        str,
        typer.Option(
            "--format",
            help="csv or label-studio: questions to answer; wildbook: rows of the photos whose names change; "
            "frame: the photos with their corrected names, as wildlife-datasets has them.",
        ),
    ] = "csv",
    verdicts: Annotated[
        bool, typer.Option("--verdicts", help="Export answers instead of open questions (csv).")
    ] = False,
    second_look: Annotated[
        bool,
        typer.Option(
            "--second-look", help="Only answered questions of one reviewer, or on which people disagree."
        ),
    ] = False,
    top: Annotated[int | None, typer.Option(help="Only the first questions.", min=1)] = None,
    images: Annotated[
        str,
        typer.Option(
            help="What stands before the photos' paths in Label Studio's tasks, e.g. https://host/photos/. "
            "Default: Label Studio's local storage, below its document root."
        ),
    ] = "/data/local-files/?d=",
    force: Annotated[bool, typer.Option("--force", help="Replace an existing file.")] = False,
) -> None:
    """Write questions or verdicts to a file for other programs.

    Beside Label Studio's tasks its labeling configuration is written, as FILE.xml.
    """
    from flows.commands.verdicts import export

    export(out, warehouse, output, (verdicts, second_look), top, images, force)


def import_reviews(
    file: Annotated[Path, typer.Argument(help="CSV of verdicts, or Label Studio's JSON export.")],
    warehouse: Tables = "warehouse",
    reviewer: Annotated[
        str | None, typer.Option(help="Who gave the verdicts of rows that do not say so.")
    ] = None,
    skip_bad: Annotated[
        bool,
        typer.Option("--skip-bad", help="Store the good rows. Default: where any row is bad, store nothing."),
    ] = False,
) -> None:
    """Store verdicts from a file; the same file again adds nothing.

    All rows are checked first, and all problems listed. Verdicts on photos whose chips have changed since are
    refused.
    """
    from flows.commands.verdicts import import_verdicts

    import_verdicts(file, warehouse, reviewer, skip_bad)


def agreement(
    warehouse: Tables = "warehouse",
    each: Annotated[
        bool, typer.Option("--each", help="One row per question that needs a second look.")
    ] = False,
    output: Annotated[str, typer.Option("--format", help="table, csv or json.")] = "table",
) -> None:
    """Print how far reviewers agree: percent, and Krippendorff's alpha (1: fully, 0: by chance)."""
    from flows.commands.verdicts import print_agreement

    print_agreement(warehouse, each, output)
