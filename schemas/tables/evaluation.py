"""Tables of evaluations: labelled pairs, measures of a sweep, and faithfulness of explanations.

No nightly run writes them: the evaluation itself finds their partitions, `Fingerprints` does not.
"""

from __future__ import annotations

import pyarrow as pa

from schemas.tables.columns import BOOL, F32, F64, I32, LAYER, PAIR_KEY, STRING, Table, column, required

EVALUATION_PAIRS = Table(
    "evaluation_pairs",
    "one row per labelled pair of an evaluation: every photo's nearest photos of its own name and of others",
    ("pair_id",),
    pa.schema(
        [
            *PAIR_KEY,
            required("chip_a", STRING, "chip of photo_a"),
            required("chip_b", STRING, "chip of photo_b"),
            required("cosine", F32, "cosine of the two stored embeddings, accumulated in double precision"),
            required("correct", BOOL, "whether both photos had one name when they were listed"),
            required("identity_a", STRING, "name of photo_a when it was listed"),
            required("identity_b", STRING, "name of photo_b when it was listed"),
            column("species_a", STRING, "species of photo_a"),
            column("species_b", STRING, "species of photo_b"),
            column("rank_a", I32, "place of photo_b among photo_a's pairs of this class; null beyond"),
            column("rank_b", I32, "place of photo_a among photo_b's pairs of this class; null beyond"),
        ]
    ),
)

MEASUREMENTS = Table(
    "measurements",
    "one row per pair, score and variant of the settings that a sweep tried",
    ("pair_id", "layer", "score", "preset", "reduction", "matcher", "homography"),
    pa.schema(
        [
            *PAIR_KEY,
            LAYER,
            required("score", STRING, "match_coverage or inverted_residual_mean"),
            column("preset", STRING, "LRP preset of a coverage; null for residuals"),
            column("reduction", STRING, "how a coverage reduces the channels; null for residuals"),
            column("matcher", STRING, "local matcher of a residual; null for coverages"),
            column("homography", STRING, "estimator of a residual; null for coverages"),
            column("value", F32, "the score; null where there is none or the variant failed"),
            required(
                "seconds", F64, "share of the shard's time that this variant alone would have cost this pair"
            ),
        ]
    ),
)


FAITHFULNESS = Table(
    "faithfulness",
    "one row per pair, way to explain it and measure of how faithful that explanation is",
    ("pair_id", "method", "measure"),
    pa.schema(
        [
            *PAIR_KEY,
            LAYER,
            required(
                "similar", BOOL, "whether the pair was measured as a similar one: both photos have one name"
            ),
            required(
                "method", STRING, "how the pixel maps were made, e.g. pairx_published, gradient, random"
            ),
            required("measure", STRING, "auc_most, auc_least, gap, aopc_most, continuity_mean and others"),
            column("value", F64, "the measure's value; null where it is undefined"),
        ]
    ),
)

LEARNED = Table(
    "learned",
    "one row per array that a way to explain pairs has learned from a catalogue",
    ("method", "name"),
    pa.schema(
        [
            required("method", STRING, "way to explain a pair"),
            required("name", STRING, "what the method calls the array"),
            required("photos", I32, "photos that it was given to learn from"),
            required("dtype", STRING, "type of the numbers as NumPy spells it, least significant byte first"),
            required("shape", pa.list_(I32), "the array's shape"),
            required("values", pa.binary(), "the numbers, one after another in row-major order"),
        ]
    ),
)

EVALUATION_TABLES = (EVALUATION_PAIRS, MEASUREMENTS, LEARNED, FAITHFULNESS)
