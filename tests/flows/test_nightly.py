"""The whole flow on Prefect and Dask: complete, incremental, whatever the catalogue's history."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path
from typing import Any

import duckdb
import pytest

from flows.night.values import RunOptions
from flows.nightly import nightly
from schemas.errors import CatalogueError, PairxError
from schemas.stages import JUDGE
from schemas.views.install import install_views
from schemas.views.snapshots import snapshot_views
from tasks.check.findings import check
from tasks.sql.console import connect_analyst
from tasks.store.warehouse import Warehouse
from tests.finished_runs import Finished
from tests.flows.running import run_flow, shards_of
from tests.small_catalogue import BROKEN_CODES, TINY, assert_same_rows, files_of, rewrite, rows_of, views_of

STAGES = ("ingest", "embed", "retrieve", "score", "signals", "verify", "judge", "flag", "draw", "report")


def added(before: dict[str, bytes], after: dict[str, bytes]) -> dict[str, int]:
    """New files per table; no old file may be gone or changed."""
    assert all(after.get(path) == data for path, data in before.items())
    tables = [path.partition("/")[0] for path in after if path not in before]
    return {table: tables.count(table) for table in sorted(set(tables))}


def test_the_first_run_is_complete_and_balanced(undisturbed: Finished, small: Path) -> None:
    summary, warehouse = undisturbed.summary, undisturbed.warehouse
    with small.open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [b.name for b in summary.balances] == ["catalogue", "photos", "pairs", "retrieved"]
    assert all(b.ok for b in summary.balances)
    catalogue, photos, pairs, _ = summary.balances
    assert (catalogue.planned, catalogue.failed) == (len(rows), 6)
    assert (photos.planned, photos.failed) == (len(rows), 6)
    assert pairs.planned == pairs.done > 40
    assert tuple(log.stage for log in summary.stages) == STAGES
    assert all(shards_of(summary)[stage] > 0 for stage in ("ingest", "embed", "retrieve", "score", "draw"))
    codes = [row["code"] for row in rows_of(warehouse, "failures").values()]
    assert {code: codes.count(code) for code in codes} == BROKEN_CODES
    report = check(warehouse)
    assert report.problems == ()
    assert report.recorded == len(report.listing.by_path) - 1  # each file but the record itself


def test_the_first_run_leaves_a_report_and_a_log(undisturbed: Finished) -> None:
    summary = undisturbed.summary
    html = Path(summary.report).read_text(encoding="utf-8")
    assert html.rstrip().endswith("</html>")
    assert summary.run_id in html
    assert all(str(balance) in html for balance in summary.balances)
    (row,) = rows_of_runs(undisturbed.warehouse)
    assert (row["run_id"], row["status"]) == (summary.run_id, "finished")
    assert row["counts"]


def rows_of_runs(warehouse: Warehouse) -> list[dict[str, Any]]:
    connection = duckdb.connect()
    install_views(connection, warehouse)
    cursor = connection.execute("FROM runs")
    names = [c[0] for c in cursor.description]
    return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]


def test_stored_suspects_are_those_of_the_view(undisturbed: Finished) -> None:
    view = rows_of(undisturbed.warehouse, "suspects")
    assert len(view) > 2
    (path,) = Path(undisturbed.warehouse.root).glob("suspects/*/*.parquet")
    rows = undisturbed.warehouse.read("suspects", path.parent.name.partition("=")[2]).to_pylist()
    assert len({row["state"] for row in rows}) == 1
    assert {(r["rank"],): {k: v for k, v in r.items() if k not in ("state", "basis")} for r in rows} == view


def test_a_finished_run_is_read_from_its_snapshot_which_is_what_the_shards_say(undisturbed: Finished) -> None:
    warehouse = undisturbed.warehouse
    with duckdb.connect() as connection:
        install_views(connection, warehouse)
        current = connection.sql("FROM current_run").to_arrow_table().to_pylist()[0]
        assert warehouse.snapshots() == [current["snapshot"]]
        read = {name: connection.sql(f"FROM {name}").fetchall() for name in snapshot_views()}
    with duckdb.connect() as connection:
        install_views(connection, warehouse, current | {"snapshot": None}, materialise=True)
        for name, rows in read.items():
            assert sorted(map(str, rows)) == sorted(map(str, connection.sql(f"FROM {name}").fetchall())), name
    assert len(read["suspects"]) == undisturbed.summary.counts["suspects"]
    assert not check(warehouse).problems


def test_a_second_run_finds_nothing_to_do_also_as_the_deployable_flow_with_plain_values(
    undisturbed: Finished, small: Path, scheduler: str, tmp_path: Path
) -> None:
    warehouse = undisturbed.copy(tmp_path / "w")
    before = files_of(warehouse)
    report = nightly(str(small), warehouse.url, None, {**TINY, "cluster": scheduler})
    assert Path(report).is_file()
    assert added(before, files_of(warehouse)) == {"files": 1, "runs": 2}
    (row,) = [r for r in rows_of_runs(warehouse) if r["run_id"] != undisturbed.summary.run_id]
    assert row["status"] == "finished"
    assert "tonight" in Path(report).read_text(encoding="utf-8").lower()
    with connect_analyst(warehouse.url, query="FROM tonight") as connection:
        assert connection.execute("FROM tonight").fetchall() == [
            (undisturbed.summary.run_id, row["run_id"], 0, 0, 0, 0, 0)
        ]
    with pytest.raises(CatalogueError):
        nightly(str(tmp_path / "none.csv"), warehouse.url)


def test_photos_added_later_give_the_rows_of_a_fresh_run(small: Path, scheduler: str, tmp_path: Path) -> None:
    few = rewrite(small, "few.csv", lambda rows: rows[:15])
    part = rewrite(small, "first_part.csv", lambda rows: [r for i, r in enumerate(rows[:15]) if i % 3])
    warehouse, fresh = Warehouse(str(tmp_path / "w")), Warehouse(str(tmp_path / "fresh"))
    first = run_flow(part, warehouse, scheduler)
    before = files_of(warehouse)
    second = run_flow(few, warehouse, scheduler)
    assert all(b.ok for b in (*first.balances, *second.balances))
    assert first.balances[0].planned < second.balances[0].planned
    # Photos that failed count, too.
    assert first.tonight.new_photos == first.balances[0].planned
    assert second.tonight.new_photos == second.balances[0].planned - first.balances[0].planned
    assert first.tonight.new_pairs > 0 < second.tonight.new_pairs
    with connect_analyst(warehouse.url) as connection:
        said = connection.execute(
            "SELECT new_photos, new_pairs, new_suspects, gone_suspects, changed_names FROM tonight"
        )
        assert said.fetchall() == [tuple(second.tonight.counts().values())]
        basis = connection.execute("SELECT DISTINCT basis FROM judged_photos").fetchall()
        assert connection.execute("SELECT basis FROM runs ORDER BY run_id DESC LIMIT 1").fetchall() == basis
        assert connection.execute("SELECT DISTINCT first_run FROM photo_runs ORDER BY 1").fetchall() == [
            (first.run_id,), (second.run_id,)
        ]  # fmt: skip
    added(before, files_of(warehouse))
    run_flow(few, fresh, scheduler)
    assert_same_rows(warehouse, fresh)


@pytest.mark.slow  # each step alone is tested beside its stage
def test_a_corrected_name_changes_pairs_and_suspects_without_new_embeddings(
    undisturbed: Finished, small: Path, scheduler: str, tmp_path: Path
) -> None:
    copy = next(s for s in rows_of(undisturbed.warehouse, "suspects").values() if s["kind"] == "copy")

    def correct(rows: list[dict[str, str]]) -> list[dict[str, str]]:
        return [r | {"identity": copy["identity_a"]} if r["image_id"] == copy["photo_b"] else r for r in rows]

    corrected = rewrite(small, "corrected.csv", correct)
    warehouse = undisturbed.copy(tmp_path / "w")
    before = files_of(warehouse)
    summary = run_flow(corrected, warehouse, scheduler)
    counts = shards_of(summary)
    assert (counts["ingest"], counts["embed"], counts["retrieve"]) == (1, 0, 1)
    new = added(before, files_of(warehouse))
    assert "embeddings" not in new
    assert "keypoints" not in new
    assert new["photos"] == 1

    suspects = rows_of(warehouse, "suspects")
    assert (copy["pair_id"], "copy") not in {(s["pair_id"], s["kind"]) for s in suspects.values()}
    pairs = rows_of(warehouse, "pairs")
    assert pairs != rows_of(undisturbed.warehouse, "pairs")
    fresh = Warehouse(str(tmp_path / "fresh"))
    run_flow(corrected, fresh, scheduler)
    photo = rows_of(warehouse, "photos")[(copy["photo_b"],)]
    assert (photo["revision"], photo["identity"]) == (1, copy["identity_a"])
    assert_same_rows(warehouse, fresh, ("embeddings", "keypoints", "pairs", "scores", "matches", "suspects"))


@pytest.mark.slow
def test_pairs_that_were_scored_before_get_their_signals_from_stored_rows(
    undisturbed: Finished, small: Path, scheduler: str, tmp_path: Path
) -> None:
    warehouse = undisturbed.copy(tmp_path / "w")
    shutil.rmtree(tmp_path / "w" / "signals")
    counts = shards_of(run_flow(small, warehouse, scheduler))
    assert (counts["embed"], counts["score"]) == (0, 0)
    assert counts["signals"] > 0
    found, wanted = (
        {path: data for path, data in files_of(w).items() if path.startswith("signals/")}
        for w in (warehouse, undisturbed.warehouse)
    )
    assert found == wanted
    assert shards_of(run_flow(small, warehouse, scheduler))["signals"] == 0


@pytest.mark.slow
def test_another_top_k_keeps_embeddings_and_scores(
    undisturbed: Finished, small: Path, scheduler: str, tmp_path: Path
) -> None:
    warehouse = undisturbed.copy(tmp_path / "w")
    before = files_of(warehouse)
    summary = run_flow(small, warehouse, scheduler, top_k=2)
    counts = shards_of(summary)
    assert (counts["ingest"], counts["embed"], counts["retrieve"], counts["score"]) == (0, 0, 1, 0)
    assert added(before, files_of(warehouse)).keys() <= {
        "pairs", "runs", "files", "suspects", "explanations", "current", *JUDGE.tables
    }  # fmt: skip
    assert summary.balances[2].planned < undisturbed.summary.balances[2].planned
    assert summary.balances[2].ok


@pytest.mark.slow
def test_another_matcher_keeps_embeddings_and_pairs(
    undisturbed: Finished, small: Path, scheduler: str, tmp_path: Path
) -> None:
    warehouse = undisturbed.copy(tmp_path / "w")
    before = files_of(warehouse)
    summary = run_flow(small, warehouse, scheduler, max_keypoints=64, figures=0)
    counts = shards_of(summary)
    assert (counts["ingest"], counts["retrieve"], counts["draw"]) == (0, 0, 0)
    assert counts["embed"] > 0
    # Other inliers can make other pairs candidates of copies.
    assert added(before, files_of(warehouse)).keys() - {"copies"} == {
        "current", "files", "keypoints", "matches", "relevances", "runs", "scores", "signals", "suspects", *JUDGE.tables
    }  # fmt: skip
    assert max(len(row["x"]) for row in rows_of(warehouse, "keypoints").values()) <= 64
    views = views_of(undisturbed.warehouse, ("keypoints", "pairs"))
    assert max(len(row["x"]) for row in views["keypoints"].values()) > 64  # the older run is still there
    assert rows_of(warehouse, "pairs") == views["pairs"]


@pytest.mark.slow
def test_withdrawn_photos_leave_every_view(
    undisturbed: Finished, small: Path, scheduler: str, tmp_path: Path
) -> None:
    gone = next(s["photo_a"] for s in rows_of(undisturbed.warehouse, "suspects").values())
    without = rewrite(small, "without.csv", lambda rows: [r for r in rows if r["image_id"] != gone])
    warehouse = undisturbed.copy(tmp_path / "w")
    summary = run_flow(without, warehouse, scheduler, RunOptions(withdraw_missing=True))
    assert all(b.ok for b in summary.balances)
    views = views_of(warehouse, ("photos", "embeddings", "pairs", "scores", "suspects"))
    assert (gone,) not in views["photos"]
    assert not [key for key in views["embeddings"] if key[0] == gone]
    for view in ("pairs", "scores", "suspects"):
        assert not [row for row in views[view].values() if gone in (row["photo_a"], row["photo_b"])]


@pytest.mark.slow
def test_a_broken_shard_stops_the_run_with_a_cure_and_keeps_the_rest(
    small: Path, undisturbed: Finished, scheduler: str, tmp_path: Path
) -> None:
    """A file stands where the folder of scores must be: every score shard fails for good."""
    warehouse = undisturbed.unscored(tmp_path / "w")
    (tmp_path / "w" / "scores").write_bytes(b"")
    with pytest.raises(PairxError, match="score: .* shards broke off") as caught:
        run_flow(small, warehouse, scheduler, retries=0)
    assert "run again" in str(caught.value)
    row = max(rows_of_runs(warehouse), key=lambda run: run["run_id"])
    assert row["status"] == "failed"
    assert "shards broke off" in row["message"]
    (tmp_path / "w" / "scores").unlink()
    summary = run_flow(small, warehouse, scheduler)
    counts = shards_of(summary)
    assert (counts["ingest"], counts["embed"]) == (0, 0)
    assert counts["score"] > 0
    assert all(b.ok for b in summary.balances)
