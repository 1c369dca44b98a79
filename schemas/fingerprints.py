"""Fingerprints: short hashes of everything that changes a table's numbers, one per table.

Each table's fingerprint covers its own causes and those of the tables it is computed from, and nothing else:
a new local matcher leaves the embeddings valid, a new top-k leaves the scores valid. Worker counts, batch
sizes and paths are absent.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from schemas.settings import Settings
from schemas.tables.judgement import JUDGE_VERSION
from schemas.tables.registry import SCHEMA_VERSION, TABLES
from schemas.tables.signals import SIGNALS_VERSION

_LENGTH = 16


def fingerprint(**causes: Any) -> str:
    """16 hex digits of SHA-256 over the causes as canonical JSON, the schema version among them."""
    text = json.dumps(
        {"schema": SCHEMA_VERSION, **causes}, sort_keys=True, separators=(",", ":"), allow_nan=False
    )
    return hashlib.sha256(text.encode()).hexdigest()[:_LENGTH]


@dataclass(frozen=True)
class Fingerprints:
    """What tables are stored under with one choice of settings, model and matcher.

    Each table names the fingerprint that it lies under.
    """

    photos: str
    embeddings: str
    keypoints: str
    pairs: str
    scores: str
    signals: str
    explanations: str
    suspects: str
    copies: str
    judgements: str

    def of(self, table: str) -> str:
        """The partition of a table; raises `KeyError` for an unknown table or one outside runs."""
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
    verifier: Mapping[str, Any],
    preset: Mapping[str, Any] | None = None,
    drawing: Mapping[str, Any] | None = None,
) -> Fingerprints:
    """Fingerprints of all tables.

    `photo_reader`, `model`, `extractor`, `matcher` and `verifier` are the identities that the engine's parts
    give of themselves (decoder and conventions, weights and chip, local features, local matches, comparison
    of copies); `layers` are the resolved layer names. `preset` are the parameters of the preset's rules, which
    may change under its name, and `drawing` is how pictures are drawn; None or none at all leave the
    fingerprints as they were without.
    """
    part_of = settings.part_of
    reader = dict(photo_reader)
    photos = fingerprint(reader=reader, **part_of("photos"))
    embeddings = fingerprint(reader=reader, model=dict(model), **part_of("embeddings"))
    keypoints = fingerprint(reader=reader, extractor=dict(extractor), **part_of("keypoints"))
    pairs = fingerprint(embeddings=embeddings, **part_of("pairs"))
    scores = fingerprint(
        embeddings=embeddings,
        keypoints=keypoints,
        matcher=dict(matcher),
        layers=list(layers),
        **({"preset_parameters": dict(preset)} if preset else {}),
        **part_of("scores"),
    )
    signals = fingerprint(scores=scores, definitions=SIGNALS_VERSION)
    explanations = fingerprint(
        scores=scores, **({"drawing": dict(drawing)} if drawing else {}), **part_of("explanations")
    )
    suspects = fingerprint(pairs=pairs, scores=scores, **part_of("suspects"))
    copies = fingerprint(photos=photos, verifier=dict(verifier))
    judgements = fingerprint(suspects=suspects, signals=signals, copies=copies, judge=JUDGE_VERSION)
    return Fingerprints(
        photos, embeddings, keypoints, pairs, scores, signals, explanations, suspects, copies, judgements
    )


def sweep_fingerprint(
    settings: Settings,
    embeddings: str,
    variants: Mapping[str, Sequence[str]],
    matchers: Sequence[Mapping[str, Any]],
) -> str:
    """The partition of `measurements`: what a sweep tries, and the settings that it holds fixed.

    `embeddings` is that table's fingerprint, `variants` the values tried by the setting's name,
    `matchers` the identities of the local matchers tried. Their order does not matter.
    """
    return fingerprint(
        embeddings=embeddings,
        variants={name: sorted(values) for name, values in variants.items()},
        matchers=sorted((dict(m) for m in matchers), key=lambda m: json.dumps(m, sort_keys=True)),
        **settings.part_of("measurements"),
    )
