"""Texts of others: nothing in them steers a terminal or runs in a spreadsheet.

What CSV held reads back as it was.
"""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.catalogue.reader import read_catalogue
from schemas.foreign_text import escaped_json, neutralised, printable, printable_lines, restored
from tasks.sql.csv_text import csv_lines

ESCAPES = [
    "\x1b[2J",
    "\x1b]0;title\x07",
    "\x9b31m",
    "\u202eevil",
    "\u2066x",
    "a\rb",
    "\x08\x08",
    "\ud800",
    "\u2028",
]
NAMES = ["Löwe 🦁", "می‌خواهم", "👩‍🦰", "a\u00a0b", "אבי", "山田", "O'Neil", "-0.5", "'quoted'"]
FORMULAS = [
    "=1+1",
    "+cmd|' /C calc'!A0",
    "-2+3",
    "@SUM(1)",
    " =1",
    "＝1",
    "-",
    "'=1",
    "''@x",
    "'-0.5",
    "''-0.5",
]


@pytest.mark.parametrize("text", ESCAPES)
def test_nothing_that_steers_a_terminal_is_printed(text):
    for shown in (printable(text), printable_lines(text), escaped_json(json.dumps(text, ensure_ascii=False))):
        assert shown.isprintable()


@pytest.mark.parametrize("name", NAMES)
def test_names_of_all_scripts_stay_as_they_are(name):
    assert printable(name) == printable_lines(name) == neutralised(name) == restored(name) == name


def test_line_ends_stay_only_where_lines_are_meant():
    assert printable("a\nb") == "a\N{REPLACEMENT CHARACTER}b"
    assert printable_lines("a\n\tb") == "a\n\tb"


@given(st.text())
def test_json_keeps_its_values(text):
    assert json.loads(escaped_json(json.dumps({"a": text}, ensure_ascii=False))) == {"a": text}


@pytest.mark.parametrize("text", [*NAMES, *FORMULAS])
def test_a_cell_reads_as_what_was_written(text):
    assert restored(neutralised(text)) == text


@given(
    st.text(st.characters(exclude_categories=["Cc", "Cs"]), max_size=20).map(lambda t: f"'={t}"[len(t) % 3 :])
)
def test_any_cell_reads_as_what_was_written(text):
    assert restored(neutralised(text)) == text


def test_our_csv_read_as_a_catalogue_keeps_the_names(tmp_path):
    names = [*(name.strip() for name in (*NAMES, *FORMULAS)), "Ada"]
    rows = [(f"p{i:02}", name, f"{i}.jpg") for i, name in enumerate(names)]
    (tmp_path / "c.csv").write_text(csv_lines([("image_id", "identity", "path"), *rows]), encoding="utf-8")
    read = read_catalogue(str(tmp_path / "c.csv"))
    assert [entry.identity for entry in read.entries] == names
