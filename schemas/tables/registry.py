"""Arrow schemas of every table in the warehouse.

One Parquet file is one shard: ``TABLE/fingerprint=F/SHARD.parquet``. The fingerprint is the hive partition,
so it is a column for every reader without being stored in every row. Column descriptions live in the field
metadata: they travel with each file and `pairx sql --tables NAME` prints them.

To add a table, write its value, here or elsewhere, and add its name to the list at the end (`register_table`
from outside the package). Its views, its check and its partition follow.
"""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa

from schemas.sql.files import kinds_in_words
from schemas.stages import STAGES
from schemas.tables.columns import BOOL, F32, F64, I32, I64, LAYER, PAIR_KEY, STRING, Table, column, required
from schemas.tables.copies import COPIES, HASHES
from schemas.tables.evaluation import EVALUATION_TABLES
from schemas.tables.files import FILES
from schemas.tables.judgement import JUDGEMENT_TABLES
from schemas.tables.retrieval import HORIZONS, NEIGHBOURS, PAIRS
from schemas.tables.reviews import REVIEW_TABLES
from schemas.tables.scores import MATCHES, RELEVANCES, SCORES
from schemas.tables.signals import SIGNALS

SCHEMA_VERSION = 1
"""Raised when a column changes its meaning; part of fingerprints and of every file's metadata."""
_FEW = 8
"""Rows per group of tables of heavy rows."""

PHOTOS = Table(
    "photos",
    "one row per photo and revision of its catalogue entry; the highest revision is current",
    ("photo_id", "revision"),
    pa.schema(
        [
            required("photo_id", STRING, "image_id of the catalogue"),
            required(
                "revision", I32, "0 for the first entry; one more each time the entry or its file changed"
            ),
            required("present", BOOL, "false when the photo was withdrawn from the catalogue"),
            required("path", STRING, "path relative to the catalogue's root"),
            required("root", STRING, "URL or folder that path is relative to"),
            column("identity", STRING, "name of the animal; null when unknown"),
            column("species", STRING, "species as the catalogue spells it"),
            column("encounter", STRING, "photos of one encounter are never paired"),
            column("taken_at", STRING, "date or time as the catalogue gives it, ISO 8601 where possible"),
            column(
                "viewpoint",
                STRING,
                "side of the animal: up or down, front or back, left or right, or joined, e.g. frontleft",
            ),
            column(
                "box",
                pa.list_(F64, 4),
                "x, y, w, h in pixels of the upright photo; null for the whole photo, zeros for a box that cannot be used",
            ),
            required(
                "theta",
                F64,
                "rotation of the animal in radians; the photo is turned by +theta about the box centre",
            ),
            column("width", I32, "pixels of the upright photo; null when it could not be read"),
            column("height", I32, "pixels of the upright photo; null when it could not be read"),
            column("bytes", I64, "size of the file"),
            column("sha256", STRING, "hash of the file's bytes; null when it could not be read"),
            *HASHES,
            column(
                "chip_id",
                STRING,
                "hash of sha256, box and theta: what the model saw; null when the photo failed",
            ),
            column(
                "stamp",
                STRING,
                "size and change time of the file when it was read; null when it was missing",
            ),
            column(
                "extra",
                pa.map_(STRING, STRING),
                "other columns of the catalogue by their names, e.g. extra['site']; null when it has none",
            ),
        ]
    ),
    fingerprint="photos",
)

EMBEDDINGS = Table(
    "embeddings",
    "one row per photo and chip: the model's embedding",
    ("photo_id", "chip_id"),
    pa.schema(
        [
            required("photo_id", STRING, "image_id of the catalogue"),
            required("chip_id", STRING, "chip that was embedded"),
            required("norm", F32, "L2 norm of the raw embedding"),
            required(
                "embedding", pa.list_(pa.float16()), "raw embedding divided by its L2 norm, half precision"
            ),
        ]
    ),
    fingerprint="embeddings",
)

GALLERIES = Table(
    "galleries",
    "one row per photo that was compared in one state of the catalogue; its file is named by the state",
    ("photo_id",),
    pa.schema(
        [
            required("photo_id", STRING, "image_id of the catalogue"),
            required("chip_id", STRING, "chip whose embedding was compared"),
            column("identity", STRING, "name of the animal in that state; null when unknown"),
            column("encounter", STRING, "photos of one encounter are never paired"),
            column("species", STRING, "species as the catalogue spells it"),
            column("viewpoint", STRING, "side of the animal"),
            *HASHES,
        ]
    ),
    fingerprint="embeddings",
)

KEYPOINTS = Table(
    "keypoints",
    "one row per photo and chip: local features for the independent homography, extracted once",
    ("photo_id", "chip_id"),
    pa.schema(
        [
            required("photo_id", STRING, "image_id of the catalogue"),
            required("chip_id", STRING, "chip that the features were found in"),
            required("view_width", I32, "width of the view (same cut as the chip, larger) in pixels"),
            required("view_height", I32, "height of that view in pixels"),
            required("x", pa.list_(F32), "x of each keypoint in view pixels"),
            required("y", pa.list_(F32), "y of each keypoint in view pixels"),
            required("score", pa.list_(F32), "detector's response of each keypoint"),
            required("dimension", I32, "length of one descriptor"),
            required("descriptors", pa.list_(pa.float16()), "descriptors, one after another"),
        ]
    ),
    fingerprint="keypoints",
    rows_per_group=_FEW,
)

EXPLANATIONS = Table(
    "explanations",
    "one row per drawn pair and layer: the PAIR-X figure and the pixel maps of its first matches",
    ("pair_id", "layer"),
    pa.schema(
        [
            *PAIR_KEY,
            LAYER,
            required("n_drawn", I32, "matches that were propagated back to the pixels"),
            required("figure", pa.binary(), "the whole figure, WebP"),
            required(
                "chips",
                pa.binary(),
                "the two photos side by side, each at its own resolution, nothing drawn, WebP",
            ),
            required(
                "overlay", pa.binary(), "relevance overlay and match lines of the same size, transparent WebP"
            ),
            required("colours", pa.binary(), "colour-coded pixel maps, WebP"),
            required(
                "maps_a",
                pa.list_(pa.binary()),
                "per match: pixel relevance of photo_a / its maximum, 16-bit grey PNG",
            ),
            required(
                "maps_b",
                pa.list_(pa.binary()),
                "per match: pixel relevance of photo_b / its maximum, 16-bit grey PNG",
            ),
            required("peak_a", pa.list_(F64), "per match: the maximum that maps_a was divided by"),
            required("peak_b", pa.list_(F64), "per match: the maximum that maps_b was divided by"),
        ]
    ),
    fingerprint="explanations",
    rows_per_group=_FEW,
)

SUSPECTS = Table(
    "suspects",
    "one row per suspect pair as ranked at the end of a run; the view of the same name is always current",
    ("state", "basis", "rank"),
    pa.schema(
        [
            required("state", STRING, "hash of the catalogue state that was ranked"),
            required("rank", I32, "1 = most suspect"),
            required("kind", STRING, kinds_in_words()),
            required("score", F64, "suspicion in [0, 1]; 1 = most suspect"),
            *PAIR_KEY,
            column("identity_a", STRING, "name of photo_a when it was ranked"),
            column("identity_b", STRING, "name of photo_b when it was ranked"),
            column(
                "cosine", F32, "cosine of the two embeddings; null for a pair of names that nobody explained"
            ),
            column("inverted_residual_mean", F32, "Eq. 4, 1 / chip pixels"),
            column("match_coverage", F32, "Eq. 5"),
            column("n_matches", I32, "mutual matches of deep features"),
            column("n_inliers", I32, "local matches that the homography explains"),
            column("blamed_photo", STRING, "photo that has the wrong name"),
            column("proposed_name", STRING, "name that would fit"),
            column("probability", F64, "that the names are wrong so"),
            required("reason", STRING, "why the pair is listed, in words"),
            column("subject_kind", STRING, "what is suspect: photo, pair or name; null in older rows"),
            column("subject", STRING, "photo id, pair id or name that is suspect; null in older rows"),
            column(
                "asks",
                STRING,
                "kind of the question in `reviews` that it asks a person; empty where it asks none",
            ),
            column("basis", I64, "evidence that the judgement behind it rests on; null in older rows"),
        ]
    ),
    fingerprint="suspects",
)

_OF_RUNS = (
    PHOTOS, EMBEDDINGS, GALLERIES, KEYPOINTS, NEIGHBOURS, HORIZONS, PAIRS, MATCHES, RELEVANCES, SIGNALS, SCORES, EXPLANATIONS,
    COPIES, *JUDGEMENT_TABLES, SUSPECTS,
)  # fmt: skip
FINGERPRINTS = tuple(dict.fromkeys(t.fingerprint for t in _OF_RUNS if t.fingerprint))
"""A run's fingerprints, in the order of the first table that lies under each."""


def _failing_stages() -> str:
    """The stages in which items fail: those of a run, then those of evaluations."""
    stored = {table.name for table in _OF_RUNS}
    failing = [(s.name, stored.issuperset(s.failing.tables)) for s in STAGES.values() if s.failing]
    of_runs, others = ([name for name, of_run in failing if of_run is wanted] for wanted in (True, False))
    return f"{_listed(of_runs, 'or')}; {_listed(others, 'or')} of an evaluation"


def _listed(names: Sequence[str], word: str) -> str:
    *first, last = names
    return f"{', '.join(first)} {word} {last}" if first else last


FAILURES = Table(
    "failures",
    "one row per item that a stage could not process; everything else went on",
    ("stage", "item", "layer"),
    pa.schema(
        [
            required("stage", STRING, _failing_stages()),
            required("item", STRING, "photo_id or pair_id"),
            column("layer", STRING, "layer for score and draw failures of one layer"),
            column("revision", I32, "photo revision for ingest failures"),
            column("chip_id", STRING, "chip for embed failures"),
            required("code", STRING, "one of the closed set in schemas/failures.py"),
            required("message", STRING, "what happened, in words"),
        ]
    ),
)

_OF_EVERY_RUN = ("photos", "embeddings", "keypoints", "pairs", "scores", "explanations", "suspects")
"""Fingerprints of the first version; one that was added later is null in rows of older runs."""


def _fingerprint_columns() -> list[pa.Field]:
    """The columns of `runs` that say which partitions a run looks at."""
    found = []
    for name in FINGERPRINTS:
        about = f"partition of {_listed([t.name for t in _OF_RUNS if t.fingerprint == name], 'and')}"
        make = required if name in _OF_EVERY_RUN else column
        found.append(make(f"{name}_fingerprint", STRING, about))
    return found


RUNS = Table(
    "runs",
    "one row per run and status: started, then finished or failed",
    ("run_id", "status"),
    pa.schema(
        [
            required("run_id", STRING, "start time and a random suffix; sorts by time"),
            required("status", STRING, "started, finished or failed"),
            required("at", pa.timestamp("us", tz="UTC"), "when this row was written"),
            *_fingerprint_columns(),
            required("layer", STRING, "first layer: the one that suspects are ranked by"),
            required("top_k", I32, "neighbours per photo"),
            required("same_name_k", I32, "nearest photos of the same name per photo"),
            column("state", STRING, "hash of the catalogue state after ingest; null while it is not known"),
            required("settings", STRING, "all settings, JSON"),
            required("versions", STRING, "versions of the packages that compute, JSON"),
            column("counts", STRING, "rows per stage and the balance, JSON"),
            column("timings", STRING, "seconds per stage, JSON"),
            column(
                "stages",
                STRING,
                "per stage: shards, items, rows, failed, seconds of wall, workers, processors and engine, peak bytes, and parts: "
                "where the workers' seconds went, JSON",
            ),
            column("driver_peak_bytes", I64, "largest resident size of the driving process"),
            column(
                "processor_seconds",
                F64,
                "what the driver and its workers' tasks worked, without the start of programs; null in older rows",
            ),
            column("devices", pa.list_(STRING), "kinds of devices that computed; null where none did"),
            column("message", STRING, "error of a failed run"),
            column(
                "remarks",
                pa.list_(STRING),
                "what the catalogue's columns were taken for, and what looked odd",
            ),
            column("snapshot", STRING, "name of the files that keep its current views; null where none do"),
            column("basis", I64, "evidence that its judgement rests on; null in older rows"),
            column(
                "report_run",
                STRING,
                "run whose report shows what it found, where nothing has changed since; null where it wrote its own",
            ),
            column(
                "standing",
                STRING,
                "hash of what decides whether the next run has work; null where that one has, and in older rows",
            ),
            column(
                "engine",
                STRING,
                "what model and matcher say of themselves, and a hash of what that follows from, JSON; null in older rows",
            ),
        ]
    ),
)

TABLES: dict[str, Table] = {
    t.name: t for t in (*_OF_RUNS, FAILURES, RUNS, FILES, *EVALUATION_TABLES, *REVIEW_TABLES)
}
"""Every table by its name."""


def register_table(table: Table) -> Table:
    """Make a table from outside the package known to the warehouse and its views; returns it.

    Raises `ValueError` for a name that another table has, and for a fingerprint that runs do not have.
    """
    if TABLES.setdefault(table.name, table) != table:
        raise ValueError(f"there is another table {table.name}")
    if table.fingerprint not in (None, *FINGERPRINTS):
        del TABLES[table.name]
        raise ValueError(f"runs have the fingerprints {', '.join(FINGERPRINTS)}, not {table.fingerprint}")
    return table
