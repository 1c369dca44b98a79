"""What there is to ask: the views, their columns and the ready-made queries, as rows and as text."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import duckdb
import pyarrow as pa

from schemas.errors import did_you_mean
from schemas.sql.cookbook import cookbook
from schemas.views.descriptions import describe_column, describe_view, view_sentences
from schemas.views.install import NoFiles, install_views
from tasks.sql.results import QueryError
from tasks.sql.table_text import wrapped

_LEAST_ROOM = 36
"""Columns that a text needs beside what it is about; with fewer it stands below."""
_LEVELS = "all_TABLE holds every committed row, run_TABLE those of the current run's settings."


def views() -> pa.Table:
    """All views: `view`, `about`."""
    sentences = view_sentences()
    return pa.table({"view": list(sentences), "about": list(sentences.values())})


def columns_of(view: str, connection: duckdb.DuckDBPyConnection | None = None) -> pa.Table:
    """The columns of a view: `column`, `type`, `about`.

    Without a connection the answer comes from the schemas alone. Raises `QueryError` for an unknown view.
    """
    if connection is None:
        connection = duckdb.connect(":memory:")
        install_views(connection, NoFiles())
    try:
        found = connection.table(view)
    except duckdb.Error as error:
        known = list(view_sentences())
        raise QueryError(
            f"there is no view {view!r}{did_you_mean(view, known)}",
            "`pairx sql --tables` lists them, `.tables` in the prompt",
        ) from error
    names = found.columns
    about = [describe_column(view, name) for name in names]
    return pa.table({"column": names, "type": [str(kind) for kind in found.types], "about": about})


def queries(number: int | None = None) -> pa.Table:
    """The ready-made queries, or the one of a number: `number` from 1, `title`, `query`.

    Raises `QueryError` for a number that there is not.
    """
    listed = [(k, title, query) for k, (title, query) in enumerate(cookbook().items(), 1)]
    if number is not None and not 1 <= number <= len(listed):
        raise QueryError(f"the cookbook has no query {number}", f"its numbers are 1 to {len(listed)}")
    chosen = listed if number is None else [listed[number - 1]]
    return pa.table(
        dict(zip(("number", "title", "query"), map(list, zip(*chosen, strict=True)), strict=True))
    )


def query_number(text: str) -> int:
    """The number of a query from typed text; raises `QueryError` for what is no number."""
    if text.isascii() and text.isdigit() and len(text) < 4:
        return int(text)
    raise QueryError(f"{text!r} is no number of a query", f"its numbers are 1 to {len(cookbook())}")


def cookbook_text(number: int | None = None, width: int | None = None) -> str:
    """The queries as SQL to read and to paste, each below its number and title."""
    return "\n\n".join(
        "\n".join(
            [
                *wrapped(f"-- {row['number']}. {row['title']}", width or _ENDLESS, "", "-- "),
                f"{row['query']};",
            ]
        )
        for row in queries(number).to_pylist()
    )


def titles_text(width: int | None = None) -> str:
    """The titles of the queries with their numbers."""
    rows = queries().to_pylist()
    return "\n".join(
        _aligned([(f"{row['number']:>2}",) for row in rows], [row["title"] for row in rows], width)
    )


def describe(
    connection: duckdb.DuckDBPyConnection | None = None, view: str | None = None, width: int | None = None
) -> str:
    """What the views hold: a line for each of them, or the columns of one, in lines of `width` if given.

    Without a connection the answer comes from the schemas alone. Raises `QueryError` for an unknown view.
    """
    if view is None:
        found = views()
        names = [(name,) for name in found["view"].to_pylist()]
        listed = _aligned(names, found["about"].to_pylist(), width)
        return "\n".join([*listed, "", *wrapped(_LEVELS, width or _ENDLESS)])
    found = columns_of(view, connection)
    kinds = list(zip(found["column"].to_pylist(), found["type"].to_pylist(), strict=True))
    title = wrapped(f"{view}: {describe_view(view)}", width or _ENDLESS)
    return "\n".join([*title, "", *_aligned(kinds, found["about"].to_pylist(), width)])


_ENDLESS = 10**6


def _aligned(firsts: Sequence[tuple[str, ...]], texts: Iterable[str], width: int | None) -> Iterator[str]:
    """Lines of aligned first columns, each with its text: beside them, or below where there is no room."""
    widths = [max(map(len, column)) for column in zip(*firsts, strict=True)]
    for cells, text in zip(firsts, texts, strict=True):
        first = "".join(f"{cell.ljust(taken)}  " for cell, taken in zip(cells, widths, strict=True))
        if width is None:
            yield f"{first}{text}".rstrip()
        elif width - len(first) >= _LEAST_ROOM:
            yield from wrapped(text, width, first, " " * len(first)) if text else [first.rstrip()]
        else:
            yield from wrapped("  ".join(cells), width, "", "    ")
            yield from wrapped(text, width, "    ", "    ") if text else []
