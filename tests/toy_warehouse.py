"""A small consistent warehouse for tests: photos and pairs in a few words, all else derived."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from tasks.store.warehouse import Warehouse, pair_id, shard_name

FINGERPRINTS = {
    "photos": "00a1",
    "embeddings": "00b2",
    "keypoints": "00c3",
    "pairs": "1234",
    "scores": "00d4",
    "signals": "00d5",
    "explanations": "00e5",
    "suspects": "00f6",
    "copies": "00a7",
    "judgements": "00b8",
}
"""One has digits alone: readers must not take it for a number."""
LAYER = "blocks.3"
RUN = {f"{stage}_fingerprint": print_ for stage, print_ in FINGERPRINTS.items()} | {
    "layer": LAYER, "top_k": 5, "same_name_k": 2
}  # fmt: skip
"""Columns of `current_run` that see all of a toy's rows."""
_HOMOGRAPHY = [1.0, 0, 0, 0, 1, 0, 0, 0, 1]
_START = datetime(2026, 3, 1, 22, 0, tzinfo=UTC)


@dataclass(frozen=True)
class Photo:
    """One entry of the toy catalogue; the chip follows from the file's content."""

    photo_id: str
    identity: str | None = None
    encounter: str | None = None
    viewpoint: str | None = "left"
    species: str | None = "zebra"
    content: str | None = None
    revision: int = 0
    present: bool = True
    readable: bool = True
    site: str | None = None

    @property
    def chip_id(self) -> str | None:
        return f"chip-{self.content or self.photo_id}" if self.readable else None

    def row(self) -> dict[str, Any]:
        return {
            "photo_id": self.photo_id, "revision": self.revision, "present": self.present,
            "path": f"images/{self.photo_id}.jpg", "root": "/photos", "identity": self.identity,
            "species": self.species, "encounter": self.encounter, "taken_at": "2026-02-03", "viewpoint": self.viewpoint,
            "box": [1.0, 2.0, 30.0, 40.0], "theta": 0.0, "width": 64, "height": 48, "bytes": 900,
            "sha256": f"sha-{self.content or self.photo_id}" if self.readable else None,
            "perceptual_hash": 2**63 + 1 if self.readable else None, "chip_id": self.chip_id, "stamp": "900-1",
            "extra": [("site", self.site)] if self.site else None,
        }  # fmt: skip


@dataclass(frozen=True)
class Pair:
    """One scored candidate: how similar, and how plausible. `n_inliers` None stands for no homography."""

    a: str
    b: str
    cosine: float
    coverage: float = 0.2
    residual: float | None = 20.0
    n_inliers: int | None = 8
    n_local_matches: int = 60
    n_matches: int = 20
    hash_distance: int | None = 30


@dataclass
class Toy:
    """A toy catalogue; `write` commits it as one finished run."""

    photos: Sequence[Photo]
    pairs: Sequence[Pair]
    top_k: int = 5
    same_name_k: int = 2
    failures: Iterable[dict[str, Any]] = ()
    settings: dict[str, Any] = field(default_factory=dict)

    def write(self, warehouse: Warehouse, run_id: str = "r1", minutes: int = 0) -> Warehouse:
        """Commit photos, pairs, failures and all that is derived from them, and the run's two rows."""
        write_photos(warehouse, self.photos)
        write_pairs(warehouse, self.photos, self.pairs)
        for failure in self.failures:
            stage = {"ingest": "photos", "embed": "embeddings", "score": "scores", "draw": "explanations"}[
                failure["stage"]
            ]
            warehouse.write(
                "failures", FINGERPRINTS[stage], shard_name([failure["stage"], failure["item"]]), [failure]
            )
        started = run_row(run_id, "started", _START + timedelta(minutes=minutes), self)
        finished = run_row(run_id, "finished", _START + timedelta(minutes=minutes + 5), self)
        for row in (started, finished):
            warehouse.write("runs", "all", f"{run_id}-{row['status']}", [row])
        return warehouse


def run_row(run_id: str, status: str, at: datetime, toy: Toy) -> dict[str, Any]:
    """One row of `runs` under the toy fingerprints."""
    return {
        "run_id": run_id, "status": status, "at": at,
        **{f"{stage}_fingerprint": fingerprint for stage, fingerprint in FINGERPRINTS.items()},
        "layer": LAYER, "top_k": toy.top_k, "same_name_k": toy.same_name_k, "state": "s",
        "settings": json.dumps(toy.settings), "versions": "{}", "counts": json.dumps({"photos": len(toy.photos)}),
        "timings": json.dumps({"ingest": 1.5, "embed": 2.5, "score": 60.0}), "message": None,
    }  # fmt: skip


def write_photos(warehouse: Warehouse, photos: Sequence[Photo], shard: str | None = None) -> None:
    """One shard each of photos, embeddings and keypoints."""
    shard = shard or shard_name(f"{p.photo_id}/{p.revision}" for p in photos)
    seen = [p for p in photos if p.readable and p.present]
    warehouse.write("photos", FINGERPRINTS["photos"], shard, [p.row() for p in photos])
    warehouse.write("keypoints", FINGERPRINTS["keypoints"], shard, [_keypoints(p) for p in seen])
    warehouse.write("embeddings", FINGERPRINTS["embeddings"], shard, [
        {"photo_id": p.photo_id, "chip_id": p.chip_id, "norm": 1.0, "embedding": [1.0, 0.0]} for p in seen
    ])  # fmt: skip


def write_pairs(
    warehouse: Warehouse, photos: Sequence[Photo], pairs: Sequence[Pair], shard: str | None = None
) -> None:
    """One shard each of pairs, matches, relevances and scores.

    Photos are looked up by id, the last entry counting.
    """
    by_id = {p.photo_id: p for p in photos}
    keys = [pair_key(by_id[p.a], by_id[p.b]) for p in pairs]
    shard = shard or shard_name(key["pair_id"] for key in keys)
    both = list(zip(keys, pairs, strict=True))
    warehouse.write("pairs", FINGERPRINTS["pairs"], shard, [
        {**key, "cosine": p.cosine, "hash_distance": p.hash_distance} for key, p in both
    ])  # fmt: skip
    short = [
        ({k: v for k, v in key.items() if not k.startswith("chip")} | {"layer": LAYER}, p) for key, p in both
    ]
    warehouse.write("matches", FINGERPRINTS["scores"], shard, [key | _matches() for key, _ in short])
    warehouse.write("relevances", FINGERPRINTS["scores"], shard, [
        key | {"height": 1, "width": 2, "grid_a": [1.0, 2.0], "grid_b": [0.5, 0.5]} for key, _ in short
    ])  # fmt: skip
    warehouse.write("scores", FINGERPRINTS["scores"], shard, [key | _scores(p) for key, p in short])


def write_judgement(
    warehouse: Warehouse,
    photos: Iterable[Photo],
    doubts: Mapping[str, Mapping[str, Any]],
    alike: Mapping[tuple[str, str], float],
    names: Iterable[Mapping[str, Any]] = (),
    basis: int = 1,
) -> None:
    """A judgement of the toy's state by which all names are right but those in doubt.

    `doubts`: photo -> columns of `judged_photos`; `alike`: pairs with the probability of one animal; `names`:
    rows of `judged_names`.
    """
    key = {"state": "s", "basis": basis}
    by_id = {p.photo_id: p for p in photos}
    pairs = []
    for (a, b), probability in alike.items():
        ids = {k: v for k, v in pair_key(by_id[a], by_id[b]).items() if not k.startswith("chip")}
        odds = {"log_odds": _log_odds(probability), "probability": probability}
        pairs.append({**key, **ids, **odds, "terms": ["cosine"], "added": [0.5]})
    judged = [{**key, **_judged_photo(p, **doubts.get(p.photo_id, {}))} for p in by_id.values()]
    for table, rows in (
        ("judged_photos", judged),
        ("judged_names", [{**key, **row} for row in names]),
        ("judgements", pairs),
    ):
        warehouse.write(table, FINGERPRINTS["judgements"], f"basis{basis}", rows)


def _judged_photo(photo: Photo, probability: float = 0.001, **changes: Any) -> dict[str, Any]:
    odds, known = _log_odds(probability), photo.identity is not None
    return {
        "photo_id": photo.photo_id, "identity": photo.identity, "log_odds": odds if known else None,
        "probability": probability if known else None, "proposed_name": None, "proposed_share": 1.0,
        "own_voice": 0.0 if known else None, "rival_voice": odds, "undefended": False, "told_by": "", **changes,
    }  # fmt: skip


def _log_odds(probability: float) -> float:
    return math.log(probability / (1 - probability))


def likeness(a: Photo, b: Photo) -> Pair:
    """A pair of one name is alike and one of two is not; for photo A0 it is the other way round."""
    same = (a.identity == b.identity) == (a.photo_id != "A0" != b.photo_id)
    cosine, coverage, inliers = (0.8, 0.5, 30) if same else (0.4, 0.1, None)
    return Pair(a.photo_id, b.photo_id, cosine, coverage=coverage, n_inliers=inliers)


def pair_key(first: Photo, second: Photo) -> dict[str, Any]:
    """Key columns of the pair of two photos as they are now."""
    a, b = sorted((first, second), key=lambda p: p.photo_id)
    return {
        "pair_id": pair_id(a.photo_id, str(a.chip_id), b.photo_id, str(b.chip_id)),
        "photo_a": a.photo_id, "photo_b": b.photo_id, "chip_a": str(a.chip_id), "chip_b": str(b.chip_id),
    }  # fmt: skip


def _keypoints(photo: Photo) -> dict[str, Any]:
    return {
        "photo_id": photo.photo_id, "chip_id": photo.chip_id, "view_width": 64, "view_height": 48,
        "x": [1.0], "y": [2.0], "score": [0.5], "dimension": 2, "descriptors": [0.5, 0.5],
    }  # fmt: skip


def _matches() -> dict[str, Any]:
    return {
        "column_a": [0, 1], "row_a": [0, 0], "column_b": [1, 0], "row_b": [0, 0],
        "x_a": [16.0, 48.0], "y_a": [16.0, 16.0], "x_b": [48.0, 16.0], "y_b": [16.0, 16.0],
        "distance": [0.3, 0.9], "relevance": [2.0, 0.5], "residual": [1.5, 4.0],
    }  # fmt: skip


def _scores(pair: Pair) -> dict[str, Any]:
    fits = pair.n_inliers is not None
    residual = pair.residual if fits else None
    return {
        "n_matches": pair.n_matches, "match_fraction": pair.n_matches / 100, "match_coverage": pair.coverage,
        "residual_mean": residual, "inverted_residual_mean": None if residual is None else 1 / residual,
        "top_residual_mean": residual, "n_local_matches": pair.n_local_matches, "n_inliers": pair.n_inliers,
        "homography": _HOMOGRAPHY if fits else None, "no_homography_reason": None if fits else "too few matches",
        "relevance_a": 1.0, "relevance_b": 1.0,
    }  # fmt: skip
