"""Columns of a query in types that a program can hold.

Values that Arrow or Python would change or refuse become DuckDB's text.
"""

from __future__ import annotations

from typing import Any

import duckdb

_KEPT = frozenset(
    {
        *("boolean", "tinyint", "smallint", "integer", "bigint", "utinyint", "usmallint", "uinteger", "ubigint"),
        *("hugeint", "float", "double", "decimal", "varchar", "enum", "uuid", "blob", "null"),
    }
)  # fmt: skip
"""Leaf types whose values come through unchanged.

Others do not. Python ends with the year 9999 and has neither infinite dates, intervals of months nor
24:00:00. Arrow drops a time's zone and half of the largest integers.
"""


def in_plain_types(found: duckdb.DuckDBPyRelation) -> duckdb.DuckDBPyRelation:
    """The same rows and names, with values of other types, also nested ones, as DuckDB's text."""
    kinds = [(str(kind), _plain(kind)) for kind in found.types]
    if all(given == plain for given, plain in kinds):
        return found
    columns = [
        f"#{place}" if given == plain else f"CAST(#{place} AS {plain}) AS {_quoted(name)}"
        for place, (name, (given, plain)) in enumerate(zip(found.columns, kinds, strict=True), 1)
    ]
    return found.project(", ".join(columns))


def _plain(kind: Any) -> str:
    """SQL of the type that replaces `kind`: itself where all its parts are plain."""
    match kind.id:
        case "list":
            return f"{_plain(kind.children[0][1])}[]"
        case "array":
            (_, inner), (_, size) = kind.children
            return f"{_plain(inner)}[{size}]"
        case "map":
            return f"MAP({', '.join(_plain(inner) for _, inner in kind.children)})"
        case "struct":
            return f"STRUCT({', '.join(f'{_quoted(name)} {_plain(inner)}' for name, inner in kind.children)})"
    return str(kind) if kind.id in _KEPT else "VARCHAR"


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
