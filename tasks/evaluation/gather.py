"""What is left to do in an evaluation and what it has found, asked of the warehouse in SQL."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa

from pairx_engine.figure import score_line
from tasks.evaluation.statistics import ScoredList
from tasks.job import Job
from tasks.pages.evaluation_values import ALL_SCORES, OWN_SCORES, SCORES, Outlier
from tasks.pages.scatter import ReportScatter
from tasks.pairs import DrawItem, Pair, ScoredPair
from tasks.photo_files import SEEN_BY
from tasks.runs.remaining import unscored_among, without_signals_among

_SCORED = """
    SELECT * FROM run_scores WHERE layer = $layer
    QUALIFY row_number() OVER (PARTITION BY pair_id ORDER BY shard) = 1
"""
_OWN = ", ".join(f"CAST({name} AS DOUBLE) AS {name}" for name in OWN_SCORES)
_SIGNALS = f"""
    SELECT pair_id, {", ".join(OWN_SCORES)} FROM run_signals WHERE layer = $layer
    QUALIFY row_number() OVER (PARTITION BY pair_id ORDER BY shard) = 1
"""  # noqa: S608  # constants


class ListedPairs:
    """The listed pairs of one evaluation beside the stored scores of its settings."""

    def __init__(self, connection: duckdb.DuckDBPyConnection, job: Job, listed: pa.Table) -> None:
        self._connection = connection
        self._layer = job.layers[0]
        connection.register("listed", listed)

    def unscored(self, retry_failed: bool = False) -> list[Pair]:
        """Listed pairs without scores, matches or relevances at the layer, unless they failed for good."""
        return unscored_among(self._connection, "listed", self._layer, retry_failed)

    def without_signals(self, retry_failed: bool = False) -> list[ScoredPair]:
        """Listed pairs with scores but without these signals, unless their signals failed for good."""
        return without_signals_among(self._connection, "listed", self._layer, retry_failed)

    def failed(self) -> int:
        """Listed pairs without scores for which a failure stands."""
        rows = self._connection.execute(
            f"""
            SELECT count(*) FROM listed ANTI JOIN ({_SCORED}) USING (pair_id)
            WHERE pair_id IN (SELECT item FROM run_failures WHERE stage = 'score')
            """,  # noqa: S608  # constants
            {"layer": self._layer},
        ).fetchall()
        return int(rows[0][0])

    def scored(self) -> ScoredList:
        """The listed pairs that have scores, sorted by photo ids."""
        found: pa.Table = self._connection.sql(
            f"""
            SELECT pair_id, l.photo_a, l.photo_b, identity_a, identity_b,
                if(species_a = species_b, species_a, NULL) AS species,
                CAST(l.cosine AS DOUBLE) AS cosine,
                CAST(inverted_residual_mean AS DOUBLE) AS inverted_residual_mean,
                CAST(match_coverage AS DOUBLE) AS match_coverage,
                {_OWN},
                n_inliers
            FROM listed AS l JOIN ({_SCORED}) AS s USING (pair_id) LEFT JOIN ({_SIGNALS}) USING (pair_id)
            ORDER BY l.photo_a, l.photo_b
            """,  # noqa: S608  # constants
            params={"layer": self._layer},
        ).to_arrow_table()
        columns = {name: found[name].to_pylist() for name in found.column_names}
        numbers = {
            name: np.array([np.nan if v is None else v for v in columns[name]], dtype=np.float64)
            for name in ("cosine", *ALL_SCORES)
        }
        return ScoredList(
            pair_id=tuple(columns["pair_id"]),
            photo_a=tuple(columns["photo_a"]),
            photo_b=tuple(columns["photo_b"]),
            identity_a=tuple(columns["identity_a"]),
            identity_b=tuple(columns["identity_b"]),
            species=tuple(columns["species"]),
            cosine=numbers["cosine"],
            scores={name: numbers[name] for name in ALL_SCORES},
            n_inliers=tuple(columns["n_inliers"]),
        )

    def table(self) -> pa.Table:
        """Listed pairs with all scores, as an evaluation hands them to its readers."""
        return self._connection.sql(
            f"""
            SELECT l.*, s.n_matches, s.match_coverage, s.residual_mean, s.inverted_residual_mean, s.n_inliers,
                s.no_homography_reason, {_OWN}
            FROM listed AS l LEFT JOIN ({_SCORED}) AS s USING (pair_id) LEFT JOIN ({_SIGNALS}) USING (pair_id)
            ORDER BY l.photo_a, l.photo_b
            """,  # noqa: S608  # constants
            params={"layer": self._layer},
        ).to_arrow_table()

    def undrawn(self, wanted: Sequence[Outlier], photos: Mapping[str, Mapping[str, Any]]) -> list[DrawItem]:
        """What is needed to draw figures of these pairs, for those that have none."""
        ranks = pa.table({"pair_id": [o.pair_id for o in wanted], "rank": [o.rank for o in wanted]})
        self._connection.register(
            "wanted", ranks.cast(pa.schema([("pair_id", pa.string()), ("rank", pa.int64())]))
        )
        rows = self._connection.execute(
            f"""
            SELECT l.cosine, m AS matches, r AS relevances,
                s.inverted_residual_mean, s.residual_mean, s.match_coverage, s.n_matches, s.n_inliers
            FROM wanted AS w
            JOIN listed AS l USING (pair_id)
            JOIN ({_SCORED}) AS s USING (pair_id)
            JOIN (FROM run_matches SEMI JOIN wanted USING (pair_id) WHERE layer = $layer
                QUALIFY row_number() OVER (PARTITION BY pair_id ORDER BY shard) = 1) AS m USING (pair_id)
            JOIN (FROM run_relevances SEMI JOIN wanted USING (pair_id) WHERE layer = $layer
                QUALIFY row_number() OVER (PARTITION BY pair_id ORDER BY shard) = 1) AS r USING (pair_id)
            WHERE pair_id NOT IN (SELECT pair_id FROM run_explanations WHERE layer = $layer)
            ORDER BY w.rank
            """,  # noqa: S608  # constants
            {"layer": self._layer},
        )
        names = [column[0] for column in rows.description]
        items = []
        for values in rows.fetchall():
            row = dict(zip(names, values, strict=True))
            matches = row["matches"]
            a, b = (
                {name: photos[matches[side]][name] for name in (*SEEN_BY, "identity")}
                for side in ("photo_a", "photo_b")
            )
            items.append(DrawItem(matches, row["relevances"], a, b, score_line(**row)))
        return items

    def figures(self, wanted: Sequence[Outlier]) -> dict[str, bytes]:
        """Stored figures of these pairs, as WebP."""
        rows = self._connection.execute(
            """
            SELECT pair_id, min_by(figure, shard) FROM run_explanations
            WHERE layer = $layer AND list_contains($wanted, pair_id) GROUP BY pair_id
            """,
            {"layer": self._layer, "wanted": [o.pair_id for o in wanted]},
        ).fetchall()
        return dict(rows)


def scatter_of(found: ScoredList) -> ReportScatter:
    """The points of Figure 5's plots."""
    relation = [
        "same" if a == b else "different" for a, b in zip(found.identity_a, found.identity_b, strict=True)
    ]
    return ReportScatter(found.cosine, found.scores[SCORES[0]], found.scores[SCORES[1]], relation)
