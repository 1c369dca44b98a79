"""What it costs to verify page checksums whenever the pipeline reads rows.

    python -m tests.benchmarks.checksums WAREHOUSE

Every file of every table is read with and without verification, in turn, and the best of the repeats counts.

The cost is a ratio of processor times in one process.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import pyarrow.parquet as pq

from schemas.tables.registry import TABLES


def seconds(files: list[Path], verify: bool) -> float:
    """Processor time to read the files as the pipeline does: a busy machine does not lengthen it."""
    begun = time.process_time()
    for path in files:
        with path.open("rb") as stream:
            pq.read_table(stream, page_checksum_verification=verify)
    return time.process_time() - begun


def measure(root: Path, repeats: int) -> dict[str, tuple[float, float, float]]:
    """Megabytes and the best times in milliseconds, without and with verification, by table.

    The entry `all` holds all tables together.
    """
    files = {table: sorted(root.glob(f"{table}/*/*.parquet")) for table in TABLES}
    files = {table: found for table, found in files.items() if found}
    files["all"] = [path for found in files.values() for path in found]
    rows = {}
    for table, found in files.items():
        times = [(seconds(found, False), seconds(found, True)) for _ in range(repeats)]
        plain, verified = (min(column) for column in zip(*times, strict=True))
        rows[table] = (sum(p.stat().st_size for p in found) / 1e6, 1e3 * plain, 1e3 * verified)
    return rows


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("warehouse", type=Path)
    parser.add_argument("--repeats", type=int, default=21)
    given = parser.parse_args()
    print("| table | MB | ms without | ms with | ratio |\n| --- | --- | --- | --- | --- |")
    for table, (size, plain, verified) in measure(given.warehouse, given.repeats).items():
        print(f"| {table} | {size:.2f} | {plain:.1f} | {verified:.1f} | {verified / plain:.3f} |")


if __name__ == "__main__":
    main()
