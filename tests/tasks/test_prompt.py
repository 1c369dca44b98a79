"""The prompt of `pairx sql`: statements, commands, and what Tab offers."""

from __future__ import annotations

import builtins
import io
import itertools
import sys
from pathlib import Path
from typing import Any

import duckdb
import pytest

from schemas.sql.cookbook import cookbook
from tasks.sql.console import connect_analyst
from tasks.sql.line_editing import Completer, history_file, line_editing
from tasks.sql.prompt import COMMANDS, Prompt
from tasks.store.warehouse import Warehouse
from tests.toy_warehouse import Pair, Photo, Toy


@pytest.fixture(scope="module")
def analyst(tmp_path_factory: pytest.TempPathFactory) -> duckdb.DuckDBPyConnection:
    photos = [Photo(f"{name}{i}", name, f"e{name}{i}") for name in "AB" for i in range(2)]
    pairs = [Pair(a.photo_id, b.photo_id, 0.5) for a, b in itertools.combinations(photos, 2)]
    return connect_analyst(Toy(photos, pairs).write(Warehouse(str(tmp_path_factory.mktemp("prompt")))).url)


def talk(connection: duckdb.DuckDBPyConnection, text: str) -> str:
    sink = io.StringIO()
    Prompt(connection, io.StringIO(text), sink).run()
    return sink.getvalue()


def test_the_prompt_runs_statements_over_several_lines(analyst: duckdb.DuckDBPyConnection) -> None:
    said = talk(analyst, "\nSELECT count(*)\n  AS photos_in_all\nFROM photos;\n.quit\nSELECT 'too late';\n")
    assert "photos_in_all\n-------------\n            4\n" in said
    assert "too late" not in said


def test_the_prompt_knows_its_commands_and_survives_errors(analyst: duckdb.DuckDBPyConnection) -> None:
    said = talk(
        analyst,
        ".tables\n.describe photos\n.nonsense\nDROP VIEW photos;\nSELEC;\n.format csv\nSELECT 1 AS a, 2 AS b;\n",
    )
    assert "pair_scores" in said
    assert "perceptual_hash" in said
    assert "no command '.nonsense'" in said
    assert "DROP statements are refused" in said
    assert "a,b\n1,2\n" in said


def test_the_prompt_runs_what_is_left_at_the_end_of_input(analyst: duckdb.DuckDBPyConnection) -> None:
    assert "left_over" in talk(analyst, "SELECT 1\nAS left_over")


def test_ctrl_c_drops_the_statement_and_not_the_prompt(
    analyst: duckdb.DuckDBPyConnection, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = iter(["SELECT 'unwanted'", KeyboardInterrupt(), "SELECT 'kept' AS word;", EOFError()])

    def line(_: str) -> str:
        found = next(lines)
        if isinstance(found, BaseException):
            raise found
        return found

    monkeypatch.setattr("builtins.input", line)
    sink = io.StringIO()
    Prompt(analyst, None, sink).run()
    assert "kept" in sink.getvalue()
    assert "unwanted" not in sink.getvalue()


def test_records_and_wide_tables_are_switched_on_and_off(analyst: duckdb.DuckDBPyConnection) -> None:
    text = "x" * 90
    sink = io.StringIO()
    lines = [
        "\\x",
        "SELECT 1 AS a;",
        "\\x",
        f"SELECT 1 AS a, '{text}' AS b;",
        ".wide",
        f"SELECT 2 AS a, '{text}' AS b;",
    ]
    Prompt(analyst, io.StringIO("\n".join(lines)), sink, width=lambda: 80).run()
    said = sink.getvalue()
    assert "-- 1 ---------------\na  1\n" in said
    assert f"\n1\n    b:\n        {text[:72]}\n        {text[72:]}\n" in said
    assert f"\n2  {text}\n" in said


def test_the_cookbook_is_listed_shown_and_run_by_number(analyst: duckdb.DuckDBPyConnection) -> None:
    titles = list(cookbook())
    listed = talk(analyst, ".cookbook\n")
    assert f"\n 1  {titles[0][:40]}" in listed
    assert f"\n{len(titles)}  " in listed
    number = 1 + next(k for k, title in enumerate(titles) if "well the catalogue is covered" in title)
    shown = talk(analyst, f".cookbook {number}\n")
    assert f"-- {number}. {titles[number - 1][:40]}" in shown
    assert cookbook()[titles[number - 1]] in shown
    assert "\n     4         4                 4       0\n(1 row)" in shown
    for wrong in ("0", "99", "x", "-1", "1e3"):
        assert f"its numbers are 1 to {len(titles)}" in talk(analyst, f".cookbook {wrong}\n")


def test_help_names_every_command_within_80_columns(analyst: duckdb.DuckDBPyConnection) -> None:
    said = talk(analyst, ".help\n")
    assert all(name in said for name in COMMANDS)
    assert max(map(len, said.splitlines())) <= 80
    assert said == talk(analyst, "help\n") == talk(analyst, "\\?\n")


@pytest.mark.parametrize("word", [".quit", "quit", "exit;", "EXIT", "\\q"])
def test_words_of_other_prompts_leave_it(analyst: duckdb.DuckDBPyConnection, word: str) -> None:
    assert "too late" not in talk(analyst, f"{word}\nSELECT 'too late';\n")


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        (".tabels", "did you mean .tables?"),
        (".describe", ".describe is given with VIEW behind it"),
        (".describe photo", "did you mean photos?"),
        (".format cvs", "did you mean csv?"),
        (".timeout soon", ".timeout 60, or .timeout none"),
        (".wide yes", ".wide is given with nothing behind it"),
        ("\\dx", "no command"),
    ],
)
def test_a_mistyped_command_is_told_with_its_cure(
    analyst: duckdb.DuckDBPyConnection, typed: str, said: str
) -> None:
    assert said in talk(analyst, f"{typed}\n")


@pytest.mark.parametrize(
    ("word", "before", "offered"),
    [
        (".des", "", [".describe"]),
        ("judged_c", ".describe ", ["judged_catalogues"]),
        ("re", ".format ", ["records"]),
        ("susp", "SELECT * FROM ", ["suspicions", "suspects"]),
        ("run_photo", "SELECT * FROM ", ["run_photos"]),
        ("pairs.cos", "SELECT ", ["pairs.cosine"]),
        ("perceptual", "SELECT * FROM photos WHERE ", ["perceptual_hash"]),
        ("blamed_", "SELECT ", ["blamed_photo"]),
        ("SUMM", "", ["SUMMARIZE"]),
        ("whe", "SELECT 1 FROM pairs ", ["where"]),
        ("nonsense", "", []),
        ("nowhere.x", "", []),
    ],
)
def test_tab_offers_commands_views_and_columns(
    analyst: duckdb.DuckDBPyConnection, word: str, before: str, offered: list[str]
) -> None:
    assert Completer(analyst, COMMANDS).completions(word, before) == offered


def test_without_the_module_lines_are_read_all_the_same(
    analyst: duckdb.DuckDBPyConnection, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = builtins.__import__

    def missing(name: str, *rest: Any) -> Any:
        if name == "readline":
            raise ImportError(name)
        return found(name, *rest)

    lines = iter(["SELECT 'kept' AS word;", ".quit"])
    monkeypatch.delitem(sys.modules, "readline", raising=False)
    monkeypatch.setattr(builtins, "__import__", missing)
    monkeypatch.setattr("builtins.input", lambda _: next(lines))
    sink = io.StringIO()
    Prompt(analyst, None, sink).run()
    assert "kept" in sink.getvalue()


def test_typed_lines_are_kept_with_the_users_state(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert history_file() == tmp_path / "pairx" / "sql_history"
    monkeypatch.delenv("XDG_STATE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert history_file() == tmp_path / ".local" / "state" / "pairx" / "sql_history"


def test_no_history_is_written_away_from_a_terminal(
    analyst: duckdb.DuckDBPyConnection, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    with line_editing(analyst, COMMANDS):
        pass
    assert list(tmp_path.iterdir()) == []
