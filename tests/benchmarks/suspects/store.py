"""Evidence of one set in a work folder.

Photos of all plantings are read and embedded once, and pairs are scored once.

A state is a set of photos and their names. It gets a small warehouse of its own in which every table that
does not depend on names is a link to the evidence, so that a state costs what judging it costs.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import torch

from schemas.catalogue.reader import Catalogue
from schemas.settings import Settings
from schemas.stages import STAGES
from schemas.tables.registry import TABLES
from tasks.job import Job, prepare_job
from tasks.pairs import Pair, ScoredPair
from tasks.retrieval.kept import keep_found, keep_gallery
from tasks.retrieval.plan import ask_all
from tasks.runs.log import RunLog
from tasks.runs.remaining import RunViews, look
from tasks.shards import ShardResult, commit
from tasks.stages.embed import embed_shard, plan_embed
from tasks.stages.ingest import INGEST, ingest_shard, plan_ingest
from tasks.stages.retrieve import retrieve_shard
from tasks.stages.score import plan_score, score_shard
from tasks.stages.signals import plan_signals, signal_shard
from tasks.stages.verify import plan_verify, verify_shard
from tasks.store.warehouse import Warehouse

S = TypeVar("S")
PhotoRow = Mapping[str, Any]
_PAIRS_PER_SHARD = 200
_OF_A_STATE = ("ingest", "judge", "flag")
"""Stages whose tables follow from names; so do `runs` and `reviews`."""


def shared_tables() -> list[str]:
    """Tables that hold for every state: what was computed from photos and pairs, whatever the names."""
    own = {t for stage in _OF_A_STATE if stage in STAGES for t in STAGES[stage].tables}
    return [table for table in TABLES if table not in own | {"runs", "reviews"}]


def one_thread() -> None:
    """What each worker process begins with: two processes on two cores must not spin against each other."""
    torch.set_num_threads(1)


@dataclass(frozen=True)
class Evidence:
    """The evidence of one set; its folder holds the warehouse `evidence` and a folder per state."""

    folder: Path
    job: Job

    @classmethod
    def open(cls, folder: Path, settings: Settings) -> Evidence:
        """Open or begin the evidence in a folder; loads the model once to learn what it is."""
        folder.mkdir(parents=True, exist_ok=True)
        return cls(folder, prepare_job(Warehouse(str(folder / "evidence")), settings))

    def take_in(self, catalogues: Iterable[Catalogue], pool: Executor) -> dict[str, PhotoRow]:
        """Read and embed what is not there yet; returns the rows of `photos` that have an embedding, by id."""
        job = self.job
        for catalogue in catalogues:
            with look(job, RunLog(job).columns()) as (_, left):
                shards = plan_ingest(catalogue, left.photos(), job.settings.photos_per_shard)
            _on(pool, ingest_shard, job, shards)
        with look(job, RunLog(job).columns()) as (_, left):
            rows = {name: row for name, row in left.photos().items() if row["present"]}
            missing = plan_embed(*left.to_embed(), job.settings.photos_per_shard)
        _on(pool, embed_shard, job, missing)
        with look(job, RunLog(job).columns()) as (_, left):
            embedded = {photo for photo, _ in left.embedded()}
        return {name: row for name, row in rows.items() if name in embedded}

    def state(self, name: str, rows: Mapping[str, PhotoRow], names: Mapping[str, str | None]) -> Job:
        """The job of one state: a fresh warehouse whose `photos` are those of `names`, under these names."""
        folder = self.folder / "states" / name
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        for table in shared_tables():
            source = self.folder / "evidence" / table
            source.mkdir(parents=True, exist_ok=True)
            os.symlink(source.resolve(), folder / table)
        job = replace(self.job, warehouse=Warehouse(str(folder)))
        photos = [
            {**rows[photo], "identity": given, "revision": 0}
            for photo, given in sorted(names.items())
            if photo in rows
        ]
        commit(job, INGEST, name, {"photos": photos})
        return job

    def drop(self, name: str) -> None:
        """Remove a state's folder; links are removed, not followed."""
        shutil.rmtree(self.folder / "states" / name, ignore_errors=True)


def retrieve(job: Job) -> tuple[str, list[Pair]]:
    """Find and store the pairs that a state calls for.

    Returns the state's hash and those of its pairs that have no scores.
    """
    with RunViews(job) as views:
        connection, left = views.look(RunLog(job).columns())
        gallery = left.gallery()
        keep_gallery(job, gallery)
        asked = ask_all(gallery)
        keep_found(job, connection, asked, [retrieve_shard(job, shard) for shard in asked.shards()])
        _, left = views.look(RunLog(job).columns(gallery.state), ("photos", "pairs"))
        return gallery.state, left.unscored()


def score(job: Job, pairs: Sequence[Pair], pool: Executor, say: Callable[[str], None]) -> int:
    """Score pairs of any states into the shared evidence; returns how many. `job` is that of the evidence."""
    if not pairs:
        return 0
    unique = sorted({pair.pair_id: pair for pair in pairs}.values(), key=lambda p: (p.photo_a, p.photo_b))
    with look(job, RunLog(job).columns()) as (_, left):
        shards = plan_score(unique, left.photos_of(unique), left.keypoint_shards(), _PAIRS_PER_SHARD)
    done = failed = 0
    for result in pool.map(score_shard, [job] * len(shards), shards):
        done, failed = done + result.rows, failed + result.failed
        say(f"scored {done} of {len(unique)} pairs, {failed} failed")
    return done


@dataclass(frozen=True)
class Unfinished:
    """Scored pairs of a state without signals, and those that were not yet compared pixel by pixel."""

    signals: Sequence[ScoredPair]
    copies: Sequence[Pair]


def unfinished(job: Job, state: str) -> Unfinished:
    """What a state lacks beside scores."""
    with look(job, RunLog(job).columns(state), keep=("photos", "pairs")) as (_, left):
        return Unfinished(left.without_signals(), left.unverified())


def finish(job: Job, lacking: Iterable[Unfinished], pool: Executor) -> None:
    """Compute what states lack, into the shared evidence; `job` is that of the evidence."""
    found = list(lacking)
    bare = list({p.pair_id: p for one in found for p in one.signals}.values())
    unseen = list({p.pair_id: p for one in found for p in one.copies}.values())
    with look(job, RunLog(job).columns()) as (_, left):
        signals = plan_signals(bare, left.keypoint_shards())
        copies = plan_verify(unseen, left.photos_of(unseen), _PAIRS_PER_SHARD)
    _on(pool, signal_shard, job, signals)
    _on(pool, verify_shard, job, copies)


def _on(pool: Executor, work: Callable[[Job, S], ShardResult], job: Job, shards: Sequence[S]) -> None:
    for _ in pool.map(work, [job] * len(shards), shards):
        pass
