"""The table of copies that were verified, and the hashes by which they are found."""

from __future__ import annotations

import pyarrow as pa

from schemas.tables.columns import BOOL, F32, F64, I32, PAIR_KEY, STRING, Table, column, required

HASHES = (
    column(
        "perceptual_hash",
        pa.uint64(),
        "64-bit difference hash of the chip: near-identical pictures differ in few bits",
    ),
    column(
        "orientation_hashes",
        pa.list_(pa.uint64()),
        "the same of the chip as it is, turned counter-clockwise by 90, 180 and 270 degrees, and of its mirror image likewise; "
        "null in rows stored before the column existed",
    ),
)

LEAST_HASH_DISTANCE = column(
    "least_hash_distance",
    I32,
    "hash_distance with one picture turned or mirrored as suits best; null in rows stored before the column existed",
)

COPIES = Table(
    "copies",
    "one row per pair that was compared pixel by pixel: are the two photos one picture, saved again?",
    ("pair_id",),
    pa.schema(
        [
            *PAIR_KEY,
            required("chip_a", STRING, "chip of photo_a"),
            required("chip_b", STRING, "chip of photo_b"),
            required(
                "hash_distance",
                I32,
                "differing bits (0-64) of the two perceptual hashes, with one picture turned or mirrored as suits best",
            ),
            required(
                "transform",
                STRING,
                "what was done to photo_a to get photo_b, comma-separated: mirrored, then turned_90, turned_180 or turned_270 "
                "(clockwise) or turned, cropped (either of the two), resized; or alone identical, resaved or none",
            ),
            required("mirrored", BOOL, "whether left and right changed places"),
            column(
                "matrix",
                pa.list_(F64, 6),
                "2x3 matrix, row by row, pixels of photo_a's cut to those of photo_b's; null where none was found",
            ),
            required("agreement", F32, "correlation of the gradients over all that both show, in [-1, 1]"),
            required("weakest", F32, "the same in the part of the picture where it is lowest"),
            required("overlap", F32, "share of the smaller picture that the larger one shows, in [0, 1]"),
            required(
                "inliers",
                I32,
                "local matches that led to the transform; 0 where whole pictures were laid onto each other",
            ),
            required("same_picture", BOOL, "whether the two are one picture, saved again"),
        ]
    ),
    fingerprint="copies",
)
