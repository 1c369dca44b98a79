"""The pairs and neighbours that a catalogue calls for, by definition: double loops over `photos`."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from hashlib import sha256
from typing import Any

import numpy as np

from schemas.settings import Settings
from schemas.thresholds import NEAR_IDENTICAL_BITS, PAIRS_PER_REFERENCE
from tasks.store.warehouse import pair_id

Photo = Mapping[str, Any]
Key = tuple[str, str]
Cosine = Callable[[Photo, Photo], float]


def cosine_of(vectors: Mapping[str, np.ndarray]) -> Cosine:
    """Cosine of two photos' vectors in double precision, rounded once to single."""

    def cosine(p: Photo, q: Photo) -> float:
        a, b = (vectors[x["photo_id"]].astype(np.float64) for x in (p, q))
        return float(np.float32(a @ b / (np.linalg.norm(a) * np.linalg.norm(b))))

    return cosine


def key_of(p: Photo, q: Photo) -> Key:
    """Both ids, the lower one first."""
    a, b = sorted((p["photo_id"], q["photo_id"]))
    return a, b


def bits(p: Photo, q: Photo) -> int:
    """Differing bits of two perceptual hashes."""
    return bin(p["perceptual_hash"] ^ q["perceptual_hash"]).count("1")


def least(p: Photo, q: Photo) -> int:
    """Differing bits in the orientation that suits best; orientations without any contrast do not count."""

    def one_way(a: Photo, b: Photo) -> int:
        turned = [h for h in (b.get("orientation_hashes") or [])[1:] if h]
        return min(bin(a["perceptual_hash"] ^ h).count("1") for h in [b["perceptual_hash"], *turned])

    return min(one_way(p, q), one_way(q, p))


def allowed(p: Photo, q: Photo, settings: Settings) -> bool:
    """May two photos be paired: not with itself, not within an encounter, not against the restrictions."""
    if p["photo_id"] == q["photo_id"] or (p["encounter"] is not None and p["encounter"] == q["encounter"]):
        return False
    wanted = [name for name in ("species", "viewpoint") if getattr(settings, f"same_{name}")]
    return all(None in (p[n], q[n]) or p[n] == q[n] for n in wanted)


def same_name(p: Photo, q: Photo) -> bool | None:
    """Whether both have one name; None where either is unknown."""
    known = p["identity"] is not None and q["identity"] is not None
    return p["identity"] == q["identity"] if known else None


def copies(photos: Sequence[Photo], settings: Settings) -> set[Key]:
    """Near-identical pictures, however turned, that do not share a known name.

    Each photo gives its nearest; ties go by id.
    """
    found = set()
    for p in photos:
        alike = [
            (least(p, q), q["photo_id"], q)
            for q in photos
            if allowed(p, q, settings)
            and least(p, q) <= NEAR_IDENTICAL_BITS
            and p["perceptual_hash"]
            and q["perceptual_hash"]
            and not same_name(p, q)
        ]
        found |= {key_of(p, q) for *_, q in sorted(alike, key=lambda row: row[:2])[: settings.top_k]}
    return found


def references(photos: Sequence[Photo], settings: Settings, spread: int = PAIRS_PER_REFERENCE) -> set[Key]:
    """Reference pairs of two names, for each species.

    Among the photos of lowest hash, these are the pairs of lowest id.
    """
    wanted, found = settings.references, set()
    enough = next(n for n in itertools.count() if n * (n - 1) // 2 >= spread * wanted)
    for species in {p["species"] for p in photos}:
        named = [p for p in photos if p["species"] == species and p["identity"] is not None]
        named.sort(key=lambda p: sha256((p["photo_id"] + p["chip_id"]).encode()).hexdigest())
        pairs = [
            (pair_id(p["photo_id"], p["chip_id"], q["photo_id"], q["chip_id"]), key_of(p, q))
            for p, q in itertools.combinations(named[:enough], 2)
            if allowed(p, q, settings) and p["identity"] != q["identity"]
        ]
        found |= {key for _, key in sorted(pairs)[:wanted]}
    return found


def ranked(
    photos: Sequence[Photo], cosine: Cosine, settings: Settings
) -> Iterable[tuple[str, list[list[Photo]]]]:
    """Each photo with its neighbours, best first: over all, of its name, of other names."""
    for p in photos:
        others = sorted(
            (q for q in photos if allowed(p, q, settings)),
            key=lambda q: (-cosine(p, q), q["photo_id"]),  # used at once
        )
        names = [same_name(p, q) for q in others]
        own, other = (
            [q for q, same in zip(others, names, strict=True) if same is wanted] for wanted in (True, False)
        )
        yield p["photo_id"], [others, own, other]


def pairs(photos: Sequence[Photo], cosine: Cosine, settings: Settings) -> dict[Key, dict[str, Any]]:
    """Pair -> its ranks and `why`, as in the view `pairs`; what is null is absent."""
    found: dict[Key, dict[str, Any]] = {}
    reasons: dict[Key, set[str]] = {}
    limits = {"top_k": settings.top_k, "same_name": settings.same_name_k, "other_name": settings.other_name_k}
    for photo, lists in ranked(photos, cosine, settings):
        for (why, k), others in zip(limits.items(), lists, strict=True):
            for place, other in enumerate(others[:k], 1):
                key = key_of({"photo_id": photo}, other)
                rank = "rank" if why == "top_k" else f"{why}_rank"
                found.setdefault(key, {})[f"{rank}_{'a' if key[0] == photo else 'b'}"] = place
                reasons.setdefault(key, set()).add(why)
    for why, keys in (("copy", copies(photos, settings)), ("reference", references(photos, settings))):
        for key in keys:
            found.setdefault(key, {})
            reasons.setdefault(key, set()).add(why)
    return {key: ranks | {"why": reasons[key]} for key, ranks in found.items()}


def neighbours(photos: Sequence[Photo], cosine: Cosine, settings: Settings) -> dict[Key, dict[str, int]]:
    """(photo, other) -> its ranks, as in the view `neighbours`; what is null is absent."""
    found: dict[Key, dict[str, int]] = {}
    for photo, lists in ranked(photos, cosine, settings):
        for rank, others in zip(("rank", "own_name_rank", "other_name_rank"), lists, strict=True):
            for place, other in enumerate(others[: settings.neighbours], 1):
                found.setdefault((photo, other["photo_id"]), {})[rank] = place
    return found
