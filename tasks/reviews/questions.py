"""The questions that are still open, from a warehouse's views."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import duckdb

QUESTIONS = "SELECT * FROM questions ORDER BY rank"
"""All open questions, most probable errors first, as of the newest finished run."""
ANSWERED = """
SELECT kind, subject, other, verdict, right_name, reviewer, "at", review_id FROM reviews
WHERE applies AND review_id NOT IN (SELECT review_id FROM contradicted_reviews)
"""
"""The questions that need not be asked: answered, and no new photo says otherwise."""


@dataclass(frozen=True)
class Open:
    """Questions of one moment: rows of `questions` in order of rank, and the run that they come from."""

    rows: tuple[Mapping[str, Any], ...]
    run_id: str | None
    state: str | None


def open_questions(connection: duckdb.DuckDBPyConnection) -> Open:
    """The questions that the views of a connection show."""
    rows = connection.sql(QUESTIONS).to_arrow_table().to_pylist()
    run = connection.execute("SELECT run_id, state FROM current_run").fetchall()
    run_id, state = run[0] if run else (None, None)
    return Open(tuple(rows), run_id, state)


def key_of(question: Mapping[str, Any]) -> tuple[str, str, str | None]:
    """What tells a question from others, whichever run asks it: kind, subject and the other of two names."""
    kind, subject = question["asks"], question["subject"]
    if kind != "names":
        return kind, subject, None
    one, two = sorted((subject, question["other_name"]))
    return kind, one, two
