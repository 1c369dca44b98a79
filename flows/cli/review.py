"""The arguments of `pairx review`, and the group that its further commands join."""

from __future__ import annotations

from typing import Annotated

import typer

from flows.cli.verdicts import agreement, export_reviews, import_reviews
from flows.options import Command, Group, Tables

review = typer.Typer(
    name="review",
    cls=Group,
    help="Answer the open questions of a warehouse in a browser: pictures side by side, one key a verdict.",
    invoke_without_command=True,
    no_args_is_help=False,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    rich_markup_mode="rich",
)


@review.callback()
def open_review(
    context: typer.Context,
    warehouse: Tables = "warehouse",
    host: Annotated[
        str,
        typer.Option(
            help="Address to listen at. Beyond this machine the address that is printed holds a secret token; the "
            "connection is not encrypted, so put it behind a tunnel or a proxy that is."
        ),
    ] = "127.0.0.1",
    port: Annotated[
        int | None,
        typer.Option(help="Port. Default: 8765, or any free one where it is taken.", min=1, max=65535),
    ] = None,
    browser: Annotated[
        bool, typer.Option("--browser/--no-browser", help="Open the page in a browser.")
    ] = True,
    reviewer: Annotated[
        str | None, typer.Option(help="Name that goes with every verdict. Default: the page asks for it.")
    ] = None,
) -> None:
    """Answer the open questions of a warehouse in a browser: pictures side by side, one key a verdict.

    Every verdict is on disk before the page goes on. Several people may answer at once. Ctrl-C ends the
    server; start it again and it goes on where you were.
    """
    if context.invoked_subcommand is None:
        from flows.review.server import serve

        serve(warehouse, host, port, browser, reviewer)


review.command("export", cls=Command)(export_reviews)
review.command("import", cls=Command)(import_reviews)
review.command("agreement", cls=Command)(agreement)
