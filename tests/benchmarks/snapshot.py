"""Costs of reading a warehouse from its shards and from a run's snapshot, and of the snapshot itself.

    python -m tests.benchmarks.snapshot
    python -m tests.benchmarks.snapshot --photos 400 --pairs 1200 --photos-per-shard 64 --pairs-per-shard 96

Rows are generated and written in shards of the size that a run writes. Each question is asked in a process of
its own, as `pairx sql` asks it, best of the repeats; start-up is counted, and shown alone as the first row.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa

from schemas.views.install import RUN_COLUMNS, Views
from tasks.sql.console import connect_analyst
from tasks.store.snapshot import write_snapshot
from tasks.store.warehouse import Warehouse, pair_id

PRINTS = {
    f"{name}_fingerprint": "f"
    for name in ("photos", "embeddings", "keypoints", "pairs", "scores", "explanations", "suspects")
}
QUESTIONS = {
    "open": "SELECT 1",
    "photos": "SELECT count(*) FROM photos",
    "suspects": "SELECT * FROM suspects LIMIT 20",
    "coverage": "SELECT same_identity, count(*), avg(match_coverage) FROM pair_scores GROUP BY ALL",
    "one photo": "SELECT * FROM pair_scores WHERE photo_a = 'photo-0000100'",
    "evidence": "SELECT count(*) FROM evidence WHERE evidence > 0.5",
}


def photo_rows(count: int, rng: np.random.Generator) -> pa.Table:
    """Photos of animals that were seen five times each on average."""
    names = rng.integers(0, max(1, count // 5), count)
    number = np.arange(count)
    return pa.table(
        {
            "photo_id": [f"photo-{i:07}" for i in number],
            "revision": pa.array(np.zeros(count, np.int32)),
            "present": pa.array(np.ones(count, bool)),
            "path": [f"2026/camera-{i % 40:02}/IMG_{i:07}.JPG" for i in number],
            "root": ["/data/photos"] * count,
            "identity": [f"animal-{n:06}" for n in names],
            "species": ["zebra" if n % 2 else "giraffe" for n in names],
            "encounter": [f"encounter-{i // 2:07}" for i in number],
            "taken_at": [f"2026-0{1 + i % 9}-11T10:{i % 60:02}:00" for i in number],
            "viewpoint": [("left", "right")[v] for v in rng.integers(0, 2, count)],
            "box": pa.array(rng.uniform(0, 900, (count, 4)).round(1).tolist(), pa.list_(pa.float64(), 4)),
            "theta": pa.array(np.zeros(count)),
            "width": pa.array(np.full(count, 4000, np.int32)),
            "height": pa.array(np.full(count, 3000, np.int32)),
            "bytes": pa.array(rng.integers(1_000_000, 9_000_000, count)),
            "sha256": [rng.bytes(32).hex() for _ in number],
            "perceptual_hash": pa.array(rng.integers(1, 2**63, count).astype(np.uint64)),
            "chip_id": [rng.bytes(10).hex() for _ in number],
            "stamp": [f"{i}-1764280000" for i in number],
        }
    )


def pair_rows(photos: pa.Table, count: int, rng: np.random.Generator) -> tuple[pa.Table, pa.Table]:
    """Rows of `pairs` and of `scores`: each photo with some of its name and some of others.

    Pairs of one name are similar.
    """
    ids, chips, names = (photos[c].to_pylist() for c in ("photo_id", "chip_id", "identity"))
    by_name: dict[str, list[int]] = {}
    for i, name in enumerate(names):
        by_name.setdefault(name, []).append(i)
    found: set[tuple[int, int]] = set()
    per_photo = count / len(ids)
    for i, name in enumerate(names):
        others = [*rng.choice(by_name[name], 2), *rng.integers(0, len(ids), int(per_photo) + 1)]
        found |= {(min(i, int(j)), max(i, int(j))) for j in others if int(j) // 2 != i // 2}
    pairs = sorted(found)
    rng.shuffle(pairs)
    a, b = np.array(pairs[:count]).T
    same = np.array([names[i] == names[j] for i, j in zip(a, b, strict=True)])
    n = len(a)
    key = {
        "pair_id": [pair_id(ids[i], chips[i], ids[j], chips[j]) for i, j in zip(a, b, strict=True)],
        "photo_a": [ids[i] for i in a],
        "photo_b": [ids[j] for j in b],
    }
    cosine = np.where(same, rng.normal(0.8, 0.1, n), rng.normal(0.5, 0.1, n)).clip(-1, 1).astype(np.float32)
    stored = pa.table(
        {
            **key,
            "chip_a": [chips[i] for i in a],
            "chip_b": [chips[j] for j in b],
            "cosine": cosine,
            "hash_distance": rng.integers(5, 50, n).astype(np.int32),
        }
    )
    residual = rng.uniform(5, 60, n).astype(np.float32)
    fits = rng.random(n) < 0.6
    matrices = rng.normal(size=(n, 9)).tolist()
    scores = pa.table(
        {
            **key,
            "layer": ["blocks.3"] * n,
            "n_matches": rng.integers(10, 60, n).astype(np.int32),
            "match_fraction": rng.random(n).astype(np.float32),
            "match_coverage": np.where(same, rng.normal(0.5, 0.1, n), rng.normal(0.3, 0.1, n)).astype(
                np.float32
            ),
            "residual_mean": pa.array(residual, mask=~fits),
            "inverted_residual_mean": pa.array(1 / residual, mask=~fits),
            "top_residual_mean": pa.array(residual, mask=~fits),
            "n_local_matches": rng.integers(20, 200, n).astype(np.int32),
            "n_inliers": pa.array(rng.integers(4, 60, n).astype(np.int32), mask=~fits),
            "homography": pa.array(
                [m if f else None for m, f in zip(matrices, fits, strict=True)], pa.list_(pa.float64(), 9)
            ),
            "no_homography_reason": [None if f else "too few inliers" for f in fits],
            "relevance_a": rng.random(n).astype(np.float32),
            "relevance_b": rng.random(n).astype(np.float32),
        }
    )
    return stored, scores


def write(warehouse: Warehouse, table: str, rows: pa.Table, size: int) -> int:
    """Write the rows in shards of `size`; returns how many."""
    starts = range(0, rows.num_rows, size)
    for start in starts:
        warehouse.write(table, "f", f"s{start:08}", rows.slice(start, size))
    return len(starts)


def generate(
    warehouse: Warehouse, photos: int, pairs: int, photos_per_shard: int, pairs_per_shard: int
) -> str:
    """A finished run without a snapshot; says how many shards it has."""
    rng = np.random.default_rng(0)
    rows = photo_rows(photos, rng)
    stored, scores = pair_rows(rows, pairs, rng)
    counts = [
        write(warehouse, "photos", rows, photos_per_shard),
        write(warehouse, "pairs", stored, 10_000),
        write(warehouse, "scores", scores, pairs_per_shard),
    ]
    finish(warehouse, "r1", None)
    return f"{photos} photos, {stored.num_rows} pairs in {', '.join(map(str, counts))} shards of photos, pairs, scores"


def finish(warehouse: Warehouse, run_id: str, snapshot: str | None) -> None:
    """Write the row of a finished run."""
    row = {
        **PRINTS, "run_id": run_id, "status": "finished", "at": datetime.now(UTC), "layer": "blocks.3", "top_k": 1000,
        "same_name_k": 5, "state": "s", "settings": "{}", "versions": "{}", "snapshot": snapshot,
    }  # fmt: skip
    warehouse.write("runs", "f", run_id, [row])


def keep(url: str) -> dict[str, Any]:
    """Write the snapshot and return what it cost.

    As in a run, narrow views are tables by then.
    """
    warehouse = Warehouse(url)
    with duckdb.connect(":memory:") as connection:
        views = Views(connection, warehouse)
        views.refresh("r1", True)
        current = connection.sql("FROM current_run").to_arrow_table().to_pylist()[0]
        assert current.keys() == RUN_COLUMNS.keys()
        before, begun, clock = peak_megabytes(), time.process_time(), time.perf_counter()
        snapshot = write_snapshot(warehouse, connection, views.snapshot_name())
        spent, passed = time.process_time() - begun, time.perf_counter() - clock
    files = sorted(Path(url, "current").rglob("*.parquet"))
    sizes = {f.name: f.stat().st_size / 1e6 for f in files}
    finish(warehouse, "r2", snapshot.name)
    return {"cpu": spent, "wall": passed, "peak": peak_megabytes(), "before": before, "files": sizes}


def ask(url: str, question: str) -> dict[str, Any]:
    """Ask one question in this process; returns its cost without that of imports."""
    begun, clock = time.process_time(), time.perf_counter()
    rows = connect_analyst(url).sql(QUESTIONS[question]).to_arrow_table().num_rows
    return {
        "cpu": time.process_time() - begun,
        "wall": time.perf_counter() - clock,
        "peak": peak_megabytes(),
        "rows": rows,
    }


def peak_megabytes() -> float:
    """Largest resident size of this process since it became this program, in MB; needs Linux.

    `getrusage` would count the size of the process that started it, too.
    """
    [line] = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")]
    return int(line.split()[1]) / 1e3


def alone(*words: str) -> dict[str, Any]:
    """Run this module in a process of its own; returns what it answers."""
    command = [sys.executable, "-m", "tests.benchmarks.snapshot", *words]
    found: dict[str, Any] = json.loads(
        subprocess.run(command, check=True, capture_output=True, text=True).stdout
    )
    return found


def asked(url: str, repeats: int) -> dict[str, dict[str, Any]]:
    """Every question's cost: all that was measured in the repeat with the least processor time."""
    return {
        name: min(
            (alone("--ask", name, "--url", url) for _ in range(repeats)), key=lambda found: found["cpu"]
        )
        for name in QUESTIONS
    }


def table(before: dict[str, dict[str, Any]], after: dict[str, dict[str, Any]]) -> Iterator[str]:
    """The comparison as rows of Markdown."""
    yield "| question | shards: CPU s | wall s | peak MB | snapshot: CPU s | wall s | peak MB |"
    yield "| --- " * 7 + "|"
    for name, query in QUESTIONS.items():
        cells = [f"{found[name][key]:.{digits}f}" for found in (before, after) for key, digits in
                 (("cpu", 2), ("wall", 2), ("peak", 0))]  # fmt: skip
        yield f"| {name}: `{query}` | {' | '.join(cells)} |"


def main() -> None:
    """Generate, ask, keep a snapshot, ask again."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--photos", type=int, default=100_000)
    parser.add_argument("--pairs", type=int, default=300_000)
    parser.add_argument("--photos-per-shard", type=int, default=1000)
    parser.add_argument("--pairs-per-shard", type=int, default=2000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--url", help="a warehouse to keep; default: a temporary folder")
    parser.add_argument("--ask", choices=[*QUESTIONS, "keep"], help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.ask:
        print(json.dumps(keep(given.url) if given.ask == "keep" else ask(given.url, given.ask)))
        return
    with tempfile.TemporaryDirectory() as folder:
        url = given.url or folder
        sizes = (given.photos, given.pairs, given.photos_per_shard, given.pairs_per_shard)
        print(generate(Warehouse(url), *sizes), flush=True)
        before = asked(url, given.repeats)
        kept = alone("--ask", "keep", "--url", url)
        after = asked(url, given.repeats)
        assert {n: f["rows"] for n, f in before.items()} == {n: f["rows"] for n, f in after.items()}
        print("\n".join(table(before, after)))
        files = ", ".join(f"{name} {size:.1f} MB" for name, size in kept["files"].items())
        print(
            f"\nsnapshot: {kept['cpu']:.2f} s CPU, {kept['wall']:.2f} s, peak {kept['peak']:.0f} MB "
            f"({kept['before']:.0f} MB before it); {files}"
        )


if __name__ == "__main__":
    main()
