"""How much damage to a warehouse's files `pairx check` finds: random bit flips, tampering by hand.

    python -m tests.benchmarks.check_detection WAREHOUSE ANOTHER
    python -m tests.benchmarks.check_detection WAREHOUSE ANOTHER --flips 200 --seed 7

WAREHOUSE is a sound one with a record of its files, ANOTHER one of another catalogue under the same settings.
Both stay as they are. Flips fall on every Parquet file of tables and snapshots alike, and on every bit of a
file alike. To see what a flip does, Arrow and DuckDB read the file without any verification. The footer's
words about the rows are compared, too, because some readers skip rows by them.
"""

from __future__ import annotations

import argparse
import random
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from tasks.check.findings import Look, of_files, of_listing, of_rows
from tasks.check.records import Record, Vouching
from tasks.store.warehouse import Warehouse
from tests.tampering import TAMPERINGS

CHECKS = ("check", "without a record", "--quick")


@dataclass(frozen=True)
class Seen:
    """What readers that verify nothing see of a file.

    That is rows by Arrow, a hash of the rows by DuckDB, and what the footer says of the rows.
    """

    rows: pa.Table | None
    hashed: object
    statistics: str | None

    @classmethod
    def of(cls, path: Path) -> Seen:
        """Read a file; None where that fails."""
        data = pa.BufferReader(path.read_bytes())
        rows = _or_none(lambda: pq.read_table(data).replace_schema_metadata(None))
        # Arrow ends the process when it is asked for statistics by a footer that it cannot read.
        statistics = None if rows is None else _or_none(lambda: _statistics(pq.ParquetFile(data).metadata))
        return cls(rows, _or_none(lambda: _hashed(path)), statistics)

    def effect(self, after: Seen) -> str:
        """What readers see of the file after a change."""
        arrow = after.rows is not None and not _same(self.rows, after.rows)
        duck = after.hashed is not None and after.hashed != self.hashed
        if arrow or duck:
            return "other values are read"
        if after.rows is None or after.hashed is None:
            return "reading fails"
        return "nothing changes" if after.statistics == self.statistics else "other statistics are read"


def _or_none(read: Callable[[], Any]) -> Any:
    try:
        return read()
    except Exception:  # whatever damaged bytes lead to
        return None


def _same(one: pa.Table | None, other: pa.Table) -> bool:
    # To Arrow NaN is not NaN, so bytes are compared.
    return one is not None and _bytes(one) == _or_none(lambda: _bytes(other))


def _bytes(rows: pa.Table) -> bytes:
    rows = pa.table(rows.columns, names=rows.column_names)  # what columns mean in words is no value
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, rows.schema) as writer:
        writer.write_table(rows.combine_chunks())
    return bytes(sink.getvalue())


def _hashed(path: Path) -> object:
    query = "SELECT count(*), bit_xor(hash(t)), any_value(typeof(t)) FROM read_parquet(?, hive_partitioning = false) AS t"
    return duckdb.execute(query, [str(path)]).fetchall()


def _statistics(metadata: pq.FileMetaData) -> str:
    groups = (metadata.row_group(i) for i in range(metadata.num_row_groups))
    chunks = [group.column(i) for group in groups for i in range(group.num_columns)]
    types = [
        metadata.schema.column(i).physical_type for i in range(metadata.num_columns)
    ] * metadata.num_row_groups
    if types != [chunk.physical_type for chunk in chunks]:
        return "of other types"  # Arrow ends the process when it is asked for these
    return repr([chunk.to_dict()["statistics"] for chunk in chunks])


def flips(root: Path, count: int, seed: int) -> Iterator[tuple[Path, bytes, bytes]]:
    """Files in which one bit is turned over: the file, as it was, and as it is then."""
    draw = random.Random(seed)  # no secret
    files = [p for p in sorted(root.glob("*/*/*.parquet")) if p.parts[-3] != "files"]
    for path in draw.choices(files, k=count):
        before = path.read_bytes()
        after = bytearray(before)
        after[draw.randrange(len(after))] ^= 1 << draw.randrange(8)
        yield path, before, bytes(after)


def looks(warehouse: Warehouse) -> dict[str, Look]:
    """A look at the warehouse for each way to check it."""
    look = Look.at(warehouse)
    blind = replace(look, vouching=Vouching(Record(), frozenset()))
    return dict(zip(CHECKS, (look, blind, look), strict=True))


def seen_in(look: Look, path: Path, quick: bool) -> bool:
    """Whether a check of this file alone finds anything."""
    name = str(path.relative_to(look.warehouse.root))
    parts = {
        kind: tuple(f for f in getattr(look.listing, kind) if f.path == name)
        for kind in ("shards", "snapshots")
    }
    listing = replace(look.listing, **parts, reports=())
    return any(of_files(replace(look, listing=listing, rotten=set(), vouched=set()), quick))


def measure_flips(root: Path, count: int, seed: int) -> dict[str, Counter[str]]:
    """Effect -> how many flips had it, and how many of these each check found."""
    found: dict[str, Counter[str]] = {}
    seen = looks(Warehouse(str(root)))
    sound: dict[Path, Seen] = {}
    for path, before, after in flips(root, count, seed):
        if path not in sound:
            sound[path] = Seen.of(path)
        path.write_bytes(after)
        counts = found.setdefault(sound[path].effect(Seen.of(path)), Counter())
        counts["flips"] += 1
        for name, look in seen.items():
            counts[name] += seen_in(look, path, name == "--quick")
        path.write_bytes(before)
    return found


def measure_tampering(root: Path, other: Path, scratch: Path) -> dict[str, dict[str, bool]]:
    """Way to tamper -> whether each check finds it."""
    found: dict[str, dict[str, bool]] = {}
    for way, tampering in TAMPERINGS.items():
        found[way] = {}
        for name in CHECKS:
            copy = Path(shutil.copytree(root, scratch / "tampered"))
            if name == "without a record":
                shutil.rmtree(copy / "files")
            tampering.deed(copy, other)
            look = Look.at(Warehouse(str(copy)))
            alone = [*of_listing(look), *of_files(look, name == "--quick")]
            found[way][name] = bool(alone) or (name != "--quick" and any(of_rows(look)))
            shutil.rmtree(copy)
    return found


def main() -> None:
    """Measure and print two tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("warehouse", type=Path)
    parser.add_argument("another", type=Path)
    parser.add_argument("--flips", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(shutil.copytree(given.warehouse, Path(folder, "w")))
        print(f"| a bit flipped | flips | {' | '.join(CHECKS)} |\n| --- | --- | --- | --- | --- |")
        for name, counts in sorted(measure_flips(copy, given.flips, given.seed).items()):
            print(f"| {name} | {counts['flips']} | {' | '.join(str(counts[c]) for c in CHECKS)} |")
        print(f"\n| tampering | {' | '.join(CHECKS)} |\n| --- | --- | --- | --- |")
        for way, seen in measure_tampering(copy, given.another, Path(folder)).items():
            print(f"| {way} | {' | '.join('found' if seen[c] else '–' for c in CHECKS)} |")


if __name__ == "__main__":
    main()
