"""Resources of a data package (Frictionless): the tables that it names, and the dialects they are written in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from schemas.catalogue.files.delimited import Dialect
from schemas.errors import Problem


@dataclass(frozen=True)
class Resource:
    """A table of a package: its name, its path in the package's folder, and how its text is written."""

    name: str
    path: str
    dialect: Dialect


def named_resources(
    content: Mapping[str, Any], names: Sequence[str], problems: list[Problem]
) -> dict[str, Resource]:
    """The resources of these names; one that is missing, doubled or in several files is a problem."""
    listed = content.get("resources")
    resources = [each for each in listed if isinstance(each, dict)] if isinstance(listed, list) else []
    found: dict[str, Resource] = {}
    for name in names:
        where = f"datapackage.json, resource {name}"
        members = [each for each in resources if each.get("name") == name]
        path = members[0].get("path") if members else None
        if isinstance(path, list) and len(path) == 1:
            path = path[0]
        if len(members) != 1 or not isinstance(path, str):
            what = (
                f"{len(members)} resources have this name" if len(members) != 1 else "it names no single file"
            )
            cure = "describe each table as one resource with one path"
            problems.append(Problem("missing resource", where, what, cure))
            continue
        found[name] = Resource(name, path, _dialect(members[0], where, problems))
    return found


def _dialect(resource: Mapping[str, Any], where: str, problems: list[Problem]) -> Dialect:
    """The dialect that a resource declares; what of it is not understood is a problem."""
    encoding = resource.get("encoding")
    given = resource.get("dialect")
    if isinstance(given, str):
        what = f"it names {given[:60]!r} instead of saying what it is"
        cure = "write the dialect into datapackage.json"
        problems.append(Problem("dialect in another file", f"{where}, field dialect", what, cure))
    values = given if isinstance(given, dict) else {}
    # Frictionless 2 and its predecessors put the properties of CSV one level deeper.
    values = {**values, **values["csv"]} if isinstance(values.get("csv"), dict) else values

    def sign(key: str) -> str | None:
        value = values.get(key)
        if value is None or value == "":
            return None
        if isinstance(value, str) and len(value) == 1 and ord(value) < 128 and value not in "\r\n":
            return value
        cure = "write the table with one plain sign, as with commas and double quotes"
        problems.append(Problem("unknown dialect", f"{where}, field {key}", f"it is {value!r:.60}", cure))
        return None

    if values.get("header") is False:
        cure = "write the names of the columns into the first row"
        problems.append(Problem("unknown dialect", f"{where}, field header", "the table has no header", cure))
    return Dialect(
        encoding if isinstance(encoding, str) and encoding else None,
        sign("delimiter"),
        sign("quoteChar") or ("" if values.get("quoteChar") in ("", False) else '"'),
        values.get("doubleQuote") is not False or "escapeChar" not in values,
        sign("escapeChar"),
        sign("commentChar"),
    )
