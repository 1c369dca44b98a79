"""Columns without a meaning, kept as one text per photo."""

from __future__ import annotations

import duckdb
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from schemas.catalogue.extra import AS_TEXT, LONGEST_VALUE, MOST_COLUMNS, pairs_of, read_extra

TEXTS = st.one_of(
    st.none(), st.text(max_size=6), st.sampled_from(["12.0", "NA", " site 1 ", "a\tb", "\x1e", "é'\""])
)
NAMES = st.text(st.characters(categories=["L", "N", "P"]), min_size=1, max_size=5)


def chunked(values: list[object]) -> pa.ChunkedArray:
    return pa.chunked_array([pa.array(values)])


def naive(values: dict[str, str | None]) -> list[tuple[str, str]] | None:
    found = []
    for name, value in sorted(values.items()):
        text = "".join(" " if ord(c) < 32 or 127 <= ord(c) < 160 else c for c in value or "").strip()
        if text.lower() in ("", "null", "nan", "none", "na", "n/a", "#n/a", "<na>"):
            continue
        whole = text.partition(".")
        if (
            whole[2].strip("0") == ""
            and whole[2]
            and whole[0].lstrip("-").isascii()
            and whole[0].lstrip("-").isdigit()
        ):
            text = whole[0] if whole[0].count("-") < 2 else text
        found.append((name, text))
    return found or None


@given(st.dictionaries(NAMES, st.lists(TEXTS, min_size=3, max_size=3), max_size=4))
def test_values_come_back_by_name(columns: dict[str, list[str | None]]) -> None:
    cells = {name: pa.chunked_array([pa.array(values, pa.string())]) for name, values in columns.items()}
    extra = read_extra(cells, 3)
    assert len(extra.texts) == 3
    for i, text in enumerate(extra.texts.to_pylist()):
        assert pairs_of(text) == naive({name: values[i] for name, values in columns.items()})


def test_sql_says_the_same_text_of_a_map() -> None:
    texts = ["a\x1f1\x1eb\x1fx = y, z", "", "é\x1f'\""]
    rows = pa.table({"extra": pa.array([pairs_of(t) for t in texts], pa.map_(pa.string(), pa.string()))})
    connection = duckdb.connect()
    connection.register("rows", rows)
    assert [row[0] for row in connection.sql(f"SELECT {AS_TEXT} FROM rows").fetchall()] == texts
    assert connection.sql("SELECT extra['b'], extra['a'] FROM rows").fetchall()[:2] == [
        ("x = y, z", "1"),
        (None, None),
    ]


def test_types_of_parquet_read_as_in_csv() -> None:
    parquet = {
        "depth": chunked([12.0, None, 2.5]),
        "site": chunked(["A", "B", None]).dictionary_encode(),
        "night": chunked([True, False, None]),
    }
    csv = {
        "depth": chunked(["12.0", "", "2.5"]),
        "site": chunked(["A", "B", "NA"]),
        "night": chunked(["true", "false", ""]),
    }
    assert read_extra(parquet, 3).texts.to_pylist() == read_extra(csv, 3).texts.to_pylist()


def test_what_is_too_much_is_told() -> None:
    long, mostly = "x" * (LONGEST_VALUE + 1), ["y" * 2000, "", "y" * 600]
    extra = read_extra({"note": chunked([long, "", "z"]), "mask": chunked(mostly)}, 3)
    assert [pairs_of(t) for t in extra.texts.to_pylist()] == [
        [("note", "x" * (LONGEST_VALUE - 1) + "…")],
        None,
        [("note", "z")],
    ]
    assert (extra.columns, extra.left_out) == (("note",), ("mask",))
    assert extra.notes == (
        "values of column note cut to 500 characters: 1",
        "column mask is not kept: most of its values are longer than 500 characters",
    )
    many = read_extra({f"c{i}": chunked(["v"]) for i in range(MOST_COLUMNS + 2)}, 1)
    assert (len(many.columns), many.left_out) == (MOST_COLUMNS, ("c100", "c101"))
    assert many.notes == ("of 102 other columns the first 100 are kept",)
    odd = read_extra({"a\x1fb": chunked(["v"]), "n" * 101: chunked(["v"])}, 1)
    assert (odd.columns, len(odd.left_out), len(odd.notes)) == ((), 2, 1)
