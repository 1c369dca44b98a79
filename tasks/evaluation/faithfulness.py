"""Faithfulness of explanations of some listed pairs: pixel flipping and continuity.

Maps that know nothing of the pair are measured beside them.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from statistics import fmean, stdev
from typing import Any

import pyarrow as pa

from pairx_engine.engine import matcher_identity
from pairx_engine.explanations import Matching, Subject, explanation_named, explanations, usual
from pairx_engine.faithfulness import ChipPair, Flipping, Translation, ValueRange, measure_pairs
from schemas import stages
from schemas.failures import Failure
from schemas.fingerprints import fingerprint
from tasks.evaluation.learning import Learned, state_of
from tasks.job import Job, engine_of, model_of
from tasks.pages.evaluation_values import FaithfulnessRow
from tasks.photo_files import SEEN_BY, VIEWS
from tasks.shards import ShardResult, Stage, Stopwatch, chunks, commit, or_failure
from tasks.store.warehouse import shard_name

_PAIRS_PER_SHARD = 2


@dataclass(frozen=True)
class Protocol:
    """How faithfulness is measured: the methods to compare, the flips and the translation, if any."""

    methods: tuple[str, ...] = field(default_factory=usual)
    flipping: Flipping = field(default_factory=Flipping)
    translation: Translation | None = None


@dataclass(frozen=True)
class FaithfulnessShard:
    """A few listed pairs with their photos, by id."""

    pairs: tuple[Mapping[str, Any], ...]
    photos: Mapping[str, Mapping[str, Any]]
    protocol: Protocol
    learned: Learned = ()

    @property
    def name(self) -> str:
        """Hash of the pair ids and their classes, since similar pairs are flipped in another way."""
        return shard_name(f"{p['pair_id']} {p['correct']}" for p in self.pairs)


def faithfulness_fingerprint(job: Job, protocol: Protocol, learned: Learned = ()) -> str:
    """The partition of `faithfulness`: what makes the maps, and how they are measured."""
    told = {name: dict(explanation_named(name).identity()) for name in protocol.methods}
    told |= {name: told[name] | of for name, of in _of_matchers(job, protocol.methods).items()}
    identities = {name: identity for name, identity in told.items() if identity}
    return fingerprint(
        embeddings=job.prints.embeddings,
        layer=job.layers[0],
        precision=job.settings.precision,
        maps=job.settings.n_pixel_maps,
        protocol=asdict(protocol),
        # Absent where names say everything, so that what was stored earlier stays valid.
        **({"identities": identities} if identities else {}),
        **({"learned": dict(learned)} if learned else {}),
    )


def _of_matchers(job: Job, methods: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Identities of the local matchers of those methods that are made of their matches."""
    chosen = job.settings
    found = {name: explanation_named(name) for name in methods}
    return {
        name: {
            "of_matcher": dict(matcher_identity(each.matcher, chosen.matcher_weights, chosen.max_keypoints))
        }
        for name, each in found.items()
        if isinstance(each, Matching)
    }


def choose_pairs(listed: pa.Table, count: int) -> list[dict[str, Any]]:
    """`count` listed pairs at random, half of them of one name.

    Ids are hashes, so those with the smallest ids of each class are a random choice.
    """
    rows = sorted(listed.to_pylist(), key=lambda row: row["pair_id"])
    each = [[row for row in rows if row["correct"] is correct] for correct in (True, False)]
    half = -(-count // 2)
    return [*each[0][:half], *each[1][: count - half]]


def plan_faithfulness(
    pairs: Sequence[Mapping[str, Any]],
    photos: Mapping[str, Mapping[str, Any]],
    protocol: Protocol,
    learned: Learned = (),
) -> list[FaithfulnessShard]:
    """Shards of a few pairs, since every method explains each pair several times."""
    shards = []
    for part in chunks(sorted(pairs, key=lambda p: str(p["pair_id"])), _PAIRS_PER_SHARD):
        ids = sorted({p[side] for p in part for side in ("photo_a", "photo_b")})
        lean = {i: {column: photos[i][column] for column in SEEN_BY} for i in ids}
        shards.append(FaithfulnessShard(tuple(part), lean, protocol, learned))
    return shards


def faithfulness_shard(job: Job, shard: FaithfulnessShard) -> ShardResult:
    """Measure the pairs of one shard and commit their rows."""
    watch = Stopwatch()
    model = model_of(job)
    layer = job.layers[0]
    values = ValueRange.of(model.chip)
    subject = Subject(
        model.network,
        layer,
        max(1, job.settings.n_pixel_maps),
        precision=job.settings.precision,
        values=values,
        matchers=engine_of(job).matcher_of,
    )
    states = {method: state_of(job, method, name) for method, name in shard.learned}
    rows: list[dict[str, Any]] = []
    failures: list[Failure] = []
    for pair in shard.pairs:
        with or_failure(failures, "faithfulness", pair["pair_id"]):
            chips = [
                model.normalise([VIEWS.chip(shard.photos[pair[side]], job.settings.max_pixels, model.chip)])[
                    0
                ]
                for side in ("photo_a", "photo_b")
            ]
            with watch.in_engine():
                given = ChipPair(pair["pair_id"], chips[0], chips[1], pair["correct"])
                protocol = shard.protocol
                measured = list(
                    measure_pairs(
                        subject,
                        [given],
                        values,
                        protocol.methods,
                        protocol.flipping,
                        protocol.translation,
                        states,
                    )
                )
            key = {name: pair[name] for name in ("pair_id", "photo_a", "photo_b")}
            rows += [
                key
                | {"layer": layer, "similar": pair["correct"], "method": row.method, "measure": row.measure}
                | {"value": row.value if math.isfinite(row.value) else None}
                for row in measured
            ]
    tables, lost = {"faithfulness": rows}, {"faithfulness": failures}
    partition = faithfulness_fingerprint(job, shard.protocol, shard.learned)
    return commit(job, FAITHFULNESS, shard.name, tables, lost, watch, partition)


def summarise(measured: pa.Table, pairs: Sequence[Mapping[str, Any]]) -> list[FaithfulnessRow]:
    """Means over pairs by method, measure and class, with standard errors, in the order of methods."""
    wanted = {p["pair_id"] for p in pairs}
    values: dict[tuple[str, str, bool], list[float]] = defaultdict(list)
    for row in measured.to_pylist():
        if row["pair_id"] in wanted and row["value"] is not None:
            values[row["method"], row["measure"], row["similar"]].append(row["value"])
    order = {method: i for i, method in enumerate(explanations())}
    return [
        FaithfulnessRow(
            method,
            measure,
            similar,
            fmean(found),
            stdev(found) / math.sqrt(len(found)) if len(found) > 1 else None,
            len(found),
        )
        for (method, measure, similar), found in sorted(
            values.items(), key=lambda item: (order.get(item[0][0], len(order)), item[0][1], not item[0][2])
        )
    ]


FAITHFULNESS = Stage.of(stages.FAITHFULNESS, faithfulness_shard, lambda shard: len(shard.pairs))
