"""What the views and their columns mean, in the words that `pairx sql` prints.

Stored columns are described once, in `schemas/tables/registry.py`, and computed ones in the header of the
view that computes them.
"""

from __future__ import annotations

from schemas.sql.files import view_files
from schemas.tables.registry import TABLES
from schemas.views.compared import COMPARED_ABOUT, COMPARED_COLUMNS
from schemas.views.graph import ViewGraph

_CURRENT_RUN = "one row: the run whose fingerprints all views look at"
_OF_CURRENT_RUN = {
    "snapshot": "snapshot that photos, pair_scores and others are read from; null where all views are computed from all rows",
    "same_species": "whether pairs are restricted to one species",
    "same_viewpoint": "whether pairs are restricted to one viewpoint",
    "other_name_k": "nearest photos of other names per photo",
    "references": "random pairs of two names per species",
    "neighbours": "nearest photos per photo and rule whose cosines are kept",
}
_OF_STORED_ROWS = {
    "fingerprint": "hash of all settings that the row's numbers depend on",
    "shard": "file that the row is stored in",
}
_LEVELS = {"all": "every committed row", "run": "every row under the current run's fingerprints"}


def view_sentences() -> dict[str, str]:
    """View -> one sentence, in the order in which they are listed."""
    installed = {"current_run": _CURRENT_RUN, "compared_runs": COMPARED_ABOUT}
    return {name: view.about for name, view in view_files().items()} | installed


def describe_view(view: str) -> str:
    """One sentence about a view or stored table; empty when unknown."""
    level, _, table = view.partition("_")
    if level in _LEVELS and table in TABLES:
        return f"{table}: {_LEVELS[level]}"
    return view_sentences().get(view, "")


def describe_column(view: str, column: str) -> str:
    """One sentence about a column of a view or stored table; empty when unknown."""
    return _OF_STORED_ROWS.get(column) or _described(ViewGraph(view_files()), view, column)


def _described(graph: ViewGraph, view: str, column: str) -> str:
    """The description by the view's header, else by the table of its name, else by what it reads.

    Of the relations that it reads, the first that knows the column counts.
    """
    found = graph.views[view].columns.get(column) if view in graph.views else None
    if view == "compared_runs":
        return COMPARED_COLUMNS.get(column, "")
    if view == "current_run":
        view, found = "runs", _OF_CURRENT_RUN.get(column)
    table = view if view in TABLES else view.removeprefix("all_").removeprefix("run_")
    if found is None and table in TABLES and column in TABLES[table].schema.names:
        found = TABLES[table].schema.field(column).metadata[b"about"].decode()
    # The run's settings choose rows; no column of a view comes from them.
    sources = (name for name in graph.reads.get(view, ()) if name != "current_run")
    read = (_described(graph, name, column) for name in sources)
    return found or next(filter(None, read), "")
