from __future__ import annotations

from pathlib import Path

import duckdb
import pytest

from schemas.errors import SettingsError
from schemas.sql import files as sql_files
from schemas.sql.files import RULE_COLUMNS, suspect_rules, view_files
from schemas.thresholds import THRESHOLDS
from schemas.views.graph import ViewGraph
from tasks.sql.console import connect_analyst
from tasks.store.warehouse import Warehouse
from tests.toy_warehouse import Toy

GOOD = "-- one row per x\n\nSELECT 1 AS x"


def graph_of(folder: Path, monkeypatch: pytest.MonkeyPatch, **views: str) -> ViewGraph:
    (folder / "views").mkdir()
    for name, text in views.items():
        (folder / "views" / f"{name}.sql").write_text(text)
    monkeypatch.setattr(sql_files, "FOLDERS", [folder])
    return ViewGraph(view_files())


def test_every_rule_has_a_label_and_every_column_of_the_union_a_description() -> None:
    assert all(rule.about and rule.label for rule in suspect_rules().values())
    assert {"kind", "asks", *RULE_COLUMNS} == set(view_files()["suspicions"].columns)


def test_a_header_is_read_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    header = "-- one row per x\n-- order: 7\n-- narrow\n-- column x: a number: one\n\n-- free: words\n"
    view = graph_of(tmp_path, monkeypatch, x=f"{header}SELECT 1 AS x;\n").views["x"]
    assert (view.about, view.order, view.narrow) == ("one row per x", 7, True)
    assert view.columns == {"x": "a number: one"}
    assert view.query == "-- free: words\nSELECT 1 AS x"


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("x", "SELECT 1", "no header above a query"),
        ("x", "-- one row per x", "no header above a query"),
        ("x", "-- one row per x\n-- colum x: misspelt\n\nSELECT 1", "colum x: misspelt"),
        ("X-1", GOOD, "is taken or no name"),
        ("x", f"{GOOD}; SELECT 2", "not one SELECT"),
        ("x", "-- one row per x\n\nDELETE FROM photos", "not one SELECT"),
        ("x", "-- one row per x\n\nFROM y", "circle"),
    ],
)
def test_what_is_no_view_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, text: str, said: str
) -> None:
    with pytest.raises(SettingsError, match=said):
        graph_of(tmp_path, monkeypatch, **{name: text, "y": "-- y\n\nFROM x"})


def test_a_name_is_taken_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    graph_of(tmp_path, monkeypatch, x=GOOD)
    monkeypatch.setattr(sql_files, "FOLDERS", [tmp_path, tmp_path])
    with pytest.raises(SettingsError, match="'x' is taken"):
        view_files()


def test_views_come_after_those_that_they_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = (
        "-- a\n\nWITH b AS (FROM run_pairs), c AS (FROM b) FROM c WHERE EXISTS (FROM z) UNION ALL FROM main.y"
    )
    graph = graph_of(
        tmp_path, monkeypatch, a=own, b="-- b\n\nFROM a", y="-- y\n\nFROM z", z="-- z\n\nFROM all_runs"
    )
    assert list(graph.views) == ["z", "y", "a", "b"]
    assert graph.reads["a"] == {"run_pairs": 1, "z": 1, "y": 1}  # b is here a part of the query, not the view
    assert graph.sources("b") == {"run_pairs", "all_runs"}


def test_what_several_views_read_is_computed_once_and_all_is_planned_once_unless_it_is_a_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    views = {
        "a": "-- a\n\nSELECT random() AS r",
        "b": "-- b\n\nFROM a",
        "c": "-- c\n\nFROM a JOIN b USING (r)",
    }
    graph = graph_of(tmp_path, monkeypatch, **views)
    assert len(duckdb.execute(graph.query("c")).fetchall()) == 1  # two looks at one random number
    assert {n: graph.query("c").count(f"{n} AS ") for n in "ab"} == {"a": 1, "b": 1}
    assert "b AS NOT MATERIALIZED" in graph.query("c", {"a"})
    assert "a AS" not in graph.query("c", {"a"})
    assert graph.query("c", {"a", "b"}) == "FROM a JOIN b USING (r)"


def test_numbers_of_the_program_are_those_of_the_views(tmp_path: Path) -> None:
    connection = connect_analyst(Toy([], []).write(Warehouse(str(tmp_path))).url)
    for name, number in THRESHOLDS.items():
        assert connection.sql(f"SELECT {name}() = ?", params=[number]).fetchall() == [(True,)]
