"""Which views read which: the order to create them in, what to compute again when files came, and what to compute once."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping
from functools import lru_cache
from graphlib import CycleError, TopologicalSorter
from typing import Any

import duckdb

from schemas.errors import SettingsError
from schemas.sql_files import SqlFile


class ViewGraph:
    """The views with what each reads, in an order in which every view comes after those that it reads.

    Raises `SettingsError` for a query that is no SELECT and for views that read each other in a circle.
    """

    def __init__(self, views: Mapping[str, SqlFile]) -> None:
        self.reads = {name: _relations(name, view.query) for name, view in views.items()}
        """View -> views and tables that its query reads, in the order in which it names them."""
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
        """The relations that a view's rows come from in the end, themselves no views."""
        return set().union(
            *(self.sources(read) if read in self.views else {read} for read in self.reads[name])
        )

    def views_behind(self, names: Iterable[str]) -> list[str]:
        """Some views and all that they read, directly or through others, in the order of creation."""
        found: set[str] = set()
        left = list(names)
        while left:
            name = left.pop()
            if name in self.views and name not in found:
                found.add(name)
                left += self.reads[name]
        return [name for name in self.views if name in found]

    def query(self, name: str, tables: Collection[str] = ()) -> str:
        """A view's query over views of which `tables` are kept as tables.

        Of the others, those that are to be computed once per query are put in front of it, materialised.
        """
        needed = self._once(name, tables)
        parts = [f"{n} AS MATERIALIZED (\n{self.views[n].query}\n)" for n in self.views if n in needed]
        query = self.views[name].query
        return f"WITH {', '.join(parts)}\nFROM (\n{query}\n)" if parts else query

    def _once(self, name: str, tables: Collection[str]) -> set[str]:
        direct = {n for n in self.reads[name] if n in self.views and self.views[n].once and n not in tables}
        return direct.union(*(self._once(n, tables) for n in direct))


@lru_cache(maxsize=256)
def _relations(name: str, query: str) -> tuple[str, ...]:
    """Views and tables that a query reads; names that it gives to parts of itself are not among them."""
    with duckdb.connect(":memory:") as connection:
        text = connection.execute("SELECT json_serialize_sql(CAST(? AS VARCHAR))", [query]).fetchall()[0][0]
    parsed = json.loads(text)
    if parsed["error"] or len(parsed["statements"]) != 1:
        raise SettingsError(
            f"{name}.sql is not one SELECT: {parsed.get('error_message', 'several statements')}",
            "mend the file",
        )
    found: dict[str, None] = {}
    _collect(parsed["statements"], frozenset(), found)
    return tuple(found)


def _collect(tree: Any, own: frozenset[str], found: dict[str, None]) -> None:
    if isinstance(tree, list):
        for part in tree:
            _collect(part, own, found)
    elif isinstance(tree, dict):
        for part in tree.get("cte_map", {}).get("map", ()):
            _collect(part["value"], own, found)
            own |= {part["key"]}
        if tree.get("type") == "BASE_TABLE" and tree["table_name"] not in own:
            found[tree["table_name"]] = None
        for key, part in tree.items():
            if key != "cte_map":
                _collect(part, own, found)
