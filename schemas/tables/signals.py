"""The table of signals: what a pair's local matches say where the model looks.

It is apart from the scores, under a fingerprint of its own, so that scores stay valid when a signal is added
or defined anew.
"""

from __future__ import annotations

import pyarrow as pa

from schemas.tables.columns import F32, I32, LAYER, PAIR_KEY, Table, column

SIGNALS_VERSION = 1
"""Raised when a signal is added or its equation changes; part of the fingerprint.

The equations stand in `pairx_engine/pair/corroboration.py`.
"""

SIGNALS = Table(
    "signals",
    "one row per pair and layer: local matches counted where the model looks",
    ("pair_id", "layer"),
    pa.schema(
        [
            *PAIR_KEY,
            LAYER,
            column(
                "weighted_matches",
                F32,
                "sum over local matches of the root of both cells' relevance, each as a multiple of its photo's mean; null "
                "where a photo has no relevance or no keypoints",
            ),
            column(
                "product_weighted_matches",
                F32,
                "the same sum of the products of both relevances",
            ),
            column(
                "agreeing_matches",
                I32,
                "local matches whose two ends lie within one cell of those of a mutual match of deep features",
            ),
            column("weighted_agreeing_matches", F32, "weighted_matches over those that agree"),
            column(
                "weighted_inliers", F32, "weighted_matches over the inliers of the homography; null without H"
            ),
            column(
                "weighted_inverted_residual_mean",
                F32,
                "1 / mean residual of Eq. 4, weighted by the root of both cells' relevance, 1 / chip pixels; null without H",
            ),
            column(
                "match_symmetry",
                F32,
                "correlation of both photos' relevance at the mutual matches of deep features, -1 to 1",
            ),
            column(
                "local_symmetry", F32, "correlation of both photos' relevance at the local matches, -1 to 1"
            ),
        ]
    ),
    fingerprint="signals",
)
