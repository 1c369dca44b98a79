"""Which views read which: in what order to create them, and what to compute again for new files.

It also writes queries in which each view is planned only once.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from functools import lru_cache
from graphlib import CycleError, TopologicalSorter
from typing import Any

import duckdb

from schemas.errors import SettingsError
from schemas.sql.files import SqlFile


class ViewGraph:
    """The views with what each reads, in an order in which every view comes after those that it reads.

    Raises `SettingsError` for a query that is no SELECT and for views that read each other in a circle.
    """

    def __init__(self, views: Mapping[str, SqlFile]) -> None:
        self.reads = {name: relations(name, view.query) for name, view in views.items()}
        """View -> views and tables that its query reads, and how often."""
        try:
            order = TopologicalSorter(self.reads).static_order()
            self.views = {name: views[name] for name in order if name in views}
        except CycleError as error:
            raise SettingsError(
                f"views read each other in a circle: {' -> '.join(error.args[1])}",
                "leave one of these reads out",
            ) from error

    def narrow(self) -> tuple[str, ...]:
        """Views worth keeping as tables."""
        return tuple(name for name, view in self.views.items() if view.narrow)

    def sources(self, name: str) -> set[str]:
        """The relations that a view's rows come from in the end; none of them is a view."""
        return set().union(
            *(self.sources(read) if read in self.views else {read} for read in self.reads[name])
        )

    def views_behind(self, names: Iterable[str], tables: Collection[str] = ()) -> list[str]:
        """Some views and all that they read, at any depth, in the order of creation.

        A name in `tables` is not followed.
        """
        found: set[str] = set()
        left = list(names)
        while left:
            name = left.pop()
            if name in self.views and name not in found:
                found.add(name)
                left += [read for read in self.reads[name] if read not in tables]
        return [name for name in self.views if name in found]

    def query(self, name: str, tables: Collection[str] = ()) -> str:
        """A view's query with those of all views behind it, of which `tables` are kept as tables.

        Each is planned once, and computed once where several read it. If a query named views, DuckDB
        would plan a view anew wherever another names it, and the time of planning would grow with the
        product of all those uses.
        """
        behind = [n for n in self.views_behind([name], tables) if n != name]
        uses = sum((self.reads[n] for n in (*behind, name)), Counter())
        parts = [
            f"{n} AS {'' if uses[n] > 1 else 'NOT '}MATERIALIZED (\n{self.views[n].query}\n)" for n in behind
        ]
        query = self.views[name].query
        return f"WITH {', '.join(parts)}\nFROM (\n{query}\n)" if parts else query


@lru_cache(maxsize=1)
def _parser() -> duckdb.DuckDBPyConnection:
    return duckdb.connect(":memory:", config={"threads": 1})


def syntax_tree(query: str) -> dict[str, Any]:
    """DuckDB's parse of a query, whatever it names: `error`, and `statements` if there is no error."""
    rows = _parser().cursor().execute("SELECT json_serialize_sql(CAST(? AS VARCHAR))", [query]).fetchall()
    tree: dict[str, Any] = json.loads(rows[0][0])
    return tree


@lru_cache(maxsize=256)
def relations(name: str, query: str) -> Counter[str]:
    """Views and tables that a query reads, and how often, without names that it defines itself.

    Raises `SettingsError` for what is not one SELECT; `name` is what its message calls the query.
    """
    parsed = syntax_tree(query)
    if parsed["error"] or len(parsed["statements"]) != 1:
        raise SettingsError(
            f"{name}.sql is not one SELECT: {parsed.get('error_message', 'several statements')}",
            "mend the file",
        )
    found: Counter[str] = Counter()
    _collect(parsed["statements"], frozenset(), found)
    return found


def _collect(tree: Any, own: frozenset[str], found: Counter[str]) -> None:
    if isinstance(tree, list):
        for part in tree:
            _collect(part, own, found)
    elif isinstance(tree, dict):
        for part in tree.get("cte_map", {}).get("map", ()):
            _collect(part["value"], own, found)
            own |= {part["key"]}
        if tree.get("type") == "BASE_TABLE" and tree["table_name"] not in own:
            found[tree["table_name"]] += 1
        for key, part in tree.items():
            if key != "cte_map":
                _collect(part, own, found)
