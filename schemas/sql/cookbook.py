"""The queries that analysts ask most, each with its title, from `cookbook.sql`."""

from __future__ import annotations

from importlib.resources import files


def cookbook() -> dict[str, str]:
    """Title -> SQL; a query's title is the comment above it."""
    found = {}
    for block in (
        files("schemas.sql").joinpath("cookbook.sql").read_text(encoding="utf-8").strip().split("\n\n")
    ):
        title, _, query = block.partition("\n")
        found[title.removeprefix("-- ")] = query.rstrip(";")
    return found
