"""Tables and records for people: no line is too wide, and nothing is lost."""

from __future__ import annotations

import pyarrow as pa
import pytest
from rich.cells import cell_len

from tasks.sql.results import QueryError, format_result
from tasks.sql.table_text import terminal_width, wrapped

LONG = "one animal with 002 by a probability of up to 0.91, with 003 by up to 0.73"


def suspects() -> pa.Table:
    return pa.table(
        {
            "rank": [1, 12],
            "kind": ["wrong_name", "copy"],
            "share_so_far": [0.5, None],
            "photo": ["a", "b" * 45],
            "reason": [LONG, None],
        }
    )


def test_long_texts_stand_below_their_row() -> None:
    assert format_result(suspects(), width=50).splitlines() == [
        "rank  kind        share_so_far",
        "----  ----------  ------------",
        "   1  wrong_name           0.5",
        "    photo: a",
        "    reason: one animal with 002 by a probability",
        "        of up to 0.91, with 003 by up to 0.73",
        "  12  copy",
        "    photo:",
        "        bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb",
        "        bbb  reason: NULL",
        "(2 rows)",
    ]


def test_a_table_that_fits_stays_one_line_a_row_and_so_does_a_wide_one() -> None:
    whole = format_result(suspects()).splitlines()
    assert whole == format_result(suspects(), width=200).splitlines()
    assert whole[2] == f"   1  wrong_name           0.5  {'a'.ljust(45)}  {LONG}"
    assert len(whole) == 5


def test_records_have_a_line_for_each_column() -> None:
    assert format_result(suspects().select(["rank", "share_so_far", "reason"]), "records", 40).splitlines() == [
        "-- 1 ---------------",
        "rank          1",
        "share_so_far  0.5",
        "reason        one animal with 002 by a",
        "              probability of up to 0.91,",
        "              with 003 by up to 0.73",
        "-- 2 ---------------",
        "rank          12",
        "share_so_far",
        "reason",
        "(2 rows)",
    ]  # fmt: skip


def test_a_single_long_column_is_wrapped() -> None:
    lines = format_result(pa.table({"reason": [LONG]}), width=40).splitlines()
    assert lines == [
        "reason: one animal with 002 by a",
        "    probability of up to 0.91, with 003",
        "    by up to 0.73",
        "(1 row)",
    ]


@pytest.mark.parametrize("kind", ["table", "records"])
@pytest.mark.parametrize("width", [20, 33, 80])
def test_no_line_is_too_wide_and_every_value_is_there(kind: str, width: int) -> None:
    values = {
        f"column_{'x' * (k % 19)}": ["".join(f"{k}v{i}_" for i in range(k)), f"猫{k} " * k]
        for k in range(1, 40)
    }
    text = format_result(pa.table(values), kind, width)  # type: ignore[arg-type]
    assert max(map(cell_len, text.splitlines())) <= width
    pressed = "".join(text.split())
    assert all("".join(value.split()) in pressed for column in values.values() for value in column)


def test_signs_of_two_columns_are_counted_as_two() -> None:
    lines = format_result(pa.table({"name": ["猫猫", "ab"], "n": [1, 2]})).splitlines()
    assert [cell_len(line) for line in lines[:4]] == [7, 7, 7, 7]


def test_lists_that_are_cut_are_said() -> None:
    cut = pa.table({"embedding": [[0.5] * 100]})
    assert format_result(cut).splitlines()[-1] == "(1 row; long lists are cut, csv and json give all)"
    assert format_result(pa.table({"text": ["x" * 99 + "…"]})).splitlines()[-1] == "(1 row)"


def test_words_longer_than_a_line_are_broken() -> None:
    assert wrapped("ab cdefghij k", 5) == ["ab", "cdefg", "hij k"]
    assert wrapped("a bb", 4, "> ", "  ") == ["> a", "  bb"]
    assert wrapped("", 9, "x: ") == ["x: "]


def test_the_width_is_the_terminals_or_80(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    monkeypatch.setattr("sys.__stdout__", None)
    assert terminal_width() == 80
    monkeypatch.setenv("COLUMNS", "132")
    assert terminal_width() == 132
    monkeypatch.setenv("COLUMNS", "3")
    assert terminal_width() == 20


def test_an_unknown_format_is_told_with_the_near_one() -> None:
    with pytest.raises(QueryError, match="no format 'jsn'; did you mean json") as told:
        format_result(pa.table({"a": [1]}), "jsn")  # type: ignore[arg-type]
    assert "table, records, csv, json" in str(told.value)
