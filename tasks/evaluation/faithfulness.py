"""Faithfulness of explanations of some listed pairs: one method a shard, under one protocol.

Maps that know nothing of the pair are measured beside them.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from torch import Tensor

from pairx_engine.engine import matcher_identity
from pairx_engine.explanations import Matching, explanation_named
from pairx_engine.explanations.registry import USUAL_COST
from pairx_engine.faithfulness import CHECKS, Asked, ChipPair, Common, Protocol, ValueRange, measure
from schemas import stages
from schemas.failures import Failure
from schemas.fingerprints import fingerprint
from tasks.evaluation.learning import Learned, state_of
from tasks.job import Job, engine_of
from tasks.photo_files import SEEN_BY, VIEWS
from tasks.shards import ShardResult, Stage, Stopwatch, chunks, commit, or_failure
from tasks.store.warehouse import shard_name

_PAIRS_PER_SHARD = 5
_DEAR_COST = 1000
"""Forward passes of a pair from which on a tenth of the pairs is measured; from `USUAL_COST` on, a third."""
_OTHERS = 3
"""Photos of other animals that a pair is measured with: another partner, and company in a collage."""
_OTHERS_AMONG = 1000

Photos = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class FaithfulnessShard:
    """A few listed pairs under one method; `others` are photos of other animals by pair, all by id."""

    method: str
    pairs: tuple[Mapping[str, Any], ...]
    others: Mapping[str, tuple[str, ...]]
    photos: Photos
    protocol: Protocol
    learned: str | None = None

    @property
    def name(self) -> str:
        """Hash of the pairs, their classes and the photos they are measured with."""
        return shard_name(
            " ".join((p["pair_id"], str(p["correct"]), *self.others[p["pair_id"]])) for p in self.pairs
        )


def faithfulness_fingerprint(job: Job, method: str, protocol: Protocol, learned: str | None = None) -> str:
    """The partition of `faithfulness` of one method: what makes its maps, and how they are measured."""
    identity = dict(explanation_named(method).identity()) | _of_matcher(job, method)
    return fingerprint(
        embeddings=job.prints.embeddings,
        layer=job.layers[0],
        precision=job.settings.precision,
        maps=job.settings.n_pixel_maps,
        method=method,
        protocol=asdict(protocol),
        # Absent where they say nothing, so that the commonest partitions stay what they are.
        **({"reduction": job.settings.reduction} if job.settings.reduction else {}),
        **({"identity": identity} if identity else {}),
        **({"learned": learned} if learned else {}),
    )


def _of_matcher(job: Job, method: str) -> dict[str, Any]:
    """The identity of the local matcher of a method that is made of its matches."""
    explanation, chosen = explanation_named(method), job.settings
    if not isinstance(explanation, Matching):
        return {}
    found = matcher_identity(explanation.matcher, chosen.matcher_weights, chosen.max_keypoints)
    return {"of_matcher": dict(found)}


def choose_pairs(listed: Iterable[Mapping[str, Any]], count: int) -> list[Mapping[str, Any]]:
    """`count` listed pairs at random, half of them of one name; fewer are a choice among more.

    Ids are hashes, so those with the smallest ids of each class are a random choice.
    """
    rows = sorted(listed, key=lambda row: row["pair_id"])
    each = [[row for row in rows if row["correct"] is correct] for correct in (True, False)]
    half = -(-count // 2)
    return [*each[0][:half], *each[1][: count - half]]


def pairs_of(method: str, count: int) -> int:
    """How many of `count` pairs a method is measured on: fewer where its explanations are dear."""
    cost = explanation_named(method).cost
    share = 1 if cost <= USUAL_COST else 3 if cost <= _DEAR_COST else 10
    return min(count, max(2, -(-count // share)))


def forward_passes(method: str, protocol: Protocol) -> float:
    """About how many forward passes of the network one pair of a method costs: explanations and flips.

    A similar pair is flipped on either side.
    """
    explained = 1 + sum(CHECKS[name].explained for name in protocol.checks)
    if protocol.translation is not None:
        explained += 2 * protocol.translation.n_steps + 3
    flipped = sum(4 * (how.n_steps + 1) for how in protocol.flippings)
    return explained * explanation_named(method).cost + flipped


def choose_others(
    pairs: Iterable[Mapping[str, Any]], listed: Iterable[Mapping[str, Any]]
) -> dict[str, tuple[str, ...]]:
    """For each pair a few listed photos of other animals, drawn by the hash of both ids."""
    names: dict[str, str] = {}
    for row in sorted(listed, key=lambda row: row["pair_id"])[:_OTHERS_AMONG]:
        names |= {row[f"photo_{side}"]: row[f"identity_{side}"] for side in ("a", "b")}
    found = {}
    for pair in pairs:
        own = {pair["identity_a"], pair["identity_b"]}
        strange = [photo for photo, name in names.items() if name not in own]
        found[pair["pair_id"]] = tuple(sorted(strange, key=lambda p: _drawn(pair["pair_id"], p))[:_OTHERS])
    return found


def _drawn(pair: str, photo: str) -> bytes:
    return hashlib.sha256(f"{pair} {photo}".encode()).digest()


def plan_faithfulness(
    pairs: Sequence[Mapping[str, Any]],
    others: Mapping[str, tuple[str, ...]],
    photos: Photos,
    method: str,
    protocol: Protocol,
    learned: Learned = (),
) -> list[FaithfulnessShard]:
    """Shards of a few pairs of one method."""
    shards = []
    for part in chunks(sorted(pairs, key=lambda p: str(p["pair_id"])), _PAIRS_PER_SHARD):
        company = {p["pair_id"]: others[p["pair_id"]] for p in part}
        ids = {p[side] for p in part for side in ("photo_a", "photo_b")}.union(*company.values())
        lean = {i: {column: photos[i][column] for column in SEEN_BY} for i in sorted(ids)}
        shards.append(
            FaithfulnessShard(method, tuple(part), company, lean, protocol, dict(learned).get(method))
        )
    return shards


def faithfulness_shard(job: Job, shard: FaithfulnessShard) -> ShardResult:
    """Measure the pairs of one shard and commit their rows."""
    watch = Stopwatch()
    engine = engine_of(job)
    subject = engine.subject(job.settings.n_pixel_maps)
    values = ValueRange.of(engine.model.chip)
    state = state_of(job, shard.method, shard.learned) if shard.learned else None
    common = Common(subject)
    rows: list[dict[str, Any]] = []
    failures: list[Failure] = []
    for pair in shard.pairs:
        with or_failure(failures, "faithfulness", pair["pair_id"]):
            given = _chip_pair(job, shard, pair)
            with watch.in_engine():
                asked = Asked(subject, given, shard.method, values, state, common=common)
                measured = measure(asked, shard.protocol)
            key = {name: pair[name] for name in ("pair_id", "photo_a", "photo_b")}
            rows += [
                key
                | {"layer": job.layers[0], "similar": pair["correct"]}
                | {"method": row.method, "measure": row.measure}
                | {"value": row.value if math.isfinite(row.value) else None}
                for row in measured
            ]
    tables, lost = {"faithfulness": rows}, {"faithfulness": failures}
    partition = faithfulness_fingerprint(job, shard.method, shard.protocol, shard.learned)
    return commit(job, FAITHFULNESS, shard.name, tables, lost, watch, partition)


def _chip_pair(job: Job, shard: FaithfulnessShard, pair: Mapping[str, Any]) -> ChipPair:
    model = engine_of(job).model

    def chip(photo: str) -> Tensor:
        return model.normalise([VIEWS.chip(shard.photos[photo], job.settings.max_pixels, model.chip)])[0]

    others = tuple(chip(photo) for photo in shard.others[pair["pair_id"]])
    return ChipPair(pair["pair_id"], chip(pair["photo_a"]), chip(pair["photo_b"]), pair["correct"], others)


FAITHFULNESS = Stage.of(stages.FAITHFULNESS, faithfulness_shard, lambda shard: len(shard.pairs))
