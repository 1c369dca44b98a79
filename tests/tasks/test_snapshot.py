"""A snapshot is what the views over the shards show, row for row.

It is whole or not read, written once, and removed late.
"""

from __future__ import annotations

import itertools
import os
import shutil
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pyarrow.parquet as pq
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from schemas.sql import files as sql_files
from schemas.sql.files import view_files
from schemas.views import snapshots
from schemas.views.graph import ViewGraph
from schemas.views.install import Views, install_views
from schemas.views.snapshots import snapshot_folder, snapshot_views, whole_snapshot
from tasks.check.findings import check
from tasks.sql.console import connect_analyst, run_query
from tasks.sql.results import QueryError
from tasks.store import snapshot as module
from tasks.store.snapshot import earlier_snapshots, remove_old_snapshots, write_snapshot
from tasks.store.warehouse import Warehouse
from tests import toy_warehouse
from tests.toy_warehouse import (
    Photo,
    Toy,
    likeness,
    run_row,
    write_judgement,
    write_pairs,
    write_photos,
)

RUN = toy_warehouse.RUN | {"state": "s"}
HERD = [Photo(f"{name}{i}", name, f"e{name}{i}") for name in "ABC" for i in range(3)]


SUSPECTS = """-- ranked pairs
-- narrow
-- snapshot: rank

SELECT CAST(row_number() OVER (ORDER BY cosine DESC, pair_id) AS INTEGER) AS rank, pair_id, ['a', NULL] AS words FROM pair_scores"""
EVIDENCE = "-- pairs once more\n-- narrow\n\nSELECT *, cosine / 2 AS evidence FROM pair_scores"


def copied(folder: Path) -> Path:
    """The views that the others come from, and two quick ones in the place of the rest.

    Installing all of them takes seconds.
    """
    (folder / "views").mkdir(parents=True)
    whole = Path(sql_files.__file__).parent
    shutil.copy(whole / "macros.sql", folder)
    for name in ("photos", "pairs", "pair_scores"):
        shutil.copy(whole / "views" / f"{name}.sql", folder / "views")
    (folder / "views" / "suspects.sql").write_text(SUSPECTS)
    (folder / "views" / "evidence.sql").write_text(EVIDENCE)
    return folder


@pytest.fixture
def all_views() -> None:
    """For tests that need the views of the product."""


@pytest.fixture(autouse=True)
def few_views(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A few views in the place of the product's."""
    if "all_views" not in request.fixturenames:
        monkeypatch.setattr(sql_files, "FOLDERS", [copied(tmp_path / "few")])


PAIRED = [likeness(a, b) for a, b in itertools.combinations(HERD, 2)]


@pytest.fixture(params=["path", "memory"])
def warehouse(request: pytest.FixtureRequest, tmp_path: Path) -> Warehouse:
    MemoryFileSystem.store.clear()
    MemoryFileSystem.pseudo_dirs[:] = [""]
    return Warehouse({"path": f"{tmp_path}/odd [name]*", "memory": "memory://deep/w"}[request.param])


@pytest.fixture
def local(tmp_path: Path) -> Warehouse:
    warehouse = Warehouse(str(tmp_path / "w"))
    write_photos(warehouse, HERD[:6])
    write_pairs(warehouse, HERD, [p for p in PAIRED if "C" not in p.a + p.b])
    return warehouse


def connected() -> duckdb.DuckDBPyConnection:
    return duckdb.connect(":memory:", config={"threads": 1})


def finish(warehouse: Warehouse, number: int = 1, keep: bool = True) -> str | None:
    """End a run as the nightly flow does."""
    name = None
    with connected() as connection:
        views = Views(connection, warehouse)
        views.refresh(RUN, True)
        if keep:
            name = write_snapshot(warehouse, connection, views.snapshot_name()).name
        at = datetime(2026, 5, 1, tzinfo=UTC) + timedelta(days=number)
        row = run_row(f"r{number}", "finished", at, Toy([], [])) | {"snapshot": name}
        warehouse.write("runs", "all", f"r{number}", [row])
        if name:
            remove_old_snapshots(warehouse, [name, *earlier_snapshots(connection)])
    return name


def shown(warehouse: Warehouse, run: Any = None) -> dict[str, tuple[list[Any], list[str]]]:
    """Types and rows of every view."""
    with connected() as connection:
        install_views(connection, warehouse, run)
        found = {name: connection.sql(f"FROM {name}") for name in view_files() if name != "runs"}
        return {n: (r.types, sorted(map(str, r.fetchall()))) for n, r in found.items()}


def read_from(warehouse: Warehouse, run: Any = None) -> str | None:
    with connected() as connection:
        install_views(connection, warehouse, run)
        name = connection.sql("SELECT snapshot FROM current_run").fetchall()[0][0]
        sql = connection.sql("SELECT sql FROM duckdb_views() WHERE view_name = 'photos'").fetchall()[0][0]
        assert ("QUALIFY" in sql) == (name is None)
        return None if name is None else str(name)


def test_a_snapshot_shows_what_the_shards_show_also_after_more_photos_and_other_names(
    warehouse: Warehouse,
) -> None:
    write_photos(warehouse, HERD[:6])
    write_pairs(warehouse, HERD, [p for p in PAIRED if "C" not in p.a + p.b])
    names = [finish(warehouse)]
    assert read_from(warehouse) == names[0]
    assert shown(warehouse) == shown(warehouse, RUN)
    assert shown(warehouse)["suspects"][1]
    for step in (
        HERD[6:],
        [replace(HERD[0], identity="B", revision=1), replace(HERD[8], present=False, revision=1)],
    ):
        before = shown(warehouse)
        write_photos(warehouse, step)
        if step == HERD[6:]:
            write_pairs(warehouse, HERD, [p for p in PAIRED if "C" in p.a + p.b])
        during = shown(warehouse)
        assert all(
            during[view] == before[view] for view in snapshot_views()
        )  # a run is under way: the last one's rows
        assert before != shown(warehouse, RUN)
        names.append(finish(warehouse, len(names) + 1))
        assert shown(warehouse) == shown(warehouse, RUN) != before
    assert len(set(names)) == 3
    assert not check(warehouse, quick=True).problems
    assert warehouse.snapshots() == sorted(filter(None, names[1:]))  # the newest two


@pytest.mark.usefixtures("all_views")
def test_the_views_of_the_product_show_the_same_rows_from_both(tmp_path: Path) -> None:
    warehouse = Toy(HERD, PAIRED).write(Warehouse(str(tmp_path / "w")), "r0", minutes=-9)
    doubts = {"A0": {"probability": 0.9, "proposed_name": "B"}}
    write_judgement(warehouse, HERD, doubts, {(p.a, p.b): p.cosine for p in PAIRED})
    finish(warehouse)
    found = shown(warehouse)
    assert {"photos", "pairs", "pair_scores", "suspects"} <= snapshot_views().keys()
    assert all(found[view][1] for view in snapshot_views())
    again = shown(warehouse, RUN)
    # These name the run that is current, which `RUN` does not.
    naming = {"compared_states", "tonight"}
    assert {k: v for k, v in found.items() if k not in naming} == {
        k: v for k, v in again.items() if k not in naming
    }
    assert not check(warehouse).problems


def test_without_any_rows_the_snapshot_is_empty_and_typed(warehouse: Warehouse) -> None:
    finish(warehouse)
    assert read_from(warehouse)
    assert shown(warehouse) == shown(warehouse, RUN)


def test_rows_are_cut_into_files_and_groups_of_one_size_in_order(
    local: Warehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    for place in (snapshots, module):
        monkeypatch.setattr(place, "ROWS_PER_FILE", 4)
        monkeypatch.setattr(place, "ROWS_PER_GROUP", 3)
    finish(local)
    assert shown(local) == shown(local, RUN)
    [folder] = Path(local.root, "current").iterdir()
    counts = {p.name: pq.read_metadata(p).num_rows for p in folder.glob("pa*-of-*.parquet")}
    assert sum(counts[n] for n in counts if n.startswith("pairs-")) == 15
    assert {n: c for n, c in counts.items() if n.startswith("pairs-")} == {
        "pairs-1-of-4.parquet": 4, "pairs-2-of-4.parquet": 4, "pairs-3-of-4.parquet": 4, "pairs-4-of-4.parquet": 3
    }  # fmt: skip
    assert pq.read_metadata(folder / "pairs-1-of-4.parquet").num_row_groups == 2
    ids = [
        i for k in (1, 2) for i in pq.read_table(folder / f"photos-{k}-of-2.parquet")["photo_id"].to_pylist()
    ]
    assert ids == [p.photo_id for p in HERD[:6]]


def test_it_is_written_once_and_the_same_anywhere(local: Warehouse, tmp_path: Path) -> None:
    first = finish(local)
    files = {
        p: (p.read_bytes(), p.stat().st_mtime_ns) for p in Path(local.root, "current").rglob("*.parquet")
    }
    assert len(files) == len(snapshot_views())
    assert finish(local, 2) == first
    assert files == {p: (p.read_bytes(), p.stat().st_mtime_ns) for p in files}
    twin = Warehouse(str(tmp_path / "twin"))
    write_pairs(twin, HERD, [p for p in PAIRED if "C" not in p.a + p.b])
    write_photos(twin, HERD[:6])
    assert finish(twin) == first
    assert {p.name: p.read_bytes() for p in Path(twin.root, "current").rglob("*.parquet")} == {
        p.name: data for p, (data, _) in files.items()
    }


@pytest.mark.parametrize("lost", ["photos", "pairs", "pair_scores", "suspects"])
def test_one_that_is_not_whole_is_not_read_and_written_again(local: Warehouse, lost: str) -> None:
    name = finish(local)
    [path] = Path(local.root, "current").glob(f"*/{lost}-*")
    path.unlink()
    assert read_from(local) is None
    assert shown(local) == shown(local, RUN)
    assert finish(local, 2) == read_from(local) == name
    assert path.exists()


def test_a_kill_between_the_files_leaves_nothing_that_is_read(
    local: Warehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    put, written = Warehouse.write_file, []

    def killed(self: Warehouse, path: str, data: bytes) -> str:
        if len(written) == 2:
            raise KeyboardInterrupt
        written.append(path)
        return put(self, path, data)

    finish(local, 1)
    write_photos(local, HERD[6:])
    with monkeypatch.context() as patch:
        patch.setattr(Warehouse, "write_file", killed)
        with pytest.raises(KeyboardInterrupt):
            finish(local, 2)
    half, whole = sorted(local.snapshots(), key=lambda n: len(local.snapshot(n)))
    assert (len(local.snapshot(half)), whole_snapshot(local.snapshot(half))) == (2, {})
    assert read_from(local) == whole
    assert finish(local, 3) == half == read_from(local)


def test_runs_without_one_and_earlier_runs_are_read_from_the_shards(local: Warehouse) -> None:
    finish(local, 1)
    newest = finish(local, 2)
    assert read_from(local, "r2") == newest
    assert read_from(local, "r1") is None
    assert read_from(local, RUN) is None
    finish(local, 3, keep=False)
    assert read_from(local) is None


def test_a_program_with_other_views_reads_the_shards(
    local: Warehouse, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    finish(local)
    assert read_from(local)
    other = copied(tmp_path / "other")
    text = (other / "views" / "photos.sql").read_text()
    (other / "views" / "photos.sql").write_text(f"{text}    AND identity <> 'B'")
    monkeypatch.setattr(sql_files, "FOLDERS", [other])
    assert read_from(local) is None
    assert len(shown(local)["photos"][1]) == 3


def test_settings_that_choose_rows_and_rows_of_other_settings_are_in_the_name(local: Warehouse) -> None:
    def name(**columns: Any) -> str:
        with connected() as connection:
            views = Views(connection, local)
            views.refresh(RUN | columns)
            return views.snapshot_name()

    assert name() == name(run_id="r9", status="started") == name(signals_fingerprint="other")
    others = [name(top_k=4), name(state="t"), name(scores_fingerprint="other"), name(same_species=True)]
    assert len({name(), *others}) == 5


def test_tables_that_are_kept_follow_the_snapshot(local: Warehouse) -> None:
    name = finish(local)
    with connected() as connection:
        views = Views(connection, local)
        views.refresh(RUN, True)
        before = connection.sql("FROM evidence").fetchall()
        views.refresh(RUN | {"snapshot": name}, True)
        tables = {row[0] for row in connection.sql("SELECT table_name FROM duckdb_tables()").fetchall()}
        assert "evidence" in tables
        assert not tables & snapshot_views().keys()
        assert sorted(map(str, connection.sql("FROM evidence").fetchall())) == sorted(map(str, before))
        views.refresh(RUN, True)
        assert sorted(map(str, connection.sql("FROM evidence").fetchall())) == sorted(map(str, before))


@pytest.mark.usefixtures("all_views")
def test_only_rows_of_files_that_never_change_are_kept() -> None:
    graph = ViewGraph(view_files())
    for name in snapshot_views():
        # Verdicts are never changed, and when a photo's file was written is settled with it.
        stored = graph.sources(name) - {"current_run", "all_reviews", "all_photos", "all_files"}
        assert all(source.startswith("run_") for source in stored), name
        assert "run_failures" not in stored


def test_what_no_finished_run_knows_of_stays_for_a_day(local: Warehouse) -> None:
    name = str(finish(local))
    strangers = [name[:-1] + digit for digit in "xy"]
    for stranger in strangers:
        local.write_file(f"{snapshot_folder(stranger)}/photos-1-of-1.parquet", b"half")
    two_days_ago = time.time() - 2 * 86400
    [old] = Path(local.root, snapshot_folder(strangers[0])).iterdir()
    os.utime(old, (two_days_ago, two_days_ago))
    assert remove_old_snapshots(local, [name]) == strangers[:1]
    assert local.snapshots() == sorted([name, strangers[1]])


def test_check_finds_what_is_wrong_with_the_files(local: Warehouse) -> None:
    finish(local)
    folder = Path(local.root, "current", f"snapshot={local.snapshots()[0]}")
    pairs, photos, ranked, scores = sorted(folder.iterdir(), key=lambda p: p.name.replace("pair_s", "z"))
    pairs.write_bytes(pairs.read_bytes()[:-30])
    table = pq.read_table(photos)
    pq.write_table(table.drop_columns(["path"]), photos)
    kept = pq.read_table(ranked)
    pq.write_table(kept.replace_schema_metadata({**(kept.schema.metadata or {}), b"rows": b"99"}), ranked)
    found = {
        Path(p.where).name.partition("-")[0]: (p.kind, p.what) for p in check(local, quick=True).problems
    }
    assert {view: kind for view, (kind, _) in found.items()} == {
        "pairs": "unreadable file", "photos": "wrong columns", "suspects": "wrong footer"
    }  # fmt: skip
    assert scores.name.startswith("pair_scores")
    assert "rows" in found["suspects"][1]


def test_the_prompt_of_the_analyst_reads_it_and_nothing_else_new(warehouse: Warehouse) -> None:
    Toy(HERD, PAIRED).write(warehouse, "r0", minutes=-9)
    finish(warehouse)
    with connect_analyst(warehouse.url, materialise=True) as connection:
        assert connection.sql("SELECT snapshot IS NOT NULL FROM current_run").fetchall() == [(True,)]
        assert connection.sql("SELECT count(*) FROM photos").fetchall() == [(len(HERD),)]
        remove_old_snapshots(warehouse, ["other", "another", *warehouse.snapshots()])
        if warehouse.is_local:  # small files of a store have been fetched when they were opened
            with pytest.raises(QueryError, match="open the warehouse again"):
                run_query(connection, "SELECT * FROM photos")
    with connect_analyst(warehouse.url) as connection:
        ranks = [row[0] for row in connection.sql("SELECT rank FROM suspects LIMIT 20").fetchall()]
        assert ranks == list(range(1, len(ranks) + 1))
