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

HORIZONS = Table(
    "horizons",
    "one row per photo and rule whose stored list was filled: how far it reaches in one state of the catalogue; its file is named "
    "by the state and the length of lists",
    ("photo", "rule"),
    pa.schema(
        [
            required("photo", I32, "row of the photo in the file of `galleries` of that state"),
            required("rule", STRING, "top_k, same_name or other_name"),
            required(
                "cosine", F32, "cosine of the last entry: what lies nearer and was admissible is stored"
            ),
            required("last", I32, "row of the last entry's photo; of equal cosines lower rows come first"),
        ]
    ),
    fingerprint="pairs",
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
