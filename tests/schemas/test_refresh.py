"""Refreshed views show what freshly installed ones show, and list only what was written."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb
import pytest

from schemas.failures import Failure, FailureCode
from schemas.sql.files import view_files
from schemas.tables.registry import TABLES
from schemas.views.install import Views, install_views, partitions
from tasks.store.inventory import Inventory
from tasks.store.warehouse import Warehouse
from tests.toy_warehouse import (
    FINGERPRINTS,
    RUN,
    Photo,
    Toy,
    likeness,
    run_row,
    write_judgement,
    write_pairs,
    write_photos,
)

RELATIONS = [
    *view_files(),
    "current_run",
    *(f"all_{name}" for name in TABLES),
    *(f"run_{name}" for name in partitions()),
]
HERD = [Photo(f"{name}{i}", name, f"e{name}{i}") for name in "AB" for i in range(3)]
TIME = datetime(2026, 5, 1, tzinfo=UTC)
PHOTOS, PAIRS = ("photos", "embeddings", "keypoints"), ("pairs", "matches", "relevances", "scores")


class Listing(Inventory):
    """A warehouse that notes which tables are listed."""

    def __init__(self, warehouse: Warehouse) -> None:
        super().__init__(warehouse.storage)
        self.warehouse = warehouse
        self.listed: list[str] = []

    def inventory(self) -> Listing:
        return self

    def files(self, tables: Collection[str]) -> dict[str, list[str]]:
        self.listed += tables
        return super().files(tables)


def contents(connection: duckdb.DuckDBPyConnection) -> dict[str, list[str]]:
    return {name: sorted(map(str, connection.sql(f"FROM {name}").fetchall())) for name in RELATIONS}


def kinds(connection: duckdb.DuckDBPyConnection) -> dict[str, str]:
    found = connection.sql("SELECT table_name, table_type FROM information_schema.tables").fetchall()
    return dict(found)


def fail(code: FailureCode) -> Callable[[Warehouse], int]:
    row = Failure("ingest", "bad", code, "it breaks off", revision=0).row()
    return lambda w: w.write("failures", FINGERPRINTS["photos"], "same-name", [row])


def write(photos: list[Photo]) -> Callable[[Warehouse], None]:
    return lambda w: write_photos(w, photos)


def start_a_run(warehouse: Warehouse) -> None:
    warehouse.write("runs", "all", "r", [run_row("r", "started", TIME, Toy([], []))])


PAIRED = [likeness(a, b) for a, b in itertools.combinations(HERD, 2)]
STEPS: list[tuple[tuple[str, ...], list[Callable[[Warehouse], Any]], Any, dict[str, Any]]] = [
    ((*PHOTOS, "failures"), [write([*HERD[:4], Photo("bad", "A", readable=False)]), fail(FailureCode.TRUNCATED)], ("photos",), {}),
    (PAIRS, [lambda w: write_pairs(w, HERD, PAIRED[:5])], ("photos", "pairs"), {"state": "s"}),
    (PHOTOS, [write(HERD[4:])], True, {"state": "s"}),
    ((*PAIRS, "failures"), [lambda w: write_pairs(w, HERD, PAIRED[5:]), fail(FailureCode.EMPTY_FILE)], True, {"state": "s"}),
    ((), [], True, {"state": "s", "top_k": 1}),
    ((*PHOTOS, "runs"), [write([replace(HERD[0], identity="B", revision=1)]), start_a_run], False, {}),
]  # fmt: skip


@pytest.mark.slow
def test_refreshed_views_show_what_fresh_ones_show(tmp_path: Path) -> None:
    warehouse = Warehouse(str(tmp_path / "w"))
    store = Listing(warehouse)
    connection = duckdb.connect(":memory:", config={"threads": 1})
    views = Views(connection, store)
    views.refresh(RUN)
    assert sorted(store.listed) == sorted(TABLES)
    found = []
    for tables, commits, keep, columns in STEPS:
        for commit in commits:
            commit(warehouse)
        views.wrote(tables)
        store.listed.clear()
        views.refresh(RUN | columns, keep)
        assert sorted(store.listed) == sorted(tables)
        fresh = duckdb.connect(":memory:", config={"threads": 1})
        install_views(fresh, warehouse, RUN | columns, keep)
        assert contents(connection) == contents(fresh)
        assert kinds(connection) == kinds(fresh)
        found.append(contents(connection)["evidence"])
    assert found[-1] != found[3] != []


def test_what_was_not_written_is_neither_listed_nor_computed_again(tmp_path: Path) -> None:
    warehouse = Toy(HERD, PAIRED).write(Warehouse(str(tmp_path / "w")))
    doubt = {"A0": {"probability": 0.9, "proposed_name": "B"}}
    write_judgement(warehouse, HERD, doubt, {(p.a, p.b): p.cosine for p in PAIRED})
    store, run = Listing(warehouse), RUN | {"state": "s"}
    with duckdb.connect(":memory:") as connection:
        views = Views(connection, store)
        views.refresh(run, True)
        connection.execute("DELETE FROM suspects; DELETE FROM failures").fetchall()  # a mark in what was kept
        fail(FailureCode.TRUNCATED)(warehouse)
        write_photos(warehouse, [Photo("bad", "A", readable=False), Photo("unseen", "A")])
        views.wrote(["failures"])
        store.listed.clear()
        views.refresh(run, True)
        assert store.listed == ["failures"]
        assert connection.sql("FROM suspects").fetchall() == []
        assert connection.sql("FROM photos WHERE photo_id = 'unseen'").fetchall() == []
        views.wrote(["photos"])
        views.refresh(run, True)
        assert len(connection.sql("FROM photos WHERE photo_id = 'unseen'").fetchall()) == 1
        assert len(connection.sql("FROM failures").fetchall()) == 1
        assert connection.sql("FROM suspects").fetchall() != []


def test_views_that_are_not_wanted_wait_and_are_right_when_they_are(tmp_path: Path) -> None:
    warehouse = Toy(HERD, PAIRED[:5]).write(Warehouse(str(tmp_path / "w")))
    with duckdb.connect(":memory:") as connection:
        views = Views(connection, warehouse)
        views.refresh(RUN, ("photos",), wanted=("pairs",))
        assert connection.sql("FROM photos").fetchall()
        assert connection.sql("FROM pairs").fetchall()
        with pytest.raises(duckdb.CatalogException):
            connection.sql("FROM pair_scores")
        views.refresh(RUN, ("photos", "pair_scores"))
        write_pairs(warehouse, HERD, PAIRED[5:])
        views.wrote(PAIRS)
        views.refresh(RUN, ("photos",), wanted=())
        views.refresh(RUN, ("photos", "pair_scores"))
        with duckdb.connect(":memory:") as fresh:
            install_views(fresh, warehouse, RUN)
            assert len(connection.sql("FROM pair_scores").fetchall()) == len(PAIRED)
            assert contents(connection) == contents(fresh)


def test_another_run_brings_its_own_rows(tmp_path: Path) -> None:
    warehouse = Toy(HERD, PAIRED).write(Warehouse(str(tmp_path / "w")))
    warehouse.write("photos", "0ther", "s", [Photo("Z", "Z").row()])
    with duckdb.connect(":memory:") as connection:
        views = Views(connection, warehouse)
        views.refresh(RUN, ("photos",))
        views.refresh(RUN | {"photos_fingerprint": "0ther"}, ("photos",))
        assert connection.sql("SELECT photo_id FROM photos").fetchall() == [("Z",)]
        views.refresh("r1", True)
        assert connection.sql("SELECT count(*) FROM photos").fetchall() == [(len(HERD),)]


def test_an_overwritten_file_is_read_anew_on_every_file_system() -> None:
    warehouse = Warehouse("memory://refresh/w")
    codes = [FailureCode.TRUNCATED, FailureCode.EMPTY_FILE, FailureCode.WRONG_TYPE]
    write_photos(warehouse, [Photo("bad", "A", readable=False)])
    with duckdb.connect(":memory:") as connection:
        views = Views(connection, warehouse)
        for code in codes:
            fail(code)(warehouse)
            views.wrote(["failures"])
            views.refresh(RUN, True)
            assert connection.sql("SELECT code FROM failures").fetchall() == [(str(code),)]


def test_a_failed_refresh_is_made_good_by_the_next(tmp_path: Path) -> None:
    warehouse = Warehouse(str(tmp_path / "w"))
    write_photos(warehouse, HERD)
    with duckdb.connect(":memory:") as connection:
        views = Views(connection, warehouse)
        views.refresh(RUN, ("photos",))
        write_photos(warehouse, [Photo("new", "A")], shard="new")
        path = Path(warehouse.root, warehouse.shard_path("photos", FINGERPRINTS["photos"], "new"))
        whole = path.read_bytes()
        path.write_bytes(b"PAR1")
        views.wrote(["photos"])
        with pytest.raises(duckdb.Error):
            views.refresh(RUN, ("photos",))
        path.write_bytes(whole)
        views.refresh(RUN, ("photos",))
        assert connection.sql("SELECT count(*) FROM photos").fetchall() == [(len(HERD) + 1,)]
