"""Tables that retrieval fills: pairs to score, and cosines of many more neighbours.

The latter need no pictures.
"""

from __future__ import annotations

import pyarrow as pa

from schemas.tables.columns import F32, I32, PAIR_KEY, STRING, Table, column, required
from schemas.tables.copies import LEAST_HASH_DISTANCE

NEIGHBOURS = Table(
    "neighbours",
    "one row per unordered pair of photos of which one ever was among the other's nearest by some rule; the view of the same "
    "name ranks them under current names",
    ("photo_a", "photo_b", "chip_a", "chip_b"),
    pa.schema(
        [
            required("photo_a", STRING, "photo id of the pair's first photo (photo_a < photo_b)"),
            required("photo_b", STRING, "photo id of the pair's second photo"),
            required("chip_a", STRING, "chip of photo_a"),
            required("chip_b", STRING, "chip of photo_b"),
            required("cosine", F32, "cosine of the two stored embeddings, accumulated in double precision"),
        ]
    ),
    # The settings decide which pairs are kept; what a row says follows from the embeddings alone.
    fingerprint="embeddings",
)

PAIRS = Table(
    "pairs",
    "one row per unordered candidate pair ever retrieved; ranks are a view over these rows",
    ("pair_id",),
    pa.schema(
        [
            *PAIR_KEY,
            required("chip_a", STRING, "chip of photo_a"),
            required("chip_b", STRING, "chip of photo_b"),
            required("cosine", F32, "cosine of the two stored embeddings, accumulated in double precision"),
            column("hash_distance", I32, "differing bits of the two perceptual hashes (0-64)"),
            LEAST_HASH_DISTANCE,
        ]
    ),
    fingerprint="pairs",
)
