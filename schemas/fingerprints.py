"""Fingerprints: short hashes of everything that changes a table's numbers, one per table.

Each table's fingerprint covers its own causes and those of the tables it is computed from, and nothing else: a new local
matcher leaves the embeddings valid, a new top-k leaves the scores valid. Worker counts, batch sizes and paths are absent.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from schemas.settings import Settings
from schemas.tables import SCHEMA_VERSION, TABLES

_LENGTH = 16
_RETRIEVAL = ("top_k", "same_name_k", "same_species", "same_viewpoint")
_HOMOGRAPHY = ("homography", "homography_threshold")
_FIGURE = ("n_pixel_maps", "n_lines")


def fingerprint(**causes: Any) -> str:
    """16 hex digits of SHA-256 over the causes as canonical JSON, the schema version among them."""
    text = json.dumps(
        {"schema": SCHEMA_VERSION, **causes}, sort_keys=True, separators=(",", ":"), allow_nan=False
    )
    return hashlib.sha256(text.encode()).hexdigest()[:_LENGTH]


@dataclass(frozen=True)
class Fingerprints:
    """What tables are stored under with one choice of settings, model and matcher; each table names the one it lies under."""

    photos: str
    embeddings: str
    keypoints: str
    pairs: str
    scores: str
    explanations: str
    suspects: str

    def of(self, table: str) -> str:
        """The partition of a table; raises `KeyError` where there is no such table, or none that lies under these."""
        name = TABLES[table].fingerprint
        if name is None:
            raise KeyError(f"no run has a partition of {table}")
        found: str = getattr(self, name)
        return found


def fingerprints(
    settings: Settings,
    photo_reader: Mapping[str, Any],
    model: Mapping[str, Any],
    extractor: Mapping[str, Any],
    matcher: Mapping[str, Any],
    layers: tuple[str, ...],
) -> Fingerprints:
    """Fingerprints of all tables.

    `photo_reader`, `model`, `extractor` and `matcher` are the identities that the engine's parts give of themselves
    (decoder and conventions, weights and chip, local features, local matches); `layers` are the resolved layer names.
    """
    chosen = settings.model_dump(mode="json")
    photos = fingerprint(reader=dict(photo_reader), max_pixels=settings.max_pixels)
    embeddings = fingerprint(reader=dict(photo_reader), model=dict(model))
    keypoints = fingerprint(
        reader=dict(photo_reader), extractor=dict(extractor), view_side=settings.view_side
    )
    pairs = fingerprint(embeddings=embeddings, **{k: chosen[k] for k in _RETRIEVAL})
    scores = fingerprint(
        embeddings=embeddings,
        keypoints=keypoints,
        matcher=dict(matcher),
        layers=list(layers),
        preset=settings.preset,
        precision=settings.precision,
        # Absent where it is the preset's own, so that what was stored before the setting existed stays valid.
        **({} if settings.reduction is None else {"reduction": settings.reduction}),
        **{k: chosen[k] for k in _HOMOGRAPHY},
    )
    explanations = fingerprint(scores=scores, **{k: chosen[k] for k in _FIGURE})
    suspects = fingerprint(pairs=pairs, scores=scores)
    return Fingerprints(photos, embeddings, keypoints, pairs, scores, explanations, suspects)


def sweep_fingerprint(
    settings: Settings,
    embeddings: str,
    variants: Mapping[str, Sequence[str]],
    matchers: Sequence[Mapping[str, Any]],
) -> str:
    """The partition of `measurements`: what a sweep tries, and the settings that it holds fixed.

    `embeddings` is that table's fingerprint, `variants` the values tried by the setting's name, `matchers` the identities
    of the local matchers tried. In whatever order they are tried, the numbers are the same.
    """
    return fingerprint(
        embeddings=embeddings,
        variants={name: sorted(values) for name, values in variants.items()},
        matchers=sorted((dict(m) for m in matchers), key=lambda m: json.dumps(m, sort_keys=True)),
        precision=settings.precision,
        view_side=settings.view_side,
        max_keypoints=settings.max_keypoints,
        homography_threshold=settings.homography_threshold,
    )
