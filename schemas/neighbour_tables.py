"""The table of neighbours: cosines of many more pairs than are scored, for all that needs no pictures."""

from __future__ import annotations

import pyarrow as pa

from schemas.columns import F32, STRING, Table, required

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
    # Which pairs are kept follows from the settings, what a row says from the embeddings alone.
    fingerprint="embeddings",
)
