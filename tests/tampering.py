"""Ways to tamper with a warehouse, one function each: what a check must find, told by table and kind."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from schemas.tables.registry import TABLES
from tasks.store.shard_files import encode

Deed = Callable[[Path, Path], Path]
"""Done to a warehouse's root, with the root of another one at hand; returns the file to be named."""


@dataclass(frozen=True)
class Tampering:
    """One way: what is done, and whether a check can see it without any record of the files."""

    deed: Deed
    seen_without_record: bool = True


def largest(root: Path, table: str) -> Path:
    """The largest file of a table."""
    return max(root.glob(f"{table}/*/*.parquet"), key=lambda p: (p.stat().st_size, p.name))


def replaced(path: Path, change: Callable[[pa.Table], pa.Table], table: str | None = None) -> Path:
    """The file with other rows, written as a run would write it: right footer, right checksums."""
    rows = change(pq.read_table(path, partitioning=None).replace_schema_metadata(None))
    name, fingerprint = table or path.parts[-3], path.parent.name.partition("=")[2]
    path.write_bytes(encode(TABLES[name], fingerprint, rows))
    return path


def with_column(rows: pa.Table, name: str, values: Any) -> pa.Table:
    """The rows with another column in the place of one."""
    return rows.set_column(rows.column_names.index(name), rows.schema.field(name), values)


def raised(name: str) -> Callable[[pa.Table], pa.Table]:
    """Every number of a column grown by a tenth."""

    def change(rows: pa.Table) -> pa.Table:
        values = [None if v is None else v * 1.1 for v in rows[name].to_pylist()]
        return with_column(rows, name, pa.array(values, rows.schema.field(name).type))

    return change


def _truncated(root: Path, other: Path) -> Path:
    path = largest(root, "matches")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    return path


def _zeroed(root: Path, other: Path) -> Path:
    path = largest(root, "embeddings")
    path.write_bytes(bytes(path.stat().st_size))
    return path


def _empty(root: Path, other: Path) -> Path:
    path = largest(root, "pairs")
    path.write_bytes(b"")
    return path


def _hole(root: Path, other: Path) -> Path:
    """A block of 512 bytes in the middle reads as zeros."""
    path = largest(root, "keypoints")
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 512] = bytes(len(data[middle : middle + 512]))
    path.write_bytes(data)
    return path


def _longer(root: Path, other: Path) -> Path:
    path = largest(root, "scores")
    path.write_bytes(path.read_bytes() + b"more")
    return path


def _gone(table: str) -> Deed:
    def deed(root: Path, other: Path) -> Path:
        path = largest(root, table)
        path.unlink()
        return path

    return deed


def _copied_to_another_name(root: Path, other: Path) -> Path:
    path = largest(root, "scores")
    return Path(shutil.copy(path, path.with_name(f"{'0' * 20}.parquet")))


def _copied_under_a_strange_name(root: Path, other: Path) -> Path:
    path = largest(root, "pairs")
    return Path(shutil.copy(path, path.with_name("Copy of pairs.parquet")))


def _other_fingerprint(root: Path, other: Path) -> Path:
    path = largest(root, "embeddings")
    target = path.parent.with_name("fingerprint=feed") / path.name
    target.parent.mkdir()
    return path.rename(target)


def _other_table(root: Path, other: Path) -> Path:
    return Path(shutil.copy(largest(root, "relevances"), largest(root, "matches")))


def _from_another_warehouse(table: str) -> Deed:
    """Its own file is replaced by the one that another catalogue has of the same table and settings."""

    def deed(root: Path, other: Path) -> Path:
        return Path(shutil.copy(largest(other, table), largest(root, table)))

    return deed


def _edited(table: str, change: Callable[[pa.Table], pa.Table]) -> Deed:
    return lambda root, other: replaced(largest(root, table), change)


def _key_twice(root: Path, other: Path) -> Path:
    return replaced(largest(root, "scores"), lambda rows: pa.concat_tables([rows, rows.slice(0, 1)]))


def _rewritten(change: Callable[[pa.Table], pa.Table], table: str = "scores") -> Deed:
    """Columns that are not the table's, under the right entries of the footer."""

    def deed(root: Path, other: Path) -> Path:
        path = largest(root, table)
        stored = pq.read_table(path, partitioning=None)
        footer = dict(pq.read_metadata(path).metadata)
        footer.pop(b"ARROW:schema")
        pq.write_table(change(stored).replace_schema_metadata(footer), path, write_page_checksum=True)
        return path

    return deed


def _wider(rows: pa.Table) -> pa.Table:
    column = rows["match_coverage"].cast(pa.float64())
    return rows.set_column(rows.column_names.index("match_coverage"), "match_coverage", column)


def _nullable(rows: pa.Table) -> pa.Table:
    fields = [f.with_nullable(True) for f in rows.schema]
    return rows.cast(pa.schema(fields))


TAMPERINGS: Mapping[str, Tampering] = {
    "truncated": Tampering(_truncated),
    "zeroed": Tampering(_zeroed),
    "empty": Tampering(_empty),
    "a block of zeros": Tampering(_hole),
    "longer": Tampering(_longer),
    "scores removed": Tampering(_gone("scores")),
    "matches removed": Tampering(_gone("matches")),
    "photos removed": Tampering(_gone("photos")),
    "copied to another shard's name": Tampering(_copied_to_another_name),
    "copied under a strange name": Tampering(_copied_under_a_strange_name),
    "moved under another fingerprint": Tampering(_other_fingerprint),
    "swapped with another table": Tampering(_other_table),
    "pairs of another warehouse": Tampering(_from_another_warehouse("pairs")),
    "scores of another warehouse": Tampering(_from_another_warehouse("scores")),
    "scores edited": Tampering(_edited("scores", raised("relevance_a")), seen_without_record=False),
    "matches edited": Tampering(
        _edited("matches", lambda rows: with_column(rows, "x_a", rows["x_b"])), seen_without_record=False
    ),
    "a row of pairs lost": Tampering(_edited("pairs", lambda rows: rows.slice(1))),
    "a key twice": Tampering(_key_twice),
    "a column of another type": Tampering(_rewritten(_wider)),
    "a column less": Tampering(_rewritten(lambda rows: rows.drop_columns(["n_matches"]))),
    "a column more": Tampering(_rewritten(lambda rows: rows.append_column("x", [[1] * rows.num_rows]))),
    "columns that may be null": Tampering(_rewritten(_nullable)),
}
