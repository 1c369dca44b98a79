"""The arguments of `pairx review`."""

from __future__ import annotations

import typer

from flows.cli.verdicts import agreement, export_reviews, import_reviews

review = typer.Typer(help="People's verdicts on suspects.", no_args_is_help=True)
review.command("export")(export_reviews)
review.command("import")(import_reviews)
review.command("agreement")(agreement)
