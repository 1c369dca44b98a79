"""How much of what happens to a warehouse's files `pairx check` finds: random bit flips, and tampering by hand.

    python -m tests.benchmarks.check_detection WAREHOUSE ANOTHER
    python -m tests.benchmarks.check_detection WAREHOUSE ANOTHER --flips 200 --seed 7

WAREHOUSE is a sound one with a record of its files, ANOTHER one of another catalogue under the same settings. Both stay as they are.
Flips are drawn by bytes over all Parquet files of tables and snapshots. What a flip does is seen by reading the file without any
verification, by Arrow and by DuckDB.
"""

from __future__ import annotations

import argparse
import random
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from tasks.check.findings import Look, of_files, of_listing, of_rows
from tasks.check.records import Record, Vouching
from tasks.warehouse import Warehouse
from tests.tampering import TAMPERINGS

_FAILS = "reading fails"
CHECKS = ("check", "without a record", "--quick")


def read_by_arrow(path: Path) -> object:
    """The rows that Arrow gives, or that it fails."""
    try:
        return pq.read_table(pa.BufferReader(path.read_bytes())).replace_schema_metadata(None).to_pylist()
    except Exception:  # whatever damaged bytes lead to
        return _FAILS


def read_by_duckdb(path: Path) -> object:
    """The rows that DuckDB gives, or that it fails."""
    with duckdb.connect(":memory:") as connection:
        try:
            return connection.read_parquet(str(path), hive_partitioning=False).fetchall()
        except Exception:  # whatever damaged bytes lead to
            return _FAILS


def effect(before: tuple[object, ...], after: tuple[object, ...]) -> str:
    """What became of what readers see; rows are compared as text, so that NaN equals itself."""
    changed = [repr(a) != repr(b) for a, b in zip(before, after, strict=True)]
    if any(c and a is not _FAILS for c, a in zip(changed, after, strict=True)):
        return "other values are read"
    return _FAILS if any(changed) else "nothing changes"


def flips(root: Path, count: int, seed: int) -> Iterator[tuple[Path, bytes, bytes]]:
    """Files in which one bit is turned over: the file, as it was, and as it is then."""
    draw = random.Random(seed)  # no secret
    files = [p for p in sorted(root.glob("*/*/*.parquet")) if p.parts[-3] != "files"]
    for path in draw.choices(files, [p.stat().st_size for p in files], k=count):
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
    for path, before, after in flips(root, count, seed):
        sound = read_by_arrow(path), read_by_duckdb(path)
        path.write_bytes(after)
        counts = found.setdefault(effect(sound, (read_by_arrow(path), read_by_duckdb(path))), Counter())
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
