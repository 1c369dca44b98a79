"""Signals of pairs scored before these signals were defined: from stored rows, without a model.

Scoring writes the signals of its pairs itself. A warehouse whose scores are older than the signals, or than a
new equation, gets them here. They follow from stored relevances and matches of the pairs, and from the
keypoints of their photos, which are matched again.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from schemas import stages
from schemas.failures import Failure
from tasks.finding_rows import Row, signal_row, stored_finding
from tasks.job import Job
from tasks.keypoints import evidence_between, local_features
from tasks.pairs import ScoredPair
from tasks.shards import ShardResult, Stage, Stopwatch, commit, or_failure
from tasks.store.warehouse import shard_name


@dataclass(frozen=True)
class SignalShard:
    """Pairs of one score shard, and the keypoint shards that hold their photos' features."""

    pairs: tuple[ScoredPair, ...]
    scored_in: str
    keypoint_shards: tuple[str, ...]

    @property
    def name(self) -> str:
        """Hash of the pair ids.

        With all pairs of its score shard, the shard has that shard's name, and the content that
        scoring would write.
        """
        return shard_name(p.pair_id for p in self.pairs)


def plan_signals(pairs: Sequence[ScoredPair], keypoints_in: Mapping[str, str]) -> list[SignalShard]:
    """One shard per score shard that holds some of the pairs.

    `keypoints_in` maps photo ids to keypoint shards.
    """
    found = []
    for source, group in groupby(sorted(pairs, key=lambda p: p.scored_in), key=lambda p: p.scored_in):
        part = tuple(group)
        needed = {keypoints_in[i] for p in part for i in (p.photo_a, p.photo_b) if i in keypoints_in}
        found.append(SignalShard(part, source, tuple(sorted(needed))))
    return found


def signal_shard(job: Job, shard: SignalShard) -> ShardResult:
    """Compute and commit the signals of one shard."""
    watch = Stopwatch()
    failures: list[Failure] = []
    with watch.in_engine():
        rows = signal_rows(job, shard, failures)
    return commit(job, SIGNALS, shard.name, {"signals": rows}, {"signals": failures}, watch)


def signal_rows(job: Job, shard: SignalShard, failures: list[Failure]) -> list[dict[str, Any]]:
    """The rows of one shard in the order of its score shard; failed pairs go to `failures` instead."""
    rows: list[dict[str, Any]] = []
    photos = [
        {"photo_id": photo, "chip_id": chip}
        for p in shard.pairs
        for photo, chip in ((p.photo_a, p.chip_a), (p.photo_b, p.chip_b))
    ]
    local = local_features(job, photos, shard.keypoint_shards)
    stored = {table: dict(_stored(job, table, shard)) for table in ("matches", "relevances")}
    place = {pair: i for i, (pair, _) in enumerate(stored["matches"])}
    for pair in sorted(shard.pairs, key=lambda p: place[p.pair_id]):
        with or_failure(failures, "signals", pair.pair_id):
            found = evidence_between(job, local.get(pair.photo_a), local.get(pair.photo_b))
            key = {"pair_id": pair.pair_id, "photo_a": pair.photo_a, "photo_b": pair.photo_b}
            of_pair = []
            for layer in job.layers:
                finding = stored_finding(*(stored[table][pair.pair_id, layer] for table in stored))
                of_pair.append(key | {"layer": layer} | signal_row(finding, found, job.chip_size))
            rows += of_pair
    return rows


def _stored(job: Job, table: str, shard: SignalShard) -> Iterator[tuple[tuple[str, str], Row]]:
    """The shard's rows of a table by pair id and layer, in stored order; lists come as arrays."""
    ids = pa.array([p.pair_id for p in shard.pairs])
    found = job.warehouse.read(table, job.prints.of(table), [shard.scored_in])
    found = found.filter(pc.is_in(found["pair_id"], ids)).combine_chunks()
    columns = {name: found[name].combine_chunks() for name in found.column_names}
    for i in range(found.num_rows):
        row = {name: _value(column[i]) for name, column in columns.items()}
        yield (row["pair_id"], row["layer"]), row


def _value(cell: pa.Scalar) -> Any:
    if isinstance(cell, pa.ListScalar):
        return cell.values.to_numpy(zero_copy_only=False) if cell.is_valid else None
    return cell.as_py()


SIGNALS = Stage.of(stages.SIGNALS, signal_shard, lambda shard: len(shard.pairs))
