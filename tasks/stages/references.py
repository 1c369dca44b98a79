"""Reference pairs: random pairs of two names, to tell what a signal is worth on pairs that nothing made look
alike."""

from __future__ import annotations

import math
from dataclasses import replace
from hashlib import sha256

import numpy as np

from pairx_engine.retrieval.topk import PairRule
from schemas.thresholds import PAIRS_PER_REFERENCE
from tasks.gallery import Gallery
from tasks.store.warehouse import pair_id


def reference_photos(wanted: int) -> int:
    """The fewest photos, n, with n (n - 1) / 2 >= `PAIRS_PER_REFERENCE` x `wanted` pairs.

    They spread the references, two or three to a photo, and let them be found where most photos have one
    name; the effort does not grow with the catalogue. The macro of this name says the same in SQL.
    """
    return math.ceil(0.5 + math.sqrt(0.25 + 2.0 * PAIRS_PER_REFERENCE * wanted))


def reference_pairs(gallery: Gallery, rule: PairRule, wanted: int) -> list[tuple[int, int]]:
    """At most `wanted` admissible pairs (a < b) of two names within each species, gallery rows, sorted.

    Chance is a hash, so that the choice follows from the photos alone: of a species' named photos those with
    the lowest SHA-256 of photo and chip id, `reference_photos` of them, and of their pairs those with the
    lowest pair id. An unknown species is one of its own.
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
