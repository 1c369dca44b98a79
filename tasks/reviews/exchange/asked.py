"""Questions and verdicts as flat rows, which every format writes: what was asked, what was shown, what was said."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import duckdb

from tasks.reviews.questions import ANSWERED, key_of, open_questions

COLUMNS = (
    "kind", "subject", "other", "answer", "right_name", "reviewer", "at", "note", "pair_id",
    "photo_a", "chip_a", "identity_a", "path_a", "photo_b", "chip_b", "identity_b", "path_b",
    "photos_a", "photos_b", "proposed_name", "bad_photo", "suspect", "rank", "probability", "words", "review_id",
)  # fmt: skip
"""Columns of a row. The first nine are enough to be read back; the answer is empty where none was given."""
VIEWS = ("questions", "current_run", "reviews", "contradicted_reviews", "second_looks", "photos")
_PATHS = "SELECT photo_id, path FROM photos"
_VERDICTS = 'SELECT * FROM reviews WHERE NOT carried ORDER BY "at", review_id'
_SECOND_LOOKS = """
SELECT r.*, s.why FROM reviews AS r JOIN second_looks AS s USING (question)
WHERE NOT r.carried ORDER BY s.why, r.probability DESC NULLS LAST, r.review_id
"""

Row = dict[str, Any]


def rows_of(connection: duckdb.DuckDBPyConnection, verdicts: bool, second_look: bool) -> list[Row]:
    """Open questions or, if wanted, verdicts, or answered questions that need a second look (without the answers).

    `connection` has the `VIEWS`. Verdicts are the latest on each question.
    """
    paths = dict(connection.execute(_PATHS).fetchall())
    if second_look:
        found = connection.sql(_SECOND_LOOKS).to_arrow_table().to_pylist()
        return [_of_review(row, paths, with_answer=verdicts) for row in found]
    if verdicts:
        return [
            _of_review(row, paths, True) for row in connection.sql(_VERDICTS).to_arrow_table().to_pylist()
        ]
    return [_of_question(row, paths) for row in _unanswered(connection)]


def _unanswered(connection: duckdb.DuckDBPyConnection) -> list[Mapping[str, Any]]:
    """The open questions of the newest run without those that were answered since, or that show a bad photo."""
    answered = {(row[0], row[1], row[2]): row[3] for row in connection.execute(ANSWERED).fetchall()}
    bad = {subject for (kind, subject, _), verdict in answered.items() if (kind, verdict) == ("photo", "bad")}
    return [
        row
        for row in open_questions(connection).rows
        if key_of(row) not in answered and bad.isdisjoint((row["photo_a"], row["photo_b"]))
    ]


def _of_question(row: Mapping[str, Any], paths: Mapping[str, str]) -> Row:
    kind, subject, other = key_of(row)
    return _row(
        row, paths, kind=kind, subject=subject, other=other or row["other_name"], suspect=row["kind"],
        proposed_name=row["other_name"], words=row["reason"],
    )  # fmt: skip


def _of_review(row: Mapping[str, Any], paths: Mapping[str, str], with_answer: bool) -> Row:
    answer = (
        {"answer": row["verdict"]}
        if with_answer
        else dict.fromkeys(("reviewer", "at", "note", "right_name", "review_id"))
    )
    return _row(row, paths, suspect=row["suspect_kind"], words=row.get("why"), **answer)


def _row(row: Mapping[str, Any], paths: Mapping[str, str], **more: Any) -> Row:
    found = {name: row.get(name) for name in COLUMNS if name not in ("answer", "words")} | more
    return {name: found.get(name) for name in COLUMNS} | {
        f"path_{side}": paths.get(row[f"photo_{side}"] or "") for side in "ab"
    }
