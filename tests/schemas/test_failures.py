"""Failure codes are a closed set, and a failure is a row of its table."""

from __future__ import annotations

from dataclasses import fields

import pyarrow as pa
import pytest

from schemas import stages
from schemas.failures import FAILURE_MEANINGS, MAX_MESSAGE, Failure, FailureCode
from schemas.tables.registry import FAILURES


def test_every_code_has_a_meaning_of_one_line() -> None:
    assert set(FAILURE_MEANINGS) == set(FailureCode)
    assert all(meaning and "\n" not in meaning for meaning in FAILURE_MEANINGS.values())


def test_a_failure_is_a_row_of_its_table() -> None:
    assert {field.name for field in fields(Failure)} == set(FAILURES.schema.names)
    failures = [
        Failure("ingest", "photo 1", FailureCode.MISSING_FILE, "no file at x.jpg", revision=3),
        Failure("score", "pair 2", FailureCode.SCORE_NOT_FINITE, "nan", layer="blocks.3"),
    ]
    table = pa.Table.from_pylist([failure.row() for failure in failures], schema=FAILURES.schema)
    assert table.column("code").to_pylist() == ["missing_file", "score_not_finite"]
    assert table.column("revision").to_pylist() == [3, None]
    assert table.column("layer").to_pylist() == [None, "blocks.3"]


def test_the_table_describes_the_stages() -> None:
    about = FAILURES.schema.field("stage").metadata[b"about"].decode()
    ours = [value for value in vars(stages).values() if isinstance(value, stages.StageFacts)]
    assert all((stage.name in about) == (stage.failing is not None) for stage in ours)
    assert {stage.name: stage for stage in ours}.items() <= stages.STAGES.items()


def test_every_code_is_given_by_a_stage() -> None:
    given = {code for stage in stages.STAGES.values() if stage.failing for code in stage.failing.codes}
    assert given | set(stages.ALWAYS) == set(FailureCode)


def test_codes_are_accepted_as_text_and_refused_when_unknown() -> None:
    assert Failure("embed", "p", "truncated", "m").code is FailureCode.TRUNCATED  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="bad_luck"):
        Failure("embed", "p", "bad_luck", "m")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="id"):
        Failure("embed", "", FailureCode.TRUNCATED, "m")


def test_long_messages_are_cut() -> None:
    failure = Failure("embed", "p", FailureCode.INTERNAL_ERROR, "x" * 10_000)
    assert len(failure.message) == MAX_MESSAGE
    assert failure.message.endswith("…")
