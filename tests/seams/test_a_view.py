"""A view is one SQL file: put beside the others, analysts ask it and its header describes it."""

from __future__ import annotations

from pathlib import Path

import pytest

from schemas.sql import files as sql_files
from tasks.sql.console import connect_analyst, run_query
from tasks.sql.listing import describe
from tasks.store.warehouse import Warehouse
from tests.toy_warehouse import Photo, Toy

VIEWS = {
    "a_toy": "-- one row per species of named photos\n-- narrow\n-- column n: photos\n\n"
    "SELECT species, count(*) AS n, any_value(fingerprint) AS fingerprint FROM named_photos GROUP BY ALL\n",
    "named_photos": "-- photos with a name\n\nFROM photos WHERE identity IS NOT NULL;\n",
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "views").mkdir()
    for name, text in VIEWS.items():
        (tmp_path / "views" / f"{name}.sql").write_text(text)
    monkeypatch.setattr(sql_files, "FOLDERS", [*sql_files.FOLDERS, tmp_path])


@pytest.mark.parametrize("materialise", [False, True])
def test_analysts_ask_it(folder: None, tmp_path: Path, materialise: bool) -> None:
    warehouse = Toy([Photo("a", "A"), Photo("b", "B"), Photo("c")], []).write(Warehouse(str(tmp_path / "w")))
    connection = connect_analyst(warehouse.url, materialise=materialise)
    assert run_query(connection, "SELECT species, n FROM a_toy").to_pylist() == [{"species": "zebra", "n": 2}]


def test_tables_list_and_describe_it(folder: None) -> None:
    listed = describe().splitlines()
    places = [next(i for i, line in enumerate(listed) if line.startswith(f"{name} ")) for name in VIEWS]
    assert places == [
        len(listed) - 6,
        len(listed) - 5,
    ]  # behind the others, before current_run and compared_runs
    assert listed[places[0]].split(maxsplit=1)[1] == "one row per species of named photos"
    described = [line.split(maxsplit=2) for line in describe(None, "a_toy").splitlines()[2:]]
    assert described == [
        ["species", "VARCHAR", "species as the catalogue spells it"],
        ["n", "BIGINT", "photos"],
        ["fingerprint", "VARCHAR", "hash of all settings that the row's numbers depend on"],
    ]
