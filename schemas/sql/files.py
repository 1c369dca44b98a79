"""The SQL files: views in ``views/``, suspect rules in ``suspects/``, macros in ``macros.sql``.

A view or a rule is one SELECT under a header: the first block of comment lines, in which every line means
something. The first line says in one sentence what a row is; then come, in any order::

    -- order: 30                  place in listings; without it behind all others, by name
    -- label: Copy?               how the report names a rule's suspects
    -- asks: KIND                 the kind of question in `reviews` that a rule's suspects ask a person, of the same subject, and
                                  of `right_name` as the other name where the kind is about two; what was answered is left out
    -- narrow                     a view without long lists or pictures, worth keeping as a table for many questions
    -- snapshot: COLUMN, ...      kept as files at the end of a run, sorted by these columns, by which no two rows are alike;
                                  only for views over rows of immutable files, so not over failures
    -- column NAME: what it is    a column that the query computes

A column without a line means what it means in the views and tables that the query reads. The file's name is
the name of the view, or the kind of suspects that the rule finds. A view whose query says ``{rules}`` reads
the union of all rules there.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from importlib.resources import files
from importlib.resources.abc import Traversable

from schemas.errors import SettingsError

FOLDERS: list[Traversable] = [files("schemas.sql")]
"""Folders with ``views/``, ``suspects/`` and ``macros.sql``, each of which may be absent.

Add one to add views and rules.
"""
RULE_COLUMNS = (
    "subject_kind",
    "subject",
    "blamed_photo",
    "right_name",
    "supporting_pairs",
    "photos",
    "score",
    "words",
)
"""What a rule yields; the view `suspicions` describes each."""

_NAME = re.compile(r"[a-z][a-z0-9_]*")
_LINE = re.compile(
    r"-- (?:order: (?P<order>\d+)|label: (?P<label>.+)|asks: (?P<asks>\w+)|(?P<flag>narrow)|snapshot: (?P<snapshot>\w+(?:, \w+)*)"
    r"|column (?P<column>\w+): (?P<text>.+))"
)
_LAST = 1_000_000


@dataclass(frozen=True)
class SqlFile:
    """One view or rule: its header's values and its query."""

    name: str
    about: str
    query: str
    order: int = _LAST
    label: str | None = None
    asks: str | None = None
    narrow: bool = False
    snapshot: tuple[str, ...] = ()
    columns: Mapping[str, str] = field(default_factory=dict)


def view_files() -> Mapping[str, SqlFile]:
    """Name -> view, in the order in which they are listed; `SettingsError` for a file that is no view."""
    return _views(tuple(FOLDERS))


def suspect_rules() -> Mapping[str, SqlFile]:
    """Kind -> rule, in the report's order; `SettingsError` for a file that is no rule."""
    return _read(tuple(FOLDERS), "suspects")


def kinds_in_words() -> str:
    """All kinds of suspects, as in "a, b or c"."""
    kinds = sorted(suspect_rules())
    return " or ".join(filter(None, [", ".join(kinds[:-1]), *kinds[-1:]]))


def macro_texts() -> list[str]:
    """The macro files of all folders, each some CREATE MACRO statements."""
    found = [folder / "macros.sql" for folder in FOLDERS]
    return [file.read_text(encoding="utf-8") for file in found if file.is_file()]


@lru_cache
def _views(folders: tuple[Traversable, ...]) -> Mapping[str, SqlFile]:
    kinds, union = kinds_in_words(), _union(suspect_rules())
    return {
        name: replace(
            view,
            query=view.query.replace("{rules}", union),
            columns={column: text.replace("{kinds}", kinds) for column, text in view.columns.items()},
        )
        for name, view in _read(folders, "views").items()
    }


def _union(rules: Mapping[str, SqlFile]) -> str:
    columns = ", ".join(RULE_COLUMNS)
    # The names were checked to be names; the queries are files of the program's own folders.
    parts = [
        f"SELECT '{kind}' AS kind, '{rule.asks or ''}' AS asks, {columns} FROM (\n{rule.query}\n)"  # noqa: S608
        for kind, rule in rules.items()
    ]
    return "\nUNION ALL\n".join(parts)


@lru_cache
def _read(folders: tuple[Traversable, ...], part: str) -> Mapping[str, SqlFile]:
    found: dict[str, SqlFile] = {}
    for folder in folders:
        place = folder / part
        for file in place.iterdir() if place.is_dir() else ():
            name, _, suffix = file.name.partition(".")
            if suffix != "sql":
                continue
            if name in found or not _NAME.fullmatch(name):
                raise SettingsError(
                    f"{file}: {name!r} is taken or no name",
                    "use lower-case letters, digits and _, and a name of its own",
                )
            found[name] = _parse(name, str(file), file.read_text(encoding="utf-8"))
    return dict(sorted(found.items(), key=lambda item: (item[1].order, item[0])))


def _parse(name: str, place: str, text: str) -> SqlFile:
    header, _, query = text.strip().partition("\n\n")
    first, *lines = header.split("\n")
    values: dict[str, str] = {}
    flags: set[str] = set()
    columns: dict[str, str] = {}
    for line in lines:
        found = _LINE.fullmatch(line)
        if found is None:
            raise SettingsError(
                f"{place}: the header has the line {line!r}", "schemas/sql/files.py says what may stand"
            )
        if found["column"]:
            columns[found["column"]] = found["text"]
        elif found["flag"]:
            flags.add(found["flag"])
        else:
            values |= {key: found[key] for key in ("order", "label", "asks", "snapshot") if found[key]}
    if not first.startswith("-- ") or not query:
        raise SettingsError(
            f"{place}: no header above a query",
            "begin with `-- What a row is` and end the header with an empty line",
        )
    return SqlFile(
        name=name,
        about=first.removeprefix("-- "),
        query=query.rstrip("; \n"),
        order=int(values.get("order", _LAST)),
        label=values.get("label"),
        asks=values.get("asks"),
        narrow="narrow" in flags,
        snapshot=tuple(values["snapshot"].split(", ")) if "snapshot" in values else (),
        columns=columns,
    )
