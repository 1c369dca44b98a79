"""The evidence in the views: photos, pairs with all signals, and what people said of them."""

from __future__ import annotations

from dataclasses import dataclass

import duckdb
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pairx_engine.judgement.inputs import Pairs, Photos
from tasks.gallery import Gallery

_PAIRS = """
    WITH numbered AS (
        SELECT photo_id, row_number() OVER (ORDER BY photo_id) - 1 AS number, viewpoint, perceptual_hash
        FROM photos SEMI JOIN run_embeddings USING (photo_id, chip_id)
    ),
    near AS (
        SELECT
            least(p.number, o.number) AS a,
            greatest(p.number, o.number) AS b,
            any_value(cosine) AS cosine,
            max(rank) FILTER (p.number < o.number) AS rank_a,
            max(rank) FILTER (p.number > o.number) AS rank_b
        FROM neighbours AS n
        JOIN numbered AS p ON p.photo_id = n.photo
        JOIN numbered AS o ON o.photo_id = n.other
        GROUP BY ALL
    ),
    scored AS (
        SELECT a.number AS a, b.number AS b, s.pair_id, s.cosine, s.rank_a, s.rank_b
        FROM pair_scores AS s
        JOIN numbered AS a ON a.photo_id = s.photo_a
        JOIN numbered AS b ON b.photo_id = s.photo_b
    ),
    told AS (
        SELECT pair_id, max(CAST(verdict IN ('same_animal', 'one_animal') AS INTEGER)) AS verdict
        FROM reviews
        WHERE applies AND verdict IN ('same_animal', 'one_animal', 'different_animals', 'two_animals')
        GROUP BY pair_id
    )
    SELECT
        a,
        b,
        coalesce(s.cosine, n.cosine) AS cosine,
        coalesce(n.rank_a, s.rank_a, 0) AS rank_a,
        coalesce(n.rank_b, s.rank_b, 0) AS rank_b,
        one_side(x.viewpoint, y.viewpoint) AS comparable,
        (x.perceptual_hash <> 0 AND y.perceptual_hash <> 0
            AND near_identical(bit_count(xor(x.perceptual_hash, y.perceptual_hash)))) IS TRUE
            OR c.same_picture IS TRUE AS same_picture,
        coalesce(t.verdict, -1) AS verdict,
        s.pair_id,
        g.* EXCLUDE (pair_id)
    FROM near AS n
    FULL OUTER JOIN scored AS s USING (a, b)
    JOIN numbered AS x ON x.number = a
    JOIN numbered AS y ON y.number = b
    LEFT JOIN judged_signals AS g ON g.pair_id = s.pair_id
    LEFT JOIN copies AS c ON c.pair_id = s.pair_id
    LEFT JOIN told AS t ON t.pair_id = s.pair_id
    ORDER BY a, b
"""
_OWN = {"a", "b", "cosine", "rank_a", "rank_b", "comparable", "same_picture", "verdict", "pair_id"}
_NAMES = """
    SELECT photo_a AS photo_id, max(CAST(verdict = 'right' AS INTEGER)) AS verdict
    FROM reviews
    WHERE kind = 'name' AND applies AND verdict IN ('right', 'wrong')
    GROUP BY photo_a
"""


@dataclass(frozen=True, eq=False)
class CatalogueEvidence:
    """A catalogue as it is judged: `photos` in the gallery's order, and comparable `pairs`.

    `scored` says of each pair whether it has scores, and `pair_ids` its id if it has. Pairs of two sides
    of an animal are not judged.
    """

    gallery: Gallery
    photos: Photos
    pairs: Pairs
    scored: NDArray[np.bool_]
    pair_ids: pa.ChunkedArray


def evidence_of(connection: duckdb.DuckDBPyConnection, gallery: Gallery) -> CatalogueEvidence:
    """Read the evidence of the state that the views show; its photos are those of the gallery."""
    found = connection.sql(_PAIRS).to_arrow_table()
    found = found.filter(found["comparable"])
    told = dict(connection.execute(_NAMES).fetchall())
    names = list(gallery.names)
    species = gallery.photos["species"].to_pylist()
    verdict = np.array([told.get(photo, -1) for photo in gallery.photo_ids], dtype=np.int64)
    pairs = Pairs(
        first=_ints(found["a"]),
        second=_ints(found["b"]),
        cosine=_floats(found["cosine"]),
        rank_first=_ints(found["rank_a"]),
        rank_second=_ints(found["rank_b"]),
        same_picture=np.asarray(found["same_picture"].to_numpy(), dtype=bool),
        signals={name: _floats(found[name]) for name in found.column_names if name not in _OWN},
        verdict=_ints(found["verdict"]),
        top_k=connection.execute("SELECT top_k FROM current_run").fetchall()[0][0],
    )
    scored = np.asarray(found["pair_id"].is_valid().to_numpy(), dtype=bool)
    return CatalogueEvidence(
        gallery,
        Photos.of(names, species, verdict),
        pairs,
        scored,
        found["pair_id"],
    )


def _ints(column: pa.ChunkedArray) -> NDArray[np.int64]:
    return np.asarray(column.to_numpy(), dtype=np.int64)


def _floats(column: pa.ChunkedArray) -> NDArray[np.float64]:
    return np.asarray(column.cast(pa.float64()).to_numpy(), dtype=np.float64)
