"""Reference pairs: random pairs of two names, not chosen for likeness, to judge signals by."""

from __future__ import annotations

import math
from dataclasses import replace
from hashlib import sha256

import numpy as np

from pairx_engine.retrieval.rules import PairRule
from schemas.thresholds import PAIRS_PER_REFERENCE
from tasks.gallery import Gallery
from tasks.store.warehouse import pair_id


def reference_photos(wanted: int) -> int:
    """The fewest photos, n, with n (n - 1) / 2 >= `PAIRS_PER_REFERENCE` x `wanted` pairs.

    With so many photos each is in only two or three references, and enough pairs are found even where
    most photos have one name; the effort does not grow with the catalogue. The SQL macro of this name
    says the same.
    """
    return math.ceil(0.5 + math.sqrt(0.25 + 2.0 * PAIRS_PER_REFERENCE * wanted))


def reference_pairs(gallery: Gallery, rule: PairRule, wanted: int) -> list[tuple[int, int]]:
    """At most `wanted` admissible pairs (a < b) of two names within each species, gallery rows, sorted.

    The choice follows from hashes, and so from the photos alone. Of a species' named photos it takes the
    `reference_photos` with the lowest SHA-256 of photo and chip id, and of their pairs those with the
    lowest pair id. Photos of unknown species count as one species.
    """
    if not wanted:
        return []
    two_names, found = replace(rule, other_name=True), []
    ids, chips, species = gallery.photo_ids, gallery.chip_ids, gallery.keys.species
    named = np.flatnonzero(gallery.keys.identity != -1).tolist()
    named.sort(key=lambda i: (species[i], sha256(f"{ids[i]}{chips[i]}".encode()).digest(), ids[i]))
    edges = np.flatnonzero(np.diff(species[named])) + 1
    for group in np.split(np.array(named, dtype=np.int64), edges):
        rows = np.sort(group[: reference_photos(wanted)])
        a, b = np.nonzero(np.triu(two_names.admissible(gallery.keys, rows, rows)))
        pairs = zip(rows[a].tolist(), rows[b].tolist(), strict=True)
        found += sorted((pair_id(ids[i], chips[i], ids[j], chips[j]), i, j) for i, j in pairs)[:wanted]
    return sorted((i, j) for _, i, j in found)
