"""A night on a large catalogue without its engine: what planning, retrieval, judging, SQL and files cost.

    python -m tests.benchmarks.scale                                   5,000 photos, in a minute or two
    python -m tests.benchmarks.scale --photos 100000 --new 1000        the real thing

Photos, embeddings, scores and verdicts on copies are generated; everything else is the nightly flow's own code, in
one process: a first night, a night of new photos, an idle night, and one of corrected names. *outside* is the wall
time without the generated work, *processor* that of the process without it, *largest at* its size in the stages where
it was largest.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import replace
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pyarrow as pa

from flows.night.process import process_night
from flows.night.run import run
from flows.night.values import Night, RunOptions
from flows.work.hands import Unreported
from flows.work.progress import Silent
from flows.work.shard_work import Work
from schemas.catalogue.reader import Catalogue, CatalogueEntry
from schemas.settings import Settings
from schemas.stages import DRAW, EMBED, INGEST, SCORE, VERIFY
from schemas.tables.registry import TABLES
from tasks.job import Job, prepare_job
from tasks.retrieval.found import RetrieveShard
from tasks.runs.log import StageLog
from tasks.shards import ShardResult, commit
from tasks.sql.console import connect_analyst
from tasks.stages.retrieve import RETRIEVE
from tasks.store.lease import at_work
from tasks.store.warehouse import Warehouse
from tests.benchmarks.snapshot import peak_megabytes

PHOTOS_OF_ONE = 5
QUESTIONS = {
    "photos": "SELECT count(*) FROM photos",
    "suspects": "SELECT * FROM suspects LIMIT 20",
    "one photo": "SELECT * FROM pair_scores WHERE photo_a = 'photo-0000100' OR photo_b = 'photo-0000100'",
    "one name": "SELECT count(*), avg(match_coverage) FROM pair_scores WHERE identity_a = 'animal-000010'",
    "coverage": "SELECT same_identity, count(*), avg(match_coverage) FROM pair_scores GROUP BY ALL",
}


def entry(number: int, name: int | None = None) -> CatalogueEntry:
    """A photo of one of the animals; every fifteenth has no name."""
    animal = number // PHOTOS_OF_ONE if name is None else name
    known = None if number % 15 == 0 else f"animal-{animal:06}"
    return CatalogueEntry(
        f"photo-{number:07}", f"camera-{number % 40:02}/{number:07}.jpg", known, "zebra", f"e{number // 2:07}",
        taken_at=f"2026-01-{1 + number % 28:02}", viewpoint=("left", "right")[number % 2],
    )  # fmt: skip


def vector(photo: str, width: int) -> np.ndarray:
    """A point near its animal's."""
    number = int(photo[-7:])
    animal = np.random.default_rng([1, number // PHOTOS_OF_ONE]).normal(size=width)
    found = animal + np.random.default_rng([2, number]).normal(size=width)
    return (found / np.linalg.norm(found)).astype(np.float16)


def retrieving(job: Job, shard: RetrieveShard) -> ShardResult:
    """The stage's own work."""
    return RETRIEVE.work(job, shard)


def filled(table: str, given: Mapping[str, Any], rng: np.random.Generator) -> pa.Table:
    """Rows of a table: `given` columns, something for the others that need a value, null for the rest."""
    schema = TABLES[table].schema
    count = len(next(iter(given.values())))
    columns = {}
    for field in schema:
        if field.name in given:
            columns[field.name] = pa.array(given[field.name], field.type)
        elif not field.nullable:
            columns[field.name] = _something(field.type, count, rng)
    return pa.table(columns)


def _something(kind: pa.DataType, count: int, rng: np.random.Generator) -> pa.Array:
    if pa.types.is_list(kind):
        return pa.array([[1]] * count, kind)
    if pa.types.is_floating(kind):
        return pa.array(rng.random(count), pa.float64()).cast(kind)
    if pa.types.is_integer(kind):
        return pa.array(rng.integers(20, 60, count)).cast(kind)
    return pa.array([False if pa.types.is_boolean(kind) else "x"] * count, kind)


class Generated:
    """Stages whose work is generated; counts the seconds that this takes."""

    def __init__(self, width: int) -> None:
        self.width = width
        self.wall = self.processor = 0.0
        self.rng = np.random.default_rng(0)

    def work(self, stage: str) -> Callable[[Job, Any], ShardResult] | None:
        """The generated work of a stage, timed, or None for a stage that does its own."""
        made = {INGEST.name: self._ingest, EMBED.name: self._embed, SCORE.name: self._score,
                VERIFY.name: self._verify, DRAW.name: self._draw}.get(stage)  # fmt: skip
        if made is None:
            return None

        def timed(job: Job, shard: Any) -> ShardResult:
            wall, processor = time.perf_counter(), time.process_time()
            found = made(job, shard)
            self.wall += time.perf_counter() - wall
            self.processor += time.process_time() - processor
            return found

        return timed

    def _ingest(self, job: Job, shard: Any) -> ShardResult:
        entries: Sequence[CatalogueEntry] = shard.entries
        given = {name: [getattr(e, name) for e in entries] for name in
                 ("photo_id", "path", "identity", "species", "encounter", "taken_at", "viewpoint", "theta")}  # fmt: skip
        number = np.array([int(e.photo_id[-7:]) for e in entries])
        given |= {
            "revision": shard.revisions, "present": [True] * len(entries), "root": [shard.root] * len(entries),
            "stamp": shard.stamps, "width": np.full(len(entries), 4000), "height": np.full(len(entries), 3000),
            "bytes": number + 1, "sha256": [f"{n:064x}" for n in number],
            "perceptual_hash": np.random.default_rng(number).integers(1, 2**63, len(number)).astype(np.uint64),
            "chip_id": [f"chip{n:016}" for n in number],
        }  # fmt: skip
        return commit(job, INGEST, shard.name, {"photos": filled("photos", given, self.rng)})

    def _embed(self, job: Job, shard: Any) -> ShardResult:
        key = {name: [p[name] for p in shard.photos] for name in ("photo_id", "chip_id")}
        vectors = [vector(photo, self.width) for photo in key["photo_id"]]
        rows = {
            "keypoints": filled("keypoints", key, self.rng),
            "embeddings": filled("embeddings", key | {"embedding": vectors}, self.rng),
        }
        return commit(job, EMBED, shard.name, rows)

    def _score(self, job: Job, shard: Any) -> ShardResult:
        a, b = (
            np.array([int(getattr(p, side)[-7:]) for p in shard.pairs]) for side in ("photo_a", "photo_b")
        )
        same, count = a // PHOTOS_OF_ONE == b // PHOTOS_OF_ONE, len(a)
        coverage = np.where(same, self.rng.normal(0.5, 0.1, count), self.rng.normal(0.3, 0.1, count))
        key = {name: [getattr(p, name) for p in shard.pairs] for name in ("pair_id", "photo_a", "photo_b")}
        key |= {"layer": [job.layers[0]] * count}
        scores = key | {"match_coverage": coverage, "n_inliers": np.where(same, 30, 8)}
        rows = {name: filled(name, scores if name == "scores" else key, self.rng) for name in SCORE.tables}
        return commit(job, SCORE, shard.name, rows)

    def _verify(self, job: Job, shard: Any) -> ShardResult:
        chips = {p["photo_id"]: p["chip_id"] for p in shard.photos}
        key = {name: [getattr(p, name) for p in shard.pairs] for name in ("pair_id", "photo_a", "photo_b")}
        key |= {f"chip_{side}": [chips[photo] for photo in key[f"photo_{side}"]] for side in "ab"}
        return commit(job, VERIFY, shard.name, {"copies": filled("copies", key, self.rng)})

    def _draw(self, job: Job, shard: Any) -> ShardResult:
        return ShardResult(DRAW.name, "none", 0, 0)


class Here:
    """Works shards off in this process, with generated work where the engine would be asked."""

    progress = Unreported()

    def __init__(self, generated: Generated) -> None:
        self._generated = generated

    def expect(self, shards: int) -> None:
        """Nothing to prepare."""

    def submit(self, stage: str, work: Work, retries: int) -> Future[ShardResult]:
        """Do it."""
        made = self._generated.work(stage) or (retrieving if stage == RETRIEVE.name else work.work)
        found: Future[ShardResult] = Future()
        found.set_result(made(work.job, work.shard))
        return found

    def look(self) -> str | None:
        """Always there."""
        return None

    def ended_its_workers(self, error: BaseException, work: Work) -> bool:
        """Never."""
        return False


class Peaks(Silent):
    """Measures the largest size of the process from the end of each stage to that of the next, MB."""

    def __init__(self) -> None:
        self.largest: dict[str, float] = {}
        self._stage = ""

    def begin(self, stage: str, items: int, unit: str) -> None:
        self._note(f"before {stage}")
        self._stage = stage

    def end(self, note: str, log: StageLog | None = None) -> None:
        self._note(self._stage)

    def _note(self, stage: str) -> None:
        self.largest[stage] = max(self.largest.get(stage, 0.0), peak_megabytes())
        Path("/proc/self/clear_refs").write_text("5")  # forget the peak


@cache
def catalogue_root() -> str:
    """A folder without photos."""
    return TemporaryDirectory(prefix="pairx-no-photos-").name


def night(job: Job, entries: Sequence[CatalogueEntry], generated: Generated, idle: bool) -> dict[str, Any]:
    """One night; what it cost without the generated work. An idle one decides itself that nothing has to start."""
    catalogue = Catalogue(catalogue_root(), tuple(entries))
    peaks = Peaks()
    before = (generated.wall, generated.processor)
    files = _files(job.warehouse)
    wall, processor = time.perf_counter(), time.process_time()
    with at_work(job.warehouse, "pairx-scale", False, Silent().notice) as lease:
        if idle:
            summary = run(catalogue, job, lease, RunOptions(), peaks)
        else:
            summary = process_night(Night(catalogue, job, lease, RunOptions(), peaks), Here(generated))
    wall, processor = time.perf_counter() - wall, time.process_time() - processor
    after = _files(job.warehouse)
    return {
        "outside": wall - (generated.wall - before[0]),
        "processor": processor - (generated.processor - before[1]),
        "peaks": peaks.largest,
        "files": len(after) - len(files),
        "megabytes": (sum(after.values()) - sum(files.values())) / 1e6,
        "pairs": summary.counts["pairs"],
        "stages": {log.stage: round(log.seconds, 1) for log in summary.stages},
    }


def _files(warehouse: Warehouse) -> dict[str, int]:
    return {str(path): path.stat().st_size for path in Path(warehouse.root).rglob("*") if path.is_file()}


def ask(warehouse: Warehouse, question: str) -> tuple[float, float]:
    """Wall and processor seconds of a question, with opening the warehouse for it."""
    wall, processor = time.perf_counter(), time.process_time()
    query = QUESTIONS[question]
    with connect_analyst(warehouse.url, query=query) as connection:
        connection.sql(query).fetchall()
    return time.perf_counter() - wall, time.process_time() - processor


def main() -> None:
    """Run the nights and print them."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--photos", type=int, default=5000, help="photos of the first night (default 5000)")
    parser.add_argument("--new", type=int, default=50, help="new photos, and corrected names (default 50)")
    parser.add_argument("--width", type=int, default=256, help="numbers of an embedding (default 256)")
    parser.add_argument("--folder", help="where to keep the warehouse (default: nowhere)")
    given = parser.parse_args()
    with TemporaryDirectory() as folder:
        chosen = Settings(cluster="local", photos_per_shard=1000, pairs_per_shard=5000)
        job = prepare_job(Warehouse(str(Path(given.folder or folder, "w"))), chosen)
        generated = Generated(given.width)
        entries = [entry(i) for i in range(given.photos)]
        more = [*entries, *(entry(given.photos + i) for i in range(given.new))]
        step = max(1, len(more) // given.new)
        wrong = {i: replace(e, identity="animal-000001") for i, e in enumerate(more) if i % step == 1}
        nights = {
            "first": entries,
            f"{given.new} new": more,
            "nothing new": more,
            f"{len(wrong)} corrected": [wrong.get(i, e) for i, e in enumerate(more)],
        }
        print(f"{given.photos} photos, {given.width} numbers each\n")
        print("| night | outside s | processor s | largest at, MB | files | MB | pairs | longest stages |")
        print("| --- | ---: | ---: | --- | ---: | ---: | ---: | --- |")
        for name, listed in nights.items():
            cost = night(job, listed, generated, name == "nothing new")
            longest = sorted(cost["stages"].items(), key=lambda item: -item[1])[:4]
            said = ", ".join(f"{stage} {seconds}" for stage, seconds in longest)
            largest = sorted(cost["peaks"].items(), key=lambda item: -item[1])[:3]
            most = ", ".join(f"{stage} {size:.0f}" for stage, size in largest)
            print(
                f"| {name} | {cost['outside']:.1f} | {cost['processor']:.1f} | {most} | {cost['files']} | "
                f"{cost['megabytes']:.1f} | {cost['pairs']} | {said} |",
                flush=True,
            )
        print("\n| question | wall s | processor s |\n| --- | ---: | ---: |")
        for question, query in QUESTIONS.items():
            wall, processor = ask(job.warehouse, question)
            print(f"| `{query}` | {wall:.2f} | {processor:.2f} |")


if __name__ == "__main__":
    main()
