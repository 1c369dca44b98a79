"""A table's columns of cells, whatever file they come from, and the bytes of files, local or by URL.

`schemas.catalogue.files` turns CSV, workbooks and Parquet into cells.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import pyarrow as pa

from schemas.errors import CatalogueError, Problem, StorageError
from schemas.paths import is_url, local_path, not_a_file
from schemas.storage import storage_at
from schemas.storage_errors import masked

_SHOWN_COLUMNS, _SHOWN_LETTERS = 40, 60

Origin = Callable[[int], tuple[str, str]]
"""An entry's place in the user's files, for messages: row and column.

An example is `("row 12", "column bbox")`.
"""


@dataclass(frozen=True)
class Cells:
    """Columns of a catalogue by lower-case name, each entry's row number, and the file's header.

    `origins` says where the cells of a column come from, if not from the column of the same name in the
    same row; `notes` are remarks for the user. `sources` are the names, as the file spells them, of columns that
    stand here under another name.
    """

    columns: dict[str, pa.ChunkedArray]
    rows: list[int]
    header: tuple[str, ...]
    origins: Mapping[str, Origin] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    sources: Mapping[str, str] = field(default_factory=dict)

    def source(self, name: str) -> str:
        """What the file calls the column `name`."""
        spelled = (each.strip() for each in self.header if each.strip().lower() == name)
        return self.sources.get(name) or next(spelled, name)

    def origin(self, name: str) -> Origin:
        """Where the cells of column `name` come from."""
        return self.origins.get(name) or (lambda i: (f"row {self.rows[i]}", f"column {name}"))

    def __post_init__(self) -> None:
        for name, column in self.columns.items():
            if len(column) != len(self.rows):
                raise ValueError(f"column {name} has {len(column)} cells for {len(self.rows)} rows")


def columns_in_words(header: Sequence[str]) -> str:
    """The names of a file's columns for a message: the first of them, each cut where it is long."""
    shown = [
        name if len(name) <= _SHOWN_LETTERS else f"{name[: _SHOWN_LETTERS - 1]}…"
        for name in header[:_SHOWN_COLUMNS]
    ]
    more = f" and {len(header) - len(shown)} more" if len(header) > len(shown) else ""
    return ", ".join(shown) + more if any(header) else "without names"


def suffix_of(source: str) -> str:
    """The lower-case suffix of a path or URL, with its dot; empty without one."""
    return os.path.splitext(source.partition("?")[0] if is_url(source) else source)[1].lower()


def hopeless(source: str, kind: str, what: str, cure: str) -> CatalogueError:
    """The error for a file in which nothing further can be checked."""
    return CatalogueError(masked(source), [Problem(kind, "the file", masked(what), cure)])


def read_bytes(source: str) -> bytes:
    """All bytes of a local file or URL; raises `CatalogueError` when they cannot be read."""
    cure = "name a catalogue file that exists and that you may read"
    try:
        if not is_url(source):
            place = local_path(source)
            if (kind := not_a_file(place)) and kind != "a folder":
                raise hopeless(source, "no such file", f"it is {kind}, no file", cure)
            with open(place, "rb") as file:
                return file.read()
        storage = storage_at(source)
        return storage.get(storage.root)
    except CatalogueError:
        raise
    except FileNotFoundError as error:
        raise hopeless(source, "no such file", "nothing is there", cure) from error
    except IsADirectoryError as error:
        raise hopeless(
            source, "no such file", "it is a folder", "name the file in it, e.g. metadata.csv"
        ) from error
    except StorageError as error:
        raise hopeless(source, "unreadable file", error.message, error.cure or cure) from error
    except Exception as error:  # remote file systems raise classes of their own, e.g. for missing credentials
        raise hopeless(source, "unreadable file", f"{type(error).__name__}: {error}", cure) from error
