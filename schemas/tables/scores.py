"""Tables of scored pairs: the narrow one that SQL reads, and the matches and relevances behind it."""

from __future__ import annotations

import pyarrow as pa

from schemas.tables.columns import F32, F64, I32, LAYER, PAIR_KEY, STRING, Table, column, required

SCORES = Table(
    "scores",
    "one row per pair and layer: the narrow table that SQL reads",
    ("pair_id", "layer"),
    pa.schema(
        [
            *PAIR_KEY,
            LAYER,
            required(
                "n_matches", I32, "mutual nearest matches of deep features, before any relevance filter"
            ),
            required("match_fraction", F32, "n_matches / number of cells of photo_a's grid"),
            column(
                "match_coverage",
                F32,
                "relevance-weighted match coverage (Eq. 5), in [0, 1]; higher is more plausible",
            ),
            column(
                "residual_mean",
                F32,
                "mean of |H p_a - p_b| over all mutual matches (Eq. 4), chip pixels; null without H",
            ),
            column(
                "inverted_residual_mean",
                F32,
                "1 / residual_mean (Eq. 4), 1 / chip pixels; higher is more plausible",
            ),
            column(
                "top_residual_mean",
                F32,
                "the same mean over the 5 % of matches with most relevance, chip pixels",
            ),
            required("n_local_matches", I32, "matches of the independent local matcher"),
            column("n_inliers", I32, "local matches that the homography explains; null without H"),
            column(
                "homography",
                pa.list_(F64, 9),
                "3x3 matrix, row by row, photo_a chip pixels to photo_b chip pixels",
            ),
            column("no_homography_reason", STRING, "why there is no homography; null when there is one"),
            required("relevance_a", F32, "total relevance of photo_a's grid"),
            required("relevance_b", F32, "total relevance of photo_b's grid"),
        ]
    ),
    fingerprint="scores",
)

MATCHES = Table(
    "matches",
    "one row per pair and layer: its mutual matches as parallel lists, most relevant first",
    ("pair_id", "layer"),
    pa.schema(
        [
            *PAIR_KEY,
            LAYER,
            required("column_a", pa.list_(pa.int16()), "grid column of each match in photo_a"),
            required("row_a", pa.list_(pa.int16()), "grid row of each match in photo_a"),
            required("column_b", pa.list_(pa.int16()), "grid column of each match in photo_b"),
            required("row_b", pa.list_(pa.int16()), "grid row of each match in photo_b"),
            required("x_a", pa.list_(F32), "x of the cell's centre in photo_a, chip pixels"),
            required("y_a", pa.list_(F32), "y of the cell's centre in photo_a, chip pixels"),
            required("x_b", pa.list_(F32), "x of the cell's centre in photo_b, chip pixels"),
            required("y_b", pa.list_(F32), "y of the cell's centre in photo_b, chip pixels"),
            required("distance", pa.list_(F32), "L2 distance of the two unnormalised descriptors"),
            required("relevance", pa.list_(F64), "product of the two cells' relevances"),
            column("residual", pa.list_(F32), "|H p_a - p_b| in chip pixels; null without a homography"),
        ]
    ),
    fingerprint="scores",
)

RELEVANCES = Table(
    "relevances",
    "one row per pair and layer: the two relevance grids",
    ("pair_id", "layer"),
    pa.schema(
        [
            *PAIR_KEY,
            LAYER,
            required("height", I32, "rows of both grids"),
            required("width", I32, "columns of both grids"),
            required("grid_a", pa.list_(F32), "relevance of photo_a's cells, row by row"),
            required("grid_b", pa.list_(F32), "relevance of photo_b's cells, row by row"),
        ]
    ),
    fingerprint="scores",
)
