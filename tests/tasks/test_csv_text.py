"""Rows as CSV: exact numbers, and no text that a spreadsheet would run."""

import csv
import io
import math
from datetime import UTC, datetime
from decimal import Decimal

import pyarrow as pa
import pytest

from tasks.sql.csv_text import csv_lines


def written(table):
    return csv_lines([table.column_names, *zip(*(c.to_pylist() for c in table.columns), strict=True)])


def rows_of(text):
    return list(csv.DictReader(io.StringIO(text)))


def cell_of(value):
    """A value by the way of the CSV, as a program reads it."""
    (row,) = rows_of(written(pa.table({"a": ["first"], "b": [value], "c": ["last"]})))
    assert (row["a"], row["c"]) == ("first", "last")
    return row["b"]


@pytest.mark.parametrize(
    "text",
    [
        "=1+1", "=HYPERLINK(\"http://evil.example\",\"x\")", "+cmd|' /C calc'!A0", "-2+3+cmd|' /C calc'!A0", "@SUM(1)",
        "\t=1", "\r=1", " =1", "\n=1", "＝1+1", "-", "=", "--1", "+1-1", "-1e", "@", "-٣",
    ],
)  # fmt: skip
def test_a_text_that_a_spreadsheet_would_run_gets_an_apostrophe(text):
    assert cell_of(text) == f"'{text}"


@pytest.mark.parametrize(
    "text",
    [
        "", "Ada", "a=b", "1-2", "-12", "+3.5", "-.5", "-1e-9", "'quoted'", 'say "no"', "a,b;c|d\te", "two\nlines", " padded ",
        "Löwe 🦁", "x;=1+1",
    ],
)  # fmt: skip
def test_other_texts_and_numbers_as_texts_stay_as_they_are(text):
    assert cell_of(text) == text


def test_a_separator_of_another_locale_does_not_free_the_rest_of_a_text():
    assert '"x;=1+1"' in written(pa.table({"a": ["x;=1+1"]}))
    assert '"x\t=1+1"' in written(pa.table({"a": ["x\t=1+1"]}))


def test_column_names_and_lists_are_neutralised_too():
    text = written(pa.table({"=1+1": [["=1", "b"]]}))
    assert text.splitlines()[0] == "'=1+1"
    assert rows_of(text)[0]["'=1+1"] == '["=1", "b"]'


def test_numbers_are_exact_and_never_touched():
    values = [-0.1, 1e-300, -3.0, 0.1 + 0.2, math.inf]
    text = written(pa.table({"x": values, "n": [-1, 0, 1, 2**62, -(2**62)]}))
    assert [float(row["x"]) for row in rows_of(text)] == values
    assert [int(row["n"]) for row in rows_of(text)] == [-1, 0, 1, 2**62, -(2**62)]
    assert "'" not in text


def test_other_types_have_one_form():
    table = pa.table(
        {
            "time": [datetime(2026, 1, 2, 3, 4, tzinfo=UTC)], "bytes": [b"abc"], "flag": [False], "none": pa.nulls(1),
            "nan": [math.nan], "decimal": [Decimal("-1.50")], "struct": [{"k": 1}],
        }
    )  # fmt: skip
    assert rows_of(written(table)) == [
        {"time": "2026-01-02T03:04:00+00:00", "bytes": "<3 bytes>", "flag": "false", "none": "", "nan": "",
         "decimal": "-1.50", "struct": '{"k": 1}'}
    ]  # fmt: skip


def test_a_row_that_holds_nothing_is_a_row():
    assert written(pa.table({"a": ["x", None, "y"]})) == 'a\nx\n""\ny\n'


def test_no_control_character_reaches_a_file_that_people_print():
    assert cell_of("a\x1b[31mb\x9b1m\x7f\x00c") == "a\ufffd[31mb\ufffd1m\ufffd\ufffdc"
