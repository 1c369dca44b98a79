"""One state judged, and what the product says of it.

That is its pairs, its list of suspects, and the judgement where there is one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa

from schemas.stages import STAGES
from tasks.job import Job
from tasks.runs.log import RunLog
from tasks.runs.remaining import RunViews
from tasks.stages.flag import flag
from tests.benchmarks.suspects.before import ranked_before
from tests.benchmarks.suspects.photos import Floats, Pairs, Photos, words

COLUMNS = {
    "inverted residual": "inverted_residual_mean",
    "coverage": "match_coverage",
    "inliers": "inliers",
    "plausibility": "plausibility",
    "evidence": "evidence",
}
"""Column of `Pairs` -> column of the view `evidence`."""
JUDGE = "judge"


@dataclass(frozen=True)
class SuspectRow:
    """One row of a list of suspects: its score, the photos that it blames, and the two names."""

    kind: str
    score: float
    blamed: frozenset[str]
    pair: frozenset[str]
    names: frozenset[str]
    proposed_name: str | None = None


@dataclass(frozen=True, eq=False)
class Judged:
    """What is known of one state after it was judged.

    Photos stand in the order of their ids, unnamed ones included. `log_odds` of a wrong name by photo and
    `probability` by pair are empty without a judgement. `expected_precision` holds the judgement's rows
    (rank, expected, errors, low, high).
    """

    photos: Photos
    pairs: Pairs
    rows: tuple[SuspectRow, ...]
    before: tuple[SuspectRow, ...]
    log_odds: Mapping[str, float]
    probability: Mapping[str, float]
    expected_precision: tuple[Mapping[str, float], ...]


@contextmanager
def judged_views(job: Job, state: str) -> Iterator[duckdb.DuckDBPyConnection]:
    """The views of a state whose pairs are scored, after the stages that follow from names.

    As in each night, these are judge and flag.
    """
    with RunViews(job) as views:
        current = RunLog(job).columns(state)
        connection, _ = views.look(current, keep=True)
        # Whatever a night does between scores and suspects goes here, in its order.
        if JUDGE in STAGES:
            import_module("tasks.stages.judge").judge(job, connection, state)
            connection, _ = views.look(current, keep=True)
        flag(job, connection, state)
        yield connection


def judge(job: Job, state: str) -> Judged:
    """Judge a state and read what came of it."""
    with judged_views(job, state) as connection:
        photos = _photos(connection)
        before = ranked_before(connection)
        return Judged(
            photos,
            _pairs(connection, photos),
            _suspects(connection) if "blamed_photo" in _columns(connection, "suspects") else (),
            _suspects(before),
            _values(connection, "judged_photos", "photo_id", "log_odds"),
            _values(connection, "judgements", "pair_id", "probability"),
            tuple(_rows(connection, "FROM expected_precision ORDER BY rank"))
            if _columns(connection, "expected_precision")
            else (),
        )


def _photos(connection: duckdb.DuckDBPyConnection) -> Photos:
    table = connection.sql(
        "SELECT photo_id, identity, viewpoint, encounter, species, embedding FROM photos JOIN embeddings USING (photo_id, chip_id) ORDER BY photo_id"
    ).to_arrow_table()
    flat = table["embedding"].combine_chunks().flatten().to_numpy(zero_copy_only=False)
    vectors = flat.astype(np.float64).reshape(table.num_rows, -1)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    text = {
        name: words(table[name].to_pylist()) for name in ("identity", "viewpoint", "encounter", "species")
    }
    ids = tuple(table["photo_id"].to_pylist())
    return Photos(ids, text["identity"], vectors, text["viewpoint"], text["encounter"], text["species"])


def _pairs(connection: duckdb.DuckDBPyConnection, photos: Photos) -> Pairs:
    wanted = ", ".join(f"CAST(e.{column} AS DOUBLE) AS {column}" for column in COLUMNS.values())
    table = connection.sql(
        f"""
        SELECT pair_id, e.photo_a, e.photo_b, CAST(e.cosine AS DOUBLE) AS cosine, e.comparable,
            p.rank_a IS NOT NULL OR p.rank_b IS NOT NULL AS retrieved, {wanted}
        FROM evidence AS e JOIN pair_scores AS p USING (pair_id) ORDER BY pair_id
        """
    ).to_arrow_table()
    at = {photo: i for i, photo in enumerate(photos.ids)}
    a, b = (np.array([at[p] for p in table[c].to_pylist()], dtype=np.int64) for c in ("photo_a", "photo_b"))
    columns = {name: _numbers(table[column]) for name, column in COLUMNS.items()}
    comparable, retrieved = (np.array(table[c].to_pylist(), dtype=bool) for c in ("comparable", "retrieved"))
    ids = np.array(table["pair_id"].to_pylist(), dtype=object)
    return Pairs(a, b, _numbers(table["cosine"]), comparable, retrieved, columns, ids)


def _numbers(column: pa.ChunkedArray) -> Floats:
    return np.array([np.nan if v is None else v for v in column.to_pylist()], dtype=np.float64)


def _suspects(connection: duckdb.DuckDBPyConnection) -> tuple[SuspectRow, ...]:
    """The list as it is ranked. A row that blames no photo alone, such as a copy's, blames both."""
    found = []
    for row in _rows(connection, "FROM suspects ORDER BY rank"):
        pair = frozenset(p for p in (row["photo_a"], row["photo_b"]) if p is not None)
        names = frozenset(n for n in (row["identity_a"], row["identity_b"]) if n is not None)
        blamed = frozenset({row["blamed_photo"]}) if row["blamed_photo"] else pair
        found.append(SuspectRow(row["kind"], row["score"], blamed, pair, names, row.get("proposed_name")))
    return tuple(found)


def _values(connection: duckdb.DuckDBPyConnection, relation: str, key: str, value: str) -> dict[str, float]:
    """A column of numbers by a key; empty where there is no such relation."""
    if not {key, value} <= _columns(connection, relation):
        return {}
    rows = connection.execute(f"SELECT {key}, {value} FROM {relation} WHERE {value} IS NOT NULL").fetchall()
    return dict(rows)


def _columns(connection: duckdb.DuckDBPyConnection, relation: str) -> set[str]:
    rows = connection.execute(
        "SELECT column_name FROM duckdb_columns() WHERE table_name = ? AND NOT internal", [relation]
    ).fetchall()
    return {name for (name,) in rows}


def _rows(connection: duckdb.DuckDBPyConnection, query: str) -> list[dict[str, Any]]:
    found = connection.execute(query)
    names = [column[0] for column in found.description]
    return [dict(zip(names, row, strict=True)) for row in found.fetchall()]
