"""Learn: what some explanations must know of a catalogue before they can explain.

It is kept in the warehouse and given back to them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from pairx_engine.errors import EngineError, PhotoError
from pairx_engine.explanations import NamedChip, State, Trained, explanation_named
from schemas import stages
from schemas.fingerprints import fingerprint
from tasks.job import Job, engine_of, model_of
from tasks.pairs import Photo
from tasks.photo_files import SEEN_BY, VIEWS
from tasks.shards import ShardResult, Stage, Stopwatch, commit
from tasks.store.warehouse import shard_name

Learned = tuple[tuple[str, str], ...]
"""Methods that have learned, each with the shard of `learned` that holds its state."""


@dataclass(frozen=True)
class LearnShard:
    """A method, and the photos that it learns from."""

    method: str
    photos: tuple[Photo, ...]

    @property
    def name(self) -> str:
        """Hash of the method, the chips and their names."""
        return shard_name([self.method, *(f"{p['chip_id']} {p['identity'] or ''}" for p in self.photos)])


def plan_learning(methods: Sequence[str], photos: Sequence[Photo]) -> list[LearnShard]:
    """A shard for each of the methods that must learn.

    Chip ids are hashes, so the photos with the smallest are a random sample, and the same one every time
    for the same catalogue.
    """
    order = sorted((p for p in photos if p["chip_id"] is not None), key=lambda p: str(p["chip_id"]))
    found = {method: explanation_named(method) for method in methods}
    return [
        LearnShard(
            method,
            tuple({name: p[name] for name in (*SEEN_BY, "identity")} for p in order[: explanation.photos]),
        )
        for method, explanation in found.items()
        if isinstance(explanation, Trained)
    ]


def learned_partition(job: Job, method: str) -> str:
    """The partition of `learned`: what the method sees of a photo, and its own identity."""
    return fingerprint(
        embeddings=job.prints.embeddings,
        layer=job.layers[0],
        precision=job.settings.precision,
        method=method,
        identity=dict(explanation_named(method).identity()),
    )


def learn_shard(job: Job, shard: LearnShard) -> ShardResult:
    """Let the method learn, and commit what it has learned. Photos that cannot be read are left out."""
    watch = Stopwatch()
    explanation = explanation_named(shard.method)
    assert isinstance(explanation, Trained)
    with watch.in_engine():
        state = explanation.train(engine_of(job).subject(), _named_chips(job, shard.photos))
    rows = [_row(shard, name, np.asarray(array)) for name, array in state.items()]
    partition = learned_partition(job, shard.method)
    return commit(job, LEARN, shard.name, {"learned": rows}, watch=watch, partition=partition)


def _named_chips(job: Job, photos: Sequence[Photo]) -> Iterator[NamedChip]:
    model = model_of(job)
    for photo in photos:
        try:
            chip = VIEWS.chip(photo, job.settings.max_pixels, model.chip)
        except PhotoError:
            continue
        yield NamedChip(model.normalise([chip])[0], photo["identity"])


def _row(shard: LearnShard, name: str, array: np.ndarray[Any, Any]) -> dict[str, Any]:
    if array.dtype.kind not in "biuf":
        raise EngineError(
            f"method {shard.method} learned {name} of type {array.dtype}: only numbers are kept"
        )
    small = array.astype(array.dtype.newbyteorder("<"))
    return {
        "method": shard.method,
        "name": name,
        "photos": len(shard.photos),
        "dtype": small.dtype.str,
        "shape": list(array.shape),
        "values": small.tobytes(),
    }


@lru_cache(maxsize=8)
def state_of(job: Job, method: str, shard: str) -> State:
    """What a method has learned, read from its shard."""
    rows = job.warehouse.read("learned", learned_partition(job, method), [shard]).to_pylist()
    return {
        row["name"]: np.frombuffer(row["values"], row["dtype"]).reshape(row["shape"]).copy() for row in rows
    }


def newest_state(job: Job, method: str) -> State | None:
    """What a method has learned here under the job's settings, from most photos; None if nothing."""
    partition = learned_partition(job, method)
    found = {
        name: job.warehouse.read("learned", partition, [name], ["photos"])["photos"].to_pylist()
        for name in job.warehouse.shards("learned", partition)
    }
    best = max(
        (name for name, photos in found.items() if photos), key=lambda n: (found[n][0], n), default=None
    )
    return None if best is None else state_of(job, method, best)


LEARN = Stage.of(stages.LEARN, learn_shard, lambda shard: len(shard.photos))
