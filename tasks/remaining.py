"""What is left to do: the warehouse's current views against what is already committed under this run's fingerprints."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Self

import duckdb

from pairx_engine.figure import score_line
from schemas.failures import PASSING
from schemas.views import Views
from tasks.draw import DrawItem
from tasks.embed import Key
from tasks.job import Job
from tasks.score import Pair

Photo = Mapping[str, Any]


class Remaining:
    """Questions about a run's progress, answered from one look at the warehouse's files."""

    def __init__(self, connection: duckdb.DuckDBPyConnection, job: Job, retry_failed: bool) -> None:
        self._connection = connection
        self._job = job
        self._retry = retry_failed

    def photos(self) -> dict[str, Photo]:
        """Rows of all photos, withdrawn ones too, at their highest revision, sorted by id."""
        rows = self._rows(
            """
            SELECT * EXCLUDE (shard, fingerprint) FROM run_photos
            QUALIFY row_number() OVER (PARTITION BY photo_id ORDER BY revision DESC, shard) = 1
            ORDER BY photo_id
            """
        )
        return {row["photo_id"]: row for row in rows}

    def embedded(self) -> set[Key]:
        """Photos and chips that have an embedding."""
        return self._keys("SELECT DISTINCT photo_id, chip_id FROM run_embeddings")

    def detected(self) -> set[Key]:
        """Photos and chips that have keypoints."""
        return self._keys("SELECT DISTINCT photo_id, chip_id FROM run_keypoints")

    def given_up(self, table: str) -> set[Key]:
        """Photos and chips that failed to get a row of `embeddings` or `keypoints` and are not to be tried again."""
        if self._retry:
            return set()
        rows = self._connection.execute(
            """
            SELECT DISTINCT item, chip_id FROM run_failures
            WHERE stage = 'embed' AND fingerprint = $fingerprint AND NOT list_contains($passing, code)
            """,
            {"fingerprint": self._job.prints.of(table), "passing": list(PASSING)},
        ).fetchall()
        return set(rows)

    def stored_pairs(self) -> set[str]:
        """Ids of all pairs ever retrieved under this run's settings."""
        return {
            row[0] for row in self._connection.execute("SELECT DISTINCT pair_id FROM run_pairs").fetchall()
        }

    def unscored(self) -> list[Pair]:
        """Current pairs without scores, matches or relevances at the layer that ranks, unless they failed for good."""
        return unscored_among(self._connection, "pairs", self._job.layers[0], self._retry)

    def keypoint_shards(self) -> dict[str, str]:
        """The shard that holds each photo's current keypoints."""
        rows = self._connection.execute(
            "SELECT photo_id, min(shard) FROM run_keypoints SEMI JOIN photos USING (photo_id, chip_id) GROUP BY photo_id"
        ).fetchall()
        return dict(rows)

    def undrawn(self, limit: int) -> list[DrawItem]:
        """The most suspect pairs, up to `limit`, that have no figure yet."""
        photos = self.photos()
        rows = self._rows(
            """
            WITH flagged AS (
                SELECT pair_id, min(rank) AS rank, any_value(cosine) AS cosine, any_value(reason ORDER BY rank) AS reason
                FROM suspects GROUP BY pair_id ORDER BY rank LIMIT $limit
            )
            SELECT f.rank, f.cosine, m AS matches, r AS relevances,
                   s.inverted_residual_mean, s.residual_mean, s.match_coverage, s.n_matches, s.n_inliers
            FROM flagged AS f
            JOIN matches AS m ON m.pair_id = f.pair_id AND m.layer = $layer
            JOIN relevances AS r ON r.pair_id = f.pair_id AND r.layer = $layer
            JOIN scores AS s ON s.pair_id = f.pair_id AND s.layer = $layer
            WHERE f.pair_id NOT IN (SELECT pair_id FROM run_explanations)
              AND f.pair_id NOT IN (
                  SELECT item FROM run_failures
                  WHERE stage = 'draw' AND NOT $retry AND NOT list_contains($passing, code)
              )
            ORDER BY f.rank
            """,
            {"limit": limit, "layer": self._job.layers[0], "retry": self._retry, "passing": list(PASSING)},
        )
        return [
            DrawItem(
                row["matches"],
                row["relevances"],
                photos[m["photo_a"]],
                photos[m["photo_b"]],
                score_line(**row),
            )
            for row in rows
            for m in [row["matches"]]
        ]

    def _keys(self, query: str) -> set[Key]:
        return {(photo, chip) for photo, chip in self._connection.execute(query).fetchall()}

    def _rows(self, query: str, parameters: Mapping[str, Any] | None = None) -> list[dict[str, Any]]:
        found = self._connection.execute(query, parameters)
        names = [column[0] for column in found.description]
        return [dict(zip(names, row, strict=True)) for row in found.fetchall()]


def unscored_among(
    connection: duckdb.DuckDBPyConnection, relation: str, layer: str, retry_failed: bool
) -> list[Pair]:
    """Pairs of a relation of the connection, named in code, that have no scores, matches or relevances at a layer.

    Those that failed for good are left out unless they are to be retried.
    """
    rows = connection.execute(
        f"""
        WITH done AS (
            SELECT pair_id FROM run_scores WHERE layer = $layer
            INTERSECT SELECT pair_id FROM run_matches WHERE layer = $layer
            INTERSECT SELECT pair_id FROM run_relevances WHERE layer = $layer
        ),
        failed AS (
            SELECT item AS pair_id FROM run_failures
            WHERE stage = 'score' AND NOT $retry AND NOT list_contains($passing, code)
        )
        SELECT pair_id, photo_a, photo_b FROM {relation}
        ANTI JOIN done USING (pair_id)
        ANTI JOIN failed USING (pair_id)
        ORDER BY photo_a, photo_b
        """,  # noqa: S608  # a name from code
        {"layer": layer, "retry": retry_failed, "passing": list(PASSING)},
    ).fetchall()
    return [Pair(*row) for row in rows]


class RunViews:
    """The views of a run in one connection for all its questions; a context manager that closes the connection.

    The views are installed by the first question. Before each later one only the tables that were written since are listed
    again, and only what comes from them is computed again.
    """

    def __init__(self, job: Job, retry_failed: bool = False) -> None:
        self._job = job
        self._retry = retry_failed
        self._connection = duckdb.connect(":memory:")
        self._views = Views(self._connection, job.warehouse)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def wrote(self, *tables: str) -> None:
        """Say that shards of these tables may have been committed since the last question."""
        self._views.wrote(tables)

    def look(
        self, current: Mapping[str, Any], keep: bool | Collection[str] = ("photos",)
    ) -> tuple[duckdb.DuckDBPyConnection, Remaining]:
        """The views as of now, for a run with these columns of `current_run`.

        Those in `keep`, or with True all narrow ones, are computed once. The connection is the same every time: read what
        an answer holds before the next question.
        """
        self._views.refresh(current, keep)
        return self._connection, Remaining(self._connection, self._job, self._retry)


@contextmanager
def look(
    job: Job,
    current: Mapping[str, Any],
    retry_failed: bool = False,
    keep: bool | Collection[str] = ("photos",),
) -> Iterator[tuple[duckdb.DuckDBPyConnection, Remaining]]:
    """One question alone: see `RunViews.look`."""
    with RunViews(job, retry_failed) as views:
        yield views.look(current, keep)
