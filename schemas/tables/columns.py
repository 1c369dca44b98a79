"""What tables are made of: described columns, their types, and columns that many tables share."""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa


def column(name: str, kind: pa.DataType, about: str, nullable: bool = True) -> pa.Field:
    """A column that may be null, with what it means in words."""
    return pa.field(name, kind, nullable=nullable, metadata={"about": about})


def required(name: str, kind: pa.DataType, about: str) -> pa.Field:
    """A column that is never null."""
    return column(name, kind, about, nullable=False)


STRING, F32, F64, I32, I64, BOOL = (
    pa.string(),
    pa.float32(),
    pa.float64(),
    pa.int32(),
    pa.int64(),
    pa.bool_(),
)
PAIR_KEY = [
    required("pair_id", STRING, "hash of both photo ids and both chip ids; the same for (a, b) and (b, a)"),
    required("photo_a", STRING, "photo id of the pair's first photo (photo_a < photo_b)"),
    required("photo_b", STRING, "photo id of the pair's second photo"),
]
LAYER = required("layer", STRING, "name of the network layer whose features were matched")


@dataclass(frozen=True)
class Table:
    """One table: its name, what a row is, its key and its Arrow schema.

    `fingerprint` names the one of a run's fingerprints that its rows are stored under. A table without
    one lies in a partition that its writer chooses and that no run has. `rows_per_group` is set where
    rows weigh hundreds of kilobytes: a reader of a few photos skips the other groups.
    """

    name: str
    about: str
    key: tuple[str, ...]
    schema: pa.Schema
    fingerprint: str | None = None
    rows_per_group: int | None = None

    def __post_init__(self) -> None:
        missing = set(self.key) - set(self.schema.names)
        if missing:
            raise ValueError(f"table {self.name}: key columns {sorted(missing)} are not in its schema")
