"""Arrow schemas of every table in the warehouse.

One Parquet file is one shard: ``TABLE/fingerprint=F/SHARD.parquet``. The fingerprint is the hive partition, so it is a
column for every reader without being stored in every row. Column descriptions live in the field metadata: they travel
with each file and `pairx sql --tables NAME` prints them.
"""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa

SCHEMA_VERSION = 1
"""Raised whenever a column changes its meaning; part of every fingerprint and of every file's metadata."""


def _column(name: str, kind: pa.DataType, about: str, nullable: bool = True) -> pa.Field:
    return pa.field(name, kind, nullable=nullable, metadata={"about": about})


def _required(name: str, kind: pa.DataType, about: str) -> pa.Field:
    return _column(name, kind, about, nullable=False)


_STRING, _F32, _F64, _I32, _I64, _BOOL = (
    pa.string(),
    pa.float32(),
    pa.float64(),
    pa.int32(),
    pa.int64(),
    pa.bool_(),
)
_PAIR_KEY = [
    _required("pair_id", _STRING, "hash of both photo ids and both chip ids; the same for (a, b) and (b, a)"),
    _required("photo_a", _STRING, "photo id of the pair's first photo (photo_a < photo_b)"),
    _required("photo_b", _STRING, "photo id of the pair's second photo"),
]
_LAYER = _required("layer", _STRING, "name of the network layer whose features were matched")


@dataclass(frozen=True)
class Table:
    """One table: its name, what a row is, its key and its Arrow schema."""

    name: str
    about: str
    key: tuple[str, ...]
    schema: pa.Schema

    def __post_init__(self) -> None:
        missing = set(self.key) - set(self.schema.names)
        if missing:
            raise ValueError(f"table {self.name}: key columns {sorted(missing)} are not in its schema")


PHOTOS = Table(
    "photos",
    "one row per photo and revision of its catalogue entry; the highest revision is current",
    ("photo_id", "revision"),
    pa.schema(
        [
            _required("photo_id", _STRING, "image_id of the catalogue"),
            _required(
                "revision", _I32, "0 for the first entry; one more each time the entry or its file changed"
            ),
            _required("present", _BOOL, "false when the photo was withdrawn from the catalogue"),
            _required("path", _STRING, "path relative to the catalogue's root"),
            _required("root", _STRING, "URL or folder that path is relative to"),
            _column("identity", _STRING, "name of the animal; null when unknown"),
            _column("species", _STRING, "species as the catalogue spells it"),
            _column("encounter", _STRING, "photos of one encounter are never paired"),
            _column(
                "taken_at",
                _STRING,
                "date or time as the catalogue gives it, ISO 8601 where it could be parsed",
            ),
            _column("viewpoint", _STRING, "side of the animal, e.g. left, right, front"),
            _column(
                "box",
                pa.list_(_F64, 4),
                "x, y, w, h in pixels of the upright photo; null for the whole photo",
            ),
            _required(
                "theta",
                _F64,
                "rotation of the animal in radians; the photo is turned by +theta about the box centre",
            ),
            _column("width", _I32, "pixels of the upright photo; null when it could not be read"),
            _column("height", _I32, "pixels of the upright photo; null when it could not be read"),
            _column("bytes", _I64, "size of the file"),
            _column("sha256", _STRING, "hash of the file's bytes; null when it could not be read"),
            _column(
                "perceptual_hash",
                pa.uint64(),
                "64-bit difference hash of the chip: near-identical pictures differ in few bits",
            ),
            _column(
                "chip_id",
                _STRING,
                "hash of sha256, box and theta: what the model saw; null when the photo failed",
            ),
            _column(
                "stamp",
                _STRING,
                "size and change time of the file when it was read; null when it was missing",
            ),
        ]
    ),
)

FAILURES = Table(
    "failures",
    "one row per item that a stage could not process; everything else went on",
    ("stage", "item", "layer"),
    pa.schema(
        [
            _required("stage", _STRING, "ingest, embed, score or draw"),
            _required("item", _STRING, "photo_id or pair_id"),
            _column("layer", _STRING, "layer for score and draw failures of one layer"),
            _column("revision", _I32, "photo revision for ingest failures"),
            _column("chip_id", _STRING, "chip for embed failures"),
            _required("code", _STRING, "one of the closed set in schemas/failures.py"),
            _required("message", _STRING, "what happened, in words"),
        ]
    ),
)

EMBEDDINGS = Table(
    "embeddings",
    "one row per photo and chip: the model's embedding",
    ("photo_id", "chip_id"),
    pa.schema(
        [
            _required("photo_id", _STRING, "image_id of the catalogue"),
            _required("chip_id", _STRING, "chip that was embedded"),
            _required("norm", _F32, "L2 norm of the raw embedding"),
            _required(
                "embedding", pa.list_(pa.float16()), "raw embedding divided by its L2 norm, half precision"
            ),
        ]
    ),
)

KEYPOINTS = Table(
    "keypoints",
    "one row per photo and chip: local features for the independent homography, extracted once",
    ("photo_id", "chip_id"),
    pa.schema(
        [
            _required("photo_id", _STRING, "image_id of the catalogue"),
            _required("chip_id", _STRING, "chip that the features were found in"),
            _required("view_width", _I32, "width of the view (same cut as the chip, larger) in pixels"),
            _required("view_height", _I32, "height of that view in pixels"),
            _required("x", pa.list_(_F32), "x of each keypoint in view pixels"),
            _required("y", pa.list_(_F32), "y of each keypoint in view pixels"),
            _required("score", pa.list_(_F32), "detector's response of each keypoint"),
            _required("dimension", _I32, "length of one descriptor"),
            _required("descriptors", pa.list_(pa.float16()), "descriptors, one after another"),
        ]
    ),
)

PAIRS = Table(
    "pairs",
    "one row per unordered candidate pair ever retrieved; ranks are a view over these rows",
    ("pair_id",),
    pa.schema(
        [
            *_PAIR_KEY,
            _required("chip_a", _STRING, "chip of photo_a"),
            _required("chip_b", _STRING, "chip of photo_b"),
            _required("cosine", _F32, "cosine of the two stored embeddings, accumulated in double precision"),
            _column("hash_distance", _I32, "differing bits of the two perceptual hashes (0-64)"),
        ]
    ),
)

SCORES = Table(
    "scores",
    "one row per pair and layer: the narrow table that SQL reads",
    ("pair_id", "layer"),
    pa.schema(
        [
            *_PAIR_KEY,
            _LAYER,
            _required(
                "n_matches", _I32, "mutual nearest matches of deep features, before any relevance filter"
            ),
            _required("match_fraction", _F32, "n_matches / number of cells of photo_a's grid"),
            _column(
                "match_coverage",
                _F32,
                "relevance-weighted match coverage (Eq. 5), in [0, 1]; higher is more plausible",
            ),
            _column(
                "residual_mean",
                _F32,
                "mean of |H p_a - p_b| over all mutual matches (Eq. 4), chip pixels; null without H",
            ),
            _column(
                "inverted_residual_mean",
                _F32,
                "1 / residual_mean (Eq. 4), 1 / chip pixels; higher is more plausible",
            ),
            _column(
                "top_residual_mean",
                _F32,
                "the same mean over the 5 % of matches with most relevance, chip pixels",
            ),
            _required("n_local_matches", _I32, "matches of the independent local matcher"),
            _column("n_inliers", _I32, "local matches that the homography explains; null without H"),
            _column(
                "homography",
                pa.list_(_F64, 9),
                "3x3 matrix, row by row, photo_a chip pixels to photo_b chip pixels",
            ),
            _column("no_homography_reason", _STRING, "why there is no homography; null when there is one"),
            _required("relevance_a", _F32, "total relevance of photo_a's grid"),
            _required("relevance_b", _F32, "total relevance of photo_b's grid"),
        ]
    ),
)

MATCHES = Table(
    "matches",
    "one row per pair and layer: its mutual matches as parallel lists, most relevant first",
    ("pair_id", "layer"),
    pa.schema(
        [
            *_PAIR_KEY,
            _LAYER,
            _required("column_a", pa.list_(pa.int16()), "grid column of each match in photo_a"),
            _required("row_a", pa.list_(pa.int16()), "grid row of each match in photo_a"),
            _required("column_b", pa.list_(pa.int16()), "grid column of each match in photo_b"),
            _required("row_b", pa.list_(pa.int16()), "grid row of each match in photo_b"),
            _required("x_a", pa.list_(_F32), "x of the cell's centre in photo_a, chip pixels"),
            _required("y_a", pa.list_(_F32), "y of the cell's centre in photo_a, chip pixels"),
            _required("x_b", pa.list_(_F32), "x of the cell's centre in photo_b, chip pixels"),
            _required("y_b", pa.list_(_F32), "y of the cell's centre in photo_b, chip pixels"),
            _required("distance", pa.list_(_F32), "L2 distance of the two unnormalised descriptors"),
            _required("relevance", pa.list_(_F64), "product of the two cells' relevances"),
            _column("residual", pa.list_(_F32), "|H p_a - p_b| in chip pixels; null without a homography"),
        ]
    ),
)

RELEVANCES = Table(
    "relevances",
    "one row per pair and layer: the two relevance grids",
    ("pair_id", "layer"),
    pa.schema(
        [
            *_PAIR_KEY,
            _LAYER,
            _required("height", _I32, "rows of both grids"),
            _required("width", _I32, "columns of both grids"),
            _required("grid_a", pa.list_(_F32), "relevance of photo_a's cells, row by row"),
            _required("grid_b", pa.list_(_F32), "relevance of photo_b's cells, row by row"),
        ]
    ),
)

EXPLANATIONS = Table(
    "explanations",
    "one row per drawn pair and layer: the PAIR-X figure and the pixel maps of its first matches",
    ("pair_id", "layer"),
    pa.schema(
        [
            *_PAIR_KEY,
            _LAYER,
            _required("n_drawn", _I32, "matches that were propagated back to the pixels"),
            _required("figure", pa.binary(), "the whole figure, PNG"),
            _required("chips", pa.binary(), "the two chips side by side, WebP"),
            _required(
                "overlay", pa.binary(), "relevance overlay and match lines of the same size, transparent WebP"
            ),
            _required("colours", pa.binary(), "colour-coded pixel maps, WebP"),
            _required(
                "maps_a",
                pa.list_(pa.binary()),
                "per match: pixel relevance of photo_a / its maximum, 16-bit grey PNG",
            ),
            _required(
                "maps_b",
                pa.list_(pa.binary()),
                "per match: pixel relevance of photo_b / its maximum, 16-bit grey PNG",
            ),
            _required("peak_a", pa.list_(_F64), "per match: the maximum that maps_a was divided by"),
            _required("peak_b", pa.list_(_F64), "per match: the maximum that maps_b was divided by"),
        ]
    ),
)

SUSPECTS = Table(
    "suspects",
    "one row per suspect pair as ranked at the end of a run; the view of the same name is always current",
    ("state", "pair_id", "kind"),
    pa.schema(
        [
            _required("state", _STRING, "hash of the catalogue state that was ranked"),
            _required("rank", _I32, "1 = most suspect"),
            _required("kind", _STRING, "copy, different_name_same_animal or same_name_different_animal"),
            _required("score", _F64, "suspicion in [0, 1]; 1 = most suspect"),
            *_PAIR_KEY,
            _column("identity_a", _STRING, "name of photo_a when it was ranked"),
            _column("identity_b", _STRING, "name of photo_b when it was ranked"),
            _required("cosine", _F32, "cosine of the two embeddings"),
            _column("inverted_residual_mean", _F32, "Eq. 4, 1 / chip pixels"),
            _column("match_coverage", _F32, "Eq. 5"),
            _required("n_matches", _I32, "mutual matches of deep features"),
            _column("n_inliers", _I32, "local matches that the homography explains"),
            _required("reason", _STRING, "why the pair is listed, in words"),
        ]
    ),
)

RUNS = Table(
    "runs",
    "one row per run and status: started, then finished or failed",
    ("run_id", "status"),
    pa.schema(
        [
            _required("run_id", _STRING, "start time and a random suffix; sorts by time"),
            _required("status", _STRING, "started, finished or failed"),
            _required("at", pa.timestamp("us", tz="UTC"), "when this row was written"),
            _required("photos_fingerprint", _STRING, "partition of photos"),
            _required("embeddings_fingerprint", _STRING, "partition of embeddings"),
            _required("keypoints_fingerprint", _STRING, "partition of keypoints"),
            _required("pairs_fingerprint", _STRING, "partition of pairs"),
            _required("scores_fingerprint", _STRING, "partition of matches, relevances and scores"),
            _required("explanations_fingerprint", _STRING, "partition of explanations"),
            _required("suspects_fingerprint", _STRING, "partition of suspects"),
            _required("layer", _STRING, "first layer: the one that suspects are ranked by"),
            _required("top_k", _I32, "neighbours per photo"),
            _required("same_name_k", _I32, "nearest photos of the same name per photo"),
            _column("state", _STRING, "hash of the catalogue state after ingest; null while it is not known"),
            _required("settings", _STRING, "all settings, JSON"),
            _required("versions", _STRING, "versions of the packages that compute, JSON"),
            _column("counts", _STRING, "rows per stage and the balance, JSON"),
            _column("timings", _STRING, "seconds per stage, JSON"),
            _column(
                "stages",
                _STRING,
                "per stage: shards, rows, failed, seconds of work and engine, peak bytes, JSON",
            ),
            _column("driver_peak_bytes", _I64, "largest resident size of the driving process"),
            _column("message", _STRING, "error of a failed run"),
        ]
    ),
)

TABLES: dict[str, Table] = {
    t.name: t
    for t in (
        PHOTOS, FAILURES, EMBEDDINGS, KEYPOINTS, PAIRS, MATCHES, RELEVANCES, SCORES, EXPLANATIONS, SUSPECTS, RUNS,
    )
}  # fmt: skip
