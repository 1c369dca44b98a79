"""What is left to do: current views against what is committed under this run's fingerprints."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, Self

import duckdb
import pyarrow as pa

from schemas.catalogue.extra import AS_TEXT
from schemas.failures import PASSING
from schemas.stages import DRAW, SCORE, SIGNALS, VERIFY, StageFacts, stage_that_fills
from schemas.tables.registry import GALLERIES, TABLES
from schemas.views.install import Views
from tasks.gallery import Gallery
from tasks.job import Job
from tasks.pairs import DrawItem, Key, Pair, Photo, ScoredPair
from tasks.photo_files import SEEN_BY
from tasks.store.inventory import Followed
from tasks.store.snapshot import Snapshot, write_snapshot
from tasks.store.written import heard_by

_GIVEN_UP = """
    SELECT item, chip_id, fingerprint FROM run_failures
    WHERE stage = $stage AND NOT $retry AND NOT list_contains($passing, code)
"""
"""Items that failed in a stage for good; none where all are to be tried again."""
_NEWEST_ROWS = f"""
    SELECT * EXCLUDE (shard, fingerprint) REPLACE ({AS_TEXT} AS extra) FROM run_photos
    QUALIFY row_number() OVER (PARTITION BY photo_id ORDER BY revision DESC, shard) = 1
    ORDER BY photo_id
"""  # noqa: S608  # constants
_AT_ONCE = 5000
_OF_A_SCORE = ("matches", "relevances", "scores")
"""A pair without rows in all of these tables is not scored; signals can be made from them."""
BEFORE_JUDGING = ("photos", "pairs", "copy_candidates")
"""Views that are read before the judgement."""


class Remaining:
    """Questions about a run's progress, answered from one look at the warehouse's files."""

    def __init__(self, connection: duckdb.DuckDBPyConnection, job: Job, retry_failed: bool) -> None:
        self._connection = connection
        self._job = job
        self._retry = retry_failed

    def photos(self) -> dict[str, Photo]:
        """Rows of all photos, withdrawn ones too, at their highest revision, sorted by id.

        `extra` is one text, as a catalogue's entry has it.
        """
        return {row["photo_id"]: row for row in self._rows(_NEWEST_ROWS)}

    def photos_in_order(self) -> InOrder:
        """The same rows, read as they are asked for, so that at no time all of them are in memory.

        Ask nothing else meanwhile.
        """
        return InOrder(self._stream(_NEWEST_ROWS))

    def not_listed(self, photo_ids: pa.Array) -> dict[str, Photo]:
        """The same rows of those photos alone that are in the catalogue and not among these."""
        self._connection.register("listed", pa.table({"photo_id": photo_ids}))
        rows = self._rows(f"SELECT * FROM ({_NEWEST_ROWS}) ANTI JOIN listed USING (photo_id) WHERE present")  # noqa: S608  # constants
        self._connection.unregister("listed")
        return {row["photo_id"]: row for row in rows}

    def present(self) -> Sequence[Photo]:
        """What a worker needs to see each photo of the catalogue, sorted by id."""
        return self._rows(f"SELECT {', '.join(SEEN_BY)} FROM photos ORDER BY photo_id")  # noqa: S608  # constants

    def photos_of(self, pairs: Iterable[Pair]) -> dict[str, Photo]:
        """What a worker needs to see the photos of these pairs, and their names, by id."""
        ids = sorted({photo for pair in pairs for photo in (pair.photo_a, pair.photo_b)})
        rows = self._rows(
            f"SELECT {', '.join((*SEEN_BY, 'identity'))} FROM photos SEMI JOIN (SELECT unnest($ids) AS photo_id) USING (photo_id)",  # noqa: S608  # constants
            {"ids": ids},
        )
        return {row["photo_id"]: row for row in rows}

    def gallery(self) -> Gallery:
        """The photos of the catalogue that have an embedding."""
        columns = ", ".join(GALLERIES.schema.names)
        found = self._connection.sql(
            f"SELECT {columns} FROM photos SEMI JOIN run_embeddings USING (photo_id, chip_id) ORDER BY photo_id"  # noqa: S608  # constants
        )
        return Gallery(found.to_arrow_table())

    def to_embed(self) -> tuple[list[Photo], set[Key], set[Key]]:
        """Photos of the catalogue that lack an embedding or keypoints and did not fail to get them for good.

        Beside what a worker needs to see each, sorted by id, the keys of those that lack no embedding, and of
        those that lack no keypoints.
        """
        parameters = {
            "embeddings": self._job.prints.of("embeddings"),
            "keypoints": self._job.prints.of("keypoints"),
            **_given_up(stage_that_fills("embeddings"), self._retry),
        }
        done = [
            f"SELECT photo_id, chip_id FROM run_{table} UNION SELECT item, chip_id FROM ({_GIVEN_UP}) WHERE fingerprint = ${table}"  # noqa: S608  # constants
            for table in ("embeddings", "keypoints")
        ]
        rows = self._rows(
            f"""
            SELECT {", ".join(SEEN_BY)}, e.photo_id IS NOT NULL AS embedded, k.photo_id IS NOT NULL AS detected
            FROM photos LEFT JOIN ({done[0]}) AS e USING (photo_id, chip_id) LEFT JOIN ({done[1]}) AS k USING (photo_id, chip_id)
            WHERE chip_id IS NOT NULL AND NOT (embedded AND detected)
            ORDER BY photo_id
            """,  # noqa: S608  # constants
            parameters,
        )
        embedded, detected = (
            {(row["photo_id"], row["chip_id"]) for row in rows if row[name]}
            for name in ("embedded", "detected")
        )
        return [{column: row[column] for column in SEEN_BY} for row in rows], embedded, detected

    def embedded(self) -> set[Key]:
        """Photos and chips that have an embedding."""
        return self._keys("SELECT DISTINCT photo_id, chip_id FROM run_embeddings")

    def given_up(self, table: str) -> set[Key]:
        """Photos and chips that failed to get a row of a table and must not be tried again."""
        rows = self._connection.execute(
            f"SELECT DISTINCT item, chip_id FROM ({_GIVEN_UP}) WHERE fingerprint = $fingerprint",  # noqa: S608  # constants
            {"fingerprint": self._job.prints.of(table), **_given_up(stage_that_fills(table), self._retry)},
        ).fetchall()
        return set(rows)

    def stored_pairs(self) -> int:
        """The number of pairs ever retrieved under this run's settings."""
        return int(self._connection.execute("SELECT count(DISTINCT pair_id) FROM run_pairs").fetchall()[0][0])

    def unscored(self) -> list[Pair]:
        """Current pairs without scores, matches or relevances at the ranking layer.

        Pairs that failed for good are left out.
        """
        return unscored_among(self._connection, "pairs", self._job.layers[0], self._retry)

    def without_signals(self) -> list[ScoredPair]:
        """Current pairs that have scores at the ranking layer but no signals.

        Pairs that failed for good are left out.
        """
        return without_signals_among(self._connection, "pairs", self._job.layers[0], self._retry)

    def unverified(self) -> list[Pair]:
        """Current pairs that may be one picture and were not compared pixel by pixel.

        Pairs for which that failed for good are left out.
        """
        rows = self._connection.execute(
            f"""
            SELECT pair_id, photo_a, photo_b FROM copy_candidates
            ANTI JOIN run_copies USING (pair_id)
            ANTI JOIN (SELECT item AS pair_id FROM ({_GIVEN_UP})) USING (pair_id)
            ORDER BY photo_a, photo_b
            """,  # noqa: S608  # constants
            _given_up(VERIFY, self._retry),
        ).fetchall()
        return [Pair(*row) for row in rows]

    def keypoint_shards(self, photos: Collection[str] | None = None) -> dict[str, str]:
        """The shard that holds each photo's current keypoints; of some photos, or of all."""
        among = "" if photos is None else "SEMI JOIN (SELECT unnest($photos) AS photo_id) USING (photo_id)"
        rows = self._connection.execute(
            f"""
            SELECT photo_id, min(shard) FROM run_keypoints SEMI JOIN photos USING (photo_id, chip_id) {among} GROUP BY photo_id
            """,  # noqa: S608  # constants
            {} if photos is None else {"photos": sorted(photos)},
        ).fetchall()
        return dict(rows)

    def undrawn(self, limit: int) -> list[DrawItem]:
        """The most suspect pairs, up to `limit`, that have no figure yet."""
        from pairx_engine.figure import score_line

        rows = self._rows(
            f"""
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
              AND f.pair_id NOT IN (SELECT item FROM ({_GIVEN_UP}))
            ORDER BY f.rank
            """,  # noqa: S608  # constants
            {"limit": limit, "layer": self._job.layers[0], **_given_up(DRAW, self._retry)},
        )
        photos = self.photos_of(
            Pair(m["pair_id"], m["photo_a"], m["photo_b"]) for m in (row["matches"] for row in rows)
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

    def _stream(self, query: str) -> Iterator[dict[str, Any]]:
        found = self._connection.execute(query)
        names = [column[0] for column in found.description]
        while rows := found.fetchmany(_AT_ONCE):
            yield from (dict(zip(names, row, strict=True)) for row in rows)

    def _rows(self, query: str, parameters: Mapping[str, Any] | None = None) -> list[dict[str, Any]]:
        found = self._connection.execute(query, parameters)
        names = [column[0] for column in found.description]
        return [dict(zip(names, row, strict=True)) for row in found.fetchall()]


class InOrder:
    """Rows by photo id that come sorted and are asked for in rising order."""

    def __init__(self, rows: Iterator[Photo]) -> None:
        self._rows = rows
        self._next = next(rows, None)

    def get(self, photo_id: str) -> Photo | None:
        """The row of a photo, or None; the id must be higher than all that were asked before."""
        while self._next is not None and self._next["photo_id"] < photo_id:
            self._next = next(self._rows, None)
        found = self._next
        return found if found is not None and found["photo_id"] == photo_id else None


def _given_up(stage: StageFacts, retry_failed: bool) -> dict[str, Any]:
    """The parameters of `_GIVEN_UP`."""
    return {"stage": stage.name, "retry": retry_failed, "passing": list(PASSING)}


def unscored_among(
    connection: duckdb.DuckDBPyConnection, relation: str, layer: str, retry_failed: bool
) -> list[Pair]:
    """Pairs of a relation without scores, matches or relevances at a layer.

    `relation` is a name from code. Pairs that failed for good are left out unless they are to be retried.
    """
    done = [f"SELECT pair_id FROM run_{table} WHERE layer = $layer" for table in _OF_A_SCORE]  # noqa: S608  # constants
    rows = connection.execute(
        f"""
        SELECT pair_id, photo_a, photo_b FROM {relation}
        ANTI JOIN ({" INTERSECT ".join(done)}) USING (pair_id)
        ANTI JOIN (SELECT item AS pair_id FROM ({_GIVEN_UP})) USING (pair_id)
        ORDER BY photo_a, photo_b
        """,  # noqa: S608  # names from code
        {"layer": layer, **_given_up(SCORE, retry_failed)},
    ).fetchall()
    return [Pair(*row) for row in rows]


def without_signals_among(
    connection: duckdb.DuckDBPyConnection, relation: str, layer: str, retry_failed: bool
) -> list[ScoredPair]:
    """Pairs of a relation that have all rows of a score at a layer but no signals.

    `relation` is a name from code, and has both chips. Pairs that failed for good are left out unless
    they are to be retried. Where none lack signals, as after every run, only narrow tables are read.
    """
    given = {"layer": layer, **_given_up(SIGNALS, retry_failed)}
    lacking = f"""
        FROM {relation}
        SEMI JOIN (SELECT pair_id FROM run_scores WHERE layer = $layer) USING (pair_id)
        ANTI JOIN (SELECT pair_id FROM run_signals WHERE layer = $layer) USING (pair_id)
        ANTI JOIN (SELECT item AS pair_id FROM ({_GIVEN_UP})) USING (pair_id)
    """  # noqa: S608  # names from code
    if not connection.execute(f"SELECT 1 {lacking} LIMIT 1", given).fetchall():
        return []
    scored = " INTERSECT ".join(
        f"SELECT pair_id, shard FROM run_{table} WHERE layer = $layer"  # noqa: S608  # constants
        for table in _OF_A_SCORE
    )
    rows = connection.execute(
        f"""
        SELECT pair_id, photo_a, photo_b, chip_a, chip_b, scored_in FROM (SELECT * {lacking})
        JOIN (SELECT pair_id, min(shard) AS scored_in FROM ({scored}) GROUP BY pair_id) USING (pair_id)
        ORDER BY photo_a, photo_b
        """,  # noqa: S608  # names from code
        given,
    ).fetchall()
    return [ScoredPair(*row) for row in rows]


class RunViews:
    """The views of a run in one connection for all its questions; a context manager closes it.

    The first question installs the views and lists the warehouse. Each later one looks only at tables
    that this thread or its shards have written to since, and computes again only what comes from them.
    """

    def __init__(self, job: Job, retry_failed: bool = False) -> None:
        self._job = job
        self._retry = retry_failed
        self._connection = duckdb.connect(":memory:")
        self._files = Followed(job.warehouse.storage)
        self._views = Views(self._connection, self._files)
        self._open = ExitStack()

    def __enter__(self) -> Self:
        self._open.callback(self._connection.close)
        self._open.enter_context(heard_by(self._files.hear))
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def vanished(self) -> list[str]:
        """Files that were listed or written since the first question and are missing now, sorted."""
        return self._files.vanished()

    def look(
        self,
        current: Mapping[str, Any],
        keep: bool | Collection[str] = ("photos",),
        wanted: Collection[str] | None = None,
    ) -> tuple[duckdb.DuckDBPyConnection, Remaining]:
        """The views as of now, for a run with these columns of `current_run`.

        Those in `keep`, or with True all narrow ones, are computed once; with `wanted` no others
        exist. The connection is the same every time: read what an answer holds before the next
        question.
        """
        self._views.wrote(self._files.news())
        self._views.refresh(current, keep, wanted)
        return self._connection, Remaining(self._connection, self._job, self._retry)

    def files(self) -> dict[str, list[str]]:
        """Table -> its files that were listed at the first question, or written by this run since."""
        return self._files.files(TABLES)

    def keep_snapshot(self) -> Snapshot:
        """Store what the views showed at the last question, unless it is stored already."""
        return write_snapshot(self._job.warehouse, self._connection, self._views.snapshot_name())


@contextmanager
def look(
    job: Job,
    current: Mapping[str, Any],
    retry_failed: bool = False,
    keep: bool | Collection[str] = ("photos",),
    wanted: Collection[str] | None = None,
) -> Iterator[tuple[duckdb.DuckDBPyConnection, Remaining]]:
    """A single question; see `RunViews.look`."""
    with RunViews(job, retry_failed) as views:
        yield views.look(current, keep, wanted)
